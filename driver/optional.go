package driver

import (
	"context"
	"time"
)

// As finds T in v: v itself, or what v wraps, following Unwrap() any. It is
// how optional interfaces are found, and how users reach a driver's own type.
func As[T any](v any) (T, bool) {
	for v != nil {
		if t, ok := v.(T); ok {
			return t, true
		}
		w, ok := v.(interface{ Unwrap() any })
		if !ok {
			break
		}
		v = w.Unwrap()
	}
	var zero T
	return zero, false
}

// A Coverer is a broker that can share a backend's store. Where Covers reports
// true, Message.Record and Settlement.Record are applied in the step that
// stores or settles, and claims obey the records of messages without NoRecord.
// Core asks before its first other call, and always with the same backend: a
// client that has not answered true need not look at records.
type Coverer interface {
	Covers(Backend) bool
}

// A Notifier is a backend that pushes finished records.
type Notifier interface {
	Notify(ctx context.Context) (Notifications, error)
}

// Notifications is one process's stream of finished records.
type Notifications interface {
	// Address is what Message.ReplyTo and Update.ReplyTo hold to have records
	// pushed here without a watch. It may be empty.
	Address() string
	// Watch asks for the records of ids. It is active on return; a record that
	// became terminal before is not announced.
	Watch(ctx context.Context, ids []string) error
	// Unwatch takes ids back. It does not block on I/O.
	Unwatch(ids []string)
	// Next blocks for terminal records. Nil records with a nil error mean a
	// gap: everything outstanding must be read again. A record may be pushed
	// more than once, or without having been watched.
	Next(ctx context.Context) ([]*Record, error)
	// Close ends the stream; Next returns ErrClosed.
	Close() error
}

// Control keeps small keys with a time to live: pauses, heartbeats, the list
// of workers. A broker or a backend may serve it. Methods return
// errors.ErrUnsupported where the store cannot.
type Control interface {
	// Put stores value under key for ttl; zero is for ever.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Remove removes keys.
	Remove(ctx context.Context, keys ...string) error
	// Entries returns the living entries under prefix, ordered by key, and the
	// revision of what it saw.
	Entries(ctx context.Context, prefix string) (es []Entry, rev uint64, err error)
	// Await returns once an entry under prefix was put or removed after rev.
	// Whether expiry counts is the driver's choice.
	Await(ctx context.Context, prefix string, rev uint64) error
}

// An Entry is a key and its value.
type Entry struct {
	Key   string
	Value []byte
}

// An Inspector counts.
type Inspector interface {
	// Queues returns the names of the queues that exist, ordered.
	Queues(ctx context.Context) ([]string, error)
	// Inspect returns the counts of queues.
	Inspect(ctx context.Context, queues []string) ([]QueueStats, error)
}

// QueueStats are the counts of one queue. A broker whose lease is a session may not know
// some: Leased, Delayed and Oldest are then -1.
type QueueStats struct {
	Queue   string
	Ready   int           // can be received now
	Leased  int           // handed out, not settled
	Delayed int           // not due yet
	Dead    int           // dead letters
	Oldest  time.Duration // age of the oldest ready message
}

// A Purger is a broker that can empty a queue.
type Purger interface {
	// PurgeQueue removes all messages of queue that are not leased, and
	// returns their IDs; core writes their records as CANCELLED.
	PurgeQueue(ctx context.Context, queue string) (ids []string, err error)
}
