package amqp_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
	"github.com/chicory-go/chicory/drivers/bolt"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

var prefixes atomic.Int64

// ownPrefix returns one that no other test has.
func ownPrefix() string { return fmt.Sprint("test", prefixes.Add(1)) }

// leaderless is how long after its declaration a queue may be lost with the server, which
// writes what it knows of queues to the disk every two seconds.
const leaderless = 3 * time.Second

// records opens backends of a store that is not on RabbitMQ.
type records func(namespace string) driver.Backend

func inMemory(testing.TB) records {
	s := memory.New()
	return func(ns string) driver.Backend { return s.Backend(ns) }
}

func inFile(tb testing.TB) records {
	s := must(bolt.Open(background, filepath.Join(tb.TempDir(), "jobs.db"), nil))(tb)
	tb.Cleanup(func() { s.Close() })
	return func(ns string) driver.Backend { return s.Backend(ns) }
}

// onRedis returns a store on a redis-server of the test's own.
func onRedis(t *testing.T) func(testing.TB) records {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("NOT TESTED: there is no redis-server on this machine (Debian's package is redis-server)")
	}
	socket := filepath.Join(t.TempDir(), "redis")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", t.TempDir())
	cmd.SysProcAttr = endWithParent()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	c := goredis.NewClient(&goredis.Options{Network: "unix", Addr: socket, MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { c.Close() })
	for end := time.Now().Add(patience); c.Ping(background).Err() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("redis-server does not serve")
		}
	}
	return func(tb testing.TB) records {
		o := &redis.Options{Prefix: ownPrefix()}
		return func(ns string) driver.Backend { return must(redis.NewBackend(context.Background(), c, ns, o))(tb) }
	}
}

// harness returns one with records in a store.
func harness(o amqp.Options, store func(testing.TB) records) conformance.NewHarness {
	return func(tb testing.TB) *conformance.Harness {
		s := sharedServer(tb)
		if conformance.Restarts(tb) {
			s = newServer(tb)
		}
		o := o
		o.Prefix = ownPrefix()
		kept := store(tb)
		h := &conformance.Harness{Server: true, Lease: time.Second, Slack: 3 * time.Second} // of which declaring queues takes the most
		h.OpenBroker = func(tb testing.TB, namespace string) driver.Broker {
			return must(amqp.Open(background, []string{s.url("guest:guest", "/")}, namespace, &o))(tb)
		}
		h.OpenBackend = func(_ testing.TB, namespace string, _ driver.Broker) driver.Backend { return kept(namespace) }
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
}

// few runs fewer cases at once, where they work more than they wait.
func few(newHarness conformance.NewHarness) conformance.NewHarness {
	return func(tb testing.TB) *conformance.Harness {
		h := newHarness(tb)
		h.Parallel = 12
		return h
	}
}

// These come one after the other.

func TestConformance(t *testing.T) {
	conformance.RunBroker(t, few(harness(amqp.Options{}, inMemory)))
}

func TestConformanceClassic(t *testing.T) {
	newHarness := few(harness(amqp.Options{Classic: true}, inMemory))
	conformance.RunBroker(t, func(tb testing.TB) *conformance.Harness {
		h := newHarness(tb)
		const reason = "after a crash RabbitMQ tells of all messages in a classic queue that they may have been delivered"
		h.Known = map[string]string{"Broker/Once/Restart": reason, "Broker/Life/RestartData": reason}
		return h
	})
}

func TestConformanceMemoryBackend(t *testing.T) {
	conformance.RunApp(t, harness(amqp.Options{}, inMemory))
}

func TestConformanceBoltBackend(t *testing.T) {
	conformance.RunApp(t, harness(amqp.Options{}, inFile))
}

func TestConformanceRedisBackend(t *testing.T) {
	conformance.RunApp(t, harness(amqp.Options{}, onRedis(t)))
}
