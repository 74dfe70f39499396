package conformance_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

// TestPublishFirst runs the suite on a broker that behaves as one on RabbitMQ.
func TestPublishFirst(t *testing.T) {
	t.Parallel()
	conformance.RunBroker(t, publishingFirst)
}

// TestLostConfirms runs cases on that broker where the first settlement of every
// message loses the confirmation of what it publishes, and so is not
// acknowledged.
func TestLostConfirms(t *testing.T) {
	t.Parallel()
	lossy := func(tb testing.TB) *conformance.Harness {
		h := publishingFirst(tb)
		open := h.OpenBroker
		h.OpenBroker = func(tb testing.TB, ns string) driver.Broker {
			b := open(tb, ns).(*publishFirst)
			b.losesConfirms = true
			return b
		}
		return h
	}
	for _, c := range conformance.Cases() {
		switch c.FullName() {
		case "App/Trace/OnceNeverRepublished", "App/Trace/DeadTwice", "App/Retry/Counts", "App/Mode/OnceRetries",
			"App/Faults/Retry", "App/Faults/Dead", "App/Faults/OnceRetry":
			t.Run(c.FullName(), func(t *testing.T) {
				t.Parallel()
				if failed, lines := conformance.Execute(t, &c, lossy); failed {
					t.Errorf("%s\ncontract: %s", strings.Join(lines, "\n"), c.Contract)
				}
			})
		}
	}
}

func publishingFirst(testing.TB) *conformance.Harness {
	messages, records := memory.New(), memory.New()
	shared := &publishFirstState{ids: map[string]string{}, copies: map[string]string{}, lost: map[string]bool{}}
	return &conformance.Harness{Bubble: true,
		OpenBroker: func(_ testing.TB, ns string) driver.Broker {
			return &publishFirst{Broker: messages.Broker(ns), shared: shared}
		},
		OpenBackend: func(_ testing.TB, ns string, _ driver.Broker) driver.Backend { return records.Backend(ns) },
	}
}

// publishFirst makes a broker behave as one on RabbitMQ does: Then is
// published before the ack, nothing is deduplicated, and giving back is
// publishing again, under the same copy.
type publishFirst struct {
	driver.Broker
	shared        *publishFirstState
	losesConfirms bool
}

// publishFirstState is what all clients of the store share.
type publishFirstState struct {
	mu     sync.Mutex
	ids    map[string]string // stored id → id
	copies map[string]string // stored id → copy it was given back under
	lost   map[string]bool   // stored ids whose first settlement lost its confirmation
}

// loses reports whether the confirmation of what id's settlement publishes is
// lost.
func (s *publishFirstState) loses(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.lost[id]
	s.lost[id] = true
	return !before
}

// inner returns a name of its own for each stored message, so that the store
// underneath takes two of one id.
func (p *publishFirst) inner(m *driver.Message, keep string) *driver.Message {
	p.shared.mu.Lock()
	defer p.shared.mu.Unlock()
	c := m.Clone()
	c.ID = fmt.Sprint("pf", len(p.shared.ids))
	p.shared.ids[c.ID] = m.ID
	if keep != "" {
		p.shared.copies[c.ID] = keep
	}
	return c
}

// outer returns the id of a stored message, and the copy it was given back
// under, if it was.
func (p *publishFirst) outer(id string) (outer, keep string) {
	p.shared.mu.Lock()
	defer p.shared.mu.Unlock()
	return p.shared.ids[id], p.shared.copies[id]
}

func (p *publishFirst) Info() driver.BrokerInfo {
	i := p.Broker.Info()
	i.Name, i.Settle, i.Dedup, i.FIFO = "publish-first", driver.SettlePublishFirst, false, false
	return i
}

func (p *publishFirst) Publish(ctx context.Context, msgs []*driver.Message) error {
	errs := make([]error, len(msgs))
	var inner []*driver.Message
	var places []int
	for i, m := range msgs {
		if errs[i] = cmp.Or(driver.CheckID(m.ID), driver.CheckQueue(m.Queue)); errs[i] == nil {
			inner, places = append(inner, p.inner(m, "")), append(places, i)
		}
	}
	err := p.Broker.Publish(ctx, inner)
	for j, i := range places {
		errs[i] = driver.ItemError(err, j, len(places))
	}
	if len(places) == 0 && err != nil {
		return err
	}
	return driver.Batch(errs)
}

func (p *publishFirst) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	s, err := p.Broker.Subscribe(ctx, o)
	if err != nil {
		return nil, err
	}
	return &publishFirstSubscription{Subscription: s, p: p}, nil
}

type publishFirstSubscription struct {
	driver.Subscription
	p  *publishFirst
	mu sync.Mutex // one settlement at a time: a rival must not publish
}

// held returns the delivery underneath.
func held(d *driver.Delivery) *driver.Delivery {
	inner, _ := d.Handle.(*driver.Delivery)
	if inner == nil {
		return &driver.Delivery{}
	}
	return inner
}

func (s *publishFirstSubscription) Receive(ctx context.Context, max int) ([]*driver.Delivery, error) {
	ds, err := s.Subscription.Receive(ctx, max)
	out := make([]*driver.Delivery, len(ds))
	for i, d := range ds {
		c := *d
		c.Message = *d.Message.Clone()
		c.Handle = d
		var keep string
		if c.ID, keep = s.p.outer(d.ID); keep != "" {
			c.Copy = keep
		}
		out[i] = &c
	}
	return out, err
}

