package conformance_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

// brokenControl is a Control with methods replaced.
type brokenControl struct {
	driver.Control
	put     func(ctx context.Context, key string, value []byte, ttl time.Duration) error
	entries func(ctx context.Context, prefix string) ([]driver.Entry, uint64, error)
	await   func(ctx context.Context, prefix string, rev uint64) error
}

func (k *brokenControl) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if k.put != nil {
		return k.put(ctx, key, value, ttl)
	}
	return k.Control.Put(ctx, key, value, ttl)
}

func (k *brokenControl) Entries(ctx context.Context, prefix string) ([]driver.Entry, uint64, error) {
	if k.entries != nil {
		return k.entries(ctx, prefix)
	}
	return k.Control.Entries(ctx, prefix)
}

func (k *brokenControl) Await(ctx context.Context, prefix string, rev uint64) error {
	if k.await != nil {
		return k.await(ctx, prefix, rev)
	}
	return k.Control.Await(ctx, prefix, rev)
}

type controlBroker struct {
	*broken
	*brokenControl
}

type controlBackend struct {
	*brokenBackend
	*brokenControl
}

// controls breaks the Control of brokers.
func controls(f func(k *brokenControl, s *memory.Store)) mutation {
	return mutation{wrap: func(b *broken) driver.Broker {
		inner := b.Broker.(*memory.Broker)
		k := &brokenControl{Control: inner}
		f(k, inner.Store())
		return controlBroker{b, k}
	}}
}

// backendControls breaks the Control of backends.
func backendControls(f func(k *brokenControl, s *memory.Store)) mutation {
	return mutation{wrapBackend: func(be *brokenBackend) driver.Backend {
		inner := be.Backend.(*memory.Backend)
		k := &brokenControl{Control: inner}
		f(k, inner.Store())
		return controlBackend{be, k}
	}}
}

func unordered(k *brokenControl, _ *memory.Store) {
	k.entries = func(ctx context.Context, prefix string) ([]driver.Entry, uint64, error) {
		es, rev, err := k.Control.Entries(ctx, prefix)
		if prefix != "" {
			slices.Reverse(es)
		}
		return es, rev, err
	}
}

func forgetful(k *brokenControl, _ *memory.Store) {
	k.put = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
		if ttl == 0 {
			ttl = time.Minute
		}
		return k.Control.Put(ctx, key, value, ttl)
	}
}

func lateAwait(k *brokenControl, _ *memory.Store) {
	k.await = func(ctx context.Context, prefix string, rev uint64) error {
		_, now, err := k.Control.Entries(ctx, prefix)
		if err != nil {
			return err
		}
		return k.Control.Await(ctx, prefix, now)
	}
}

// oneForAll gives all namespaces the keys of one, as long as their own are open.
func oneForAll(k *brokenControl, s *memory.Store) {
	k.Control = &lentControl{s.Broker("all"), k.Control}
}

// A lentControl is closed with its owner's.
type lentControl struct {
	driver.Control
	own driver.Control
}

func (l *lentControl) closed(ctx context.Context) error {
	_, _, err := l.own.Entries(ctx, "")
	return err
}

func (l *lentControl) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := l.closed(ctx); err != nil {
		return err
	}
	return l.Control.Put(ctx, key, value, ttl)
}

func (l *lentControl) Remove(ctx context.Context, keys ...string) error {
	if err := l.closed(ctx); err != nil {
		return err
	}
	return l.Control.Remove(ctx, keys...)
}

func (l *lentControl) Entries(ctx context.Context, prefix string) ([]driver.Entry, uint64, error) {
	if err := l.closed(ctx); err != nil {
		return nil, 0, err
	}
	return l.Control.Entries(ctx, prefix)
}

func (l *lentControl) Await(ctx context.Context, prefix string, rev uint64) error {
	if err := l.closed(ctx); err != nil {
		return err
	}
	return l.Control.Await(ctx, prefix, rev)
}

// counting is a broker whose Inspector or Purger is broken.
type counting struct {
	*broken
	inspect func(s *driver.QueueStats)
	queues  func(names []string)
	purge   func(ids []string) []string
}

func (c *counting) Queues(ctx context.Context) ([]string, error) {
	names, err := c.Broker.(driver.Inspector).Queues(ctx)
	if c.queues != nil {
		c.queues(names)
	}
	return names, err
}

func (c *counting) Inspect(ctx context.Context, queues []string) ([]driver.QueueStats, error) {
	ss, err := c.Broker.(driver.Inspector).Inspect(ctx, queues)
	for i := range ss {
		if c.inspect != nil {
			c.inspect(&ss[i])
		}
	}
	return ss, err
}

func (c *counting) PurgeQueue(ctx context.Context, queue string) ([]string, error) {
	ids, err := c.Broker.(driver.Purger).PurgeQueue(ctx, queue)
	if c.purge != nil {
		ids = c.purge(ids)
	}
	return ids, err
}

