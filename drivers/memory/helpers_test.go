package memory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

const lease = 30 * time.Second

// A pair is a broker that covers its backend, with one subscription to q.
type pair struct {
	t       testing.TB
	store   *memory.Store
	broker  *memory.Broker
	backend *memory.Backend
	sub     driver.Subscription
}

// open returns a new pair; without records its store has no backend.
func open(t testing.TB, records bool) *pair {
	t.Helper()
	p := &pair{t: t, store: memory.New()}
	p.broker = p.store.Broker("ns")
	t.Cleanup(func() { p.broker.Close(context.Background()) })
	if records {
		p.backend = p.store.Backend("ns")
		t.Cleanup(func() { p.backend.Close(context.Background()) })
	}
	p.sub = subscribe(t, p.broker, 100, "q")
	return p
}

func subscribe(t testing.TB, b driver.Broker, prefetch int, queues ...string) driver.Subscription {
	t.Helper()
	o := &driver.SubscribeOptions{Prefetch: prefetch, Slots: prefetch, Lease: lease}
	for _, q := range queues {
		o.Queues = append(o.Queues, driver.QueueSpec{Name: q})
	}
	sub, err := b.Subscribe(t.Context(), o)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	return sub
}

func message(id string) *driver.Message {
	return &driver.Message{ID: id, Queue: "q", Attempt: 1, Envelope: []byte("envelope of " + id)}
}

// tracked is message with its PENDING record.
func tracked(id string) *driver.Message {
	m := message(id)
	m.Record = &driver.Update{ID: id, Attempt: 1, State: driver.Pending}
	return m
}

func dead(id string, epoch uint32, at int64) *driver.Message {
	m := message(id)
	m.Epoch = epoch
	m.Dead = &driver.DeadInfo{Reason: driver.ReasonFailed, LastAt: at}
	return m
}

func (p *pair) publish(msgs ...*driver.Message) {
	p.t.Helper()
	if err := p.broker.Publish(p.t.Context(), msgs); err != nil {
		p.t.Fatalf("Publish: %v", err)
	}
}

// receive waits for a delivery, and returns up to n.
func receive(t testing.TB, sub driver.Subscription, n int) []*driver.Delivery {
	t.Helper()
	ds, err := sub.Receive(t.Context(), n)
	if err != nil {
		t.Fatalf("Receive: %v", err)
	}
	return ds
}

// nothing fails when sub hands something out.
func nothing(t testing.TB, sub driver.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	ds, err := sub.Receive(ctx, 10)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("received %v, %v, want nothing", ids(ds), err)
	}
}

// one receives a delivery, which must be there.
func (p *pair) one() *driver.Delivery {
	p.t.Helper()
	ds, err := p.sub.Receive(p.t.Context(), 1)
	if err != nil {
		p.t.Fatalf("Receive: %v", err)
	}
	return ds[0]
}

func (p *pair) none() {
	p.t.Helper()
	nothing(p.t, p.sub)
}

func (p *pair) settle(ss ...driver.Settlement) error {
	return p.sub.Settle(p.t.Context(), ss)
}

func (p *pair) ack(ds ...*driver.Delivery) {
	p.t.Helper()
	var ss []driver.Settlement
	for _, d := range ds {
		ss = append(ss, driver.Settlement{Delivery: d})
	}
	if err := p.settle(ss...); err != nil {
		p.t.Fatalf("Settle: %v", err)
	}
}

func (p *pair) apply(u driver.Update) error {
	return p.backend.Apply(p.t.Context(), []driver.Update{u})
}

func (p *pair) record(id string) *driver.Record {
	p.t.Helper()
	rs, err := p.backend.Get(p.t.Context(), []string{id})
	if err != nil {
		p.t.Fatalf("Get: %v", err)
	}
	return rs[0]
}

// state returns the state of id's record, empty if there is none.
func (p *pair) state(id string) driver.State {
	p.t.Helper()
	if r := p.record(id); r != nil {
		return r.State
	}
	return ""
}

func (p *pair) stats(queue string) driver.QueueStats {
	p.t.Helper()
	ss, err := p.broker.Inspect(p.t.Context(), []string{queue})
	if err != nil {
		p.t.Fatalf("Inspect: %v", err)
	}
	return ss[0]
}

func ids[T any](items []T) string {
	s := ""
	for _, it := range items {
		switch it := any(it).(type) {
		case *driver.Delivery:
			s += " " + it.ID
		case *driver.Message:
			s += fmt.Sprintf(" %s/%d", it.ID, it.Epoch)
		}
	}
	return s
}

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}
