package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A subscription takes tasks for one worker.
type subscription struct {
	broker   *Broker
	strict   bool
	prefetch int
	lease    time.Duration

	// held counts the deliveries that this subscription may still settle.
	// Only Receive raises it.
	held    atomic.Int64
	starved atomic.Bool   // Receive waits for credit
	wake    chan struct{} // capacity 1: look again
	closed  atomic.Bool

	mu      sync.Mutex
	stopped bool
	sources []*source
	parked  bool // the sources are among the waiters of their queues
	claims  []claim
	marks   Step // hand-outs that the journal must count first, nil if none
}

// A source is one queue of a subscription.
type source struct {
	sub    *subscription
	queue  *queue
	weight int
	turn   int // current weight, see plan
	share  int // of the plan made last
	ready  int // what that plan leaves

	want   int // tasks the parked receiver can take, guarded by queue.mu
	parked link[*source]
}

// Subscribe implements [driver.Broker].
func (b *Broker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	if err := o.Check(); err != nil {
		return nil, b.space.store.wrap("subscribe", err)
	}
	s := &subscription{broker: b, strict: o.Strict, prefetch: o.Prefetch,
		lease: o.Lease, wake: make(chan struct{}, 1)}
	var err error
	if s.sources, err = s.newSources(ctx, o.Queues); err != nil {
		return nil, b.space.store.wrap("subscribe", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return nil, driver.ErrClosed
	}
	b.subs[s] = struct{}{}
	return s, nil
}

// SetQueues implements [driver.Subscription]. With no queues, Receive waits.
func (s *subscription) SetQueues(ctx context.Context, specs []driver.QueueSpec) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := driver.CheckQueues(specs); err != nil {
		return s.broker.space.store.wrap("set queues", err)
	}
	sources, err := s.newSources(ctx, specs)
	if err != nil {
		return s.broker.space.store.wrap("set queues", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unpark()
	s.sources = sources
	signal(s.wake)
	return nil
}

func (s *subscription) newSources(ctx context.Context, specs []driver.QueueSpec) ([]*source, error) {
	var sources []*source
	var queues lockSet
	for _, spec := range specs {
		q := s.broker.space.queue(spec.Name)
		queues.add(q)
		src := &source{sub: s, queue: q, weight: max(1, spec.Weight)}
		src.parked.value = src
		sources = append(sources, src)
	}
	return sources, s.broker.space.setLease(ctx, queues, s.lease)
}

// setLease stores the lease with all queues or, if one has another, with none.
func (sp *space) setLease(ctx context.Context, queues lockSet, lease time.Duration) error {
	if len(queues) == 0 {
		return nil
	}
	fresh, err := queues.setLease(sp.store, lease)
	if err != nil || len(fresh) == 0 {
		return err
	}
	step := sp.note()
	if step != nil {
		for _, q := range fresh {
			step.PutLease(q.name, lease)
		}
	}
	return sp.store.keep(ctx, step, func() {})
}

// setLease returns the queues that had none.
func (l lockSet) setLease(store *Store, lease time.Duration) (fresh []*queue, err error) {
	now := l.lock(store)
	defer l.unlock(now)
	for _, q := range l {
		if q.lease != 0 && q.lease != lease {
			return nil, fmt.Errorf("queue %q, stored lease %v, asked for %v: %w", q.name, q.lease, lease, driver.ErrLeaseMismatch)
		}
	}
	for _, q := range l {
		if q.lease == 0 {
			q.lease = lease
			fresh = append(fresh, q)
		}
	}
	return fresh, nil
}

// check says why a call must not begin.
func (s *subscription) check(ctx context.Context) error {
	if s.closed.Load() {
		return driver.ErrClosed
	}
	return s.broker.check(ctx)
}

// Stop implements [driver.Subscription]. Nothing is prefetched that was not
// received, so there is nothing to give back.
func (s *subscription) Stop(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	s.end()
	return nil
}

// Close implements [driver.Subscription].
func (s *subscription) Close(context.Context) error {
	s.shut()
	s.broker.mu.Lock()
	defer s.broker.mu.Unlock()
	delete(s.broker.subs, s)
	return nil
}

// shut ends every call.
func (s *subscription) shut() {
	s.closed.Store(true)
	s.end()
}

// end ends receiving.
func (s *subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.unpark()
	signal(s.wake)
}
