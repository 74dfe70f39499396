package conformance_test

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// stillInspecting answers Inspect after Close, with zeros.
type stillInspecting struct{ *broken }

func (s stillInspecting) Queues(ctx context.Context) ([]string, error) {
	return s.Broker.(driver.Inspector).Queues(ctx)
}

func (s stillInspecting) Inspect(ctx context.Context, queues []string) ([]driver.QueueStats, error) {
	ss, err := s.Broker.(driver.Inspector).Inspect(ctx, queues)
	if errors.Is(err, driver.ErrClosed) {
		return make([]driver.QueueStats, len(queues)), nil
	}
	return ss, err
}

// stillNotifying opens notifications after Close.
type stillNotifying struct{ *brokenBackend }

func (s stillNotifying) Notify(ctx context.Context) (driver.Notifications, error) {
	n, err := s.brokenBackend.Notify(ctx)
	if errors.Is(err, driver.ErrClosed) {
		return nil, nil
	}
	return n, err
}

// subtleMutants are those that earlier cases let pass.
var subtleMutants = []mutant{
	{"a purge takes a message of another queue along", "Broker/Purger/Purge", counted(func(c *counting) {
		c.purge = func(ids []string) []string {
			s := &restartedStore{c.shared, c.Broker, nil}
			s.take("other", 1)
			return ids
		}
	})},
	{"covers the backends of other stores", "App/Cover/Foreign", mutation{covers: func(b *broken, be driver.Backend) bool {
		inner, _ := driver.As[driver.Coverer](b.Broker)
		if inner.Covers(be) {
			return true
		}
		other, ok := be.(*brokenBackend)
		return ok && other.shared != b.shared && other.shared.ns == "conformance"
	}}},
	{"a verdict beside another is an accident", "Backend/Record/Concurrent", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		err := be.Backend.Apply(ctx, us)
		if len(us) == 1 && len(us[0].Body) > 0 && us[0].State == driver.Success && errors.Is(driver.ItemError(err, 0, 1), driver.ErrStale) && us[0].Run > 2 {
			return driver.Transient(errors.New("busy"))
		}
		return err
	}}},
	{"an extension soon after another does nothing", "Broker/Lease/ExtendFull", mutation{extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error {
		s.b.shared.mu.Lock()
		last, _ := s.b.shared.any["extended"].(time.Time)
		s.b.shared.any["extended"] = time.Now()
		s.b.shared.mu.Unlock()
		if since := time.Since(last); len(ds) == 1 && since > time.Second && since < 7*time.Second {
			return nil
		}
		return s.Subscription.Extend(ctx, ds)
	}}},
	{"keeps the memory of Then", "Broker/Publish/Retention", mutation{
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			s.b.shared.mu.Lock()
			for _, one := range ss {
				for _, m := range one.Then {
					s.b.shared.kept["then "+m.ID] = m
				}
			}
			s.b.shared.mu.Unlock()
			return s.Subscription.Settle(ctx, ss)
		},
		receive: received(func(s *brokenSub, d *driver.Delivery) {
			s.b.shared.mu.Lock()
			defer s.b.shared.mu.Unlock()
			if m := s.b.shared.kept["then "+d.ID]; m != nil && m.ReplyTo == "changed" {
				d.Envelope = bytes.Clone(m.Envelope)
			}
		}).receive}},
	{"inspects after Close", "Broker/Life/Closed", mutation{wrap: func(b *broken) driver.Broker { return stillInspecting{b} }}},
	{"notifies after Close", "Backend/Life/Closed", mutation{wrapBackend: func(be *brokenBackend) driver.Backend { return stillNotifying{be} }}},
	{"SetQueues forgets weights", "Broker/Queues/Weights", mutation{setQueues: func(s *brokenSub, ctx context.Context, qs []driver.QueueSpec) error {
		plain := append([]driver.QueueSpec(nil), qs...)
		for i := range plain {
			plain[i].Weight = min(plain[i].Weight, 0)
		}
		return s.Subscription.SetQueues(ctx, plain)
	}}},
	{"SetQueues takes anything", "Broker/Queues/Refused", mutation{setQueues: func(s *brokenSub, ctx context.Context, qs []driver.QueueSpec) error {
		err := s.Subscription.SetQueues(ctx, qs)
		if err != nil && !errors.Is(err, driver.ErrClosed) && ctx.Err() == nil {
			return nil
		}
		return err
	}}},
}
