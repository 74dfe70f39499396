package conformance_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var receiveMutants = []mutant{
	// Receive
	{"polls", "Broker/Receive/Notified", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		for {
			short, cancel := context.WithTimeout(ctx, time.Nanosecond)
			ds, err := s.Subscription.Receive(short, max)
			cancel()
			if len(ds) > 0 || ctx.Err() != nil || err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return ds, err
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}}},
	{"waits for what comes after it looked", "Broker/Receive/WakeRace", mutation{
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			err := b.Broker.Publish(ctx, ms)
			b.shared.ring()
			return err
		},
		receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
			if len(s.o.Queues) != 1 || s.o.Queues[0].Name != "ping" {
				return s.Subscription.Receive(ctx, max)
			}
			for {
				short, cancel := context.WithTimeout(ctx, time.Nanosecond)
				ds, err := s.Subscription.Receive(short, max)
				cancel()
				if len(ds) > 0 || ctx.Err() != nil || err != nil && !errors.Is(err, context.DeadlineExceeded) {
					return ds, err
				}
				time.Sleep(time.Nanosecond)
				select {
				case <-s.b.shared.bell():
				case <-ctx.Done():
				}
			}
		}}},
	{"a release wakes nobody", "Broker/Receive/WokenBy", settling(func(one *driver.Settlement) {
		if one.Action == driver.Release && one.Delay == 0 && one.Delivery.ReplyTo == "" && one.Delivery.Seq == 0 && !one.Delivery.Once && one.Delivery.ID == "task-1" {
			one.Delay = 60 * time.Millisecond
		}
	})},
	{"waits for more", "Broker/Receive/NoWait", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		if len(ds) > 0 && max == 10 {
			time.Sleep(200 * time.Millisecond)
		}
		return ds, err
	}}},
	{"ignores max", "Broker/Receive/Max", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		if max == 3 || max == 5 {
			max++
		}
		return s.Subscription.Receive(ctx, max)
	}}},
	{"returns nothing at all", "Broker/Receive/Max", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		if max == 11 {
			return nil, nil
		}
		return s.Subscription.Receive(ctx, max)
	}}},
	{"prefetch is per queue", "Broker/Receive/Credit", options(func(o *driver.SubscribeOptions) {
		if o.Prefetch == 4 && len(o.Queues) == 3 {
			o.Prefetch *= len(o.Queues)
		}
	})},
	{"prefetch has no bound", "Broker/Receive/Credit", options(func(o *driver.SubscribeOptions) {
		if o.Prefetch < 10 {
			o.Prefetch = 1000
		}
	})},
	{"a lost delivery keeps its credit", "Broker/Receive/CreditBack", mutation{
		receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
			if s.credit(0) <= 0 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			ds, err := s.Subscription.Receive(ctx, max)
			s.credit(-len(ds))
			return ds, err
		},
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			err := s.Subscription.Settle(ctx, ss)
			for i := range ss {
				if driver.ItemError(err, i, len(ss)) == nil {
					s.credit(1)
				}
			}
			return err
		}}},
	{"Receive ignores its context", "Broker/Receive/Cancelled", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		if _, ok := ctx.Deadline(); !ok {
			ctx = context.WithoutCancel(ctx)
		}
		return s.Subscription.Receive(ctx, max)
	}}},
	{"the end of the context is noticed late", "Broker/Receive/Cancelled", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		if errors.Is(err, context.Canceled) {
			time.Sleep(3 * time.Second)
		}
		return ds, err
	}}},
	{"cancellation beats a claimed delivery", "Broker/Receive/ClaimBeatsCancel", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		if _, bounded := ctx.Deadline(); ctx.Err() != nil && len(ds) > 0 && !bounded {
			return nil, ctx.Err()
		}
		return ds, err
	}}},
	{"two workers hold one message", "Broker/Receive/Share", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		if max == 7 {
			sh := s.b.shared
			sh.mu.Lock()
			defer sh.mu.Unlock()
			if sh.count++; sh.count == 40 && len(ds) > 0 {
				sh.any["twin"] = ds[0]
			}
			if twin, _ := sh.any["twin"].(*driver.Delivery); sh.count == 41 && twin != nil {
				ds = append(ds, twin)
			}
		}
		return ds, err
	}}},
	{"hands out in reverse order", "Broker/Receive/FIFO", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		if max == 8 {
			slices.Reverse(ds)
		}
		return ds, err
	}}},
	{"priorities are upside down", "Broker/Receive/Priority", lossy(func(m *driver.Message) {
		if len(m.Envelope) > 0 && m.Envelope[0] == 'e' && !m.Once && m.Epoch == 0 && m.Dead == nil && m.Seq == 0 && m.Queue == "q" {
			m.Priority = 9 - m.Priority
		}
	})},
	{"says more priorities than it has", "Broker/Receive/Priority", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(ctx, changed(ms, func(m *driver.Message) {
			if len(ms) == 20 {
				m.Priority = m.Priority / 4 * 4
			}
		}))
	}}},
	{"says two priorities", "Broker/Life/Info", info(func(i *driver.BrokerInfo) { i.Priorities = 2 })},
	{"wakes one worker where there is enough for all", "Broker/Receive/AllWake", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		if s.o.Prefetch == 1 && max == 1 && len(s.o.Queues) == 1 && s.o.Queues[0].Name == "q" {
			sh := s.b.shared
			sh.mu.Lock()
			sh.count++
			n := sh.count
			sh.mu.Unlock()
			if n == 8 {
				select {
				case <-time.After(20 * time.Second):
				case <-ctx.Done():
				}
			}
		}
		return s.Subscription.Receive(ctx, max)
	}}},
	{"an idle Receive returns early", "Broker/Receive/Empty", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		if max != 5 {
			return s.Subscription.Receive(ctx, max)
		}
		short, cancel := context.WithTimeout(ctx, 40*time.Second)
		defer cancel()
		ds, err := s.Subscription.Receive(short, max)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil, nil
		}
		return ds, err
	}}},

	// Queues
	{"sees a queue that is not its own", "Broker/Queues/Isolation", options(func(o *driver.SubscribeOptions) {
		if len(o.Queues) == 2 && o.Queues[0].Name == "queue-1" {
			o.Queues = append(o.Queues, driver.QueueSpec{Name: "queue-2"})
		}
	})},
	{"weights mean nothing", "Broker/Queues/Weights", options(func(o *driver.SubscribeOptions) {
		for i := range o.Queues {
			if o.Queues[i].Weight > 0 {
				o.Queues[i].Weight = 1
			}
		}
	})},
	{"the heaviest queue starves the others", "Broker/Queues/Weights", options(func(o *driver.SubscribeOptions) {
		if len(o.Queues) == 3 && o.Queues[0].Weight > 1 {
			o.Strict = true
		}
	})},
	{"strict order means nothing", "Broker/Queues/Strict", options(func(o *driver.SubscribeOptions) { o.Strict = false })},
	{"a paused queue goes on", "Broker/Queues/Pause", mutation{setQueues: func(s *brokenSub, ctx context.Context, qs []driver.QueueSpec) error {
		if len(qs) == 1 && qs[0].Name == "open" {
			qs = append(slices.Clone(qs), driver.QueueSpec{Name: "closed"})
		}
		return s.Subscription.SetQueues(ctx, qs)
	}}},
	{"resuming wakes nobody", "Broker/Queues/Pause", mutation{setQueues: func(s *brokenSub, ctx context.Context, qs []driver.QueueSpec) error {
		if len(qs) == 3 {
			go func() {
				time.Sleep(5 * time.Second)
				s.Subscription.SetQueues(ctx, qs)
			}()
			return nil
		}
		return s.Subscription.SetQueues(ctx, qs)
	}}},
	{"what was prefetched of a paused queue stays", "Broker/Queues/PauseGivesBack", prefetching()},
	{"without queues it takes from the old ones", "Broker/Queues/PauseAll", mutation{setQueues: func(s *brokenSub, ctx context.Context, qs []driver.QueueSpec) error {
		if len(qs) == 0 && s.b.Broker != nil && len(s.o.Queues) == 1 && s.o.Queues[0].Name == "q" {
			return s.b.Publish(ctx, nil)
		}
		return s.Subscription.SetQueues(ctx, qs)
	}}},
	{"takes any lease", "Broker/Queues/Refused", options(func(o *driver.SubscribeOptions) { o.Lease = min(o.Lease, driver.MaxLease) })},
	{"a queue may be given twice", "Broker/Queues/Refused", options(func(o *driver.SubscribeOptions) { o.Queues = slices.Compact(o.Queues) })},
	{"takes weights below zero", "Broker/Queues/Refused", options(func(o *driver.SubscribeOptions) {
		for i := range o.Queues {
			o.Queues[i].Weight = max(0, o.Queues[i].Weight)
		}
	})},
}
