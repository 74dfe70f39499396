package conformance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// BenchBroker measures a broker: publishing one by one and in batches, the
// cycle of publish, receive and settle from 1 and from 8 goroutines, and the
// time from a publish to the return of a Receive that waited for it.
func BenchBroker(b *testing.B, newHarness NewHarness) {
	for _, size := range []int{256, 16 << 10} {
		for _, batch := range []int{1, 100} {
			b.Run(fmt.Sprintf("Publish/batch=%d/bytes=%d", batch, size), func(b *testing.B) {
				k := newBench(b, newHarness)
				broker := k.broker()
				b.ResetTimer()
				for n := 0; n < b.N; n += batch {
					k.must(broker.Publish(k.Context(), k.batch(min(batch, b.N-n), size)), "publish")
				}
			})
		}
	}
	for _, workers := range []int{1, 8} {
		for _, batch := range []int{1, 64} {
			b.Run(fmt.Sprintf("Cycle/goroutines=%d/batch=%d", workers, batch), func(b *testing.B) { benchCycle(b, newHarness, workers, batch) })
		}
	}
	b.Run("WakeUp", func(b *testing.B) { benchWakeUp(b, newHarness) })
}

// BenchBackend measures a backend: a task's start and verdict one by one and in
// batches, reading, and the time from a verdict to its notification.
func BenchBackend(b *testing.B, newHarness NewHarness) {
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprintf("StartApply/batch=%d", batch), func(b *testing.B) { benchRecords(b, newHarness, batch) })
	}
	b.Run("Get/batch=100", func(b *testing.B) {
		k := newBench(b, newHarness)
		be := k.backend()
		var us []driver.Update
		var ids []string
		for range 100 {
			us = append(us, update(k.id(), driver.Success))
			ids = append(ids, us[len(us)-1].ID)
		}
		k.apply(be, us...)
		b.ResetTimer()
		for n := 0; n < b.N; n += len(ids) {
			if _, err := be.Get(k.Context(), ids); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Notify", func(b *testing.B) { benchNotify(b, newHarness) })
}

// newBench returns the C of a benchmark, on a store of its own, outside of
// bubbles.
func newBench(b *testing.B, newHarness NewHarness) *C {
	b.Helper()
	b.ReportAllocs()
	h := newHarness(b)
	h.Bubble, h.Lease = false, time.Minute
	return newC(b, h, newHarness)
}

func (c *C) batch(n, size int) []*driver.Message {
	ms := c.messages(n)
	for _, m := range ms {
		m.Envelope = make([]byte, size)
	}
	return ms
}

// benchCycle publishes with half of the goroutines and settles with the others.
func benchCycle(b *testing.B, newHarness NewHarness, goroutines, batch int) {
	k := newBench(b, newHarness)
	broker := k.broker()
	o := k.options()
	o.Prefetch, o.Slots = 4*batch, 4*batch
	share := (b.N + goroutines - 1) / goroutines
	var wg sync.WaitGroup
	b.ResetTimer()
	for g := range goroutines {
		s := k.subscribeAs(broker, o)
		wg.Go(func() {
			for n := 0; n < share; n += batch {
				ms := make([]*driver.Message, min(batch, share-n))
				for i := range ms {
					ms[i] = &driver.Message{ID: fmt.Sprintf("b%d-%d", g, n+i), Queue: q, Attempt: 1, Envelope: []byte("envelope")}
				}
				if err := broker.Publish(k.Context(), ms); err != nil {
					b.Error(err)
					return
				}
				for left := len(ms); left > 0; {
					ds, err := s.Receive(k.Context(), left)
					if err == nil {
						err = s.Settle(k.Context(), settlements(ds, driver.Ack))
					}
					if err != nil {
						b.Error(err)
						return
					}
					left -= len(ds)
				}
			}
		})
	}
	wg.Wait()
}

func benchWakeUp(b *testing.B, newHarness NewHarness) {
	k := newBench(b, newHarness)
	broker := k.broker()
	s := k.subscribe(broker)
	got := make(chan *driver.Delivery)
	ctx, cancel := context.WithCancel(k.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			ds, err := s.Receive(ctx, 1)
			if err != nil {
				return
			}
			got <- ds[0]
		}
	})
	b.ResetTimer()
	for range b.N {
		k.publish(broker, k.message())
		k.ack(s, <-got)
	}
	b.StopTimer()
	cancel()
	wg.Wait()
}

func benchRecords(b *testing.B, newHarness NewHarness, batch int) {
	k := newBench(b, newHarness)
	be := k.backend()
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		ss := make([]driver.Start, min(batch, b.N-n))
		us := make([]driver.Update, len(ss))
		for i := range ss {
			ss[i] = start(k.id(), "copy")
		}
		gs, err := be.Start(k.Context(), ss)
		if err != nil {
			b.Fatal(err)
		}
		for i := range us {
			us[i] = update(ss[i].ID, driver.Success)
			us[i].Run, us[i].TTL, us[i].Body = gs[i].Run, time.Minute, []byte("42")
		}
		k.apply(be, us...)
	}
}

func benchNotify(b *testing.B, newHarness NewHarness) {
	k := newBench(b, newHarness)
	be := k.backend()
	n, ok := driver.As[driver.Notifier](be)
	if !ok {
		b.Skip("the backend is no Notifier")
	}
	stream, err := n.Notify(k.Context())
	k.must(err, "notify")
	defer stream.Close()
	b.ResetTimer()
	for range b.N {
		id := k.id()
		k.must(stream.Watch(k.Context(), []string{id}), "watch")
		k.apply(be, update(id, driver.Success))
		if _, err := stream.Next(k.Context()); err != nil {
			b.Fatal(err)
		}
		stream.Unwatch([]string{id})
	}
}
