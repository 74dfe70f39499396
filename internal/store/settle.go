package store

import (
	"context"
	"errors"

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
	errs, w := itemErrors{n: len(ss)}, getScratch()
	defer w.free()
	s.prepare(w, ss, &errs)
	var sum tally
	now := w.queues.lock(s.broker.space.store)
	for i := range w.settling {
		if one := &w.settling[i]; one.token != nil {
			errs.set(i, s.settle(one, now, &sum))
		}
	}
	w.queues.unlock(now)
	s.broker.space.store.pending.Add(int64(sum.pending))
	if sum.settled > 0 {
		s.credit(sum.settled)
	}
	return errs.batch()
}

// A tally sums up what a batch changed.
type tally struct {
	settled int // deliveries that gave their credit back
	pending int // messages added, less those removed
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

// settle carries w out. Its queues are locked.
func (s *subscription) settle(w *settling, now instant, sum *tally) error {
	t := w.token.task
	if !w.token.current(s) {
		return driver.ErrLeaseLost
	}
	err := s.broker.space.conclude(t, w, now)
	if errors.Is(err, driver.ErrStarted) {
		return err
	}
	t.queue.ungrant(t)
	sum.settled++
	if err != nil || w.Action == driver.Ack {
		sum.pending--
	} else if w.Delay > 0 {
		t.returned = true
		t.queue.hold(t, now.at+int64(w.Delay))
	} else {
		t.queue.putBack(t, now.at)
	}
	if err == nil {
		s.follow(t, w.then, now, sum)
	}
	return err
}

// follow stores what follows on t. A message that is alive already is not
// stored twice: somebody else has finished the verdict.
func (s *subscription) follow(t *task, then []posting, now instant, sum *tally) {
	for i := range then {
		p := &then[i]
		if p.task != nil {
			if !s.broker.space.admit(p, t, now) {
				continue
			}
			sum.pending++
		}
		p.queue().store(p, now)
	}
}

// conclude writes the record of a settlement and takes t, unless it is given
// back, out of the living. After ErrStarted nothing has changed; with ErrStale
// the message is gone.
func (sp *space) conclude(t *task, w *settling, now instant) error {
	sh := t.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	var err error
	if sp.covering.Load() {
		if err = sh.verdict(t.entry, w.update, now); errors.Is(err, driver.ErrStarted) {
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

// verdict writes u, which a current delivery vouches for. Its message is met,
// so a cancellation does not wait for it.
func (sh *shard) verdict(e *entry, u *driver.Update, now instant) error {
	if u == nil {
		return nil
	}
	e.age(now.at)
	if err := driver.CheckUpdate(e.record, u, true); err != nil {
		return err
	}
	r := driver.NextUpdated(e.record, u, now.ms)
	r.Held = false
	sh.put(e, r, now)
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
		if k := tokenOf(d); k != nil && k.current(s) {
			k.task.queue.renew(k.task, now.at)
		} else {
			errs.set(i, driver.ErrLeaseLost)
		}
	}
	queues.unlock(now)
	return errs.batch()
}
