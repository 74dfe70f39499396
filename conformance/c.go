package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// C is what a case runs on: its store, its unit of time, and the steps that
// cases have in common.
type C struct {
	testing.TB
	h          *Harness
	newHarness NewHarness // of another store
	lease      time.Duration
	slack      time.Duration
	last       int // id
}

const (
	namespace = "conformance"
	q         = "q"
)

func newC(tb testing.TB, h *Harness, newHarness NewHarness) *C {
	return &C{TB: tb, h: h, newHarness: newHarness, lease: h.lease(), slack: h.slack()}
}

// expect fails the case unless ok.
func (c *C) expect(ok bool, format string, args ...any) {
	c.TB.Helper()
	if !ok {
		c.Errorf(format, args...)
	}
}

// must ends the case unless err is nil.
func (c *C) must(err error, format string, args ...any) {
	c.TB.Helper()
	if err != nil {
		c.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

// patience is how long a case waits for what must come.
func (c *C) patience() time.Duration { return 10*time.Second + 4*c.lease }

func (c *C) sleep(d time.Duration) { time.Sleep(d) }

// broker opens a client of its own.
func (c *C) broker() driver.Broker { return c.brokerIn(namespace) }

func (c *C) brokerIn(ns string) driver.Broker {
	c.TB.Helper()
	if c.h.OpenBroker == nil {
		c.Fatal("the harness does not open brokers")
	}
	b := c.h.OpenBroker(c.TB, ns)
	if b == nil {
		c.Fatal("the harness opened no broker")
	}
	c.Cleanup(func() { b.Close(context.Background()) })
	return b
}

// kill ends a client as a crash would.
func (c *C) kill(client any) {
	c.TB.Helper()
	if c.h.Kill != nil {
		c.h.Kill(c.TB, client)
		return
	}
	switch client := client.(type) {
	case driver.Broker:
		client.Close(context.Background())
	case driver.Backend:
		client.Close(context.Background())
	}
}

// id returns an id that the case has not used.
func (c *C) id() string {
	c.last++
	return fmt.Sprintf("task-%d", c.last)
}

// message returns a message with an id of its own for queue q.
func (c *C) message() *driver.Message {
	id := c.id()
	return &driver.Message{ID: id, Queue: q, Attempt: 1, Envelope: []byte("envelope of " + id)}
}

func (c *C) messages(n int) []*driver.Message {
	ms := make([]*driver.Message, n)
	for i := range ms {
		ms[i] = c.message()
	}
	return ms
}

// dead returns m as a dead letter that died at, in Unix milliseconds.
func dead(m *driver.Message, at int64) *driver.Message {
	d := m.Clone()
	d.Dead = &driver.DeadInfo{Reason: driver.ReasonFailed, Name: "t", Message: "fails", Attempts: 1, FirstAt: at, LastAt: at}
	return d
}

func (c *C) publish(b driver.Broker, ms ...*driver.Message) {
	c.TB.Helper()
	c.must(b.Publish(c.Context(), ms), "publish %v", ids(ms))
}

func ids(ms []*driver.Message) (out []string) {
	for i, m := range ms {
		if i == 8 {
			return append(out, fmt.Sprintf("… %d in all", len(ms)))
		}
		out = append(out, m.ID)
	}
	return out
}

func deliveredIDs(ds []*driver.Delivery) (out []string) {
	for _, d := range ds {
		out = append(out, d.ID)
	}
	return out
}

func messageIDs(ms []*driver.Message) (out []string) {
	for _, m := range ms {
		out = append(out, m.ID)
	}
	return out
}

// options are those of a subscription to queues (default: q), 100 at a time.
func (c *C) options(queues ...string) *driver.SubscribeOptions {
	if len(queues) == 0 {
		queues = []string{q}
	}
	o := &driver.SubscribeOptions{Slots: 100, Prefetch: 100, Lease: c.lease, Worker: "worker"}
	for _, name := range queues {
		o.Queues = append(o.Queues, driver.QueueSpec{Name: name})
	}
	return o
}

func (c *C) subscribe(b driver.Broker, queues ...string) driver.Subscription {
	c.TB.Helper()
	return c.subscribeAs(b, c.options(queues...))
}

func (c *C) subscribeAs(b driver.Broker, o *driver.SubscribeOptions) driver.Subscription {
	c.TB.Helper()
	s, err := b.Subscribe(c.Context(), o)
	c.must(err, "subscribe to %+v", o.Queues)
	c.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// worker subscribes on a client of its own.
func (c *C) worker(queues ...string) driver.Subscription {
	c.TB.Helper()
	return c.subscribe(c.broker(), queues...)
}

// receive receives n deliveries, which must come: of n messages, not of fewer
// whose leases ran out meanwhile.
func (c *C) receive(s driver.Subscription, n int) []*driver.Delivery {
	c.TB.Helper()
	ds := c.receiveWithin(s, n, c.patience())
	copies := map[string]bool{}
	for _, d := range ds {
		if copies[d.ID+" "+d.Copy] {
			c.Fatalf("%d of %d deliveries came, then those again: %s", len(copies), n, d.ID)
		}
		copies[d.ID+" "+d.Copy] = true
	}
	if len(ds) < n {
		c.Fatalf("%d of %d deliveries came within %v: %v", len(ds), n, c.patience(), deliveredIDs(ds))
	}
	return ds
}

// receiveWithin receives up to n deliveries until d has passed.
func (c *C) receiveWithin(s driver.Subscription, n int, d time.Duration) (ds []*driver.Delivery) {
	c.TB.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), d)
	defer cancel()
	for len(ds) < n {
		more, err := s.Receive(ctx, n-len(ds))
		ds = append(ds, more...)
		switch {
		case len(more) > n:
			c.Fatalf("%d deliveries, of which at most %d were asked for", len(more), n)
		case errors.Is(err, driver.ErrClosed):
			c.Fatalf("receive: %v", err)
		case ctx.Err() != nil:
			return ds
		case len(more) == 0 && err == nil:
			c.Fatal("Receive returned neither deliveries nor an error")
		case err != nil:
			c.sleep(c.slack / 4) // a retryable error
		}
	}
	return ds
}

func (c *C) one(s driver.Subscription) *driver.Delivery {
	c.TB.Helper()
	return c.receive(s, 1)[0]
}

// none receives for d, in which nothing may come.
func (c *C) none(s driver.Subscription, d time.Duration, why string) {
	c.TB.Helper()
	if ds := c.receiveWithin(s, 1, d); len(ds) > 0 {
		c.Fatalf("%s: got %s, count %d", why, ds[0].ID, ds[0].Count)
	}
}

func (c *C) ack(s driver.Subscription, ds ...*driver.Delivery) {
	c.TB.Helper()
	c.must(c.settle(s, settlements(ds, driver.Ack)...), "ack %v", deliveredIDs(ds))
}

func (c *C) release(s driver.Subscription, ds ...*driver.Delivery) {
	c.TB.Helper()
	c.must(c.settle(s, settlements(ds, driver.Release)...), "release %v", deliveredIDs(ds))
}

func (c *C) settle(s driver.Subscription, ss ...driver.Settlement) error {
	return s.Settle(c.Context(), ss)
}

// settleOne settles and returns the error of the one item.
func (c *C) settleOne(s driver.Subscription, one driver.Settlement) error {
	return driver.ItemError(c.settle(s, one), 0, 1)
}

func settlements(ds []*driver.Delivery, a driver.Action) []driver.Settlement {
	ss := make([]driver.Settlement, len(ds))
	for i, d := range ds {
		ss[i] = driver.Settlement{Delivery: d, Action: a}
	}
	return ss
}

// empty fails the case if anything is left in queues, leased or ready.
func (c *C) empty(b driver.Broker, why string, queues ...string) {
	c.TB.Helper()
	s := c.subscribe(b, queues...)
	if ds := c.receiveWithin(s, 1, 2*c.lease+c.slack); len(ds) > 0 {
		c.Errorf("%s: %s is left, count %d", why, ds[0].ID, ds[0].Count)
	}
	s.Close(context.Background())
}

// within fails the case unless f returns within d; f goes on.
func (c *C) within(d time.Duration, what string, f func()) {
	c.TB.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		c.Fatalf("%s did not return within %v", what, d)
	}
}