func (s *publishFirstSubscription) Settle(ctx context.Context, ss []driver.Settlement) error {
	errs := make([]error, len(ss))
	for i, st := range ss {
		errs[i] = s.settle(ctx, st)
	}
	return driver.Batch(errs)
}

func (s *publishFirstSubscription) settle(ctx context.Context, st driver.Settlement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.Subscription.Extend(ctx, []*driver.Delivery{held(st.Delivery)}); err != nil {
		return driver.ItemError(err, 0, 1) // the session is known to be gone
	}
	then := st.Then
	if st.Action == driver.Release {
		m := st.Delivery.Message
		m.Deliveries, m.Delay = uint32(st.Delivery.Count-1), st.Delay
		then = append(then[:len(then):len(then)], &m)
	}
	for _, m := range then {
		if err := cmp.Or(driver.CheckID(m.ID), driver.CheckQueue(m.Queue)); err != nil {
			return err
		}
	}
	inner := make([]*driver.Message, len(then))
	for i, m := range then {
		keep := ""
		if i == len(st.Then) {
			keep = st.Delivery.Copy
		}
		inner[i] = s.p.inner(m, keep)
	}
	if err := s.p.Broker.Publish(ctx, inner); err != nil {
		return driver.ItemError(err, 0, len(inner))
	}
	if s.p.losesConfirms && len(inner) > 0 && s.p.shared.loses(held(st.Delivery).ID) {
		return errors.New("the confirmation was lost")
	}
	err := s.Subscription.Settle(ctx, []driver.Settlement{{Delivery: held(st.Delivery), Action: driver.Ack}})
	if err = driver.ItemError(err, 0, 1); len(inner) > 0 && errors.Is(err, driver.ErrTransient) {
		return fmt.Errorf("published, not acknowledged: %v", err) // something was applied
	}
	return err
}

func (s *publishFirstSubscription) Extend(ctx context.Context, ds []*driver.Delivery) error {
	inner := make([]*driver.Delivery, len(ds))
	for i, d := range ds {
		inner[i] = held(d)
	}
	return s.Subscription.Extend(ctx, inner)
}

func (p *publishFirst) DeadLetters(queue string) driver.DeadLetters {
	return &publishFirstDead{p.Broker.DeadLetters(queue), p}
}

// publishFirstDead treats the entries of one id and epoch as one.
type publishFirstDead struct {
	store driver.DeadLetters
	p     *publishFirst
}

// all returns the dead letters, and the stored keys of each.
func (d *publishFirstDead) all(ctx context.Context) (ms []*driver.Message, stored map[driver.DeadKey][]driver.DeadKey, err error) {
	stored = map[driver.DeadKey][]driver.DeadKey{}
	for cursor := ""; ; {
		page, next, err := d.store.List(ctx, cursor, 100)
		for _, m := range page {
			inner := m.Key()
			m.ID, _ = d.p.outer(m.ID)
			if stored[m.Key()] == nil {
				ms = append(ms, m)
			}
			stored[m.Key()] = append(stored[m.Key()], inner)
		}
		if err != nil || next == "" {
			return ms, stored, err
		}
		cursor = next
	}
}

func (d *publishFirstDead) List(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
	ms, _, err := d.all(ctx)
	from, _ := strconv.Atoi(cursor)
	if len(ms)-from <= limit {
		return ms[min(from, len(ms)):], "", err
	}
	return ms[from : from+limit], strconv.Itoa(from + limit), err
}

func (d *publishFirstDead) Get(ctx context.Context, id string) ([]*driver.Message, error) {
	ms, _, err := d.all(ctx)
	ms = slices.DeleteFunc(ms, func(m *driver.Message) bool { return m.ID != id })
	slices.SortFunc(ms, func(a, b *driver.Message) int { return int(b.Epoch) - int(a.Epoch) })
	return ms, err
}

// Replay moves the first entry of each key and drops its twins.
func (d *publishFirstDead) Replay(ctx context.Context, keys []driver.DeadKey) (out []*driver.Message, err error) {
	_, stored, err := d.all(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		inner := stored[k]
		if len(inner) == 0 {
			continue
		}
		ms, err := d.store.Replay(ctx, inner[:1])
		if err != nil {
			return out, err
		}
		if _, err := d.store.Delete(ctx, inner[1:]); err != nil {
			return out, err
		}
		for _, m := range ms {
			m.ID = k.ID
			out = append(out, m)
		}
	}
	return out, nil
}

func (d *publishFirstDead) Delete(ctx context.Context, keys []driver.DeadKey) (n int, err error) {
	_, stored, err := d.all(ctx)
	for _, k := range keys {
		if inner := stored[k]; err == nil && len(inner) > 0 {
			n++
			_, err = d.store.Delete(ctx, inner)
		}
	}
	return n, err
}

func (d *publishFirstDead) Purge(ctx context.Context, t time.Time) (int, error) {
	return d.store.Purge(ctx, t)
}

func (d *publishFirstDead) Len(ctx context.Context) (int, error) {
	ms, _, err := d.all(ctx)
	return len(ms), err
}
