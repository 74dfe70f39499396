package conformance_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
)

// The smallest driver that keeps the contract: one lock, one list, no optional
// interface. The suite asks for no more.

func TestMinimal(t *testing.T) {
	t.Parallel()
	conformance.RunBroker(t, minimal)
	conformance.RunBackend(t, minimal)
	conformance.RunApp(t, minimal)
}

func minimal(testing.TB) *conformance.Harness {
	var mu sync.Mutex
	stores := map[string]*tinyStore{}
	open := func(name string) *tinyClient {
		mu.Lock()
		defer mu.Unlock()
		if stores[name] == nil {
			stores[name] = &tinyStore{changed: make(chan struct{}), leases: map[string]time.Duration{}, records: map[string]*tinyRecord{}}
		}
		return &tinyClient{tinyStore: stores[name]}
	}
	return &conformance.Harness{Bubble: true,
		OpenBroker: func(_ testing.TB, ns string) driver.Broker { return &tinyBroker{open("messages of " + ns)} },
		OpenBackend: func(_ testing.TB, ns string, _ driver.Broker) driver.Backend {
			return &tinyBackend{open("records of " + ns)}
		},
	}
}

// A tinyStore is a namespace of messages or of records.
type tinyStore struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever there may be something to do
	tasks   []*tinyTask   // in the order they were published
	dead    []*driver.Message
	leases  map[string]time.Duration
	records map[string]*tinyRecord
	last    uint64 // copy or run
}

type tinyTask struct {
	msg    *driver.Message
	copy   string
	deaths int
	due    time.Time  // not before; of one that is held, when its lease ends
	token  *tinyToken // nil: not held
}

type tinyToken struct {
	task *tinyTask
	sub  *tinySub
}

func (s *tinyStore) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

type tinyClient struct {
	*tinyStore
	of     *tinyClient // of a subscription: its broker
	closed bool
}

// do runs f under the lock, unless the client is closed or ctx has ended.
func (c *tinyClient) do(ctx context.Context, f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.of != nil && c.of.closed {
		return driver.ErrClosed
	}
	if ctx.Err() != nil {
		return driver.Transient(ctx.Err())
	}
	return f()
}

// each runs f for each of n items under the lock.
func (c *tinyClient) each(ctx context.Context, n int, f func(i int) error) error {
	errs := make([]error, n)
	return cmp.Or(c.do(ctx, func() error {
		for i := range errs {
			errs[i] = f(i)
		}
		return nil
	}), driver.Batch(errs))
}

func (c *tinyClient) Close(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.wake()
	return nil
}

type tinyBroker struct{ *tinyClient }

func (b *tinyBroker) Info() driver.BrokerInfo {
	return driver.BrokerInfo{Name: "tiny", Contract: 1, Dedup: true, FIFO: true, Priorities: 10}
}

func (b *tinyBroker) Publish(ctx context.Context, msgs []*driver.Message) error {
	return b.each(ctx, len(msgs), func(i int) error {
		if err := checkTiny(msgs[i]); err != nil {
			return err
		}
		return b.put(msgs[i], msgs[i].Repeat)
	})
}

func checkTiny(m *driver.Message) error {
	return cmp.Or(driver.CheckID(m.ID), driver.CheckQueue(m.Queue))
}

// put stores m; quiet, it is no error that it is there already.
func (s *tinyStore) put(m *driver.Message, quiet bool) error {
	alive := func(t *tinyTask) bool { return t.msg.ID == m.ID && t.msg.Version().Compare(m.Version()) >= 0 }
	died := func(d *driver.Message) bool { return d.ID == m.ID && d.Epoch >= m.Epoch }
	twin := func(d *driver.Message) bool { return d.Key() == m.Key() }
	switch {
	case m.Dead != nil && slices.ContainsFunc(s.dead, twin):
	case m.Dead != nil:
		s.dead = append(s.dead, m.Clone())
	case !slices.ContainsFunc(s.tasks, alive) && !slices.ContainsFunc(s.dead, died):
		s.last++
		s.tasks = append(s.tasks, &tinyTask{msg: m.Clone(), copy: fmt.Sprint(s.last), due: time.Now().Add(m.Delay)})
		s.wake()
	case !quiet:
		return driver.ErrDuplicate
	}
	return nil
}

