package conformance_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

// A farServer is a store that can be away. Its leases stand still meanwhile,
// unless it is broken.
type farServer struct {
	mu   sync.Mutex
	away bool
	subs []*farSub
}

var errAway = driver.Transient(errors.New("away"))

func (s *farServer) call(do func() error) error {
	s.mu.Lock()
	away := s.away
	s.mu.Unlock()
	if away {
		return errAway
	}
	return do()
}

// outage is away for down, and extends what its clients hold, in their place.
func (s *farServer) outage(lease, down time.Duration, keep bool) {
	s.mu.Lock()
	s.away = true
	subs := slices.Clone(s.subs)
	s.mu.Unlock()
	for end := time.Now().Add(down); time.Now().Before(end); time.Sleep(lease / 5) {
		for _, sub := range subs {
			if keep {
				sub.keep()
			}
		}
	}
	s.mu.Lock()
	s.away = false
	s.mu.Unlock()
}

type farBroker struct {
	driver.Broker
	s *farServer
}

func (b *farBroker) Publish(ctx context.Context, ms []*driver.Message) error {
	return b.s.call(func() error { return b.Broker.Publish(ctx, ms) })
}

func (b *farBroker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	inner, err := b.Broker.Subscribe(ctx, o)
	sub := &farSub{Subscription: inner, s: b.s}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.subs = append(b.s.subs, sub)
	return sub, err
}

type farSub struct {
	driver.Subscription
	s    *farServer
	mu   sync.Mutex
	held []*driver.Delivery
}

func (s *farSub) Receive(ctx context.Context, max int) (ds []*driver.Delivery, err error) {
	err = s.s.call(func() error { ds, err = s.Subscription.Receive(ctx, max); return err })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, ds...)
	return ds, err
}

func (s *farSub) Settle(ctx context.Context, ss []driver.Settlement) error {
	return s.s.call(func() error { return s.Subscription.Settle(ctx, ss) })
}

func (s *farSub) Extend(ctx context.Context, ds []*driver.Delivery) error {
	return s.s.call(func() error { return s.Subscription.Extend(ctx, ds) })
}

func (s *farSub) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Subscription.Extend(context.Background(), s.held) // of clients that are gone: refused
}

func far(keep bool) conformance.NewHarness {
	return func(testing.TB) *conformance.Harness {
		store, server := memory.New(), &farServer{}
		return &conformance.Harness{Bubble: true, Server: true,
			OpenBroker: func(_ testing.TB, ns string) driver.Broker { return &farBroker{store.Broker(ns), server} },
			Outage:     func(_ testing.TB, down time.Duration) { server.outage(30*time.Second, down, keep) },
		}
	}
}

// TestOutage holds a server that is away for longer than a lease to the suite:
// it passes if its leases stand still, and is found if they do not.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, c := range conformance.Cases() {
		if c.FullName() != "Broker/Store/Outage" {
			continue
		}
		for name, keep := range map[string]bool{"leases stand still": true, "leases run out": false} {
			t.Run(name, func(t *testing.T) {
				if failed, lines := conformance.Execute(t, &c, far(keep)); failed == keep {
					t.Errorf("failed: %v, %q", failed, lines)
				}
			})
		}
	}
}
