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

// lossy publishes messages that f has changed.
func lossy(f func(m *driver.Message)) mutation {
	return mutation{
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			return b.Broker.Publish(ctx, changed(ms, f))
		},
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			ss = slices.Clone(ss)
			for i := range ss {
				ss[i].Then = changed(ss[i].Then, f)
			}
			return s.Subscription.Settle(ctx, ss)
		},
	}
}

// changed returns copies of ms that f has changed.
func changed(ms []*driver.Message, f func(m *driver.Message)) []*driver.Message {
	out := make([]*driver.Message, len(ms))
	for i, m := range ms {
		c := *m
		f(&c)
		out[i] = &c
	}
	return out
}

// received hands out deliveries that f has changed.
func received(f func(s *brokenSub, d *driver.Delivery)) mutation {
	return mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		for _, d := range ds {
			f(s, d)
		}
		return ds, err
	}}
}

// settling settles as f has changed it.
func settling(f func(one *driver.Settlement)) mutation {
	return mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		ss = slices.Clone(ss)
		for i := range ss {
			f(&ss[i])
		}
		return s.Subscription.Settle(ctx, ss)
	}}
}

// options subscribes with options that f has changed.
func options(f func(o *driver.SubscribeOptions)) mutation {
	return mutation{subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
		c := *o
		c.Queues = slices.Clone(o.Queues)
		f(&c)
		return b.Broker.Subscribe(ctx, &c)
	}}
}

func info(f func(i *driver.BrokerInfo)) mutation {
	return mutation{info: func(i driver.BrokerInfo) driver.BrokerInfo { f(&i); return i }}
}

// swallow returns err without the errors that are target.
func swallow(err error, n int, target error) error {
	errs := make([]error, n)
	for i := range errs {
		if e := driver.ItemError(err, i, n); !errors.Is(e, target) {
			errs[i] = e
		}
	}
	return driver.Batch(errs)
}

// parts calls f for parts of n items, 100 at most.
func firstHundred[T any](items []T) []T { return items[:min(100, len(items))] }

// deadMutant wraps the dead letters.
func deadMutant(f func(b *broken, l *brokenDead)) mutation {
	return mutation{dead: func(b *broken, l driver.DeadLetters, queue string) driver.DeadLetters {
		d := &brokenDead{DeadLetters: l, b: b, queue: queue}
		f(b, d)
		return d
	}}
}

type brokenDead struct {
	driver.DeadLetters
	b      *broken
	queue  string
	list   func(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error)
	get    func(ctx context.Context, id string) ([]*driver.Message, error)
	replay func(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error)
	del    func(ctx context.Context, keys []driver.DeadKey) (int, error)
	purge  func(ctx context.Context, t time.Time) (int, error)
	size   func(ctx context.Context) (int, error)
}

func (d *brokenDead) List(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
	if d.list != nil {
		return d.list(ctx, cursor, limit)
	}
	return d.DeadLetters.List(ctx, cursor, limit)
}

func (d *brokenDead) Get(ctx context.Context, id string) ([]*driver.Message, error) {
	if d.get != nil {
		return d.get(ctx, id)
	}
	return d.DeadLetters.Get(ctx, id)
}

func (d *brokenDead) Replay(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error) {
	if d.replay != nil {
		return d.replay(ctx, keys)
	}
	return d.DeadLetters.Replay(ctx, keys)
}

func (d *brokenDead) Delete(ctx context.Context, keys []driver.DeadKey) (int, error) {
	if d.del != nil {
		return d.del(ctx, keys)
	}
	return d.DeadLetters.Delete(ctx, keys)
}

func (d *brokenDead) Purge(ctx context.Context, t time.Time) (int, error) {
	if d.purge != nil {
		return d.purge(ctx, t)
	}
	return d.DeadLetters.Purge(ctx, t)
}

func (d *brokenDead) Len(ctx context.Context) (int, error) {
	if d.size != nil {
		return d.size(ctx)
	}
	return d.DeadLetters.Len(ctx)
}

// pushing prefetches as a broker that pushes does, badly: what it holds and was
// not received is given back never, counted, or when f says.
func prefetching(giveBack bool) mutation {
	return mutation{
		receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
			sh := s.b.shared
			sh.mu.Lock()
			key := fmt.Sprintf("%p", s)
			held, _ := sh.any[key].([]*driver.Delivery)
			sh.mu.Unlock()
			if len(held) == 0 {
				ds, err := s.Subscription.Receive(ctx, s.o.Prefetch)
				if err != nil {
					return nil, err
				}
				held = ds
			}
			n := min(max, len(held))
			if max < 1 {
				return nil, errors.New("receive of none")
			}
			sh.mu.Lock()
			sh.any[key] = held[n:]
			sh.mu.Unlock()
			return held[:n:n], nil
		},
	}
}

var brokerMutants = []mutant{
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
	{"queue names have 199 bytes", "Broker/Names/Hostile", lossyQueue(func(s string) string { return s[:min(199, len(s))] })},
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
	{"what was prefetched of a paused queue stays", "Broker/Queues/PauseGivesBack", prefetching(false)},
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
		err := s.Subscription.Extend(ctx, ds)
		if len(ds) == 1 && ds[0].Count == 1 && ds[0].Handle != nil {
			if e := driver.ItemError(err, 0, 1); errors.Is(e, driver.ErrLeaseLost) && time.Now().Sub(time.UnixMilli(0)) > 0 {
				s.b.shared.mu.Lock()
				n := s.b.shared.count
				s.b.shared.count++
				s.b.shared.mu.Unlock()
				if n == 0 && ds[0].Queue == "q" && s.o.Prefetch == 100 && ds[0].ID == "task-1" {
					return nil
				}
			}
		}
		return err
	}}},
	{"publishes what a stale settlement would", "Broker/Lease/StaleThen", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		for i := range ss {
			if errors.Is(driver.ItemError(err, i, len(ss)), driver.ErrLeaseLost) && ss[i].Record == nil {
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

// lossyPublish is lossy on Publish alone.
func lossyPublish(f func(m *driver.Message)) mutation { return mutation{publish: lossy(f).publish} }

// lossyQueue changes queue names wherever they are used.
func lossyQueue(f func(string) string) mutation {
	m := lossy(func(m *driver.Message) { m.Queue = f(m.Queue) })
	m.subscribe = options(func(o *driver.SubscribeOptions) {
		for i := range o.Queues {
			o.Queues[i].Name = f(o.Queues[i].Name)
		}
	}).subscribe
	m.dead = func(b *broken, l driver.DeadLetters, queue string) driver.DeadLetters {
		return b.Broker.DeadLetters(f(queue))
	}
	return m
}
