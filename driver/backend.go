package driver

import (
	"context"
	"slices"
	"time"
)

// A Backend keeps one record per task.
type Backend interface {
	// Info describes the backend. It is constant and cheap.
	Info() BackendInfo
	// Start asks, for each s, to start the handler. The answer to ss[i] is
	// grants[i]; its Err is one of ErrStale, ErrSuperseded and ErrStarted as
	// CheckStart decides, ErrLeaseLost if its Delivery is not current, or an
	// accident that befell this item alone. The error is for the call as a
	// whole: the outcome of all items is unknown, or with Transient nothing was
	// applied.
	Start(ctx context.Context, ss []Start) (grants []Grant, err error)
	// Apply writes updates. ErrStale and ErrStarted are per item, in a
	// *BatchError, as CheckUpdate decides.
	Apply(ctx context.Context, us []Update) error
	// Get returns the records of ids, nil for those that have none. A skeleton
	// is no record.
	Get(ctx context.Context, ids []string) ([]*Record, error)
	// Delete removes terminal records, leaving skeletons, and returns how
	// many.
	Delete(ctx context.Context, ids []string) (int, error)
	// Close releases the backend's resources; calls return ErrClosed after.
	Close(ctx context.Context) error
}

// BackendInfo says what a backend can do.
type BackendInfo struct {
	Name     string // the driver's name
	Contract int    // the Contract it was written for
	Durable  bool   // what is written survives the process
	MaxBody  int    // bytes of the largest result; 0 is no limit
}

// A Start asks to run the handler for one delivery.
type Start struct {
	ID         string
	Epoch, Seq uint32
	Attempt    uint32
	Copy       string
	Count      int
	Once       bool
	// Delivery is set where the broker covers the backend: the start is
	// refused with ErrLeaseLost unless the delivery is current.
	Delivery *Delivery
}

// Version returns the version of the message that s starts.
func (s *Start) Version() Version { return Version{s.Epoch, s.Seq} }

// A Grant answers a Start.
type Grant struct {
	Run    uint64  // fencing number of the granted run, rising per record, below 1<<53
	Record *Record // the record that refused, if it was one
	Err    error
}

// An Update writes to a task's record.
type Update struct {
	ID         string
	Epoch, Seq uint32
	Attempt    uint32
	State      State
	// Run is the run whose verdict this is. Zero: a publish, a cancellation
	// from outside, or a verdict given without starting (park, poison, lost).
	Run uint64
	// Once marks an at-most-once task.
	Once bool
	// Provisional marks a PENDING below PENDING, written before the publish of
	// a user-chosen ID. It lives for ProvisionalAge.
	Provisional bool
	// Next is the message that follows a RETRY, and Due, in Unix
	// milliseconds, when. On a PENDING, Due is when the task is first due.
	Next *Message
	Due  int64
	// Error tells why, on RETRY, FAILURE, DEAD_LETTERED, EXPIRED.
	Error *DeadInfo
	// ContentType and Body are the result.
	ContentType string
	Body        []byte
	// TTL is how long a terminal record is kept; zero is for ever. Stores that
	// count milliseconds round up.
	TTL time.Duration
	// ReplyTo is the address to push a terminal record to.
	ReplyTo string
}

// Version returns the version of the message that u is about.
func (u *Update) Version() Version { return Version{u.Epoch, u.Seq} }

// Ages after which a backend drops what nobody will ask for.
const (
	// ProvisionalAge is how long a provisional record lives.
	ProvisionalAge = 10 * time.Minute
	// SkeletonAge is how long a skeleton outlives its record.
	SkeletonAge = 2 * time.Hour
	// SafetyAge is how long after its last write or due time, whichever is
	// later, an unfinished record is kept.
	SafetyAge = 30 * 24 * time.Hour
	// MaxLease is the longest lease a subscription may ask for: SkeletonAge
	// must exceed an hour and two leases.
	MaxLease = 30 * time.Minute
)

// A Record is the state of a task: the last update that won and what the
// backend keeps beside it. Records are never changed in place.
type Record struct {
	Update
	Copy  string // of the message that started last
	Count int    // of the delivery that started last
	// Held marks a CANCELLED written from outside whose message has not been
	// met; its TTL has not begun. It ends, and the TTL begins, with the first
	// start or update that the record refuses (a late PENDING, which met no
	// message, does not count), or on a covering broker with the claim or
	// settle that meets it. A skeleton of a held record is kept for SafetyAge.
	Held bool
	// Skeleton marks what is left of a record that was deleted or expired.
	Skeleton bool
	// Times, Unix ms, zero if the state was not seen.
	PendingAt, StartedAt, RetriedAt, FinishedAt int64
}

// Clone returns a copy of r that shares nothing with it that may change.
func (r *Record) Clone() *Record {
	if r == nil {
		return nil
	}
	c := *r
	c.Update = r.Update.Clone()
	return &c
}

// Clone returns a copy of u that shares nothing with it that may change.
func (u *Update) Clone() Update {
	c := *u
	if u.Next != nil {
		c.Next = u.Next.Clone()
	}
	c.Error = u.Error.Clone()
	c.Body = slices.Clone(u.Body)
	return c
}
