package conformance_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

var matrix = flag.Bool("matrix", false, "run every case on every mutant, and ask for a mutant that only it kills of every case")

// A mutant is a driver that is broken in one way, and the case that finds it.
type mutant struct {
	name   string
	killer string // full name of the case
	m      mutation
}

// A mutation replaces methods of a correct driver. What is nil is left alone.
type mutation struct {
	info      func(driver.BrokerInfo) driver.BrokerInfo
	open      func(b *broken)
	publish   func(b *broken, ctx context.Context, ms []*driver.Message) error
	subscribe func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error)
	receive   func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error)
	settle    func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error
	extend    func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error
	setQueues func(s *brokenSub, ctx context.Context, qs []driver.QueueSpec) error
	stop      func(s *brokenSub, ctx context.Context) error
	closeSub  func(s *brokenSub, ctx context.Context) error
	close     func(b *broken, ctx context.Context) error
	dead      func(b *broken, l driver.DeadLetters, queue string) driver.DeadLetters
	namespace func(ns string) string
	covers    func(b *broken, be driver.Backend) bool
	wrap      func(b *broken) driver.Broker // adds or hides optional interfaces

	backendInfo func(driver.BackendInfo) driver.BackendInfo
	start       func(be *brokenBackend, ctx context.Context, ss []driver.Start) ([]driver.Grant, error)
	apply       func(be *brokenBackend, ctx context.Context, us []driver.Update) error
	get         func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error)
	del         func(be *brokenBackend, ctx context.Context, ids []string) (int, error)
	closeBE     func(be *brokenBackend, ctx context.Context) error
	notify      func(be *brokenBackend, n driver.Notifications) driver.Notifications
	backendNS   func(ns string) string
	wrapBackend func(be *brokenBackend) driver.Backend

	restart func(s *restartedStore) // if set, the store is durable
	server  bool                    // and a server
}

// shared is what the clients of one store of a mutant have in common.
type shared struct {
	mu    sync.Mutex
	count int
	kept  map[string]*driver.Message
	any   map[string]any

	ns      string          // the namespace
	clients []driver.Broker // of a server
}

func (m mutation) harness() conformance.NewHarness {
	return func(testing.TB) *conformance.Harness {
		store := memory.New()
		sh := &shared{kept: map[string]*driver.Message{}, any: map[string]any{}}
		h := &conformance.Harness{Bubble: true, Server: m.server,
			Size: func(testing.TB) int {
				sh.mu.Lock()
				defer sh.mu.Unlock()
				n, _ := sh.any["left behind"].(int)
				return n
			},
			OpenBroker: func(_ testing.TB, ns string) driver.Broker {
				if m.namespace != nil {
					ns = m.namespace(ns)
				}
				b := &broken{Broker: store.Broker(ns), m: &m, shared: sh}
				sh.mu.Lock()
				sh.ns = ns
				if m.server {
					sh.clients = append(sh.clients, b.Broker)
				}
				sh.mu.Unlock()
				if m.open != nil {
					m.open(b)
				}
				if m.wrap != nil {
					return m.wrap(b)
				}
				return b
			},
			OpenBackend: func(_ testing.TB, ns string, _ driver.Broker) driver.Backend {
				if m.backendNS != nil {
					ns = m.backendNS(ns)
				}
				be := &brokenBackend{Backend: store.Backend(ns), m: &m, shared: sh}
				sh.mu.Lock()
				sh.ns = ns
				sh.any["backend"] = be
				sh.mu.Unlock()
				if m.wrapBackend != nil {
					return m.wrapBackend(be)
				}
				return be
			},
		}
		if m.server {
			h.Outage = func(testing.TB, time.Duration) {} // one that takes no time
		}
		if m.restart != nil {
			h.Restart = func(testing.TB) {
				s := &restartedStore{sh, store.Broker(sh.ns), store.Backend(sh.ns)}
				defer s.broker.Close(context.Background())
				defer s.backend.Close(context.Background())
				m.restart(s)
			}
		}
		return h
	}
}

