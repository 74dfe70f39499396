package store

import (
	"context"
	"errors"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A settling is a settlement ready to be carried out.
type settling struct {
	*driver.Settlement
	token  *token // nil: not to be carried out
	update *driver.Update
	then   []posting
}

// Settle implements [driver.Subscription]. All queues that a batch touches are
// locked together, so a settlement and its Then are one step.
func (s *subscription) Settle(ctx context.Context, ss []driver.Settlement) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	w := getScratch()
	defer w.free()
	r := rounds{space: s.broker.space, n: len(ss)}
	s.prepare(w, ss, r.errors())
	r.queues = w.queues
	r.decide = func(c *change, i int, now instant) error { return s.settle(c, &w.settling[i], now) }
	return r.run(ctx)
}

// prepare copies what will be kept, outside of all locks, and collects the
// queues concerned.
func (s *subscription) prepare(w *scratch, ss []driver.Settlement, errs *itemErrors) {
	w.settling, w.updates = sized(w.settling, len(ss)), sized(w.updates, len(ss))
	for i := range ss {
		one, k := &w.settling[i], tokenOf(ss[i].Delivery)
		if k == nil {
			errs.set(i, driver.ErrLeaseLost)
			continue
		}
		var err error
		if one.then, err = s.prepareThen(w, ss[i].Then); err != nil {
			errs.set(i, err)
			continue
		}
		if err := s.broker.space.store.checkUpdate(ss[i].Record); err != nil {
			errs.set(i, err)
			continue
		}
		one.Settlement, one.token = &ss[i], k
		if u := ss[i].Record; u != nil {
			w.updates[i] = u.Clone()
			one.update = &w.updates[i]
		}
		w.queues.add(k.task.queue)
	}
}

func (s *subscription) prepareThen(w *scratch, msgs []*driver.Message) ([]posting, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	errs := itemErrors{n: len(msgs)}
	ps := s.broker.space.prepare(w, msgs, &errs)
	for i := range ps {
		if q := ps[i].queue(); q != nil {
			w.queues.add(q)
		}
	}
	return ps, errs.batch()
}

// tokenOf returns the handle of d, nil if it is not of this driver.
func tokenOf(d *driver.Delivery) *token {
	if d == nil {
		return nil
	}
	k, _ := d.Handle.(*token)
	return k
}

// settle decides that c carries w out. Its queues are locked.
func (s *subscription) settle(c *change, w *settling, now instant) error {
	t := w.token.task
	if other := w.token.leaves(s); other != nil && other != c {
		c.blocked = other
		return errHeld
	}
	if !w.token.current(s) {
		return driver.ErrLeaseLost
	}
	if !c.holdAll(t, w.then, now) {
		return errHeld
	}
	err := s.broker.space.conclude(c, t, w, now)
	if errors.Is(err, driver.ErrStarted) {
		return err
	}
	c.depart(t, err == nil && w.Action == driver.Release, w.Delay, now)
	c.sub = s
	c.credits++
	if err == nil {
		s.follow(c, t, w.then, now)
	}
	return err
}

// holdAll holds every entry that a settlement of t may change, or says that it
// cannot.
func (c *change) holdAll(t *task, then []posting, now instant) bool {
	if c.ended == nil {
		return true
	}
	t.shard.mu.Lock()
	ok := c.mayHold(t.entry)
	if ok {
		c.hold(t.shard, t.entry)
	}
	t.shard.mu.Unlock()
	for i := 0; ok && i < len(then); i++ {
		k := then[i].key
		k.shard.mu.Lock()
		e := k.entry(now.at)
		if ok = c.mayHold(e); ok {
			c.hold(k.shard, e)
		}
		k.shard.mu.Unlock()
	}
	return ok
}

// depart ends the lease of t, for good once c is applied.
func (c *change) depart(t *task, stays bool, delay time.Duration, now instant) {
	d := departure{task: t, from: leased, stays: stays}
	t.queue.leased.remove(&t.lease)
	t.place, t.change = leaving, c
	c.queues.add(t.queue)
	switch {
	case !stays:
		c.pending--
		if step := c.log(); step != nil {
			step.DropTask(t.seq)
		}
	case delay > 0:
		d.due = now.after(delay)
		if step := c.log(); step != nil {
			step.PutTask(t.stored(delay, now))
		}
	}
	if stays && t.marked { // the hand-out is undone
		c.log().PutDeaths(t.seq, t.deaths)
	}
	c.out = append(c.out, d)
}

// follow decides that c stores what follows on t. A message that is alive
// already is not stored twice: somebody else has finished the verdict.
func (s *subscription) follow(c *change, t *task, then []posting, now instant) {
	for i := range then {
		p := &then[i]
		if p.task == nil {
			p.key.bury(c, p, now)
		} else if s.broker.space.admit(c, p, t, now) == nil {
			c.pending++
		}
	}
}

// conclude writes the record of a settlement and takes t, unless it is given
// back, out of the living. After ErrStarted nothing has changed; with ErrStale
// the message is gone.
func (sp *space) conclude(c *change, t *task, w *settling, now instant) error {
	sh := t.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	var err error
	if sp.covering.Load() {
		if err = sh.verdict(c, t.entry, w.update, now); errors.Is(err, driver.ErrStarted) {
			return err
		}
		if err != nil || w.update == nil && w.Action == driver.Ack {
			sh.meet(t.entry, now)
		}
	}
	if err != nil || w.Action == driver.Ack {
		sh.unlink(t)
	}
	return err
}

// verdict writes u, which a current delivery vouches for.
func (sh *shard) verdict(c *change, e *entry, u *driver.Update, now instant) error {
	if u == nil {
		return nil
	}
	sh.age(e, now.at)
	if err := driver.CheckUpdate(e.record, u, true); err != nil {
		return err
	}
	sh.put(c, e, driver.NextUpdated(e.record, u, now.ms(), true), now)
	return nil
}

// Extend implements [driver.Subscription].
func (s *subscription) Extend(ctx context.Context, ds []*driver.Delivery) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	var queues lockSet
	for _, d := range ds {
		if k := tokenOf(d); k != nil {
			queues.add(k.task.queue)
		}
	}
	errs := itemErrors{n: len(ds)}
	now := queues.lock(s.broker.space.store)
	for i, d := range ds {
		switch k := tokenOf(d); {
		case k != nil && k.current(s):
			k.task.queue.renew(k.task, now.at)
		case k == nil || k.leaves(s) == nil: // being settled is not lost
			errs.set(i, driver.ErrLeaseLost)
		}
	}
	queues.unlock(now)
	return errs.batch()
}
