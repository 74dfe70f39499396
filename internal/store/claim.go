package store

import (
	"context"
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
	var dropped []*task
	for n > 0 && q.ready > 0 {
		t := q.pop()
		if covering && !q.space.begins(t, now) {
			if t.place != waiting {
				t.place = gone
				dropped = append(dropped, t)
			}
			continue
		}
		q.grant(t, s, now.at)
		s.mark(t)
		cs = append(cs, claim{t, t.token, t.count()})
		n--
	}
	q.space.dropped(dropped)
	q.wake()
	q.arm(now.at)
	return cs
}

// dropped counts tasks out that their records have refused. That the journal
// forgets them is not waited for: it would be refused again.
func (sp *space) dropped(ts []*task) {
	if len(ts) == 0 {
		return
	}
	sp.store.pending.Add(int64(-len(ts)))
	if step := sp.note(); step != nil {
		for _, t := range ts {
			t.leave()
			step.DropTask(t.seq)
		}
		step.Commit(false, nil)
	}
}

// begins reports whether t may be handed out on a broker that covers the
// backend, and marks the record of an at-least-once task STARTED. A task that
// its record refuses is dropped; one whose entry is held is set aside.
//
// The journal need not know that it is STARTED: the lease, which is the fence,
// ends with the process as well.
func (sp *space) begins(t *task, now instant) bool {
	sh := t.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := t.entry
	if e.held != nil {
		t.queue.wait(t)
		return false
	}
	if t.msg.NoRecord {
		return true // whatever a record of an earlier task of that id says
	}
	sh.age(e, now.at)
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
		sh.put(nil, e, driver.NextStarted(e.record, &s, sp.runs.Add(1), now.ms()), now)
	}
	return true
}

// mark has the journal count the hand-out of t, before it takes place, where
// that is what fences it: of an at-most-once task without a record, and of
// tasks that may have killed the process before. The task's queue is locked.
func (s *subscription) mark(t *task) {
	store := s.broker.space.store
	if store.options.Journal == nil || !(t.msg.Once && t.msg.NoRecord) && t.seq > store.suspects {
		return
	}
	if s.marks == nil {
		s.marks = s.broker.space.note()
	}
	t.marked = true
	s.marks.PutDeaths(t.seq, t.deaths+1)
}

// keepMarks waits until the journal has counted the hand-outs of cs that it
// must. If it does not, all of them are given back.
func (s *subscription) keepMarks(marks Step, cs []claim) error {
	if marks == nil {
		return nil
	}
	// A claimed delivery beats cancellation.
	err := s.broker.space.store.keep(context.Background(), marks, func() {})
	if err != nil {
		for _, c := range cs {
			s.giveBack(c)
		}
	}
	return err
}

// giveBack undoes a claim.
func (s *subscription) giveBack(c claim) {
	k := token{c.task, c.number}
	queues := lockSet{c.task.queue}
	now := queues.lock(s.broker.space.store)
	defer queues.unlock(now)
	if k.current(s) {
		c.task.queue.ungrant(c.task)
		c.task.queue.putBack(c.task, now.at)
		s.credit(1)
	}
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
		size += cs[i].task.size
	}
	hs, ds, buf := make([]handed, len(cs)), make([]*driver.Delivery, len(cs)), make([]byte, 0, size)
	for i, c := range cs {
		h := &hs[i]
		h.token = token{c.task, c.number}
		h.Message, h.Count, h.Copy, h.Handle = c.task.msg, c.count, c.task.copy, &h.token
		if c.task.resting {
			h.Envelope = c.task.envelope()
		} else if env := h.Envelope; env != nil {
			from := len(buf)
			buf = append(buf, env...)
			h.Envelope = buf[from:len(buf):len(buf)]
		}
		ds[i] = &h.Delivery
	}
	return ds
}
