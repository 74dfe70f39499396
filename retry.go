package chicory

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/chicory-go/chicory/internal/engine"
)

// Backoff is the wait between attempts. Make one with Fixed, Linear or
// Exponential; it is an Option.
type Backoff struct{ b engine.Backoff }

const defaultJitter = 0.2

// Fixed waits d before every retry.
func Fixed(d time.Duration) Backoff {
	return Backoff{engine.Backoff{Curve: engine.Fixed, Base: d, Max: d}}
}

// Linear waits step, 2 × step, 3 × step and so on, at most max, shortened by
// up to a fifth at random.
func Linear(step, max time.Duration) Backoff {
	return Backoff{engine.Backoff{Curve: engine.Linear, Base: step, Max: max, Jitter: defaultJitter}}
}

// Exponential waits base, 2 × base, 4 × base and so on, at most max, shortened
// by up to a fifth at random.
func Exponential(base, max time.Duration) Backoff {
	return Backoff{engine.Backoff{Curve: engine.Exponential, Base: base, Max: max, Factor: 2, Jitter: defaultJitter}}
}

// Factor returns b growing by f instead of 2; for Exponential.
func (b Backoff) Factor(f float64) Backoff { b.b.Factor = f; return b }

// Jitter returns b with waits shortened at random by up to a share of j, from
// 0 to 1. Waits never exceed the maximum.
func (b Backoff) Jitter(j float64) Backoff { b.b.Jitter = j; return b }

// UnmarshalText reads "fixed 30s", "linear 10s 5m" or "exponential 1s 5m", the
// arguments of the functions of these names. What follows may be "factor=3" and
// "jitter=0.5".
func (b *Backoff) UnmarshalText(text []byte) error {
	words := strings.Fields(string(text))
	durations := map[string]int{"fixed": 1, "linear": 2, "exponential": 2}
	if len(words) == 0 || durations[words[0]] == 0 || len(words) <= durations[words[0]] {
		return fmt.Errorf("%w: Backoff %q", ErrValidation, text)
	}
	var d [2]time.Duration
	var err error
	n := durations[words[0]]
	for i := range n {
		if d[i], err = time.ParseDuration(words[1+i]); err != nil {
			return fmt.Errorf("%w: Backoff %q: %w", ErrValidation, text, err)
		}
	}
	made := map[string]Backoff{"fixed": Fixed(d[0]), "linear": Linear(d[0], d[1]), "exponential": Exponential(d[0], d[1])}[words[0]]
	for _, word := range words[1+n:] {
		name, value, _ := strings.Cut(word, "=")
		f, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil || name != "jitter" && (name != "factor" || words[0] != "exponential"):
			return fmt.Errorf("%w: Backoff %q: %s", ErrValidation, text, word)
		case name == "jitter":
			made = made.Jitter(f)
		default:
			made = made.Factor(f)
		}
	}
	if err := made.check(); err != nil {
		return err
	}
	*b = made
	return nil
}

// Wait returns the wait after failed attempt n, from 1.
func (b Backoff) Wait(n int) time.Duration { return b.b.Wait(uint32(max(1, n))) }

func (b Backoff) check() error {
	switch {
	case b.b.Curve == 0:
		return fmt.Errorf("%w: empty Backoff; use Fixed, Linear or Exponential", ErrValidation)
	case b.b.Base < 0 || b.b.Max < 0:
		return fmt.Errorf("%w: Backoff with a negative duration", ErrValidation)
	case !(b.b.Jitter >= 0 && b.b.Jitter <= 1): // NaN too
		return fmt.Errorf("%w: Backoff jitter %v, want 0 to 1", ErrValidation, b.b.Jitter)
	case b.b.Curve == engine.Exponential && !(b.b.Factor >= 1 && b.b.Factor <= math.MaxFloat64):
		return fmt.Errorf("%w: Backoff factor %v, want at least 1", ErrValidation, b.b.Factor)
	}
	return nil
}

func (b Backoff) apply(p *engine.Policy) error {
	p.Backoff, p.Set = b.b, p.Set|engine.FieldBackoff
	return b.check()
}

func (b Backoff) applyTask(s *taskSettings) { s.add(b.apply(&s.policy)) }
func (b Backoff) applyCall(s *callSettings) { s.add(b.apply(&s.policy)) }

// RetryAfter wraps err so that the task is retried after d instead of its
// backoff. The attempt is spent.
func RetryAfter(d time.Duration, err error) error {
	return &engine.RetryAfterError{Wait: d, Err: nonNil(err, "retry requested")}
}

// Permanent wraps err so that the task is not retried.
func Permanent(err error) error {
	return &engine.PermanentError{Err: nonNil(err, "permanent failure")}
}

// Snooze makes the task run again after d without spending an attempt.
func Snooze(d time.Duration) error { return &engine.SnoozeError{Wait: d} }

func nonNil(err error, text string) error {
	if err == nil {
		return fmt.Errorf("chicory: %s", text)
	}
	return err
}
