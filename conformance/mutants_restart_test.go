package conformance_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
)

// restarting makes a durable store of memory, which forgets nothing when it
// restarts, except by what broken does.
func restarting(broken func(s *restartedStore)) mutation {
	return mutation{restart: broken}
}

// A restartedStore is what a restart finds: a client of its own, and what the
// clients before it did.
type restartedStore struct {
	*shared
	broker  driver.Broker
	backend driver.Backend
}

// take acknowledges n messages of a queue that are ready, and returns them.
func (s *restartedStore) take(queue string, n int) (ms []*driver.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	sub, err := s.broker.Subscribe(ctx, &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: queue}}, Prefetch: n, Slots: n, Lease: 30 * time.Second})
	if errors.Is(err, driver.ErrClosed) {
		return nil
	}
	if err != nil {
		panic(err)
	}
	defer sub.Close(context.Background())
	for len(ms) < n {
		ds, err := sub.Receive(ctx, n)
		if err != nil {
			return ms
		}
		for _, d := range ds {
			ms = append(ms, d.Message.Clone())
			sub.Settle(ctx, []driver.Settlement{{Delivery: d}})
		}
	}
	return ms
}

func (s *restartedStore) publish(ms ...*driver.Message) {
	s.broker.Publish(context.Background(), ms)
}

// remembering keeps the messages that were acknowledged.
func remembering(m mutation) mutation {
	m.settle = func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		s.b.shared.mu.Lock()
		for i := range ss {
			if ss[i].Action == driver.Ack && !ss[i].Delivery.Once {
				s.b.shared.kept[ss[i].Delivery.ID] = ss[i].Delivery.Message.Clone()
			}
		}
		s.b.shared.mu.Unlock()
		return s.Subscription.Settle(ctx, ss)
	}
	return m
}

// handingOut keeps what was handed out at most once.
func handingOut(m mutation) mutation {
	m.receive = func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		s.b.shared.mu.Lock()
		defer s.b.shared.mu.Unlock()
		s.b.shared.any["sub"], s.b.shared.any["held"] = s.Subscription, slices.Clone(ds)
		return ds, err
	}
	return m
}

var restartMutants = []mutant{
	{"a restart loses a message", "Broker/Life/Restart", restarting(func(s *restartedStore) { s.take("q", 1) })},
	{"a restart brings back what was acknowledged", "Broker/Life/Restart", remembering(restarting(func(s *restartedStore) {
		for _, m := range s.kept {
			s.publish(m)
		}
	}))},
	{"a restart loses the dead letters", "Broker/Life/Restart", restarting(func(s *restartedStore) {
		s.broker.DeadLetters("q").Purge(context.Background(), time.Time{})
	})},
	{"a restart forgets a field", "Broker/Life/RestartData", restarting(func(s *restartedStore) {
		for _, m := range s.take("q", 1000) {
			m.Deadline = 0
			s.publish(m)
		}
	})},
	{"a restart turns the line round", "Broker/Life/RestartData", restarting(func(s *restartedStore) {
		ms := s.take("q", 1000)
		slices.Reverse(ms)
		s.publish(ms...)
	})},
	{"a restart forgets why a letter is dead", "Broker/Life/RestartData", restarting(func(s *restartedStore) {
		l := s.broker.DeadLetters("q")
		ms, _, _ := l.List(context.Background(), "", 1000)
		l.Purge(context.Background(), time.Time{})
		for _, m := range ms {
			m.Dead.Reason = driver.ReasonLost
		}
		s.publish(ms...)
	})},
	{"a restart forgets what was handed out at most once", "Broker/Once/Restart", handingOut(restarting(func(s *restartedStore) {
		sub, _ := s.any["sub"].(driver.Subscription)
		held, _ := s.any["held"].([]*driver.Delivery)
		for _, d := range held {
			if d.Once {
				sub.Settle(context.Background(), []driver.Settlement{{Delivery: d, Action: driver.Release}})
			}
		}
	}))},
	{"a restart ends subscriptions", "Broker/Life/Reconnect", mutation{server: true, restart: func(s *restartedStore) {
		for _, b := range s.clients {
			b.Close(context.Background())
		}
	}}},
	{"a restart loses a record", "Backend/Life/Restart", restarting(func(s *restartedStore) {
		s.backend.Delete(context.Background(), []string{"done"})
	})},
	{"a restart loses control keys", "Backend/Life/Restart", restarting(func(s *restartedStore) {
		s.backend.(driver.Control).Remove(context.Background(), "paused/q")
	})},
}

// TestRestartable shows that what these mutants break is whole without them.
func TestRestartable(t *testing.T) {
	t.Parallel()
	for _, c := range conformance.Cases() {
		for _, name := range []string{"Broker/Life/Restart", "Broker/Life/RestartData", "Broker/Life/Reconnect", "Broker/Once/Restart", "Backend/Life/Restart"} {
			if c.FullName() != name {
				continue
			}
			m := restarting(func(*restartedStore) {})
			m.server = name == "Broker/Life/Reconnect"
			if failed, lines := conformance.Execute(t, &c, m.harness()); failed {
				t.Errorf("%s: %s", name, firstLine(lines))
			}
		}
	}
}
