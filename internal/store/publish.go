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
	sp, w := b.space, getScratch()
	defer w.free()
	r := rounds{space: sp, n: len(msgs), refusable: true}
	ps := sp.prepare(w, msgs, r.errors())
	room := sp.store.reserve(countTasks(ps))
	r.decide = func(c *change, i int, now instant) error {
		p := &ps[i]
		if p.task != nil && room == 0 {
			return driver.Transient(driver.ErrFull)
		}
		err := sp.post(c, p, now)
		if err == nil && p.task != nil {
			room--
			c.taken++
		}
		if err == driver.ErrDuplicate && p.msg.Repeat {
			return nil
		}
		return err
	}
	err := r.run(ctx)
	sp.store.pending.Add(int64(-room)) // what duplicates did not need
	return err
}

// post decides that c stores p as what it was published.
func (sp *space) post(c *change, p *posting, now instant) error {
	switch {
	case p.task != nil:
		return sp.admit(c, p, nil, now)
	case p.dead != nil:
		return p.key.bury(c, p, now)
	}
	return nil // invalid
}

// prepare builds what msgs become in the store, outside of all locks. The
// posting of an invalid message is empty. The slice is w's.
func (sp *space) prepare(w *scratch, msgs []*driver.Message, errs *itemErrors) []posting {
	names, seq := sp.store.copyNames(w, len(msgs))
	first := len(w.postings)
	var q *queue
	for i, m := range msgs {
		if err := sp.store.checkMessage(m); err != nil {
			errs.set(i, sp.store.wrap("publish", err))
			w.postings = append(w.postings, posting{})
			continue
		}
		if q == nil || q.name != m.Queue {
			q = sp.queue(m.Queue)
		}
		w.postings = append(w.postings, newPosting(q, m, names[i], seq+uint64(i)))
	}
	return w.postings[first:]
}

func newPosting(q *queue, m *driver.Message, name string, seq uint64) posting {
	k := q.space.key(m.ID)
	if m.Dead != nil {
		return posting{msg: m, key: k, dead: newDeadLetter(q, m.Clone(), seq)}
	}
	t := &task{msg: *m, copy: name, seq: seq, queue: q, shard: k.shard}
	t.msg.Record, t.msg.Repeat = nil, false
	t.msg.Envelope = cloneBytes(m.Envelope)
	t.size = len(m.Envelope)
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

func (s *Store) checkMessage(m *driver.Message) error {
	if err := driver.CheckID(m.ID); err != nil {
		return err
	}
	if err := driver.CheckQueue(m.Queue); err != nil {
		return fmt.Errorf("task %s: %w", m.ID, err)
	}
	if m.Priority >= priorities {
		return fmt.Errorf("task %s: priority %d, want 0 to %d", m.ID, m.Priority, priorities-1)
	}
	if limit := s.options.MaxMessage; limit > 0 && len(m.Envelope) > limit {
		return fmt.Errorf("task %s: envelope has %d bytes, at most %d fit: %w", m.ID, len(m.Envelope), limit, driver.ErrTooLarge)
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
func (sp *space) admit(c *change, p *posting, settled *task, now instant) error {
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
	if !c.mayHold(e) {
		return errHeld
	}
	if e.alive(v, settled) {
		return driver.ErrDuplicate
	}
	replaces := settled != nil && settled.msg.ID == t.msg.ID
	if u != nil && !replaces && driver.CheckPublish(e.record, v) != nil {
		return driver.ErrDuplicate
	}
	c.hold(sh, e)
	if u != nil {
		sh.apply(c, e, u, now)
	}
	e.link(t)
	c.enter(p, now)
	return nil
}

// apply writes u, unless the record refuses it.
func (sh *shard) apply(c *change, e *entry, u *driver.Update, now instant) {
	if driver.CheckUpdate(e.record, u, false) == nil {
		cu := u.Clone()
		sh.put(c, e, driver.NextUpdated(e.record, &cu, now.ms(), false), now)
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
		q.add(p.task, now)
		return
	}
	q.dead.add(p.dead)
}
