package store

import (
	"errors"

	"github.com/chicory-go/chicory/driver"
)

// A claim is a hand-out, as noted under the queue's lock.
type claim struct {
	task   *task
	number uint64
	count  int
}

// claim leases up to n ready tasks to s and appends them to cs.
func (q *queue) claim(s *subscription, n int, cs []claim) []claim {
	covering := q.space.covering.Load()
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.space.store.now()
	q.tick(now.at)
	dropped := 0
	for n > 0 && q.ready > 0 {
		t := q.pop()
		if covering && !q.space.begin(t, now) {
			t.place = gone
			dropped++
			continue
		}
		q.grant(t, s, now.at)
		cs = append(cs, claim{t, t.token, t.count()})
		n--
	}
	if dropped > 0 {
		q.space.store.pending.Add(int64(-dropped))
	}
	q.wake()
	q.arm(now.at)
	return cs
}

// begin reports whether t may be handed out on a broker that covers the
// backend, and marks the record of an at-least-once task STARTED. A task that
// its record refuses is dropped.
func (sp *space) begin(t *task, now instant) bool {
	if t.msg.NoRecord {
		return true // whatever a record of an earlier task of that id says
	}
	sh := t.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := t.entry
	e.age(now.at)
	if driver.CheckClaim(e.record, t.msg.Version()) != nil {
		sh.meet(e, now)
		sh.unlink(t)
		return false
	}
	if t.msg.Once {
		return true // core asks to start it
	}
	s := driver.Start{ID: t.msg.ID, Epoch: t.msg.Epoch, Seq: t.msg.Seq,
		Attempt: t.msg.Attempt, Copy: t.copy, Count: t.count()}
	// A RETRY closes its version. Any other refusal is of a start that the
	// lease outranks: nobody else holds the task now.
	if !errors.Is(driver.CheckStart(e.record, &s), driver.ErrStale) {
		sh.put(e, driver.NextStarted(e.record, &s, sp.runs.Add(1), now.ms), now)
	}
	return true
}

// A handed is a delivery with its handle, in one allocation.
type handed struct {
	driver.Delivery
	token token
}

// deliveries builds what Receive returns, outside of the queues' locks, in few
// allocations: one for all deliveries and one for their envelopes.
func deliveries(cs []claim) []*driver.Delivery {
	size := 0
	for i := range cs {
		size += len(cs[i].task.msg.Envelope)
	}
	hs, ds, buf := make([]handed, len(cs)), make([]*driver.Delivery, len(cs)), make([]byte, 0, size)
	for i, c := range cs {
		h := &hs[i]
		h.token = token{c.task, c.number}
		h.Message, h.Count, h.Copy, h.Handle = c.task.msg, c.count, c.task.copy, &h.token
		if env := h.Envelope; env != nil {
			from := len(buf)
			buf = append(buf, env...)
			h.Envelope = buf[from:len(buf):len(buf)]
		}
		ds[i] = &h.Delivery
	}
	return ds
}
