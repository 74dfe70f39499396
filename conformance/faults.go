package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	itemRefused       // each item of the call was refused by itself, the call was not
)

var faultNames = [...]string{"", "crash before", "crash after", "reply lost", "refused", "stalled", "late", "items refused"}

func (f fault) String() string { return faultNames[f] }

var (
	errReplyLost   = errors.New("reply lost")
	errItemRefused = driver.Transient(errors.New("item refused"))
)

// perItem turns errItemRefused into what a batch of n says.
func perItem(err error, n int) error {
	if err != errItemRefused {
		return err
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return driver.Batch(errs)
}

// A plan decides the fault of a call.
type plan func(op string) fault

// A client is one process's way to the stores. Its broker and backend pass
// every call through its faults.
type client struct {
	w       *world
	name    string
	broker  driver.Broker
	backend driver.Backend // nil: none
	plan    plan
	dead    chan struct{}
	over    chan struct{} // closed when the case has ended: nothing stalls any more
	once    sync.Once
	kill    func()

	perhaps bool // its faults need not meet a call

	mu     sync.Mutex
	calls  []string
	faults int // that met one
}

// crash ends the process: every later call fails for ever.
func (c *client) crash() {
	c.once.Do(func() {
		close(c.dead)
		c.kill()
	})
}

func (c *client) crashed() bool { return closed(c.dead) }

// met reports whether a fault has met a call.
func (c *client) met() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.faults > 0
}

// log returns the calls so far.
func (c *client) log() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.calls...)
}

// count returns how many calls of op there were.
func (c *client) count(op string) (n int) {
	for _, o := range c.log() {
		n += b2i(o == op)
	}
	return n
}

// call performs one call of a store, with its fault.
func (c *client) call(op, what string, do func() error) error {
	if c.crashed() {
		return driver.ErrClosed
	}
	c.mu.Lock()
	c.calls = append(c.calls, op)
	f := none
	if c.plan != nil {
		f = c.plan(op)
	}
	c.faults += b2i(f != none)
	c.mu.Unlock()
	err := c.faulty(f, do)
	c.w.tell(c.name, op, what, f, err)
	return err
}

func (c *client) faulty(f fault, do func() error) error {
	switch f {
	case crashBefore:
		c.crash()
		return driver.ErrClosed
	case refused:
		return driver.Transient(errors.New("refused"))
	case itemRefused:
		return errItemRefused
	case late:
		c.stall()
	}
	err := do()
	switch f {
	case crashAfter:
		c.crash()
	case replyLost:
		if err == nil {
			err = errReplyLost
		}
	case stalled:
		c.stall()
	}
	if c.crashed() {
		return driver.ErrClosed
	}
	return err
}

// stall takes longer than a lease.
func (c *client) stall() {
	t := time.NewTimer(4 * c.w.lease / 3)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.dead:
	case <-c.over:
	}
}

// faultyBroker passes every call through its client's faults.
type faultyBroker struct {
	driver.Broker
	c *client
}

func (b *faultyBroker) Unwrap() any { return b.Broker }

func (b *faultyBroker) Covers(be driver.Backend) bool {
	inner, ok := driver.As[driver.Coverer](b.Broker)
	if fb, wrapped := be.(*faultyBackend); wrapped {
		be = fb.Backend
	}
	return ok && inner.Covers(be)
}

func (b *faultyBroker) Publish(ctx context.Context, msgs []*driver.Message) error {
	return perItem(b.c.call("publish", describe(msgs), func() error { return b.Broker.Publish(ctx, msgs) }), len(msgs))
}

func (b *faultyBroker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	s, err := b.Broker.Subscribe(ctx, o)
	if err != nil {
		return nil, err
	}
	return &faultySubscription{s, b.c}, nil
}

func (b *faultyBroker) DeadLetters(queue string) driver.DeadLetters {
	return &faultyDead{b.Broker.DeadLetters(queue), b.c}
}

// Close does nothing: the world closes what is open at its end.
func (b *faultyBroker) Close(context.Context) error { return nil }

type faultySubscription struct {
	driver.Subscription
	c *client
}

func (s *faultySubscription) Receive(ctx context.Context, max int) (ds []*driver.Delivery, err error) {
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
	s.c.w.hold(s.c, len(ds))
	if ferr := s.c.call("receive", describeDeliveries(ds), func() error { return err }); ferr != nil {
		if s.c.w.info.Lease == driver.LeaseSession && !s.c.crashed() {
			s.c.w.lose(s.c.broker.(*faultyBroker).Broker) // the session ends
		}
		return nil, ferr // what was claimed comes back when its lease runs out
	}
	return ds, err
}