func (b *tinyBroker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	if len(o.Queues) == 0 || o.Prefetch < 1 || o.Lease <= 0 || o.Lease > driver.MaxLease || o.Lease%time.Millisecond != 0 {
		return nil, errors.New("tiny: bad options")
	}
	s := &tinySub{tinyClient: &tinyClient{tinyStore: b.tinyStore, of: b.tinyClient}, o: *o}
	return s, b.do(ctx, func() error { return s.set(o.Queues) })
}

type tinySub struct {
	*tinyClient
	o       driver.SubscribeOptions
	turns   map[string]int
	stopped bool
}

func (s *tinySub) SetQueues(ctx context.Context, qs []driver.QueueSpec) error {
	return s.do(ctx, func() error { return s.set(qs) })
}

func (s *tinySub) set(qs []driver.QueueSpec) error {
	seen := map[string]bool{}
	for _, q := range qs {
		l := s.leases[q.Name]
		if err := driver.CheckQueue(q.Name); err != nil || q.Weight < 0 || seen[q.Name] {
			return fmt.Errorf("tiny: bad queue %q", q.Name)
		}
		if seen[q.Name] = true; l != 0 && l != s.o.Lease {
			return driver.ErrLeaseMismatch
		}
	}
	for _, q := range qs {
		s.leases[q.Name] = s.o.Lease
	}
	s.o.Queues, s.turns = slices.Clone(qs), map[string]int{}
	s.wake()
	return nil
}

