package driver

import (
	"cmp"
	"slices"
	"time"
)

// A Message is one task on its way. Core fills it; a driver stores and returns
// every field unchanged, except where a field says otherwise.
type Message struct {
	// ID is unique among living tasks of a namespace: a UUIDv7, or 1 to 128
	// bytes of [A-Za-z0-9._:-] chosen by the user; see [CheckID].
	ID string
	// Queue is the queue to run on; see [CheckQueue].
	Queue string

	// Epoch counts replays from the dead letters, Seq every republish by core
	// within an epoch. Together they order the messages of one ID.
	Epoch, Seq uint32
	// Attempt is the number, from 1, of the attempt this message starts. It is
	// policy data and takes no part in ordering.
	Attempt uint32
	// Deliveries is the number of died deliveries that earlier stored messages
	// of this task met. A delivery's Count starts from it.
	Deliveries uint32

	// Deadline, in Unix milliseconds, is when an unstarted task expires; zero
	// is never. ParkedSince is when it was first parked. Both are core's;
	// Replay zeroes them.
	Deadline, ParkedSince int64

	// Priority is 0 (lowest) to 9. A driver with fewer levels maps it
	// monotonically.
	Priority uint8
	// Delay is how long the store holds the message back, on the store's
	// clock: never early. Stores that count milliseconds round up. Its value in
	// a delivery means nothing.
	Delay time.Duration
	// Once marks an at-most-once task.
	Once bool
	// NoRecord marks a task that has no record. With Once, the hand-out itself
	// counts as the start and is stored, as durably as a publish, before
	// Receive returns it. A broker that pushes may count as handed out what it
	// had sent to a worker that died before it received it.
	NoRecord bool
	// Repeat is set when core publishes again after an unknown outcome: that
	// the message is there already is then success, not [ErrDuplicate]. It is
	// not stored.
	Repeat bool
	// ReplyTo is the [Notifications.Address] of the process that waits.
	ReplyTo string
	// Envelope is core's, versioned and opaque: task name, content type,
	// policy, headers and body.
	Envelope []byte
	// Dead, if set, sends the message to the dead letters of its Queue.
	Dead *DeadInfo
	// Record, if set and the broker covers the backend, is applied in the same
	// step. It is not stored with the message.
	Record *Update
}

// Version returns the place of m in the order of the messages of its ID.
func (m *Message) Version() Version { return Version{m.Epoch, m.Seq} }

// Clone returns a copy of m that shares nothing with it that may change.
// Record and Repeat, which belong to a publish and not to the message, are
// left out.
func (m *Message) Clone() *Message {
	c := *m
	c.Envelope = slices.Clone(m.Envelope)
	c.Dead = m.Dead.Clone()
	c.Record, c.Repeat = nil, false
	return &c
}

// Key returns the key of m among the dead letters.
func (m *Message) Key() DeadKey { return DeadKey{m.ID, m.Epoch} }

// Replayed returns the message that a replay of the dead letter m enqueues:
// the next epoch, with attempt, deliveries and times reset.
func (m *Message) Replayed() *Message {
	c := m.Clone()
	c.Dead = nil
	c.Epoch++
	c.Seq, c.Attempt, c.Deliveries = 0, 1, 0
	c.Deadline, c.ParkedSince, c.Delay = 0, 0, 0
	return c
}

// A Version orders the messages and records of one task: first by epoch, then
// by sequence number.
type Version struct{ Epoch, Seq uint32 }

// Compare returns -1, 0 or +1 as v is older than, equal to or newer than w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Epoch, w.Epoch), cmp.Compare(v.Seq, w.Seq))
}

// DeadInfo tells why a task failed. It travels in the record of a failed
// attempt and with a dead letter.
type DeadInfo struct {
	Reason     string          // one of the Reason constants
	Name       string          // the task's name, empty if it could not be read
	Kind       string          // class of the error, from its Code method where it has one
	Message    string          // the error's text
	Stack      string          // where a panic happened
	Worker     string          // the worker that gave the verdict
	Attempts   uint32          // attempts made
	Deliveries uint32          // deliveries counted, those of dead workers included
	FirstAt    int64           // first failure, Unix ms
	LastAt     int64           // last failure, Unix ms
	History    []FailedAttempt // oldest first
}

// Reasons for which a task ends among the dead letters.
const (
	ReasonFailed      = "failed"       // the handler failed for good
	ReasonPoison      = "poison"       // too many workers died with it
	ReasonLost        = "lost"         // at-most-once, and it may have started before
	ReasonUndecodable = "undecodable"  // its envelope or argument cannot be read
	ReasonValidation  = "validation"   // its argument or result was refused
	ReasonUnknownTask = "unknown_task" // no worker knew its name in time
)

// A FailedAttempt is one line of a task's history.
type FailedAttempt struct {
	Attempt uint32
	At      int64 // Unix ms
	Kind    string
	Message string
	Worker  string
}

// Clone returns a copy of d; nil for nil.
func (d *DeadInfo) Clone() *DeadInfo {
	if d == nil {
		return nil
	}
	c := *d
	c.History = slices.Clone(d.History)
	return &c
}

// A DeadKey names a dead letter: a task dies at most once per epoch.
type DeadKey struct {
	ID    string
	Epoch uint32
}
