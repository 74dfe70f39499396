package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// lossy publishes messages that f has changed.
func lossy(f func(m *driver.Message)) mutation {
	return mutation{
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			return b.Broker.Publish(ctx, changed(ms, f))
		},
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			ss = slices.Clone(ss)
			for i := range ss {
				ss[i].Then = changed(ss[i].Then, f)
			}
			return s.Subscription.Settle(ctx, ss)
		},
	}
}

// changed returns copies of ms that f has changed.
func changed(ms []*driver.Message, f func(m *driver.Message)) []*driver.Message {
	out := make([]*driver.Message, len(ms))
	for i, m := range ms {
		c := *m
		f(&c)
		out[i] = &c
	}
	return out
}

// received hands out deliveries that f has changed.
func received(f func(s *brokenSub, d *driver.Delivery)) mutation {
	return mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		for _, d := range ds {
			f(s, d)
		}
		return ds, err
	}}
}

// settling settles as f has changed it.
func settling(f func(one *driver.Settlement)) mutation {
	return mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		ss = slices.Clone(ss)
		for i := range ss {
			f(&ss[i])
		}
		return s.Subscription.Settle(ctx, ss)
	}}
}

// options subscribes with options that f has changed.
func options(f func(o *driver.SubscribeOptions)) mutation {
	return mutation{subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
		c := *o
		c.Queues = slices.Clone(o.Queues)
		f(&c)
		return b.Broker.Subscribe(ctx, &c)
	}}
}

func info(f func(i *driver.BrokerInfo)) mutation {
	return mutation{info: func(i driver.BrokerInfo) driver.BrokerInfo { f(&i); return i }}
}

// swallow returns err without the errors that are target.
func swallow(err error, n int, target error) error {
	errs := make([]error, n)
	for i := range errs {
		if e := driver.ItemError(err, i, n); !errors.Is(e, target) {
			errs[i] = e
		}
	}
	return driver.Batch(errs)
}

// firstHundred is what is left of a batch by a limit that nobody told of.
func firstHundred[T any](items []T) []T { return items[:min(100, len(items))] }

// deadMutant wraps the dead letters.
func deadMutant(f func(b *broken, l *brokenDead)) mutation {
	return mutation{dead: func(b *broken, l driver.DeadLetters, queue string) driver.DeadLetters {
		d := &brokenDead{DeadLetters: l, b: b, queue: queue}
		f(b, d)
		return d
	}}
}

type brokenDead struct {
	driver.DeadLetters
	b      *broken
	queue  string
	list   func(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error)
	get    func(ctx context.Context, id string) ([]*driver.Message, error)
	replay func(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error)
	del    func(ctx context.Context, keys []driver.DeadKey) (int, error)
	purge  func(ctx context.Context, t time.Time) (int, error)
	size   func(ctx context.Context) (int, error)
}

func (d *brokenDead) List(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
	if d.list != nil {
		return d.list(ctx, cursor, limit)
	}
	return d.DeadLetters.List(ctx, cursor, limit)
}

func (d *brokenDead) Get(ctx context.Context, id string) ([]*driver.Message, error) {
	if d.get != nil {
		return d.get(ctx, id)
	}
	return d.DeadLetters.Get(ctx, id)
}

func (d *brokenDead) Replay(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error) {
	if d.replay != nil {
		return d.replay(ctx, keys)
	}
	return d.DeadLetters.Replay(ctx, keys)
}

func (d *brokenDead) Delete(ctx context.Context, keys []driver.DeadKey) (int, error) {
	if d.del != nil {
		return d.del(ctx, keys)
	}
	return d.DeadLetters.Delete(ctx, keys)
}

func (d *brokenDead) Purge(ctx context.Context, t time.Time) (int, error) {
	if d.purge != nil {
		return d.purge(ctx, t)
	}
	return d.DeadLetters.Purge(ctx, t)
}

func (d *brokenDead) Len(ctx context.Context) (int, error) {
	if d.size != nil {
		return d.size(ctx)
	}
	return d.DeadLetters.Len(ctx)
}

// prefetching prefetches as a broker that pushes does, badly: what it holds and
// was not received is never given back.
func prefetching() mutation {
	return mutation{
		receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
			sh := s.b.shared
			sh.mu.Lock()
			key := fmt.Sprintf("%p", s)
			held, _ := sh.any[key].([]*driver.Delivery)
			sh.mu.Unlock()
			if len(held) == 0 {
				ds, err := s.Subscription.Receive(ctx, s.o.Prefetch)
				if err != nil {
					return nil, err
				}
				held = ds
			}
			n := min(max, len(held))
			if max < 1 {
				return nil, errors.New("receive of none")
			}
			sh.mu.Lock()
			sh.any[key] = held[n:]
			sh.mu.Unlock()
			return held[:n:n], nil
		},
	}
}

// lossyPublish is lossy on Publish alone.
func lossyPublish(f func(m *driver.Message)) mutation { return mutation{publish: lossy(f).publish} }

// lossyQueue changes queue names wherever they are used.
func lossyQueue(f func(string) string) mutation {
	m := lossy(func(m *driver.Message) { m.Queue = f(m.Queue) })
	m.subscribe = options(func(o *driver.SubscribeOptions) {
		for i := range o.Queues {
			o.Queues[i].Name = f(o.Queues[i].Name)
		}
	}).subscribe
	m.dead = func(b *broken, l driver.DeadLetters, queue string) driver.DeadLetters {
		return b.Broker.DeadLetters(f(queue))
	}
	return m
}

// bell returns a channel that the next ring closes.
func (s *shared) bell() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, _ := s.any["bell"].(chan struct{})
	if c == nil {
		c = make(chan struct{})
		s.any["bell"] = c
	}
	return c
}

func (s *shared) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, _ := s.any["bell"].(chan struct{}); c != nil {
		close(c)
		delete(s.any, "bell")
	}
}
