package conformance_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// delayed publishes with delays that f has changed, everywhere.
func delayed(f func(d time.Duration) time.Duration) mutation {
	return lossy(func(m *driver.Message) {
		if m.Delay > 0 {
			m.Delay = f(m.Delay)
		}
	})
}

func isRelease(s *driver.Settlement) bool { return s.Action == driver.Release }

// rivals reports whether ss is one of two settlements of a delivery whose
// messages have ids of their own.
func rivals(ss []driver.Settlement) bool {
	return len(ss) == 1 && len(ss[0].Then) == 1 && strings.HasSuffix(ss[0].Then[0].ID, "-"+ss[0].Delivery.ID)
}

var settleMutants = []mutant{
	{"looks whether it holds a delivery, and settles later", "Broker/Settle/Rivals", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if !rivals(ss) {
			return s.Subscription.Settle(ctx, ss)
		}
		if err := s.Subscription.Extend(ctx, []*driver.Delivery{ss[0].Delivery}); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
		return swallow(s.Subscription.Settle(ctx, ss), 1, driver.ErrLeaseLost)
	}}},
	{"ack does nothing", "Broker/Settle/Ack", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error { return ctx.Err() }}},
	{"an acknowledged message comes back after three leases", "Broker/Settle/Ack", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		if err == nil && len(ss) == 3 && ss[0].Action == driver.Ack && ss[2].Action == driver.Ack && ss[1].Then == nil {
			m := ss[0].Delivery.Message.Clone()
			m.Delay = 80 * time.Second
			s.b.Broker.Publish(ctx, []*driver.Message{m})
		}
		return err
	}}},
	{"a release waits for the lease", "Broker/Settle/Release", settling(func(one *driver.Settlement) {
		if isRelease(one) && one.Delay == 0 && one.Delivery.ReplyTo != "" {
			one.Delay = 10 * time.Second
		}
	})},
	{"a release loses the reply address", "Broker/Settle/Release", mutation{
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			for i := range ss {
				if isRelease(&ss[i]) {
					s.b.shared.mu.Lock()
					s.b.shared.any["released "+ss[i].Delivery.ID] = true
					s.b.shared.mu.Unlock()
				}
			}
			return s.Subscription.Settle(ctx, ss)
		},
		receive: received(func(s *brokenSub, d *driver.Delivery) {
			s.b.shared.mu.Lock()
			defer s.b.shared.mu.Unlock()
			if s.b.shared.any["released "+d.ID] != nil {
				d.ReplyTo = ""
			}
		}).receive}},
	{"a release ignores its delay", "Broker/Settle/ReleaseDelay", settling(func(one *driver.Settlement) {
		if isRelease(one) && one.Delay < time.Hour {
			one.Delay = 0
		}
	})},
	{"Then is forgotten", "Broker/Settle/Then", settling(func(one *driver.Settlement) { one.Then = nil })},
	{"Then goes to the queue of the settled message", "Broker/Settle/Then", settling(func(one *driver.Settlement) {
		one.Then = changed(one.Then, func(m *driver.Message) {
			if m.Dead == nil {
				m.Queue = one.Delivery.Queue
			}
		})
	})},
	{"Then ignores delays", "Broker/Settle/Then", settling(func(one *driver.Settlement) {
		one.Then = changed(one.Then, func(m *driver.Message) { m.Delay = 0 })
	})},
	{"a release forgets its Then", "Broker/Settle/Then", settling(func(one *driver.Settlement) {
		if isRelease(one) {
			one.Then = nil
		}
	})},
	{"the settled message's id is a duplicate in its own Then", "Broker/Settle/ThenSelf", settling(func(one *driver.Settlement) {
		one.Then = slices.DeleteFunc(slices.Clone(one.Then), func(m *driver.Message) bool { return m.ID == one.Delivery.ID && m.Dead == nil && m.Seq == 5 })
	})},
	{"a dead letter in Then loses its stack", "Broker/Settle/ThenDead", settling(func(one *driver.Settlement) {
		one.Then = changed(one.Then, func(m *driver.Message) {
			if m.Dead != nil {
				c := *m.Dead
				c.Stack = ""
				m.Dead = &c
			}
		})
	})},
	{"a Then that is alive is stored twice", "Broker/Settle/ThenAlive", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) == 1 && len(ss[0].Then) == 1 && ss[0].Then[0].Dead == nil && ss[0].Record == nil {
			m := ss[0].Then[0]
			if err := s.b.Broker.Publish(ctx, []*driver.Message{m}); errors.Is(err, driver.ErrDuplicate) && m.ID == ss[0].Delivery.ID {
				twin := m.Clone()
				twin.Epoch++
				s.b.Broker.Publish(ctx, []*driver.Message{twin})
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"a Then that is alive fails its settlement", "Broker/Settle/ThenAlive", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) == 1 && len(ss[0].Then) == 1 && ss[0].Then[0].Dead == nil && ss[0].Record == nil && ss[0].Then[0].Seq == 1 {
			twin := ss[0].Then[0].Clone()
			if err := s.b.Broker.Publish(ctx, []*driver.Message{twin}); errors.Is(err, driver.ErrDuplicate) {
				return driver.ErrDuplicate
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"an invalid Then is left out", "Broker/Settle/ThenInvalid", settling(func(one *driver.Settlement) {
		one.Then = slices.DeleteFunc(slices.Clone(one.Then), func(m *driver.Message) bool { return m.ID == "" || m.Queue == "" })
	})},
	{"an invalid Then fails the batch", "Broker/Settle/ThenInvalid", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		for i := range ss {
			for _, m := range ss[i].Then {
				if m.ID == "" {
					return errors.New("invalid")
				}
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"settles the first hundred", "Broker/Settle/Batch", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) < 200 {
			return s.Subscription.Settle(ctx, ss)
		}
		err := s.Subscription.Settle(ctx, ss[:100])
		errs := make([]error, len(ss))
		for i := range 100 {
			errs[i] = driver.ItemError(err, i, 100)
		}
		errs[130] = driver.ErrLeaseLost
		return driver.Batch(errs)
	}}},
	{"one lost delivery fails the whole batch", "Broker/Settle/Batch", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		if err != nil && len(ss) > 200 {
			return driver.ErrLeaseLost
		}
		return err
	}}},
	{"acknowledges before Then is stored", "Broker/Settle/Kill", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) != 1 || len(ss[0].Then) != 1 || ss[0].Then[0].Dead != nil || ss[0].Record != nil || ss[0].Then[0].Seq != 1 || ss[0].Then[0].Queue != "q" {
			return s.Subscription.Settle(ctx, ss)
		}
		bare := ss[0]
		bare.Then = nil
		if err := s.Subscription.Settle(ctx, []driver.Settlement{bare}); err != nil {
			return err
		}
		time.Sleep(time.Microsecond)
		return s.b.Broker.Publish(ctx, ss[0].Then)
	}}},
	{"says atomic, and publishes first", "Broker/Settle/Kill", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) != 1 || len(ss[0].Then) != 1 || ss[0].Then[0].Dead != nil || ss[0].Record != nil || ss[0].Then[0].Seq != 1 || ss[0].Then[0].Queue != "q" {
			return s.Subscription.Settle(ctx, ss)
		}
		if err := s.Subscription.Extend(ctx, []*driver.Delivery{ss[0].Delivery}); err != nil {
			return driver.ItemError(err, 0, 1)
		}
		if err := s.b.Broker.Publish(ctx, ss[0].Then); err != nil && !errors.Is(err, driver.ErrDuplicate) {
			return driver.ItemError(err, 0, 1)
		}
		time.Sleep(time.Microsecond)
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"loses one of many concurrent settlements", "Broker/Settle/Concurrent", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) == 1 && len(ss[0].Then) == 1 && ss[0].Then[0].Queue == "next" && !rivals(ss) {
			s.b.shared.mu.Lock()
			s.b.shared.count++
			lost := s.b.shared.count == 60
			s.b.shared.mu.Unlock()
			if lost {
				return nil
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"Stop ends Settle", "Broker/Settle/AfterStop", mutation{
		stop: func(s *brokenSub, ctx context.Context) error { s.n = -1; return s.Subscription.Stop(ctx) },
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			if s.n == -1 && len(ss) == 3 {
				return driver.ErrClosed
			}
			return s.Subscription.Settle(ctx, ss)
		}}},
	{"settles under a context that has ended", "Broker/Settle/Cancelled", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		return s.Subscription.Settle(context.WithoutCancel(ctx), ss)
	}}},
	{"extends under a context that has ended", "Broker/Settle/Cancelled", mutation{extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error {
		return s.Subscription.Extend(context.WithoutCancel(ctx), ds)
	}}},

	// Delay
	{"delays are early by a millisecond", "Broker/Delay/OnTime", delayed(func(d time.Duration) time.Duration { return d - time.Millisecond })},
	{"delays are seconds", "Broker/Delay/OnTime", delayed(func(d time.Duration) time.Duration {
		if d < 100*time.Millisecond {
			return d.Round(time.Second)
		}
		return d
	})},
	{"delays are late by a tenth", "Broker/Delay/OnTime", delayed(func(d time.Duration) time.Duration { return d + d/10 })},
	{"a long delay blocks a shorter one", "Broker/Delay/NoBlocking", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(ctx, changed(ms, func(m *driver.Message) {
			if len(ms) == 1 && m.Delay > 0 {
				b.shared.mu.Lock()
				defer b.shared.mu.Unlock()
				last, _ := b.shared.any["due"].(time.Time)
				due := time.Now().Add(m.Delay)
				if due.Before(last) {
					due = last
				}
				b.shared.any["due"], m.Delay = due, time.Until(due)
			}
		}))
	}}},
	{"a message that becomes due waits for the next publish", "Broker/Delay/Wakes", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		if len(ds) == 1 && len(s.o.Queues) == 1 && s.n == 0 && time.Now().UnixNano()%int64(30*time.Second) == 0 {
			time.Sleep(time.Second)
		}
		s.n++
		return ds, err
	}}},
	{"one of many delays is a second late", "Broker/Delay/Many", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 150 {
			ms = changed(ms, func(m *driver.Message) {
				if m.ID == ms[70].ID && m.Delay > 0 {
					m.Delay += time.Second
				}
			})
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"a delayed message to an unused queue is lost", "Broker/Delay/Virgin", mutation{
		subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
			b.shared.mu.Lock()
			for _, q := range o.Queues {
				b.shared.any["queue "+q.Name] = true
			}
			b.shared.mu.Unlock()
			return b.Broker.Subscribe(ctx, o)
		},
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			b.shared.mu.Lock()
			ms = slices.DeleteFunc(slices.Clone(ms), func(m *driver.Message) bool {
				return m.Delay > 0 && m.Queue != "q" && b.shared.any["queue "+m.Queue] == nil
			})
			b.shared.mu.Unlock()
			return b.Broker.Publish(ctx, ms)
		}}},
	{"delays have 32 bits", "Broker/Delay/Long", delayed(func(d time.Duration) time.Duration {
		return time.Duration(uint32(d.Milliseconds())) * time.Millisecond
	})},
	{"delays end after 49 days", "Broker/Delay/Long", delayed(func(d time.Duration) time.Duration { return min(d, 49*24*time.Hour) })},
	{"what is due later than can be told is due", "Broker/Delay/Longest", delayed(func(d time.Duration) time.Duration {
		if d > math.MaxInt64-time.Hour {
			return 0
		}
		return d
	})},
	{"a retry that is due later than can be told is due", "Broker/Delay/Longest", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		for i := range ss {
			for j, m := range ss[i].Then {
				if m.Delay == math.MaxInt64 {
					now := *m
					now.Delay, ss[i].Then = 0, slices.Clone(ss[i].Then)
					ss[i].Then[j] = &now
				}
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"a release that is due later than can be told is due", "Broker/Delay/Longest", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		for i := range ss {
			if ss[i].Delay == math.MaxInt64 {
				ss[i].Delay = 0
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"moves 500 due messages and forgets the others", "Broker/Delay/Herd", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) > 500 && ms[0].Delay > 0 {
			return b.Broker.Publish(ctx, ms[:500])
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"an ack leaves its message behind", "Broker/Store/Leftovers", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		s.b.shared.mu.Lock()
		left, _ := s.b.shared.any["left behind"].(int)
		s.b.shared.any["left behind"] = left + len(ss)
		s.b.shared.mu.Unlock()
		return s.Subscription.Settle(ctx, ss)
	}}},
}
