package redis_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

var prefixes atomic.Int64

// A mix says what of a harness is on the server; the rest is memory or a file.
type mix struct{ broker, backend, file, cluster bool }

const suiteLease = 2 * time.Second

var both = mix{broker: true, backend: true}

// A store is what the rest is in.
type store struct {
	broker  func(namespace string) driver.Broker
	backend func(namespace string) driver.Backend
}

// other returns a new store of the mix that is not on the server.
func (m mix) other(tb testing.TB) store {
	if !m.file {
		s := memory.New()
		return store{func(ns string) driver.Broker { return s.Broker(ns) }, func(ns string) driver.Backend { return s.Backend(ns) }}
	}
	s, err := bolt.Open(context.Background(), filepath.Join(tb.TempDir(), "jobs.db"), nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return store{func(ns string) driver.Broker { return s.Broker(ns) }, func(ns string) driver.Backend { return s.Backend(ns) }}
}

func (m mix) harness(tb testing.TB) *conformance.Harness {
	var args []string
	sharing := &shared
	if m.cluster {
		sharing, args = &sharedCluster, clusterArgs
	}
	s := sharing.get(tb, args...)
	if conformance.Restarts(tb) {
		s = newServer(tb, args...)
	}
	o := &redis.Options{Prefix: fmt.Sprint("test", prefixes.Add(1))}
	other := m.other(tb)
	tb.Cleanup(func() { checkInvariants(tb, s, o.Prefix) })
	h := &conformance.Harness{Server: true, Lease: suiteLease, Slack: time.Second}
	if m.cluster { // a call is several there
		h.Parallel = 16
	}
	h.OpenBroker = func(tb testing.TB, namespace string) driver.Broker {
		if !m.broker {
			return other.broker(namespace)
		}
		b, err := redis.OpenBroker(context.Background(), client(s), namespace, o)
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	h.OpenBackend = func(tb testing.TB, namespace string, broker driver.Broker) driver.Backend {
		if !m.backend {
			return other.backend(namespace)
		}
		b, err := redis.OpenBackend(context.Background(), client(s), namespace, o, broker)
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	h.Restart = func(tb testing.TB) { h.Outage(tb, 0) }
	h.Outage = func(tb testing.TB, down time.Duration) {
		s.kill()
		time.Sleep(down)
		if err := s.start(); err != nil {
			tb.Fatal(err)
		}
	}
	if m.broker && m.backend {
		h.Size = func(tb testing.TB) int { return size(tb, s, o.Prefix) }
	}
	return h
}

func client(s *server) *goredis.Options {
	return &goredis.Options{Addr: s.addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true}
}

// size counts what is kept under a prefix: keys, and what is in them.
func size(tb testing.TB, s *server, prefix string) (n int) {
	tb.Helper()
	c := goredis.NewClient(client(s))
	defer c.Close()
	ctx := context.Background()
	keys, err := c.Keys(ctx, prefix+":*").Result()
	if err != nil {
		tb.Fatal(err)
	}
	for _, key := range keys {
		n++
		switch c.Type(ctx, key).Val() {
		case "stream":
			n += int(c.XLen(ctx, key).Val())
		case "zset":
			n += int(c.ZCard(ctx, key).Val())
		case "hash":
			n += int(c.HLen(ctx, key).Val())
		case "set":
			n += int(c.SCard(ctx, key).Val())
		}
	}
	return n
}

func all(t *testing.T, newHarness conformance.NewHarness) {
	conformance.RunBroker(t, newHarness)
	conformance.RunBackend(t, newHarness)
	conformance.RunApp(t, newHarness)
}

// These come one after the other.

func TestConformance(t *testing.T) {
	all(t, both.harness)
}

// In a cluster, a script has the keys of one queue, or of one task.
func TestConformanceCluster(t *testing.T) {
	all(t, mix{broker: true, backend: true, cluster: true}.harness)
}

func TestConformanceMemoryBackend(t *testing.T) {
	conformance.RunApp(t, mix{broker: true}.harness)
}

func TestConformanceMemoryBroker(t *testing.T) {
	conformance.RunApp(t, mix{backend: true}.harness)
}

func TestConformanceBoltBackend(t *testing.T) {
	conformance.RunApp(t, mix{broker: true, file: true}.harness)
}

func TestConformanceBoltBroker(t *testing.T) {
	conformance.RunApp(t, mix{backend: true, file: true}.harness)
}
