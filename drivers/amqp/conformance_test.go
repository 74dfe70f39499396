package amqp_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
	"github.com/chicory-go/chicory/drivers/memory"
)

var prefixes atomic.Int64

// leaderless is how long after its declaration a queue may lose its leader with the
// server.
const leaderless = 2 * time.Second

func harness(tb testing.TB) *conformance.Harness {
	s := sharedServer(tb)
	if conformance.Restarts(tb) {
		s = newServer(tb)
	}
	o := &amqp.Options{Prefix: fmt.Sprint("test", prefixes.Add(1))}
	records := memory.New()
	h := &conformance.Harness{Server: true, Lease: time.Second, Slack: time.Second}
	h.OpenBroker = func(tb testing.TB, namespace string) driver.Broker {
		b, err := amqp.Open(background, []string{s.url("guest:guest", "/")}, namespace, o)
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	h.OpenBackend = func(_ testing.TB, namespace string, _ driver.Broker) driver.Backend {
		return records.Backend(namespace)
	}
	h.Kill = func(_ testing.TB, client any) {
		if b, ok := client.(*amqp.Broker); ok {
			amqp.Kill(b)
			return
		}
		client.(driver.Backend).Close(background)
	}
	h.Cut = func(_ testing.TB, b driver.Broker) { amqp.Cut(b.(*amqp.Broker)) }
	h.Restart = func(tb testing.TB) {
		time.Sleep(leaderless)
		s.kill()
		if err := s.start(); err != nil {
			tb.Fatal(err)
		}
	}
	return h
}

func TestConformance(t *testing.T) {
	conformance.RunBroker(t, func(tb testing.TB) *conformance.Harness {
		h := harness(tb)
		h.Parallel = 12 // they work more than they wait
		return h
	})
}

func TestConformanceMemoryBackend(t *testing.T) {
	conformance.RunApp(t, harness)
}