func (s *faultySubscription) Settle(ctx context.Context, ss []driver.Settlement) error {
	return perItem(s.c.call("settle", describeSettlements(ss), func() error {
		err := s.Subscription.Settle(ctx, ss)
		s.c.w.hold(s.c, -len(ss))
		return err
	}), len(ss))
}

func (s *faultySubscription) Extend(ctx context.Context, ds []*driver.Delivery) error {
	return perItem(s.c.call("extend", describeDeliveries(ds), func() error { return s.Subscription.Extend(ctx, ds) }), len(ds))
}

func (s *faultySubscription) Stop(ctx context.Context) error {
	return s.c.call("stop", "", func() error { return s.Subscription.Stop(ctx) })
}

func (s *faultySubscription) Close(ctx context.Context) error {
	if s.c.crashed() {
		return driver.ErrClosed
	}
	return s.Subscription.Close(ctx)
}

type faultyDead struct {
	driver.DeadLetters
	c *client
}

func (d *faultyDead) Replay(ctx context.Context, keys []driver.DeadKey) (ms []*driver.Message, err error) {
	err = d.c.call("replay", fmt.Sprint(keys), func() error { ms, err = d.DeadLetters.Replay(ctx, keys); return err })
	return ms, err
}

// faultyBackend passes every call through its client's faults.
type faultyBackend struct {
	driver.Backend
	c *client
}

func (b *faultyBackend) Unwrap() any { return b.Backend }

func (b *faultyBackend) Start(ctx context.Context, ss []driver.Start) (gs []driver.Grant, err error) {
	for i := range ss {
		b.c.w.expect(!b.c.w.covered || ss[i].Delivery != nil, "a start of %s on a broker that covers the backend does not name its delivery", ss[i].ID)
	}
	err = b.c.call("start", describeStarts(ss), func() error { gs, err = b.Backend.Start(ctx, ss); return err })
	if err == errItemRefused {
		gs, err = make([]driver.Grant, len(ss)), nil
		for i := range gs {
			gs[i].Err = errItemRefused
		}
	}
	return gs, err
}

func (b *faultyBackend) Apply(ctx context.Context, us []driver.Update) error {
	return perItem(b.c.call("apply", describeUpdates(us), func() error { return b.Backend.Apply(ctx, us) }), len(us))
}

func (b *faultyBackend) Get(ctx context.Context, ids []string) (rs []*driver.Record, err error) {
	err = b.c.call("get", strings.Join(ids, " "), func() error { rs, err = b.Backend.Get(ctx, ids); return err })
	return rs, err
}

func (b *faultyBackend) Close(context.Context) error { return nil }

// step reports whether a call moves a task; heartbeats do not.
func step(op string) bool {
	switch op {
	case "publish", "receive", "start", "apply", "settle", "get", "replay":
		return true
	}
	return false
}

func describe(ms []*driver.Message) string {
	var b strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&b, "%s %d.%d", m.ID, m.Epoch, m.Seq)
		if m.Dead != nil {
			fmt.Fprintf(&b, " dead (%s)", m.Dead.Reason)
		}
		if m.Record != nil {
			fmt.Fprintf(&b, " with %s", m.Record.State)
		}
		if m.Repeat {
			b.WriteString(" repeated")
		}
		b.WriteString("; ")
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func describeDeliveries(ds []*driver.Delivery) string {
	var b strings.Builder
	for _, d := range ds {
		fmt.Fprintf(&b, "%s %d.%d count %d; ", d.ID, d.Epoch, d.Seq, d.Count)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func describeSettlements(ss []driver.Settlement) string {
	var b strings.Builder
	for _, s := range ss {
		what := "ack"
		if s.Action == driver.Release {
			what = "release"
		}
		fmt.Fprintf(&b, "%s %s %d.%d", what, s.Delivery.ID, s.Delivery.Epoch, s.Delivery.Seq)
		if s.Record != nil {
			fmt.Fprintf(&b, " with %s", s.Record.State)
		}
		if len(s.Then) > 0 {
			fmt.Fprintf(&b, " then %s", describe(s.Then))
		}
		b.WriteString("; ")
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func describeStarts(ss []driver.Start) string {
	var b strings.Builder
	for _, s := range ss {
		fmt.Fprintf(&b, "%s %d.%d count %d; ", s.ID, s.Epoch, s.Seq, s.Count)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func describeUpdates(us []driver.Update) string {
	var b strings.Builder
	for _, u := range us {
		fmt.Fprintf(&b, "%s %d.%d %s run %d; ", u.ID, u.Epoch, u.Seq, u.State, u.Run)
	}
	return strings.TrimSuffix(b.String(), "; ")
}