// lose makes s, of b, lose what it holds, although its process lives on.
func (c *C) lose(b driver.Broker) {
	c.TB.Helper()
	if b.Info().Lease == driver.LeaseSession {
		if c.h.Cut == nil {
			c.Fatal("the harness must be able to Cut: the lease is a session")
		}
		c.h.Cut(c.TB, b)
		return
	}
	c.sleep(c.lease + c.slack)
}

// same compares what must be equal, ids for example, in any order.
func (c *C) same(got, want []string, what string) {
	c.TB.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		c.Errorf("%s: got %s", what, difference(got, want))
	}
}

func difference(got, want []string) string {
	count := map[string]int{}
	for _, id := range got {
		count[id]++
	}
	for _, id := range want {
		count[id]--
	}
	var missing, extra []string
	for id, n := range count {
		if n < 0 {
			missing = append(missing, id)
		} else if n > 0 {
			extra = append(extra, fmt.Sprintf("%s (%d too many)", id, n))
		}
	}
	slices.Sort(missing)
	slices.Sort(extra)
	return fmt.Sprintf("%d, missing %v, too many %v", len(got), short(missing), short(extra))
}

func short(s []string) []string {
	if len(s) > 8 {
		return append(s[:8:8], fmt.Sprintf("… %d in all", len(s)))
	}
	return s
}
