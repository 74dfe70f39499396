package contract

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// publishFirst makes a broker behave as one on RabbitMQ does: Then is
// published before the ack, nothing is deduplicated, and giving back is
// publishing again, under the same copy.
type publishFirst struct {
	driver.Broker
	shared *publishFirstState
}

// publishFirstState is what all clients of the store share.
type publishFirstState struct {
	mu     sync.Mutex
	last   int
	copies map[string]string // stored id → copy it was given back under
}

// inner returns a name of its own for each stored message, so that the store
// underneath takes two of one id.
func (p *publishFirst) inner(m *driver.Message, keep string) *driver.Message {
	p.shared.mu.Lock()
	defer p.shared.mu.Unlock()
	p.shared.last++
	c := m.Clone()
	c.ID = fmt.Sprintf("%s:pf%d", m.ID, p.shared.last)
	if keep != "" {
		p.shared.copies[c.ID] = keep
	}
	return c
}

func outer(id string) string {
	id, _, _ = strings.Cut(id, ":pf")
	return id
}

func (p *publishFirst) Info() driver.BrokerInfo {
	i := p.Broker.Info()
	i.Name, i.Settle, i.Dedup = "publish-first", driver.SettlePublishFirst, false
	return i
}

func (p *publishFirst) Publish(ctx context.Context, msgs []*driver.Message) error {
	inner := make([]*driver.Message, len(msgs))
	for i, m := range msgs {
		inner[i] = p.inner(m, "")
	}
	return p.Broker.Publish(ctx, inner)
}

func (p *publishFirst) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	s, err := p.Broker.Subscribe(ctx, o)
	return &publishFirstSubscription{s, p}, err
}

type publishFirstSubscription struct {
	driver.Subscription
	p *publishFirst
}

// held is the handle: the delivery underneath.
func held(d *driver.Delivery) *driver.Delivery { return d.Handle.(*driver.Delivery) }

func (s *publishFirstSubscription) Receive(ctx context.Context, max int) ([]*driver.Delivery, error) {
	ds, err := s.Subscription.Receive(ctx, max)
	out := make([]*driver.Delivery, len(ds))
	for i, d := range ds {
		c := *d
		c.ID, c.Handle = outer(d.ID), d
		s.p.shared.mu.Lock()
		if keep, ok := s.p.shared.copies[d.ID]; ok {
			c.Copy = keep
		}
		s.p.shared.mu.Unlock()
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
	var first []*driver.Message
	for _, m := range st.Then {
		first = append(first, s.p.inner(m, ""))
	}
	if st.Action == driver.Release {
		m := st.Delivery.Message
		m.Deliveries, m.Delay = uint32(st.Delivery.Count-1), st.Delay
		first = append(first, s.p.inner(&m, st.Delivery.Copy))
	}
	if len(first) > 0 {
		if err := s.p.Broker.Publish(ctx, first); err != nil {
			return driver.ItemError(err, 0, len(first))
		}
	}
	err := s.Subscription.Settle(ctx, []driver.Settlement{{Delivery: held(st.Delivery), Action: driver.Ack}})
	if err = driver.ItemError(err, 0, 1); len(first) > 0 && errors.Is(err, driver.ErrTransient) {
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
	return &publishFirstDead{p.Broker.DeadLetters(queue)}
}

// publishFirstDead treats the entries of one id and epoch as one.
type publishFirstDead struct{ driver.DeadLetters }

func (d *publishFirstDead) all(ctx context.Context) (ms []*driver.Message, err error) {
	for cursor := ""; ; {
		page, next, err := d.DeadLetters.List(ctx, cursor, 100)
		ms = append(ms, page...)
		if err != nil || next == "" {
			return ms, err
		}
		cursor = next
	}
}

func (d *publishFirstDead) List(ctx context.Context, _ string, _ int) ([]*driver.Message, string, error) {
	all, err := d.all(ctx)
	seen := map[driver.DeadKey]bool{}
	var out []*driver.Message
	for _, m := range all {
		m.ID = outer(m.ID)
		if !seen[m.Key()] {
			out = append(out, m)
		}
		seen[m.Key()] = true
	}
	return out, "", err
}

func (d *publishFirstDead) Get(ctx context.Context, id string) ([]*driver.Message, error) {
	all, _, err := d.List(ctx, "", 0)
	var out []*driver.Message
	for _, m := range all {
		if m.ID == id {
			out = append([]*driver.Message{m}, out...)
		}
	}
	return out, err
}

// Replay moves the first entry of each key and drops its twins.
func (d *publishFirstDead) Replay(ctx context.Context, keys []driver.DeadKey) (out []*driver.Message, err error) {
	for _, k := range keys {
		inner, err := d.entries(ctx, k)
		if err != nil || len(inner) == 0 {
			return out, err
		}
		ms, err := d.DeadLetters.Replay(ctx, inner[:1])
		if err != nil {
			return out, err
		}
		if _, err := d.DeadLetters.Delete(ctx, inner[1:]); err != nil {
			return out, err
		}
		for _, m := range ms {
			m.ID = outer(m.ID)
			out = append(out, m)
		}
	}
	return out, nil
}

func (d *publishFirstDead) entries(ctx context.Context, k driver.DeadKey) (inner []driver.DeadKey, err error) {
	all, err := d.all(ctx)
	for _, m := range all {
		if outer(m.ID) == k.ID && m.Epoch == k.Epoch {
			inner = append(inner, m.Key())
		}
	}
	return inner, err
}

func (d *publishFirstDead) Len(ctx context.Context) (int, error) {
	all, _, err := d.List(ctx, "", 0)
	return len(all), err
}

func (d *publishFirstDead) Purge(ctx context.Context, t time.Time) (int, error) {
	return d.DeadLetters.Purge(ctx, t)
}
