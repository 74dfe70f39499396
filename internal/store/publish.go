package store

import (
	"context"
	"fmt"

	"github.com/chicory-go/chicory/driver"
)

// A posting is a message ready to be stored: a task or a dead letter.
type posting struct {
	msg  *driver.Message // as the caller gave it
	key  key
	task *task
	dead *deadLetter
}

// Publish implements [driver.Broker].
func (b *Broker) Publish(ctx context.Context, msgs []*driver.Message) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	sp, errs, w := b.space, itemErrors{n: len(msgs)}, getScratch()
	defer w.free()
	ps := sp.prepare(w, msgs, &errs)
	room := sp.store.reserve(countTasks(ps))
	now := sp.store.now()
	for i := range ps {
		t := ps[i].task
		if t == nil {
			continue
		}
		if room == 0 {
			ps[i].task = nil
			errs.set(i, driver.Transient(driver.ErrFull))
			continue
		}
		if sp.admit(&ps[i], nil, now) {
			room--
			continue
		}
		ps[i].task = nil
		if !msgs[i].Repeat {
			errs.set(i, driver.ErrDuplicate)
		}
	}
	sp.store.pending.Add(int64(-room)) // what duplicates did not need
	sp.enqueue(ps)
	return errs.batch()
}

// prepare builds what msgs become in the store, outside of all locks. The
// posting of an invalid message is empty. The slice is w's.
func (sp *space) prepare(w *scratch, msgs []*driver.Message, errs *itemErrors) []posting {
	names, first := sp.store.copyNames(w, len(msgs)), len(w.postings)
	var q *queue
	for i, m := range msgs {
		if err := checkMessage(m); err != nil {
			errs.set(i, sp.store.failure("publish", err))
			w.postings = append(w.postings, posting{})
			continue
		}
		if q == nil || q.name != m.Queue {
			q = sp.queue(m.Queue)
		}
		w.postings = append(w.postings, newPosting(q, m, names[i]))
	}
	return w.postings[first:]
}

func newPosting(q *queue, m *driver.Message, name string) posting {
	k := q.space.key(m.ID)
	if m.Dead != nil {
		return posting{msg: m, key: k, dead: &deadLetter{msg: m.Clone(), queue: q}}
	}
	t := &task{msg: *m, copy: name, queue: q, shard: k.shard}
	t.msg.Record, t.msg.Repeat = nil, false
	t.msg.Envelope = cloneBytes(m.Envelope)
	return posting{msg: m, key: k, task: t}
}

// cloneBytes copies b and keeps nil apart from empty.
func cloneBytes(b []byte) []byte {
	if b == nil {
		return nil
	}
	c := make([]byte, len(b))
	copy(c, b)
	return c
}

func checkMessage(m *driver.Message) error {
	if err := driver.CheckID(m.ID); err != nil {
		return err
	}
	if err := driver.CheckQueue(m.Queue); err != nil {
		return fmt.Errorf("task %s: %w", m.ID, err)
	}
	if m.Priority >= priorities {
		return fmt.Errorf("task %s: priority %d, want 0 to %d", m.ID, m.Priority, priorities-1)
	}
	return nil
}

func countTasks(ps []posting) (n int) {
	for i := range ps {
		if ps[i].task != nil {
			n++
		}
	}
	return n
}

// admit enters the task of p among the living, with its record, unless the ID
// is alive already. Of a task that replaces settled, neither the old message
// nor the record that tells of it counts.
func (sp *space) admit(p *posting, settled *task, now instant) bool {
	t, sh := p.task, p.task.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u, v := p.msg.Record, t.msg.Version()
	if !sp.covering.Load() {
		u = nil
	}
	var e *entry
	if u == nil {
		e = p.key.entry(now.at)
	} else {
		e = p.key.recorded(now.at)
	}
	if e.alive(v, settled) {
		return false
	}
	if u != nil {
		replaces := settled != nil && settled.msg.ID == t.msg.ID
		if !replaces && driver.CheckPublish(e.record, v) != nil {
			return false
		}
		sh.apply(e, u, now)
	}
	e.link(t)
	return true
}

// apply writes u, unless the record refuses it.
func (sh *shard) apply(e *entry, u *driver.Update, now instant) {
	if driver.CheckUpdate(e.record, u, false) == nil {
		c := u.Clone()
		sh.put(e, driver.NextUpdated(e.record, &c, now.ms), now)
	}
}

// enqueue stores ps, each queue under one lock. The queues of a batch are few,
// mostly one. It clears ps.
func (sp *space) enqueue(ps []posting) {
	for i := range ps {
		q := ps[i].queue()
		if q == nil {
			continue
		}
		q.mu.Lock()
		now := sp.store.now()
		q.tick(now.at) // what is due by now comes first
		for j := i; j < len(ps); j++ {
			if ps[j].queue() == q {
				q.store(&ps[j], now)
				ps[j] = posting{}
			}
		}
		q.wake()
		q.arm(now.at)
		q.mu.Unlock()
	}
}

// queue returns where p goes, nil if nowhere.
func (p *posting) queue() *queue {
	switch {
	case p.task != nil:
		return p.task.queue
	case p.dead != nil:
		return p.dead.queue
	}
	return nil
}

// store puts p, which was admitted, into q. q.mu is held.
func (q *queue) store(p *posting, now instant) {
	if p.task != nil {
		q.add(p.task, now.at)
		return
	}
	q.bury(p, now)
}