// broken is a broker with a mutation.
type broken struct {
	driver.Broker
	m      *mutation
	shared *shared
}

func (b *broken) Unwrap() any { return b.Broker }

func (b *broken) Covers(be driver.Backend) bool {
	if b.m.covers != nil {
		return b.m.covers(b, be)
	}
	inner, ok := driver.As[driver.Coverer](b.Broker)
	return ok && inner.Covers(be)
}

func (b *broken) Info() driver.BrokerInfo {
	i := b.Broker.Info()
	i.Durable = b.m.restart != nil
	if b.m.info != nil {
		return b.m.info(i)
	}
	return i
}

func (b *broken) Publish(ctx context.Context, ms []*driver.Message) error {
	if b.m.publish != nil {
		return b.m.publish(b, ctx, ms)
	}
	return b.Broker.Publish(ctx, ms)
}

func (b *broken) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	sub := b.Broker.Subscribe
	if b.m.subscribe != nil {
		sub = func(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
			return b.m.subscribe(b, ctx, o)
		}
	}
	s, err := sub(ctx, o)
	if err != nil {
		return nil, err
	}
	return &brokenSub{Subscription: s, b: b, o: o}, nil
}

func (b *broken) DeadLetters(queue string) driver.DeadLetters {
	l := b.Broker.DeadLetters(queue)
	if b.m.dead != nil {
		return b.m.dead(b, l, queue)
	}
	return l
}

func (b *broken) Close(ctx context.Context) error {
	if b.m.close != nil {
		return b.m.close(b, ctx)
	}
	return b.Broker.Close(ctx)
}

type brokenSub struct {
	driver.Subscription
	b *broken
	o *driver.SubscribeOptions
	n int
}

func (s *brokenSub) Receive(ctx context.Context, max int) ([]*driver.Delivery, error) {
	if s.b.m.receive != nil {
		return s.b.m.receive(s, ctx, max)
	}
	return s.Subscription.Receive(ctx, max)
}

func (s *brokenSub) Settle(ctx context.Context, ss []driver.Settlement) error {
	if s.b.m.settle != nil {
		return s.b.m.settle(s, ctx, ss)
	}
	return s.Subscription.Settle(ctx, ss)
}

func (s *brokenSub) Extend(ctx context.Context, ds []*driver.Delivery) error {
	if s.b.m.extend != nil {
		return s.b.m.extend(s, ctx, ds)
	}
	return s.Subscription.Extend(ctx, ds)
}

func (s *brokenSub) SetQueues(ctx context.Context, qs []driver.QueueSpec) error {
	if s.b.m.setQueues != nil {
		return s.b.m.setQueues(s, ctx, qs)
	}
	return s.Subscription.SetQueues(ctx, qs)
}

func (s *brokenSub) Stop(ctx context.Context) error {
	if s.b.m.stop != nil {
		return s.b.m.stop(s, ctx)
	}
	return s.Subscription.Stop(ctx)
}

func (s *brokenSub) Close(ctx context.Context) error {
	if s.b.m.closeSub != nil {
		return s.b.m.closeSub(s, ctx)
	}
	return s.Subscription.Close(ctx)
}

// brokenBackend is a backend with a mutation.
type brokenBackend struct {
	driver.Backend
	m      *mutation
	shared *shared
}

func (be *brokenBackend) Unwrap() any { return be.Backend }

func (be *brokenBackend) Info() driver.BackendInfo {
	i := be.Backend.Info()
	i.Durable = be.m.restart != nil
	if be.m.backendInfo != nil {
		return be.m.backendInfo(i)
	}
	return i
}

func (be *brokenBackend) Start(ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
	if be.m.start != nil {
		return be.m.start(be, ctx, ss)
	}
	return be.Backend.Start(ctx, ss)
}

func (be *brokenBackend) Apply(ctx context.Context, us []driver.Update) error {
	if be.m.apply != nil {
		return be.m.apply(be, ctx, us)
	}
	return be.Backend.Apply(ctx, us)
}

func (be *brokenBackend) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	if be.m.get != nil {
		return be.m.get(be, ctx, ids)
	}
	return be.Backend.Get(ctx, ids)
}

