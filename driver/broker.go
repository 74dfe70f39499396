package driver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Broker stores messages and hands them out under a lease.
type Broker interface {
	// Info describes the broker. It is constant and cheap.
	Info() BrokerInfo

	// Publish stores msgs, each at its own Queue, or among that queue's dead
	// letters if Dead is set. It returns nil only when every message is stored
	// as durably as the driver promises; otherwise a *BatchError with one
	// error per message, or a single error for all.
	//
	// With Info().Dedup, a message that has a record (not NoRecord) or is Once,
	// and whose ID is alive with an equal or newer version (as such a message,
	// a dead letter or, with Record set on a covering broker, a record or
	// skeleton) is refused with ErrDuplicate; if Repeat is set that is success
	// instead. Other messages need not be remembered. A dead letter is unique
	// by ID and Epoch on every broker that deduplicates; storing it again is
	// success.
	//
	// A message larger than Info().MaxMessage is refused with ErrTooLarge; the
	// others of the batch are stored.
	Publish(ctx context.Context, msgs []*Message) error

	// Subscribe starts to take messages from queues. It creates queues that do
	// not exist. A Lease that differs from the one stored with a queue is
	// refused with ErrLeaseMismatch. While the store is away it waits within
	// ctx, or returns a retryable error.
	Subscribe(ctx context.Context, o *SubscribeOptions) (Subscription, error)

	// DeadLetters returns the dead letters of queue. It does no I/O.
	DeadLetters(queue string) DeadLetters

	// Close releases the broker's resources. Calls in progress and later ones
	// return ErrClosed. Messages held by open subscriptions come back as after
	// a crash; stop subscriptions first to give them back at once.
	Close(ctx context.Context) error
}

// BrokerInfo says what a broker can do.
type BrokerInfo struct {
	Name       string        // the driver's name
	Contract   int           // the Contract it was written for
	Settle     SettleMode    // how Then and the ack of a settlement belong together
	Acks       AckMode       // what the nil of a settlement means
	Lease      LeaseMode     // what ends the lease of a dead worker
	Dedup      bool          // refuses an ID that is alive, see Publish
	FIFO       bool          // keeps order within a queue and priority
	Durable    bool          // survives the store's crash, as the store is configured
	Priorities int           // distinct levels, at least 3
	MaxLease   time.Duration // longest time a delivery can be held; 0 is no limit
	MaxMessage int           // bytes of the largest Envelope; 0 is no limit, 4 MiB at least
}

// SettleMode says how the parts of a settlement belong together.
type SettleMode int

// The settle modes.
const (
	SettleAtomic       SettleMode = iota // ack and Then are one step
	SettlePublishFirst                   // Then is stored before the ack
)

// AckMode says what the nil of a settlement means.
type AckMode int

// The ack modes.
const (
	// AcksStored: the settlement is stored as durably as a publish.
	AcksStored AckMode = iota
	// AcksUnconfirmed: an acknowledgement is on its way, as in protocols that do
	// not confirm it. If the session ends within moments it may be lost: the
	// message comes back, and may count that.
	AcksUnconfirmed
)

// LeaseMode says what returns a dead worker's deliveries.
type LeaseMode int

// The lease modes.
const (
	LeaseTimed   LeaseMode = iota // a lease that runs out unless extended
	LeaseSession                  // the end of the worker's session
)

// SubscribeOptions configure a subscription.
type SubscribeOptions struct {
	Queues   []QueueSpec   // at least one
	Strict   bool          // in the order of Queues; otherwise by weight
	Slots    int           // tasks the worker runs at once: a hint
	Prefetch int           // most deliveries received and not settled, over all queues
	Lease    time.Duration // whole milliseconds
	Worker   string        // name of the worker, for inspection
}

// Check reports what no broker subscribes with: no queues, those that CheckQueues
// refuses, a Prefetch below 1, a Lease that is not of whole milliseconds up to MaxLease.
func (o *SubscribeOptions) Check() error {
	switch {
	case len(o.Queues) == 0:
		return errors.New("no queues")
	case o.Prefetch < 1:
		return fmt.Errorf("prefetch is %d, want at least 1", o.Prefetch)
	case o.Lease <= 0 || o.Lease > MaxLease:
		return fmt.Errorf("lease is %v, want more than 0 and at most %v", o.Lease, MaxLease)
	case o.Lease%time.Millisecond != 0:
		return fmt.Errorf("lease is %v, want whole milliseconds", o.Lease)
	}
	return CheckQueues(o.Queues)
}

// A QueueSpec names a queue and its share among the queues of a subscription.
type QueueSpec struct {
	Name   string
	Weight int // relative; 0 is 1
}

