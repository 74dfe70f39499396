package contract

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A fault is what happens to one call of a store.
type fault int

const (
	none        fault = iota
	crashBefore       // the process dies before the call took effect
	crashAfter        // it dies after
	replyLost         // the call took effect, its reply was lost
	refused           // the call certainly did nothing
	stalled           // the reply takes longer than a lease
	late              // the call itself takes effect so late
)

var faultNames = [...]string{"none", "crash before", "crash after", "reply lost", "refused", "stalled", "late"}

func (f fault) String() string { return faultNames[f] }

var errReplyLost = errors.New("reply lost")

// A client is one process's way to the stores.
type client struct {
	broker  driver.Broker
	backend driver.Backend // nil: none

	mu    sync.Mutex
	calls []string
	plan  func(n int, op string, arg any) fault // n counts from 0
	dead  chan struct{}
}

func newClient(plan func(n int, op string, arg any) fault) *client {
	return &client{plan: plan, dead: make(chan struct{})}
}

// crash makes every later call fail for ever, as those of a dead process.
func (c *client) crash() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.dead:
	default:
		close(c.dead)
	}
}

// log returns the calls so far.
func (c *client) log() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

func (c *client) crashed() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// call performs one call of a store, with its fault.
func (c *client) call(ctx context.Context, op string, arg any, do func() error) error {
	if c.crashed() {
		return driver.ErrClosed
	}
	c.mu.Lock()
	n := len(c.calls)
	c.calls = append(c.calls, op)
	f := none
	if c.plan != nil {
		f = c.plan(n, op, arg)
	}
	c.mu.Unlock()
	switch f {
	case crashBefore:
		c.crash()
		return driver.ErrClosed
	case refused:
		return driver.Transient(errors.New("refused"))
	}
	if f == late {
		c.sleep()
	}
	err := do()
	switch f {
	case crashAfter:
		c.crash()
	case replyLost:
		if err == nil {
			return errReplyLost
		}
	case stalled:
		c.sleep()
	}
	if c.crashed() {
		return driver.ErrClosed
	}
	return err
}

// sleep takes longer than a lease.
func (c *client) sleep() {
	t := time.NewTimer(4 * lease / 3)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.dead:
	}
}

// faultBroker passes every call through its client's faults.
type faultBroker struct {
	driver.Broker
	c *client
}

func (b *faultBroker) Unwrap() any { return b.Broker }

func (b *faultBroker) Covers(be driver.Backend) bool {
	inner, ok := driver.As[driver.Coverer](b.Broker)
	if fb, wrapped := be.(*faultBackend); wrapped {
		be = fb.Backend
	}
	return ok && inner.Covers(be)
}

func (b *faultBroker) Publish(ctx context.Context, msgs []*driver.Message) error {
	return b.c.call(ctx, "publish", msgs, func() error { return b.Broker.Publish(ctx, msgs) })
}

func (b *faultBroker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	s, err := b.Broker.Subscribe(ctx, o)
	if err != nil {
		return nil, err
	}
	return &faultSubscription{s, b.c}, nil
}

// Close does nothing: a crashed process closes nothing, and the world closes
// the others' clients.
func (b *faultBroker) Close(context.Context) error { return nil }

type faultSubscription struct {
	driver.Subscription
	c *client
}

func (s *faultSubscription) Receive(ctx context.Context, max int) (ds []*driver.Delivery, err error) {
	if s.c.crashed() {
		return nil, driver.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-s.c.dead:
			cancel()
		case <-stop:
		}
	}()
	// The call counts when it brings something: idle waits are no steps.
	ds, err = s.Subscription.Receive(ctx, max)
	if s.c.crashed() {
		return nil, driver.ErrClosed
	}
	if len(ds) == 0 {
		return ds, err
	}
	if ferr := s.c.call(ctx, "receive", ds, func() error { return err }); ferr != nil {
		return nil, ferr // what was claimed comes back when its lease runs out
	}
	return ds, err
}

func (s *faultSubscription) Settle(ctx context.Context, ss []driver.Settlement) error {
	return s.c.call(ctx, "settle", ss, func() error { return s.Subscription.Settle(ctx, ss) })
}

func (s *faultSubscription) Extend(ctx context.Context, ds []*driver.Delivery) error {
	return s.c.call(ctx, "extend", ds, func() error { return s.Subscription.Extend(ctx, ds) })
}

func (s *faultSubscription) Stop(ctx context.Context) error {
	return s.c.call(ctx, "stop", nil, func() error { return s.Subscription.Stop(ctx) })
}

func (s *faultSubscription) Close(ctx context.Context) error {
	if s.c.crashed() {
		return driver.ErrClosed
	}
	return s.Subscription.Close(ctx)
}

// faultBackend passes every call through its client's faults.
type faultBackend struct {
	driver.Backend
	c *client
}

func (b *faultBackend) Unwrap() any { return b.Backend }

func (b *faultBackend) Start(ctx context.Context, ss []driver.Start) (gs []driver.Grant, err error) {
	err = b.c.call(ctx, "start", ss, func() error { gs, err = b.Backend.Start(ctx, ss); return err })
	return gs, err
}

func (b *faultBackend) Apply(ctx context.Context, us []driver.Update) error {
	return b.c.call(ctx, "apply", us, func() error { return b.Backend.Apply(ctx, us) })
}

func (b *faultBackend) Get(ctx context.Context, ids []string) (rs []*driver.Record, err error) {
	err = b.c.call(ctx, "get", ids, func() error { rs, err = b.Backend.Get(ctx, ids); return err })
	return rs, err
}

func (b *faultBackend) Close(context.Context) error { return nil }