func (be *brokenBackend) Delete(ctx context.Context, ids []string) (int, error) {
	if be.m.del != nil {
		return be.m.del(be, ctx, ids)
	}
	return be.Backend.Delete(ctx, ids)
}

func (be *brokenBackend) Close(ctx context.Context) error {
	if be.m.closeBE != nil {
		return be.m.closeBE(be, ctx)
	}
	return be.Backend.Close(ctx)
}

func (be *brokenBackend) Notify(ctx context.Context) (driver.Notifications, error) {
	n, err := be.Backend.(driver.Notifier).Notify(ctx)
	if err == nil && be.m.notify != nil {
		n = be.m.notify(be, n)
	}
	return n, err
}

// TestMutants holds broken drivers to the suite: each must die in its named
// case.
func TestMutants(t *testing.T) {
	t.Parallel()
	cases := map[string]*conformance.Case{}
	for _, c := range conformance.Cases() {
		cases[c.FullName()] = &c
	}
	var mu sync.Mutex
	killed := map[string][]string{} // mutant → cases that kill it
	all := slices.Concat(publishMutants, receiveMutants, leaseMutants, settleMutants, deadMutants, restartMutants, subtleMutants, backendMutants, ageMutants, optionalMutants)
	t.Run("each", func(t *testing.T) {
		names := map[string]bool{}
		for _, m := range all {
			if names[m.name] {
				t.Errorf("two mutants are called %q", m.name)
			}
			names[m.name] = true
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				c := cases[m.killer]
				if c == nil {
					t.Fatalf("no case is called %s", m.killer)
				}
				failed, lines := conformance.Execute(t, c, m.m.harness())
				if !failed {
					t.Fatalf("survives %s", m.killer)
				}
				t.Logf("killed by %s: %s", m.killer, firstLine(lines))
				killers := []string{m.killer}
				if *matrix {
					killers = killersOf(t, m, cases)
				}
				mu.Lock()
				killed[m.name] = killers
				mu.Unlock()
			})
		}
	})
	t.Logf("%d mutants", len(all))
	if *matrix {
		uniqueness(t, cases, killed)
	}
}

func firstLine(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	first, _, _ := strings.Cut(lines[0], "\n")
	return first
}

// killersOf returns all cases, those of the app's faults excepted, that m dies
// in.
func killersOf(t *testing.T, m mutant, cases map[string]*conformance.Case) (killers []string) {
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		if strings.HasPrefix(name, "App/") && !strings.HasPrefix(name, "App/Cover/") {
			continue
		}
		if failed, _ := conformance.Execute(t, cases[name], m.m.harness()); failed {
			killers = append(killers, name)
		}
	}
	return killers
}

// uniqueness asks for a mutant that only it kills of every case about drivers,
// but for those of which it says why there is none.
func uniqueness(t *testing.T, cases map[string]*conformance.Case, killed map[string][]string) {
	unique := map[string]string{}
	for m, killers := range killed {
		if len(killers) == 1 {
			unique[killers[0]] = m
		}
	}
	var missing []string
	for name := range cases {
		if strings.HasPrefix(name, "App/") && !strings.HasPrefix(name, "App/Cover/") {
			continue
		}
		if _, why := notAlone[name]; unique[name] == "" && !why {
			missing = append(missing, name)
		} else if unique[name] != "" && why {
			t.Errorf("%s kills %q alone, and is said to kill none alone", name, unique[name])
		}
	}
	slices.Sort(missing)
	for _, name := range missing {
		var also []string
		for m, killers := range killed {
			if slices.Contains(killers, name) {
				if len(killers) > 3 {
					killers = []string{fmt.Sprint(len(killers), " cases")}
				}
				also = append(also, fmt.Sprintf("%s %v", m, killers))
			}
		}
		slices.Sort(also)
		t.Errorf("no mutant dies in %s alone; in it die %v", name, also)
	}
	t.Logf("%d of %d cases kill a mutant that no other case kills", len(unique), len(cases))
}