func counted(f func(c *counting)) mutation {
	return mutation{wrap: func(b *broken) driver.Broker {
		c := &counting{broken: b}
		f(c)
		return c
	}}
}

// tracking keeps what is published with a record, and what is cancelled.
func tracking() mutation {
	return mutation{
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			b.shared.mu.Lock()
			for _, m := range ms {
				if m.Record != nil {
					b.shared.kept["tracked "+m.ID] = m.Clone()
				}
			}
			b.shared.mu.Unlock()
			return b.Broker.Publish(ctx, ms)
		},
		apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
			be.shared.mu.Lock()
			for _, u := range us {
				if m := be.shared.kept["tracked "+u.ID]; m != nil && u.State == driver.Cancelled && len(us) > 1 {
					be.shared.kept["cancelled"] = m
				}
			}
			be.shared.mu.Unlock()
			return be.Backend.Apply(ctx, us)
		},
		receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
			s.b.shared.mu.Lock()
			m := s.b.shared.kept["cancelled"]
			delete(s.b.shared.kept, "cancelled")
			s.b.shared.mu.Unlock()
			if m != nil {
				return []*driver.Delivery{{Message: *m, Count: 1, Copy: "x"}}, nil
			}
			return s.Subscription.Receive(ctx, max)
		},
	}
}

// recorded settles with records that f has changed.
func recorded(f func(u *driver.Update)) mutation {
	return settling(func(one *driver.Settlement) {
		if one.Record != nil {
			u := *one.Record
			f(&u)
			one.Record = &u
		}
	})
}

// feeding pushes to every stream the updates that match.
func feeding(match func(u *driver.Update) bool) mutation {
	return mutation{
		apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
			err := be.Backend.Apply(ctx, us)
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			if feed, ok := be.shared.any["feed"].(chan *driver.Record); ok && len(us) == 1 && err == nil && match(&us[0]) {
				feed <- &driver.Record{Update: us[0]}
			}
			return err
		},
		notify: func(be *brokenBackend, n driver.Notifications) driver.Notifications {
			feed := make(chan *driver.Record, 100)
			be.shared.mu.Lock()
			be.shared.any["feed"] = feed
			be.shared.mu.Unlock()
			s := &brokenStream{Notifications: n}
			s.next = func(ctx context.Context) ([]*driver.Record, error) {
				type got struct {
					rs  []*driver.Record
					err error
				}
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				c := make(chan got, 1)
				go func() { rs, err := n.Next(ctx); c <- got{rs, err} }()
				select {
				case r := <-feed:
					cancel()
					g := <-c
					return append(g.rs, r), nil
				case g := <-c:
					return g.rs, g.err
				}
			}
			return s
		},
	}
}

