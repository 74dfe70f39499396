package amqp_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
	amqp091 "github.com/rabbitmq/amqp091-go"
)

func BenchmarkConformance(b *testing.B) {
	conformance.BenchBroker(b, harness(amqp.Options{}, inMemory))
}

// BenchmarkEndToEnd publishes, receives and settles messages of 1 KiB at once, confirmed
// and acknowledged one by one, on a quorum queue: with the driver, and with the client
// library alone, a window of 100 messages on their way and as many prefetched.
func BenchmarkEndToEnd(b *testing.B) {
	const window = 100
	body := make([]byte, 1024)
	b.Run("raw", func(b *testing.B) {
		s := sharedServer(b)
		name := fmt.Sprint("bench", prefixes.Add(1))
		in, out := raw(b, s), raw(b, s)
		must(in.QueueDeclare(name, true, false, false, false, amqp091.Table{"x-queue-type": "quorum"}))(b)
		if err := in.Confirm(false); err != nil {
			b.Fatal(err)
		}
		if err := out.Qos(window, 0, false); err != nil {
			b.Fatal(err)
		}
		deliveries := must(out.Consume(name, "", false, false, false, false, nil))(b)
		b.ResetTimer()
		var wg sync.WaitGroup
		wg.Go(func() {
			confirms := make([]*amqp091.DeferredConfirmation, 0, b.N)
			for i := range b.N {
				c, err := in.PublishWithDeferredConfirm("", name, true, false, amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: body})
				if err != nil {
					b.Error(err)
					return
				}
				if confirms = append(confirms, c); i >= window {
					confirms[i-window].Wait()
				}
			}
			for _, c := range confirms {
				if !c.Wait() {
					b.Error("not confirmed")
				}
			}
		})
		for range b.N {
			d := <-deliveries
			if err := d.Ack(false); err != nil {
				b.Fatal(err)
			}
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
	b.Run("driver", func(b *testing.B) {
		s := sharedServer(b)
		broker := open(b, s.url("guest:guest", "/"), &amqp.Options{Prefix: fmt.Sprint("bench", prefixes.Add(1))})
		sub := subscribe(b, broker, window, "q")
		ctx := context.Background()
		b.ResetTimer()
		var wg sync.WaitGroup
		for p := range 2 { // half of the window each
			wg.Go(func() {
				for n := p * window / 2; n < b.N; n += window {
					ms := make([]*driver.Message, min(window/2, b.N-n))
					for i := range ms {
						ms[i] = &driver.Message{ID: fmt.Sprint("task-", n+i), Queue: "q", Attempt: 1, Envelope: body}
					}
					if err := broker.Publish(ctx, ms); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		for got := 0; got < b.N; {
			ds, err := sub.Receive(ctx, window)
			if err != nil {
				b.Fatal(err)
			}
			got += len(ds)
			ack(b, sub, ds...)
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}

// BenchmarkFirstDelay publishes the first delayed message of a namespace, of two seconds:
// the queues of its three digits are declared.
func BenchmarkFirstDelay(b *testing.B) {
	s := sharedServer(b)
	for range b.N {
		b.StopTimer()
		broker := open(b, s.url("guest:guest", "/"), nil)
		ms := messages(2, "q")
		if err := broker.Publish(background, ms[:1]); err != nil {
			b.Fatal(err)
		}
		ms[1].Delay = 2 * time.Second
		b.StartTimer()
		if err := broker.Publish(background, ms[1:]); err != nil {
			b.Fatal(err)
		}
	}
}
