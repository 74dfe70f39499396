package memory_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

var body = make([]byte, 256)

// A producer builds batches. Drivers copy what they keep, so it uses its
// messages again.
type producer struct {
	messages []*driver.Message
	updates  []driver.Update
	buf      []byte
}

func newProducer(batch int, records bool) *producer {
	p := &producer{messages: make([]*driver.Message, batch), updates: make([]driver.Update, batch)}
	for i := range p.messages {
		p.messages[i] = &driver.Message{Queue: "bench", Attempt: 1, Envelope: body, NoRecord: !records}
		if records {
			p.messages[i].Record = &p.updates[i]
		}
	}
	return p
}

// batch returns n messages whose ids follow from.
func (p *producer) batch(from int64, n int) []*driver.Message {
	for i, m := range p.messages[:n] {
		p.buf = strconv.AppendInt(append(p.buf[:0], "0192f0c1-7b1a-7000-8000-"...), from+int64(i)+1e11, 10)
		m.ID = string(p.buf)
		p.updates[i] = driver.Update{ID: m.ID, Attempt: 1, State: driver.Pending}
	}
	return p.messages[:n]
}

func BenchmarkPublish(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			broker := memory.New().Broker("bench")
			defer broker.Close(b.Context())
			p := newProducer(batch, false)
			b.ReportAllocs()
			for done := 0; done < b.N; done += batch {
				if err := broker.Publish(b.Context(), p.batch(int64(done), batch)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCycle(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		for _, records := range []bool{false, true} {
			for _, batch := range []int{16, 64} {
				b.Run(fmt.Sprintf("%dP%dC/records=%v/batch=%d", n, n, records, batch), func(b *testing.B) {
					cycle(b, n, batch, records)
				})
			}
		}
	}
}

// kept is how many tasks, and so records, a store sees in its life. Without a
// bound the benchmark would mostly measure the collector at a growing heap.
const kept = 100_000

// cycle publishes, receives and settles b.N tasks with n producers and n
// consumers. No more than a few batches per producer are under way, as it is
// with workers that keep up.
func cycle(b *testing.B, n, batch int, records bool) {
	b.ReportAllocs()
	for left := b.N; left > 0; left -= kept {
		life(b, n, batch, min(left, kept), records)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// life passes tasks through a store.
func life(b *testing.B, n, batch, tasks int, records bool) {
	store := memory.New()
	broker := store.Broker("bench")
	defer broker.Close(b.Context())
	if records {
		backend := store.Backend("bench")
		defer backend.Close(b.Context())
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	credit := make(chan struct{}, 4*n)
	var published, settled atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			p := newProducer(batch, records)
			for {
				from := published.Add(int64(batch)) - int64(batch)
				if from >= int64(tasks) {
					return
				}
				credit <- struct{}{}
				if err := broker.Publish(ctx, p.batch(from, min(batch, tasks-int(from)))); err != nil {
					b.Error(err)
				}
			}
		})
		wg.Go(func() { consume(b, ctx, cancel, broker, batch, tasks, records, &settled, credit) })
	}
	wg.Wait()
}

func consume(b *testing.B, ctx context.Context, cancel func(), broker driver.Broker, batch, tasks int,
	records bool, settled *atomic.Int64, credit chan struct{}) {
	sub, err := broker.Subscribe(context.Background(), &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: "bench"}},
		Slots: batch, Prefetch: batch, Lease: 30 * time.Second})
	if err != nil {
		b.Error(err)
		return
	}
	ss, us := make([]driver.Settlement, batch), make([]driver.Update, batch)
	for {
		ds, err := sub.Receive(ctx, batch)
		if err != nil {
			return
		}
		for i, d := range ds {
			ss[i] = driver.Settlement{Delivery: d}
			if records {
				us[i] = driver.Update{ID: d.ID, Attempt: 1, State: driver.Success, TTL: time.Hour, Body: body[:16]}
				ss[i].Record = &us[i]
			}
		}
		if err := sub.Settle(ctx, ss[:len(ds)]); err != nil {
			b.Error(err)
		}
		total := settled.Add(int64(len(ds)))
		for range int(total)/batch - (int(total)-len(ds))/batch {
			<-credit
		}
		if total == int64(tasks) {
			cancel()
		}
	}
}
