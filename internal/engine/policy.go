package engine

import (
	"math"
	"math/rand/v2"
	"time"
)

// A Field names a setting of a Policy that can be set or left to the default.
type Field uint32

// The fields.
const (
	FieldQueue Field = 1 << iota
	FieldRetries
	FieldBackoff
	FieldTimeout
	FieldTTL
	FieldExpiry
	FieldPriority
	FieldOnce
	FieldIgnore
	FieldDead
)

// Policy is how a task is sent, run and kept. Only the fields in Set mean
// something. Negative durations are "none" and "for ever".
type Policy struct {
	Set          Field
	Queue        string
	Retries      int
	Backoff      Backoff
	Timeout      time.Duration
	TTL          time.Duration
	Expiry       time.Duration
	Priority     uint8
	Once         bool
	IgnoreResult bool
	DeadLetter   bool
}

// Has reports whether f is set.
func (p *Policy) Has(f Field) bool { return p.Set&f != 0 }

// Over returns p with what it leaves open taken from base.
func (p Policy) Over(base *Policy) Policy {
	take := base.Set &^ p.Set
	if take == 0 {
		return p
	}
	pick(take, FieldQueue, &p.Queue, base.Queue)
	pick(take, FieldRetries, &p.Retries, base.Retries)
	pick(take, FieldBackoff, &p.Backoff, base.Backoff)
	pick(take, FieldTimeout, &p.Timeout, base.Timeout)
	pick(take, FieldTTL, &p.TTL, base.TTL)
	pick(take, FieldExpiry, &p.Expiry, base.Expiry)
	pick(take, FieldPriority, &p.Priority, base.Priority)
	pick(take, FieldOnce, &p.Once, base.Once)
	pick(take, FieldIgnore, &p.IgnoreResult, base.IgnoreResult)
	pick(take, FieldDead, &p.DeadLetter, base.DeadLetter)
	p.Set |= take
	return p
}

func pick[T any](take, f Field, dst *T, v T) {
	if take&f != 0 {
		*dst = v
	}
}

// A Curve is how a backoff grows.
type Curve uint8

// The curves.
const (
	Fixed Curve = iota + 1
	Linear
	Exponential
)

// Backoff is the wait before a retry.
type Backoff struct {
	Curve     Curve
	Base, Max time.Duration
	Factor    float64 // of Exponential
	Jitter    float64 // 0 to 1: share of the wait that is random
}

// Wait returns how long to wait after failed attempt n (from 1). It never
// exceeds Max: jitter only shortens.
func (b Backoff) Wait(n uint32) time.Duration {
	n = max(n, 1)
	d := float64(b.Base)
	switch b.Curve {
	case Linear:
		d *= float64(n)
	case Exponential:
		d *= math.Pow(b.Factor, float64(n-1))
	}
	if b.Max > 0 {
		d = min(d, float64(b.Max))
	}
	d = min(d, float64(math.MaxInt64/2))
	if b.Jitter > 0 {
		d -= d * b.Jitter * rand.Float64()
	}
	return time.Duration(d).Round(time.Millisecond)
}
