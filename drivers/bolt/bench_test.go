package bolt_test

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
	"github.com/google/uuid"
)

func BenchmarkConformance(b *testing.B) {
	conformance.BenchBroker(b, both.harness(false))
	conformance.BenchBackend(b, both.harness(false))
}

// BenchmarkCycle publishes and settles no-op tasks with records, each call
// awaited, from as many producers as consumers. Beside it: what it would be if
// nothing were to do but to write the same values; and what the disk allows, the
// same number of goroutines that write one value each. The first two count
// tasks, the third operations.
func BenchmarkCycle(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%dP%dC", n, n), func(b *testing.B) { cycle(b, n) })
		b.Run(fmt.Sprintf("steps/%dP%dC", n, n), func(b *testing.B) { steps(b, n) })
		b.Run(fmt.Sprintf("raw/%d", 2*n), func(b *testing.B) { raw(b, 2*n) })
	}
}

func cycle(b *testing.B, n int) {
	p := newPair(b, nil)
	body := make([]byte, 256)
	var left, settled atomic.Int64
	left.Store(int64(b.N))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ResetTimer()
	begin := time.Now()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				m := tracked(uuid.Must(uuid.NewV7()).String())
				m.Envelope = body
				if err := p.broker.Publish(ctx, []*driver.Message{m}); err != nil {
					b.Error(err)
				}
			}
		})
		sub := subscribe(b, p.broker, 2)
		wg.Go(func() { consume(ctx, cancel, b, sub, &settled) })
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "tasks/s")
}

func consume(ctx context.Context, cancel func(), b *testing.B, sub driver.Subscription, settled *atomic.Int64) {
	result := make([]byte, 32)
	for ctx.Err() == nil {
		ds, err := sub.Receive(ctx, 1)
		if err != nil {
			return
		}
		d := ds[0]
		u := &driver.Update{ID: d.ID, Attempt: 1, State: driver.Success, Body: result, TTL: time.Hour}
		if err := sub.Settle(context.Background(), []driver.Settlement{{Delivery: d, Record: u}}); err != nil {
			b.Error(err)
		}
		if settled.Add(1) == int64(b.N) {
			cancel()
		}
	}
}

func subscribe(b *testing.B, broker *bolt.Broker, prefetch int) driver.Subscription {
	b.Helper()
	sub, err := broker.Subscribe(b.Context(), &driver.SubscribeOptions{Prefetch: prefetch, Slots: 1,
		Lease: lease, Queues: []driver.QueueSpec{{Name: "q"}}})
	if err != nil {
		b.Fatal(err)
	}
	return sub
}

func newRaw(b *testing.B) *bolt.Raw {
	path := filepath.Join(b.TempDir(), "raw.db")
	open(b, path, nil).Close()
	return bolt.NewRaw(b, path)
}

func raw(b *testing.B, n int) {
	r := newRaw(b)
	defer r.Close()
	body := make([]byte, 256)
	var next atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				r.Put(uint64(i), body)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// steps writes what cycle writes, and does nothing else.
func steps(b *testing.B, n int) {
	r := newRaw(b)
	defer r.Close()
	type published struct {
		seq uint64
		id  string
	}
	task, pending, success := make([]byte, 330), make([]byte, 130), make([]byte, 180)
	ready := make(chan published, b.N)
	var next, left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				p := published{uint64(i), uuid.Must(uuid.NewV7()).String()}
				r.Publish(p.seq, p.id, task, pending)
				if ready <- p; left.Add(-1) == 0 {
					close(ready)
				}
			}
		})
		wg.Go(func() {
			for p := range ready {
				r.Settle(p.seq, p.id, success)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

var pending = flag.Int("bolt.pending", 100000, "messages in the file that BenchmarkOpen opens")

// BenchmarkOpen opens a file with pending messages, after a clean close and
// after a crash.
func BenchmarkOpen(b *testing.B) {
	p := newPair(b, nil)
	fill := make([]*driver.Message, 1000)
	for range *pending / len(fill) {
		for i := range fill {
			fill[i] = tracked(uuid.Must(uuid.NewV7()).String())
			fill[i].Envelope = make([]byte, 256)
		}
		p.publish(fill...)
	}
	for _, end := range []struct {
		name  string
		close func()
	}{{"clean", p.close}, {"crash", func() { bolt.Abandon(p.path) }}} {
		b.Run(end.name, func(b *testing.B) {
			end.close()
			for b.Loop() {
				s := open(b, p.path, nil)
				b.StopTimer()
				if p.store = s; end.name == "clean" {
					s.Close()
				} else {
					bolt.Abandon(p.path)
				}
				b.StartTimer()
			}
		})
	}
}
