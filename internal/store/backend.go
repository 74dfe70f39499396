package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/chicory-go/chicory/driver"
)

// A Backend is a [driver.Backend] on a [Store]. It also is a
// [driver.Notifier] and [driver.Control].
type Backend struct {
	client

	mu      sync.Mutex
	streams map[*notifications]struct{}
}

var (
	_ driver.Backend  = (*Backend)(nil)
	_ driver.Notifier = (*Backend)(nil)
	_ driver.Control  = (*Backend)(nil)
)

// core finds b in a driver's own type that embeds it.
func (b *Backend) core() *Backend { return b }

// Info implements [driver.Backend].
func (b *Backend) Info() driver.BackendInfo {
	o := &b.space.store.options
	return driver.BackendInfo{Name: o.Driver, Contract: driver.Contract, Durable: o.Journal != nil, MaxBody: o.MaxBody}
}

// Start implements [driver.Backend].
func (b *Backend) Start(ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	grants := make([]driver.Grant, len(ss))
	r := rounds{space: b.space, n: len(ss)}
	for i := range ss {
		if k := tokenOf(ss[i].Delivery); k != nil && k.task.queue.space == b.space {
			r.queues.add(k.task.queue)
		}
	}
	r.decide = func(c *change, i int, now instant) (err error) {
		grants[i], err = b.space.start(c, &ss[i], now)
		return err
	}
	r.run(ctx)
	if err := r.whole(); err != nil {
		return nil, err
	}
	return grants, nil
}

// start decides whether s may start; its delivery, if it has one, must be
// held. The delivery's queue is locked, and the entry held, until the record
// is written, so it cannot be settled in between.
func (sp *space) start(c *change, s *driver.Start, now instant) (driver.Grant, error) {
	if err := driver.CheckID(s.ID); err != nil {
		return driver.Grant{Err: sp.store.wrap("start", err)}, nil
	}
	if s.Delivery != nil {
		k := tokenOf(s.Delivery)
		if k == nil || k.task.queue.space != sp || !k.current(nil) {
			return driver.Grant{Err: driver.ErrLeaseLost}, nil
		}
	}
	k := sp.key(s.ID)
	sh := k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.recorded(now.at)
	defer sh.tidy(e)
	if !c.mayHold(e) {
		return driver.Grant{}, errHeld
	}
	if err := driver.CheckStart(e.record, s); err != nil {
		sh.meet(e, now)
		return driver.Grant{Record: e.record.Clone(), Err: err}, nil
	}
	run := sp.runs.Add(1)
	if s.Delivery != nil && !s.Once {
		c = nil // the lease is the fence; it ends with the process
	} else {
		c.hold(sh, e)
	}
	sh.put(c, e, driver.NextStarted(e.record, s, run, now.ms()), now)
	return driver.Grant{Run: run}, nil
}

// Apply implements [driver.Backend].
func (b *Backend) Apply(ctx context.Context, us []driver.Update) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	r := rounds{space: b.space, n: len(us)}
	r.decide = func(c *change, i int, now instant) error { return b.space.update(c, &us[i], now) }
	return r.run(ctx)
}

func (sp *space) update(c *change, u *driver.Update, now instant) error {
	if err := sp.store.checkUpdate(u); err != nil {
		return err
	}
	cu := u.Clone()
	k := sp.key(u.ID)
	sh := k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.recorded(now.at)
	defer sh.tidy(e)
	if !c.mayHold(e) {
		return errHeld
	}
	if err := driver.CheckUpdate(e.record, &cu, false); err != nil {
		if cu.State != driver.Pending { // a late PENDING has met no message
			sh.meet(e, now)
		}
		return err
	}
	c.hold(sh, e)
	sh.put(c, e, driver.NextUpdated(e.record, &cu, now.ms(), false), now)
	return nil
}

// checkUpdate reports whether u, which may be nil, has an ID and a body that
// fits.
func (s *Store) checkUpdate(u *driver.Update) error {
	if u == nil {
		return nil
	}
	if err := driver.CheckID(u.ID); err != nil {
		return s.wrap("update", err)
	}
	if limit := s.options.MaxBody; limit > 0 && len(u.Body) > limit {
		return s.wrap("update", fmt.Errorf("task %s: result has %d bytes, at most %d fit: %w", u.ID, len(u.Body), limit, driver.ErrTooLarge))
	}
	return nil
}

// Get implements [driver.Backend].
func (b *Backend) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	now, rs := b.space.store.now(), make([]*driver.Record, len(ids))
	for i, id := range ids {
		if r, ok := b.space.read(id, now.at); ok {
			rs[i] = r.Clone()
		}
	}
	return rs, nil
}

// read returns the record of id, within a change the one before it. Its body
// is the store's.
func (sp *space) read(id string, now int64) (r driver.Record, ok bool) {
	k := sp.key(id)
	k.shard.mu.Lock()
	defer k.shard.mu.Unlock()
	if e := k.find(now); e != nil {
		if e.held != nil {
			r = e.held.record
		} else if e.record != nil {
			r = *e.record
		}
		k.shard.tidy(e)
	}
	return r, r.ID != "" && !r.Skeleton
}

// Delete implements [driver.Backend].
func (b *Backend) Delete(ctx context.Context, ids []string) (int, error) {
	if err := b.check(ctx); err != nil {
		return 0, err
	}
	there := make([]bool, len(ids))
	r := rounds{space: b.space, n: len(ids)}
	r.decide = func(c *change, i int, now instant) (err error) {
		there[i], err = b.space.remove(c, ids[i], now)
		return err
	}
	r.run(ctx)
	n := 0
	for i := range there {
		if there[i] && r.errs.at(i) == nil {
			n++
		}
	}
	return n, r.whole()
}

// remove decides that c leaves a skeleton of a terminal record, and reports
// whether there is one.
func (sp *space) remove(c *change, id string, now instant) (bool, error) {
	k := sp.key(id)
	sh := k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.find(now.at)
	if e == nil {
		return false, nil
	}
	defer sh.tidy(e)
	if !c.mayHold(e) {
		return false, errHeld
	}
	if e.record == nil || e.record.Skeleton || !e.record.State.Terminal() {
		return false, nil
	}
	keep := driver.SkeletonAge
	if e.record.Held {
		keep = driver.SafetyAge
	}
	c.hold(sh, e)
	sh.keep(e, driver.SkeletonOf(e.record), now.after(keep))
	sh.log(c, e, now)
	return true, nil
}

// Close implements [driver.Backend]. It ends the backend's notifications.
func (b *Backend) Close(context.Context) error {
	if !b.close() {
		return nil
	}
	b.mu.Lock()
	streams := b.streams
	b.streams = nil
	b.mu.Unlock()
	for n := range streams {
		n.end()
	}
	b.space.store.detach()
	return nil
}
