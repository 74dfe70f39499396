package store

import (
	"context"
	"errors"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A Journal keeps what a store decides, so that it survives the process. It
// keeps steps in the order in which they are committed.
type Journal interface {
	// Begin returns an empty step of namespace.
	Begin(namespace string) Step
	// Record returns a record that is kept, and until when, nil if there is
	// none. It is called with locks held.
	Record(namespace, id string) (r *driver.Record, expires int64)
	// Envelope returns the envelope of a message that is kept, nil if there is
	// none. Dead returns a dead letter. They, too, are called with locks held.
	Envelope(namespace string, seq uint64) []byte
	Dead(namespace string, seq uint64) *driver.Message
	// Expired calls f, which may take its time, with the IDs of the records
	// that are kept until before t.
	Expired(namespace string, t int64, f func(id string))
}

// A Step is a set of writes that are kept together or not at all. Its methods
// take what they need before they return, and none of them blocks: they are
// called with locks held. Times are Unix milliseconds; zero is never.
type Step interface {
	// PutTask keeps a message that lives, or keeps it anew.
	PutTask(t *Task)
	// DropTask drops it, and what PutDeaths has kept of it.
	DropTask(seq uint64)
	// PutDeaths keeps how many deliveries of a message have died; zero drops
	// it.
	PutDeaths(seq uint64, deaths int)
	// PutRecord keeps a record, or a skeleton, until expires.
	PutRecord(r *driver.Record, expires int64)
	// DropRecord drops the record of id.
	DropRecord(id string)
	// PutDead keeps a dead letter.
	PutDead(seq uint64, m *driver.Message)
	// DropDead drops it.
	DropDead(seq uint64)
	// PutLease keeps the lease of a queue.
	PutLease(queue string, lease time.Duration)
	// PutKey keeps a control key until expires.
	PutKey(key string, value []byte, expires int64)
	// DropKey drops it.
	DropKey(key string)
	// Commit has the step kept. Then it calls done, unless that is nil, from a
	// goroutine of the journal and in the order of the commits: with nil if it
	// is kept, with a transient error if it certainly is not. After any other
	// error its outcome is unknown, and no step is kept any more. A step that
	// is refusable only adds: a full journal refuses it, so that others find
	// room.
	Commit(refusable bool, done func(error))
}

// A Task is a message that lives, as a journal keeps it.
type Task struct {
	Seq     uint64 // names the stored message, and orders it
	Message *driver.Message
	Since   int64 // when it was published
	Due     int64 // when it can be received; zero is at once
}

// note returns a step for what nobody waits for, nil without a journal.
func (sp *space) note() Step {
	if j := sp.store.options.Journal; j != nil {
		return j.Begin(sp.name)
	}
	return nil
}

// keep has the journal keep step, then calls apply, and waits for both.
// Without a journal, where step is nil, it only calls apply.
func (s *Store) keep(ctx context.Context, step Step, apply func()) error {
	if step == nil {
		apply()
		return nil
	}
	ended := make(chan error, 1)
	step.Commit(false, func(err error) {
		if s.check(err); err == nil {
			apply()
		}
		ended <- err
	})
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check looks at how a step has ended: a store whose journal is in the unknown
// is of no use any more.
func (s *Store) check(err error) {
	if err != nil && !errors.Is(err, driver.ErrTransient) {
		s.Fail(err)
	}
}

// Fail ends the use of the store: from now on every call returns err, which is
// transient as nothing is applied any more. Clients can still be closed.
func (s *Store) Fail(err error) {
	failed := driver.Transient(err)
	if s.failed.CompareAndSwap(nil, &failed) {
		close(s.down)
	}
}

// failure returns what Fail was called with.
func (s *Store) failure() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// unixMilli returns the Unix time of the moment at, rounded up; zero stays
// zero.
func (now instant) unixMilli(at int64) int64 {
	if at == 0 {
		return 0
	}
	return (now.unix + at - now.at + int64(time.Millisecond) - 1) / int64(time.Millisecond)
}

// moment returns the moment of a Unix time; zero stays zero.
func (now instant) moment(ms int64) int64 {
	if ms == 0 {
		return 0
	}
	return now.at + ms*int64(time.Millisecond) - now.unix
}
