package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

func BenchmarkConformance(b *testing.B) {
	conformance.BenchBroker(b, both.harness)
	conformance.BenchBackend(b, both.harness)
}

// BenchmarkServer measures what a message with a record costs the server, in the
// time of its processor: being published, claimed and settled, by the hundred.
func BenchmarkServer(b *testing.B) {
	const batch = 100
	s := newServer(b, "--appendonly", "no")
	ctx := context.Background()
	o := &redis.Options{Prefix: "bench"}
	broker, err := redis.OpenBroker(ctx, client(s), "ns", o)
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close(ctx)
	backend, err := redis.OpenBackend(ctx, client(s), "ns", o, broker)
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close(ctx)
	if !broker.Covers(backend) {
		b.Fatal("the broker does not cover the backend")
	}
	sub, err := broker.Subscribe(ctx, &driver.SubscribeOptions{Prefetch: 4 * batch, Slots: batch, Lease: time.Minute,
		Queues: []driver.QueueSpec{{Name: "q"}}})
	if err != nil {
		b.Fatal(err)
	}
	c := goredis.NewClient(client(s))
	defer c.Close()
	n, used := 0, map[string]float64{}
	count := func(phase string, do func() error) {
		before := cpu(b, c)
		if err := do(); err != nil {
			b.Fatal(phase, err)
		}
		used[phase] += cpu(b, c) - before
	}
	for b.Loop() {
		for range 20 {
			msgs := make([]*driver.Message, batch)
			for i := range msgs {
				msgs[i] = benchMessage(fmt.Sprintf("id-%032d", n))
				n++
			}
			count("publish", func() error { return broker.Publish(ctx, msgs) })
		}
		for left := 20 * batch; left > 0; {
			var ds []*driver.Delivery
			count("claim", func() (err error) { ds, err = sub.Receive(ctx, batch); return err })
			left -= len(ds)
			ss := make([]driver.Settlement, len(ds))
			for i, d := range ds {
				ss[i] = driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, Attempt: 1, State: driver.Success,
					Body: make([]byte, 64), TTL: time.Hour}}
			}
			count("settle", func() error { return sub.Settle(ctx, ss) })
		}
	}
	for _, phase := range []string{"publish", "claim", "settle"} {
		b.ReportMetric(used[phase]/float64(n), phase+"-µs/msg")
	}
}

func benchMessage(id string) *driver.Message {
	return &driver.Message{ID: id, Queue: "q", Attempt: 1, Envelope: make([]byte, 256),
		Record: &driver.Update{ID: id, Attempt: 1, State: driver.Pending, ReplyTo: "ABCDEFGHIJKL"}}
}

// cpu returns the microseconds of processor time that the server has used.
func cpu(tb testing.TB, c *goredis.Client) (us float64) {
	tb.Helper()
	info, err := c.Info(context.Background(), "cpu").Result()
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys_main_thread" || name == "used_cpu_user_main_thread" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				tb.Fatal(err)
			}
			us += seconds * 1e6
		}
	}
	return us
}
