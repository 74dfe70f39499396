package store

import (
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A place says where a task is.
type place uint8

const (
	gone place = iota
	ready
	delayed
	leased
	leaving // in a change that settles or purges it
	waiting // would be handed out, but for a change of its ID
)

// A task is a stored message.
type task struct {
	msg     driver.Message // never changed
	copy    string
	seq     uint64 // the number that copy is made of
	size    int    // of the envelope
	resting bool   // only the journal has the envelope
	queue   *queue
	shard   *shard
	entry   *entry // guarded by shard.mu
	twin    *task  // the next living message of this ID, guarded by shard.mu

	// The rest is guarded by queue.mu.
	place    place
	returned bool    // given back with a delay: it keeps its order
	order    uint64  // place among the tasks of its priority
	at       int64   // ready since; due at; leased until
	token    uint64  // number of the last hand-out
	deaths   int     // hand-outs that died
	marked   bool    // the journal counts the hand-out as well
	change   *change // that it is leaving in
	holder   *subscription
	lease    link[*task]
}

// A token is the Handle of a delivery.
type token struct {
	task   *task
	number uint64
}

// current reports whether the hand-out still holds its task, for s unless s is
// nil. The task's queue is locked.
func (k *token) current(s *subscription) bool {
	t := k.task
	return t.place == leased && t.token == k.number && (s == nil || t.holder == s)
}

// leaves returns the change in which s settles the task, nil if it does not.
func (k *token) leaves(s *subscription) *change {
	if t := k.task; t.place == leaving && t.token == k.number && t.holder == s {
		return t.change
	}
	return nil
}

// stored returns t as a journal keeps it.
func (t *task) stored(delay time.Duration, now instant) *Task {
	s := &Task{Seq: t.seq, Message: &t.msg, Since: now.ms()}
	if t.resting {
		m := t.msg
		m.Envelope = t.envelope()
		s.Message = &m
	}
	if delay > 0 {
		s.Due = now.unixMilli(now.after(delay))
	}
	return s
}

// count is the Count of a delivery made now.
func (t *task) count() int { return 1 + int(t.msg.Deliveries) + t.deaths }
