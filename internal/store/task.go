package store

import "github.com/chicory-go/chicory/driver"

// A place says where a task is.
type place uint8

const (
	gone place = iota
	ready
	delayed
	leased
)

// A task is a stored message.
type task struct {
	msg   driver.Message // never changed
	copy  string
	queue *queue
	shard *shard
	entry *entry // guarded by shard.mu
	twin  *task  // the next living message of this ID, guarded by shard.mu

	// The rest is guarded by queue.mu.
	place    place
	returned bool   // given back with a delay: it keeps its order
	order    uint64 // place among the tasks of its priority
	at       int64  // ready since; due at; leased until
	token    uint64 // number of the last hand-out
	deaths   int    // hand-outs that died
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

// count is the Count of a delivery made now.
func (t *task) count() int { return 1 + int(t.msg.Deliveries) + t.deaths }
