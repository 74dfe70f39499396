package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var leaseMutants = []mutant{
	// Lease
	{"a dead worker's messages stay", "Broker/Lease/Crash", options(func(o *driver.SubscribeOptions) { o.Lease = driver.MaxLease })},
	{"leases run out early", "Broker/Lease/Crash", options(func(o *driver.SubscribeOptions) {
		if o.Lease > time.Second && o.Lease%time.Millisecond == 0 && o.Lease <= driver.MaxLease {
			o.Lease /= 2
		}
	})},
	{"a redelivery does not count", "Broker/Lease/Crash", received(func(_ *brokenSub, d *driver.Delivery) { d.Count = 1 + int(d.Deliveries) })},
	{"a hundredth message of a dead worker stays", "Broker/Lease/Crash", received(func(s *brokenSub, d *driver.Delivery) {
		if d.Count > 1 && d.ID == "task-100" {
			d.Count = 1
		}
	})},
	{"extending does nothing", "Broker/Lease/Extend", mutation{extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error { return ctx.Err() }}},
	{"extends the first hundred", "Broker/Lease/ExtendMany", mutation{extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error {
		err := s.Subscription.Extend(ctx, firstHundred(ds))
		errs := make([]error, len(ds))
		for i := range min(100, len(ds)) {
			errs[i] = driver.ItemError(err, i, min(100, len(ds)))
		}
		return driver.Batch(errs)
	}}},
	{"one lost delivery fails the whole extension", "Broker/Lease/ExtendMany", mutation{extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error {
		err := s.Subscription.Extend(ctx, ds)
		if err != nil && len(ds) > 1 {
			return driver.ErrLeaseLost
		}
		return err
	}}},
	{"an extension gives half a lease", "Broker/Lease/ExtendFull", mutation{
		close: func(b *broken, ctx context.Context) error { return nil },
		extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error {
			err := s.Subscription.Extend(ctx, ds)
			for _, d := range ds {
				s.b.shared.mu.Lock()
				key := fmt.Sprintf("extended %p", d)
				n, _ := s.b.shared.any[key].(int)
				s.b.shared.any[key] = n + 1
				s.b.shared.mu.Unlock()
				time.AfterFunc(s.o.Lease/2, func() {
					s.b.shared.mu.Lock()
					last := s.b.shared.any[key] == n+1
					s.b.shared.mu.Unlock()
					if last {
						s.Subscription.Settle(context.Background(), []driver.Settlement{{Delivery: d, Action: driver.Release}})
					}
				})
			}
			return err
		}}},
	{"takes a stale ack", "Broker/Lease/StaleAck", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		if len(ss) == 1 && ss[0].Action == driver.Ack && len(ss[0].Then) == 0 && ss[0].Record == nil && ss[0].Delivery.Handle != nil {
			return swallow(err, 1, driver.ErrLeaseLost)
		}
		return err
	}}},
	{"takes a stale release", "Broker/Lease/StaleRelease", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		if len(ss) == 1 && ss[0].Action == driver.Release && ss[0].Delay > 0 {
			return swallow(err, 1, driver.ErrLeaseLost)
		}
		return err
	}}},
	{"takes a stale extension", "Broker/Lease/StaleExtend", mutation{extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error {
		return swallow(s.Subscription.Extend(ctx, ds), len(ds), driver.ErrLeaseLost)
	}}},
	{"publishes what a stale settlement would", "Broker/Lease/StaleThen", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		for i := range ss {
			if errors.Is(driver.ItemError(err, i, len(ss)), driver.ErrLeaseLost) && ss[i].Record == nil && !rivals(ss) {
				s.b.Broker.Publish(ctx, ss[i].Then)
			}
		}
		return err
	}}},
	{"settles for another subscription", "Broker/Lease/Foreign", mutation{
		subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
			s, err := b.Broker.Subscribe(ctx, o)
			b.shared.mu.Lock()
			defer b.shared.mu.Unlock()
			subs, _ := b.shared.any["subs"].([]driver.Subscription)
			b.shared.any["subs"] = append(subs, s)
			return s, err
		},
		extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error {
			err := s.Subscription.Extend(ctx, ds)
			if len(ds) == 1 && ds[0].Count == 1 && ds[0].Handle != nil && errors.Is(driver.ItemError(err, 0, 1), driver.ErrLeaseLost) {
				s.b.shared.mu.Lock()
				defer s.b.shared.mu.Unlock()
				subs, _ := s.b.shared.any["subs"].([]driver.Subscription)
				for _, other := range subs {
					if other.Extend(ctx, ds) == nil {
						return nil
					}
				}
			}
			return err
		}}},
	{"settling again is no error", "Broker/Lease/SettleTwice", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		if len(ss) == 1 && len(ss[0].Then) == 0 && ss[0].Record == nil && ss[0].Delivery.Handle != nil {
			d := ss[0].Delivery
			s.b.shared.mu.Lock()
			defer s.b.shared.mu.Unlock()
			key := fmt.Sprintf("settled %p %p", s, d)
			if s.b.shared.any[key] != nil {
				return nil
			}
			if err == nil {
				s.b.shared.any[key] = true
			}
		}
		return err
	}}},
	{"Deliveries does not count", "Broker/Lease/Count", received(func(_ *brokenSub, d *driver.Delivery) {
		if d.Deliveries == 2 || d.Deliveries == 5 {
			d.Count -= int(d.Deliveries)
		}
	})},
	{"Copy changes with a redelivery", "Broker/Lease/Count", received(func(_ *brokenSub, d *driver.Delivery) {
		if d.Count > 4 && d.Deliveries == 2 {
			d.Copy += fmt.Sprint("-", d.Count)
		}
	})},
	{"giving back counts", "Broker/Lease/GiveBack", mutation{
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			for i := range ss {
				if ss[i].Action == driver.Release {
					s.b.shared.mu.Lock()
					n, _ := s.b.shared.any["back "+ss[i].Delivery.ID].(int)
					s.b.shared.any["back "+ss[i].Delivery.ID] = n + 1
					s.b.shared.mu.Unlock()
				}
			}
			return s.Subscription.Settle(ctx, ss)
		},
		receive: received(func(s *brokenSub, d *driver.Delivery) {
			s.b.shared.mu.Lock()
			defer s.b.shared.mu.Unlock()
			if n, _ := s.b.shared.any["back "+d.ID].(int); n > 8 {
				d.Count++
			}
		}).receive}},
	{"closing gives back uncounted", "Broker/Lease/Close", mutation{closeSub: func(s *brokenSub, ctx context.Context) error {
		s.b.shared.mu.Lock()
		ds, _ := s.b.shared.any[fmt.Sprintf("held %p", s)].([]*driver.Delivery)
		s.b.shared.mu.Unlock()
		for _, d := range ds {
			s.Subscription.Settle(ctx, []driver.Settlement{{Delivery: d, Action: driver.Release}})
		}
		return s.Subscription.Close(ctx)
	}, receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		s.b.shared.mu.Lock()
		key := fmt.Sprintf("held %p", s)
		held, _ := s.b.shared.any[key].([]*driver.Delivery)
		s.b.shared.any[key] = append(held, ds...)
		s.b.shared.mu.Unlock()
		return ds, err
	}}},
	{"takes another lease", "Broker/Lease/Mismatch", options(func(o *driver.SubscribeOptions) {
		if o.Lease == time.Minute {
			o.Lease = 30 * time.Second
		}
	})},
	{"a refused lease is stored all the same", "Broker/Lease/Mismatch", mutation{subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
		s, err := b.Broker.Subscribe(ctx, o)
		if errors.Is(err, driver.ErrLeaseMismatch) {
			c := *o
			c.Queues = o.Queues[:1]
			if s, err := b.Broker.Subscribe(ctx, &c); err == nil {
				s.Close(ctx)
			}
		}
		return s, err
	}}},
	{"Lost is closed while the delivery is held", "Broker/Lease/Lost", received(func(_ *brokenSub, d *driver.Delivery) {
		lost := make(chan struct{})
		close(lost)
		d.Lost = lost
	})},
	{"Lost is never closed", "Broker/Lease/Lost", received(func(_ *brokenSub, d *driver.Delivery) { d.Lost = make(chan struct{}) })},
	{"a crash brings settled messages back", "Broker/Lease/OneHolder", mutation{close: func(b *broken, ctx context.Context) error {
		b.shared.mu.Lock()
		m := b.shared.kept["acked"]
		delete(b.shared.kept, "acked")
		b.shared.mu.Unlock()
		if m != nil {
			b.Broker.Publish(ctx, []*driver.Message{m})
		}
		return b.Broker.Close(ctx)
	}, settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		if err == nil && s.o.Prefetch == 7 {
			s.b.shared.mu.Lock()
			s.b.shared.kept["acked"] = ss[0].Delivery.Message.Clone()
			s.b.shared.mu.Unlock()
		}
		return err
	}}},
	{"panics on a foreign handle", "Broker/Lease/Handle", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		for i := range ss {
			if h := ss[i].Delivery.Handle; h == nil || fmt.Sprintf("%T", h) == "string" {
				panic("not my handle")
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
}