// CheckQueues reports a name that CheckQueue refuses or that is there twice, or a
// negative weight. None at all is fine: that is what SetQueues may be given.
func CheckQueues(specs []QueueSpec) error {
	seen := make(map[string]bool, len(specs))
	for _, spec := range specs {
		if err := CheckQueue(spec.Name); err != nil {
			return err
		}
		if spec.Weight < 0 {
			return fmt.Errorf("queue %q: weight is %d, want at least 0", spec.Name, spec.Weight)
		}
		if seen[spec.Name] {
			return fmt.Errorf("queue %q is given twice", spec.Name)
		}
		seen[spec.Name] = true
	}
	return nil
}

// A Subscription hands out messages to one worker.
type Subscription interface {
	// Receive blocks until there is a first delivery, then returns up to max
	// without waiting for more, and never more than leaves Prefetch unsettled.
	// A broker that pushes may hold as many again for a moment, which it gives
	// back if nobody asks for them.
	// Receive is notified of new messages where the store can notify. A
	// claimed delivery beats cancellation: it is returned or given back,
	// never lost. Only ErrClosed ends a subscription; after Stop, Receive
	// returns ErrClosed. One goroutine calls Receive at a time.
	//
	// On a broker that covers the backend, no message is handed out against
	// its record (see CheckClaim; such a message is dropped), and the record of
	// a delivered at-least-once message reads STARTED from then on.
	Receive(ctx context.Context, max int) ([]*Delivery, error)

	// Settle ends deliveries. Errors are per item, in a *BatchError:
	// ErrLeaseLost if the delivery is no longer this subscription's (then
	// nothing changed; after an unknown outcome it may also mean done);
	// on a covering broker ErrStale if Record was refused (the message is
	// acknowledged and Then is dropped), and ErrStarted if Record parks an
	// at-most-once task that has started (nothing changed: settle it as lost).
	// Transient means that Then was not published either. Of two settlements
	// of one delivery at once one is carried out; the other changes nothing.
	Settle(ctx context.Context, ss []Settlement) error

	// Extend renews the leases of ds to a full lease from now. ErrLeaseLost is
	// per item. A delivery whose settlement is under way is not lost yet: nil.
	Extend(ctx context.Context, ds []*Delivery) error

	// SetQueues replaces the queues. What was prefetched from a queue that is
	// gone, and not yet received, goes back.
	SetQueues(ctx context.Context, qs []QueueSpec) error

	// Stop ends receiving and gives back what was prefetched and not yet
	// received. Settle and Extend go on working.
	Stop(ctx context.Context) error

	// Close ends the subscription. Deliveries that were not settled come back
	// as after a crash.
	Close(ctx context.Context) error
}

// A Delivery is a message handed out under a lease.
type Delivery struct {
	Message
	// Count is 1 + Deliveries + the number of deliveries of this stored
	// message that died: a lease that ran out, a session that ended. Giving
	// back never counts.
	Count int
	// Copy names the stored message: two publishes of one version differ in
	// it, redeliveries and give-backs do not. A give-back that republishes may
	// leave two of one Copy behind where its session ends in the middle.
	Copy string
	// Lost, if not nil, is closed when the broker learns that the delivery is
	// no longer held.
	Lost <-chan struct{}
	// Handle is the driver's token of this hand-out. Core never reads it.
	Handle any
}

// A Settlement ends a delivery.
type Settlement struct {
	Delivery *Delivery
	Action   Action
	// Delay holds a released message back. A release keeps Copy and Count.
	Delay time.Duration
	// Then is published in the same step (SettleAtomic) or before
	// (SettlePublishFirst). A message of Then is never a duplicate of the
	// message settled; one that is alive already is dropped silently, for
	// somebody else has finished the verdict. Their Records are not set.
	Then []*Message
	// Record is applied in the same step on a broker that covers the backend.
	// The delivery's token stands in for its Run.
	Record *Update
}

// Action is what a settlement does with its message.
type Action int

// The actions.
const (
	Ack     Action = iota // done with it
	Release               // give it back, uncounted
)

// DeadLetters are the dead letters of one queue, oldest first. Replay, Delete
// and Purge that fail in the middle return what was done, and the error.
type DeadLetters interface {
	// List returns up to limit dead letters after cursor (empty: from the
	// start) and the cursor of the next page, empty at the end. It changes
	// nothing.
	List(ctx context.Context, cursor string, limit int) (dead []*Message, next string, err error)
	// Get returns the dead letters of one task, newest epoch first.
	Get(ctx context.Context, id string) ([]*Message, error)
	// Replay moves dead letters back to their queue as Message.Replayed says,
	// each once even with two replayers, and returns the new messages. Keys
	// that do not exist are passed over. A covering broker writes their
	// PENDING records in the same step.
	Replay(ctx context.Context, keys []DeadKey) ([]*Message, error)
	// Delete removes dead letters and returns how many there were.
	Delete(ctx context.Context, keys []DeadKey) (int, error)
	// Purge removes the dead letters that died before t, all for the zero
	// time, and returns how many there were.
	Purge(ctx context.Context, t time.Time) (int, error)
	// Len returns the number of dead letters.
	Len(ctx context.Context) (int, error)
}