func (s *tinySub) Receive(ctx context.Context, limit int) (ds []*driver.Delivery, err error) {
	for limit > 0 {
		var next time.Time
		var changed chan struct{}
		err := s.do(ctx, func() error {
			if s.stopped {
				return driver.ErrClosed
			}
			ds, next = s.claim(limit)
			changed = s.changed
			return nil
		})
		if err != nil || len(ds) > 0 {
			return ds, err
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil, errors.New("tiny: receive of none")
}

// claim takes up to limit tasks. It also returns when to look again.
func (s *tinySub) claim(limit int) (ds []*driver.Delivery, next time.Time) {
	now, held := time.Now(), 0
	next = now.Add(24 * time.Hour)
	for _, t := range s.tasks {
		if t.token != nil && !now.Before(t.due) { // its lease ran out
			t.token, t.deaths = nil, t.deaths+1
		}
		if t.token != nil && t.token.sub == s {
			held++
		}
		if t.due.After(now) && t.due.Before(next) {
			next = t.due
		}
	}
	for len(ds) < min(limit, s.o.Prefetch-held) {
		t := s.pick(now)
		if t == nil {
			break
		}
		t.token, t.due = &tinyToken{t, s}, now.Add(s.o.Lease)
		ds = append(ds, &driver.Delivery{Message: *t.msg.Clone(), Count: 1 + int(t.msg.Deliveries) + t.deaths, Copy: t.copy, Handle: t.token})
	}
	return ds, next
}

// pick chooses among the first ready tasks of the queues: in strict order, or by
// smooth weighted round robin.
func (s *tinySub) pick(now time.Time) (best *tinyTask) {
	total := 0
	for _, q := range s.o.Queues {
		var first *tinyTask
		for _, t := range s.tasks {
			if t.msg.Queue == q.Name && t.token == nil && !t.due.After(now) && (first == nil || t.msg.Priority > first.msg.Priority) {
				first = t
			}
		}
		if first == nil {
			continue
		}
		if s.o.Strict {
			return first
		}
		total += max(1, q.Weight)
		s.turns[q.Name] += max(1, q.Weight)
		if best == nil || s.turns[q.Name] > s.turns[best.msg.Queue] {
			best = first
		}
	}
	if best != nil {
		s.turns[best.msg.Queue] -= total
	}
	return best
}

// held returns the task that d holds, nil if it does not.
func (s *tinySub) held(d *driver.Delivery) *tinyTask {
	k, _ := d.Handle.(*tinyToken)
	if k == nil || k.sub != s || k.task.token != k || !time.Now().Before(k.task.due) {
		return nil
	}
	return k.task
}

func (s *tinySub) Settle(ctx context.Context, ss []driver.Settlement) error {
	return s.each(ctx, len(ss), func(i int) error {
		t := s.held(ss[i].Delivery)
		if t == nil {
			return driver.ErrLeaseLost
		}
		for _, m := range ss[i].Then {
			if err := checkTiny(m); err != nil {
				return err
			}
		}
		if t.token, t.due = nil, time.Now().Add(ss[i].Delay); ss[i].Action == driver.Ack {
			s.tasks = slices.DeleteFunc(s.tasks, func(o *tinyTask) bool { return o == t })
		}
		for _, m := range ss[i].Then {
			s.put(m, true)
		}
		s.wake()
		return nil
	})
}

func (s *tinySub) Extend(ctx context.Context, ds []*driver.Delivery) error {
	return s.each(ctx, len(ds), func(i int) error {
		t := s.held(ds[i])
		if t == nil {
			return driver.ErrLeaseLost
		}
		t.due = time.Now().Add(s.o.Lease)
		return nil
	})
}

func (s *tinySub) Stop(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.wake()
	return nil
}

func (b *tinyBroker) DeadLetters(queue string) driver.DeadLetters { return &tinyDead{b, queue} }

type tinyDead struct {
	b     *tinyBroker
	queue string
}

// take returns the dead letters that match, how many, and may remove them.
func (d *tinyDead) take(ctx context.Context, remove bool, match func(*driver.Message) bool) (out []*driver.Message, n int, err error) {
	err = d.b.do(ctx, func() error {
		d.b.dead = slices.DeleteFunc(d.b.dead, func(m *driver.Message) bool {
			found := m.Queue == d.queue && match(m)
			if found {
				out = append(out, m.Clone())
			}
			return found && remove
		})
		return nil
	})
	return out, len(out), err
}

func all(*driver.Message) bool { return true }

func among(keys []driver.DeadKey) func(*driver.Message) bool {
	return func(m *driver.Message) bool { return slices.Contains(keys, m.Key()) }
}

func (d *tinyDead) List(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
	ms, n, err := d.take(ctx, false, all)
	from, _ := strconv.Atoi(cursor)
	if n-from <= limit {
		return ms[min(from, n):], "", err
	}
	return ms[from : from+limit], strconv.Itoa(from + limit), err
}

func (d *tinyDead) Get(ctx context.Context, id string) ([]*driver.Message, error) {
	ms, _, err := d.take(ctx, false, func(m *driver.Message) bool { return m.ID == id })
	slices.SortFunc(ms, func(a, b *driver.Message) int { return int(b.Epoch) - int(a.Epoch) })
	return ms, err
}

func (d *tinyDead) Replay(ctx context.Context, keys []driver.DeadKey) (out []*driver.Message, err error) {
	ms, _, err := d.take(ctx, true, among(keys))
	for _, m := range ms {
		out = append(out, m.Replayed())
		d.b.do(ctx, func() error { return d.b.put(m.Replayed(), true) })
	}
	return out, err
}

func (d *tinyDead) Delete(ctx context.Context, keys []driver.DeadKey) (int, error) {
	_, n, err := d.take(ctx, true, among(keys))
	return n, err
}

func (d *tinyDead) Purge(ctx context.Context, t time.Time) (int, error) {
	_, n, err := d.take(ctx, true, func(m *driver.Message) bool { return t.IsZero() || m.Dead.LastAt < t.UnixMilli() })
	return n, err
}

func (d *tinyDead) Len(ctx context.Context) (int, error) {
	_, n, err := d.take(ctx, false, all)
	return n, err
}
