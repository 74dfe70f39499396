package conformance_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var publishMutants = []mutant{
	// Publish
	{"loses the reply address", "Broker/Publish/RoundTrip", lossy(func(m *driver.Message) { m.ReplyTo = "" })},
	{"loses the deadline", "Broker/Publish/RoundTrip", lossy(func(m *driver.Message) { m.Deadline = 0 })},
	{"loses when a message was parked", "Broker/Publish/RoundTrip", lossy(func(m *driver.Message) { m.ParkedSince = 0 })},
	{"loses the attempt", "Broker/Publish/RoundTrip", lossy(func(m *driver.Message) { m.Attempt = 1 })},
	{"loses the flag Once", "Broker/Once/Counted", lossy(func(m *driver.Message) { m.Once = false })},
	{"hands out Repeat", "Broker/Publish/Repeat", mutation{
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			for _, m := range ms {
				b.shared.mu.Lock()
				b.shared.kept[m.ID] = m
				b.shared.mu.Unlock()
			}
			return b.Broker.Publish(ctx, ms)
		},
		receive: received(func(s *brokenSub, d *driver.Delivery) {
			s.b.shared.mu.Lock()
			defer s.b.shared.mu.Unlock()
			if m := s.b.shared.kept[d.ID]; m != nil {
				d.Repeat = m.Repeat
			}
		}).receive}},
	{"stores the first hundred of a batch", "Broker/Publish/Batch", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(ctx, firstHundred(ms))
	}}},
	{"stores the 101st message of a batch twice", "Broker/Publish/Batch", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		err := b.Broker.Publish(ctx, ms)
		if err == nil && len(ms) > 100 {
			twin := ms[100].Clone()
			twin.Epoch++
			b.Broker.Publish(ctx, []*driver.Message{twin})
		}
		return err
	}}},
	{"an empty batch is an error", "Broker/Publish/Batch", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 0 {
			return errors.New("nothing to publish")
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"a batch goes to the queue of its first message", "Broker/Publish/Queues", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(ctx, changed(ms, func(m *driver.Message) {
			if len(ms) > 100 && m.Dead == nil && len(m.Queue) == 1 {
				m.Queue = ms[0].Queue
			}
		}))
	}}},
	{"a refused message refuses its batch", "Broker/Publish/PerItem", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if err := b.Broker.Publish(ctx, ms); err == nil || len(ms) < 100 {
			return err
		}
		return driver.ErrDuplicate
	}}},
	{"errors of a batch are in the wrong place", "Broker/Publish/PerItem", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		err := b.Broker.Publish(ctx, ms)
		var be *driver.BatchError
		if len(ms) > 100 && errors.As(err, &be) {
			slices.Reverse(be.Errs)
		}
		return err
	}}},
	{"cuts envelopes at 2 MiB", "Broker/Publish/Oversize", lossy(func(m *driver.Message) { m.Envelope = m.Envelope[:min(2<<20, len(m.Envelope))] })},
	{"says a limit that it does not keep", "Broker/Publish/Oversize", info(func(i *driver.BrokerInfo) { i.MaxMessage = 3 << 20 })},
	{"an oversized message is refused as any error", "Broker/Publish/Oversize", mutation{
		info: func(i driver.BrokerInfo) driver.BrokerInfo { i.MaxMessage = 3 << 20; return i },
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			for _, m := range ms {
				if len(m.Envelope) > 3<<20 {
					return errors.New("too much")
				}
			}
			return b.Broker.Publish(ctx, ms)
		}}},
	{"a duplicate is no error", "Broker/Publish/Duplicate", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		err := b.Broker.Publish(ctx, ms)
		if len(ms) > 2 {
			return err
		}
		return swallow(err, len(ms), driver.ErrDuplicate)
	}}},
	{"takes duplicates", "Broker/Publish/Duplicate", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		err := b.Broker.Publish(ctx, ms)
		for i, m := range ms {
			if errors.Is(driver.ItemError(err, i, len(ms)), driver.ErrDuplicate) && m.Dead == nil && len(ms) < 3 {
				twin := m.Clone()
				twin.Epoch += 7
				b.Broker.Publish(ctx, []*driver.Message{twin})
			}
		}
		return err
	}}},
	{"forgets the ids of dead letters", "Broker/Publish/Duplicate", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		err := b.Broker.Publish(ctx, ms)
		if len(ms) == 1 && errors.Is(driver.ItemError(err, 0, 1), driver.ErrDuplicate) && ms[0].Dead == nil {
			l := b.Broker.DeadLetters(ms[0].Queue)
			if got, _ := l.Get(ctx, ms[0].ID); len(got) > 0 && got[0].Epoch == ms[0].Epoch {
				return nil
			}
		}
		return err
	}}},
	{"a repeat is a duplicate", "Broker/Publish/Repeat", lossyPublish(func(m *driver.Message) { m.Repeat = m.Repeat && m.Record != nil })},
	{"a repeat is never stored", "Broker/Publish/Repeat", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		ms = slices.DeleteFunc(slices.Clone(ms), func(m *driver.Message) bool { return m.Repeat && m.Record == nil })
		return b.Broker.Publish(ctx, ms)
	}}},
	{"remembers ids after the ack", "Broker/Publish/Again", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 1 && ms[0].Dead == nil {
			b.shared.mu.Lock()
			key := fmt.Sprint(ms[0].ID, ms[0].Version(), string(ms[0].Envelope))
			seen := b.shared.kept[key] != nil
			b.shared.kept[key] = ms[0]
			b.shared.mu.Unlock()
			if seen && !ms[0].Repeat && b.Broker.Publish(ctx, ms) == nil {
				return driver.ErrDuplicate
			}
			if seen {
				return nil
			}
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"a copy has the name of its task", "Broker/Publish/Again", received(func(_ *brokenSub, d *driver.Delivery) {
		d.Copy = fmt.Sprint("copy of ", d.ID, d.Version())
	})},
	{"a newer version is a duplicate", "Broker/Publish/Newer", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 1 && ms[0].Seq == 1 && ms[0].Dead == nil && ms[0].Epoch == 0 && ms[0].Attempt == 1 {
			b.shared.mu.Lock()
			b.shared.count++
			first := b.shared.count == 1
			b.shared.mu.Unlock()
			if first {
				return driver.ErrDuplicate
			}
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"keeps the caller's memory", "Broker/Publish/Retention", mutation{
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			b.shared.mu.Lock()
			for _, m := range ms {
				if m.Dead == nil && !m.Once && m.Epoch == 0 {
					b.shared.kept[m.ID] = m
				}
			}
			b.shared.mu.Unlock()
			return b.Broker.Publish(ctx, ms)
		},
		receive: received(func(s *brokenSub, d *driver.Delivery) {
			s.b.shared.mu.Lock()
			defer s.b.shared.mu.Unlock()
			if m := s.b.shared.kept[d.ID]; m != nil && d.Seq == 0 && d.Epoch == 0 && m.Seq == 0 && len(m.Envelope) == len(d.Envelope) && strings.HasPrefix(string(d.Envelope), "envelope of") {
				d.Envelope = m.Envelope
			}
		}).receive}},
	{"hands out the memory of dead letters", "Broker/Publish/Retention", deadMutant(func(b *broken, l *brokenDead) {
		l.list = func(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
			ms, next, err := l.DeadLetters.List(ctx, cursor, limit)
			b.shared.mu.Lock()
			defer b.shared.mu.Unlock()
			for i, m := range ms {
				if k := b.shared.kept["dead "+m.ID]; k != nil && k.Epoch == m.Epoch {
					ms[i] = k
				} else {
					b.shared.kept["dead "+m.ID] = m
				}
			}
			return ms, next, err
		}
	})},
	{"publishes under a context that has ended", "Broker/Publish/Cancelled", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(context.WithoutCancel(ctx), ms)
	}}},
	{"a publish forgets its message with its context", "Broker/Publish/Cancelled", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if err := b.Broker.Publish(ctx, ms); err != nil || len(ms) != 1 {
			return err
		}
		context.AfterFunc(ctx, func() {
			sub, err := b.Broker.Subscribe(context.Background(), &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: ms[0].Queue}}, Slots: 1, Prefetch: 1, Lease: 30 * time.Second})
			if err != nil {
				return
			}
			soon, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			if ds, _ := sub.Receive(soon, 1); len(ds) > 0 {
				sub.Settle(context.Background(), []driver.Settlement{{Delivery: ds[0]}})
			}
		})
		return nil
	}}},
	{"loses a message of concurrent publishes", "Broker/Publish/Concurrent", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 2 && strings.HasPrefix(ms[0].ID, "p") {
			b.shared.mu.Lock()
			b.shared.count++
			lost := b.shared.count == 200
			b.shared.mu.Unlock()
			if lost {
				return b.Broker.Publish(ctx, ms[:1])
			}
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"takes any id", "Broker/Publish/Invalid", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(ctx, changed(ms, func(m *driver.Message) { m.ID = strings.ReplaceAll(m.ID, " ", "_") }))
	}}},
	{"an invalid message is a duplicate", "Broker/Publish/Invalid", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		err := b.Broker.Publish(ctx, ms)
		var be *driver.BatchError
		if errors.As(err, &be) {
			for i, m := range ms {
				if driver.CheckID(m.ID) != nil {
					be.Errs[i] = driver.ErrDuplicate
				}
			}
		}
		return err
	}}},

	// Data and names
	{"cuts envelopes at a zero byte", "Broker/Data/Envelope", lossy(func(m *driver.Message) {
		if i := strings.IndexByte(string(m.Envelope), 0); i >= 0 && !m.Once {
			m.Envelope = m.Envelope[:i]
		}
	})},
	{"cuts envelopes at 64 KiB", "Broker/Data/Envelope", lossy(func(m *driver.Message) {
		if len(m.Envelope) == 1<<20 {
			m.Envelope = m.Envelope[:64<<10]
		}
	})},
	{"an empty envelope is refused", "Broker/Data/Envelope", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 1 && ms[0].Envelope != nil && len(ms[0].Envelope) == 0 {
			return errors.New("empty")
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"ids do not differ in case", "Broker/Data/IDs", lossy(func(m *driver.Message) { m.ID = strings.ToLower(m.ID) })},
	{"ids are cut at 127 bytes", "Broker/Data/IDs", lossy(func(m *driver.Message) { m.ID = m.ID[:min(127, len(m.ID))] })},
	{"seq has 16 bits", "Broker/Data/Numbers", lossy(func(m *driver.Message) { m.Seq &= 0xffff })},
	{"times have 53 bits", "Broker/Data/Numbers", lossy(func(m *driver.Message) { m.Deadline &= 1<<53 - 1 })},
	{"Count has 31 bits, signed", "Broker/Data/Numbers", received(func(_ *brokenSub, d *driver.Delivery) {
		if d.Count > 1<<30 {
			d.Count = 1
		}
	})},
	{"queue names do not differ in case", "Broker/Names/Hostile", lossyQueue(strings.ToLower)},
	{"queue names are trimmed", "Broker/Names/Hostile", lossyQueue(func(s string) string { return cmp.Or(strings.TrimSpace(s), s) })},
	{"queue names end at a zero byte", "Broker/Names/Hostile", lossyQueue(func(s string) string {
		if i := strings.IndexByte(s, 0); i > 0 {
			return s[:i]
		}
		return s
	})},
	{"queue names have 199 bytes", "Broker/Names/Hostile", lossyQueue(func(s string) string {
		if strings.HasSuffix(s, "n") {
			return s[:min(199, len(s))]
		}
		return s
	})},
	{"takes any queue name", "Broker/Names/Invalid", options(func(o *driver.SubscribeOptions) {
		if len(o.Queues) == 1 && len(o.Queues[0].Name) > 200 {
			o.Queues[0].Name = o.Queues[0].Name[:200]
		}
	})},
	{"namespaces share everything", "Broker/Names/Namespaces", mutation{namespace: func(ns string) string {
		if ns == "one" || ns == "two" {
			return "all"
		}
		return ns
	}}},
}
