package store

import (
	"context"
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
	return driver.BackendInfo{Name: b.space.store.options.Driver, Contract: driver.Contract}
}

// Start implements [driver.Backend].
func (b *Backend) Start(ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	grants := make([]driver.Grant, len(ss))
	for i := range ss {
		if ss[i].Delivery == nil {
			grants[i] = b.space.startRecord(&ss[i])
		} else {
			grants[i] = b.space.startDelivery(&ss[i])
		}
	}
	return grants, nil
}

// startDelivery starts s if its delivery is held. The queue stays locked until
// the record is written, so the delivery cannot be settled in between.
func (sp *space) startDelivery(s *driver.Start) driver.Grant {
	k := tokenOf(s.Delivery)
	if k == nil || k.task.queue.space != sp {
		return driver.Grant{Err: driver.ErrLeaseLost}
	}
	queues := lockSet{k.task.queue}
	now := queues.lock(sp.store)
	defer queues.unlock(now)
	if !k.current(nil) {
		return driver.Grant{Err: driver.ErrLeaseLost}
	}
	return sp.startRecord(s)
}

func (sp *space) startRecord(s *driver.Start) driver.Grant {
	now, k := sp.store.now(), sp.key(s.ID)
	sh := k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.recorded(now.at)
	defer sh.tidy(e)
	if err := driver.CheckStart(e.record, s); err != nil {
		sh.meet(e, now)
		return driver.Grant{Record: e.record.Clone(), Err: err}
	}
	run := sp.runs.Add(1)
	sh.put(e, driver.NextStarted(e.record, s, run, now.ms), now)
	return driver.Grant{Run: run}
}

// Apply implements [driver.Backend].
func (b *Backend) Apply(ctx context.Context, us []driver.Update) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	errs := itemErrors{n: len(us)}
	for i := range us {
		errs.set(i, b.space.update(&us[i]))
	}
	return errs.batch()
}

func (sp *space) update(u *driver.Update) error {
	c := u.Clone()
	now, k := sp.store.now(), sp.key(u.ID)
	sh := k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.recorded(now.at)
	defer sh.tidy(e)
	if err := driver.CheckUpdate(e.record, &c, false); err != nil {
		if c.State != driver.Pending { // a late PENDING has met no message
			sh.meet(e, now)
		}
		return err
	}
	sh.put(e, driver.NextUpdated(e.record, &c, now.ms), now)
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

// read returns the record of id. Its body is the store's.
func (sp *space) read(id string, now int64) (r driver.Record, ok bool) {
	k := sp.key(id)
	k.shard.mu.Lock()
	defer k.shard.mu.Unlock()
	if e := k.find(now); e != nil && e.record != nil {
		r = *e.record
	}
	return r, r.ID != "" && !r.Skeleton
}

// Delete implements [driver.Backend].
func (b *Backend) Delete(ctx context.Context, ids []string) (int, error) {
	if err := b.check(ctx); err != nil {
		return 0, err
	}
	now, n := b.space.store.now(), 0
	for _, id := range ids {
		if b.space.delete(id, now) {
			n++
		}
	}
	return n, nil
}

// delete leaves the skeleton of a terminal record. That of a cancellation
// whose message was not met stays as long as the message may.
func (sp *space) delete(id string, now instant) bool {
	k := sp.key(id)
	sh := k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.find(now.at)
	if e == nil || e.record == nil || e.record.Skeleton || !e.record.State.Terminal() {
		return false
	}
	keep := driver.SkeletonAge
	if e.record.Held {
		keep = driver.SafetyAge
	}
	sh.keep(e, driver.SkeletonOf(e.record), now.at+int64(keep))
	return true
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