var optionalMutants = []mutant{
	{"control keys are unordered", "Broker/Control/Keys", controls(unordered)},
	{"a control key without ttl expires", "Broker/Control/TTL", controls(forgetful)},
	{"Await misses what changed before it", "Broker/Control/Await", controls(lateAwait)},
	{"namespaces share control keys", "Broker/Control/Namespaces", controls(oneForAll)},
	{"control keys of a backend are unordered", "Backend/Control/Keys", backendControls(unordered)},
	{"a control key of a backend without ttl expires", "Backend/Control/TTL", backendControls(forgetful)},
	{"Await of a backend misses what changed before it", "Backend/Control/Await", backendControls(lateAwait)},
	{"namespaces of backends share control keys", "Backend/Control/Namespaces", backendControls(oneForAll)},
	{"leased messages are counted as ready", "Broker/Inspector/Counts", counted(func(c *counting) {
		c.inspect = func(s *driver.QueueStats) { s.Ready += s.Leased }
	})},
	{"queues are listed in any order", "Broker/Inspector/Queues", counted(func(c *counting) { c.queues = slices.Reverse[[]string] })},
	{"a purge tells of a hundred", "Broker/Purger/Purge", counted(func(c *counting) { c.purge = firstHundred[string] })},

	{"a published record forgets when it is due", "App/Cover/Publish", lossyPublish(func(m *driver.Message) {
		if m.Record != nil {
			u := *m.Record
			u.Due = 0
			m.Record = &u
		}
	})},
	{"a repeat with a record is a duplicate", "App/Cover/PublishAlive", lossyPublish(func(m *driver.Message) { m.Repeat = m.Repeat && m.Record == nil })},
	{"a second claim leaves the record PENDING", "App/Cover/Claim", mutation{
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			if len(ss) == 1 && isRelease(&ss[0]) {
				s.b.shared.mu.Lock()
				s.b.shared.any["released "+ss[0].Delivery.ID] = true
				s.b.shared.mu.Unlock()
			}
			return s.Subscription.Settle(ctx, ss)
		},
		get: read(func(be *brokenBackend, r *driver.Record) {
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			if be.shared.any["released "+r.ID] != nil && r.State == driver.Started {
				r.State, r.StartedAt = driver.Pending, 0
			}
		}).get}},
	{"hands out against the record", "App/Cover/ClaimObeys", tracking()},
	{"a message dropped at the claim stays alive", "App/Cover/ClaimFrees", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		b.shared.mu.Lock()
		again := len(ms) == 1 && ms[0].NoRecord && ms[0].Once && b.shared.kept["tracked "+ms[0].ID] != nil
		b.shared.mu.Unlock()
		if again {
			return driver.Batch([]error{driver.ErrDuplicate})
		}
		return tracking().publish(b, ctx, ms)
	}}},
	{"a cancellation by settlement is held", "App/Cover/SettleCancelled", mutation{
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			for i := range ss {
				if u := ss[i].Record; u != nil && u.State == driver.Cancelled {
					c := *u
					c.TTL = driver.SafetyAge
					ss[i].Record = &c
				}
			}
			return s.Subscription.Settle(ctx, ss)
		}}},
	{"a settlement forgets the result", "App/Cover/Settle", recorded(func(u *driver.Update) { u.Body = nil })},
	{"a stale record is no error", "App/Cover/SettleStale", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		return swallow(s.Subscription.Settle(ctx, ss), len(ss), driver.ErrStale)
	}}},
	{"a stale delivery writes its record", "App/Cover/StaleToken", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		s.b.shared.mu.Lock()
		be, _ := s.b.shared.any["backend"].(driver.Backend)
		s.b.shared.mu.Unlock()
		for i := range ss {
			if ss[i].Record != nil && errors.Is(driver.ItemError(err, i, len(ss)), driver.ErrLeaseLost) {
				be.Apply(ctx, []driver.Update{*ss[i].Record})
			}
		}
		return err
	}}},
	{"a start ignores its delivery", "App/Cover/StartDelivery", started(func(s *driver.Start) { s.Delivery = nil }, nil)},
	{"a settlement parks what has started", "App/Cover/ParkOnce", recorded(func(u *driver.Update) {
		if u.State == driver.Retry {
			u.Once = false
		}
	})},
	{"a replay leaves the record as it was", "App/Cover/Replay", mutation{
		dead: deadMutant(func(b *broken, l *brokenDead) {
			l.replay = func(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error) {
				b.shared.mu.Lock()
				for _, k := range keys {
					b.shared.any["replayed "+k.ID] = true
				}
				b.shared.mu.Unlock()
				return l.DeadLetters.Replay(ctx, keys)
			}
		}).dead,
		get: read(func(be *brokenBackend, r *driver.Record) {
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			if be.shared.any["replayed "+r.ID] != nil && r.State == driver.Pending {
				r.Epoch, r.State = 0, driver.DeadLettered
			}
		}).get}},
	{"covers another namespace", "App/Cover/Foreign", mutation{covers: func(b *broken, be driver.Backend) bool {
		_, ok := driver.As[*memory.Backend](be)
		return ok
	}}},

	{"hands out dead letters as they come", "Broker/Dead/NotDelivered", mutation{
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			if len(ms) == 3 && ms[0].Dead != nil {
				b.shared.mu.Lock()
				b.shared.kept["dead"] = ms[0].Clone()
				b.shared.mu.Unlock()
			}
			return b.Broker.Publish(ctx, ms)
		},
		receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
			s.b.shared.mu.Lock()
			m := s.b.shared.kept["dead"]
			delete(s.b.shared.kept, "dead")
			s.b.shared.mu.Unlock()
			if m != nil && max == 1 {
				return []*driver.Delivery{{Message: *m, Count: 1, Copy: "x"}}, nil
			}
			return s.Subscription.Receive(ctx, max)
		}}},
	{"closing does not end a Receive that waits", "Broker/Life/CloseEndsReceive", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		begin := time.Now()
		ds, err := s.Subscription.Receive(ctx, max)
		if errors.Is(err, driver.ErrClosed) && time.Since(begin) > time.Second {
			time.Sleep(20 * time.Second)
		}
		return ds, err
	}}},
	{"an id is free twice", "Broker/Publish/Again", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 1 && ms[0].Dead == nil && ms[0].Record == nil && !ms[0].Repeat {
			b.shared.mu.Lock()
			n, _ := b.shared.any["published "+ms[0].ID].(int)
			b.shared.any["published "+ms[0].ID] = n + 1
			b.shared.mu.Unlock()
			if n == 2 {
				return driver.ErrDuplicate
			}
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"a newer epoch is a duplicate", "Broker/Publish/Newer", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 1 && ms[0].Dead == nil && ms[0].Epoch == 1 && ms[0].Seq == 0 {
			return driver.ErrDuplicate
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"an end is pushed in every namespace", "Backend/Notify/Namespaces", feeding(func(u *driver.Update) bool {
		return u.State == driver.Success && u.ID == "a"
	})},
	{"a dead worker's at-most-once message counts as fresh", "Broker/Once/Counted", received(func(_ *brokenSub, d *driver.Delivery) {
		if d.Once && d.Count > 1 && d.Deliveries == 0 {
			d.Count--
		}
	})},
}
