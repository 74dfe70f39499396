package bolt_test

import (
	"context"
	"flag"
	"path/filepath"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
	"github.com/chicory-go/chicory/drivers/memory"
)

var realTime = flag.Bool("bolt.realtime", false, "run the conformance suite in real time as well")

// A mix says which of a harness's stores is the file, and which is memory.
type mix struct{ broker, backend bool }

func (m mix) harness(bubble bool) conformance.NewHarness {
	return func(tb testing.TB) *conformance.Harness {
		path := filepath.Join(tb.TempDir(), "jobs.db")
		other := memory.New()
		h := &conformance.Harness{Bubble: bubble, Restart: func(testing.TB) { bolt.Abandon(path) }}
		h.OpenBroker = func(tb testing.TB, namespace string) driver.Broker {
			if !m.broker {
				return other.Broker(namespace)
			}
			s := open(tb, path)
			defer s.Close()
			return s.Broker(namespace)
		}
		h.OpenBackend = func(tb testing.TB, namespace string, _ driver.Broker) driver.Backend {
			if !m.backend {
				return other.Backend(namespace)
			}
			s := open(tb, path)
			defer s.Close()
			return s.Backend(namespace)
		}
		if !m.broker && !m.backend || !bubble {
			h.Parallel, h.Lease, h.Slack = 16, 2*time.Second, time.Second
		}
		return h
	}
}

func open(tb testing.TB, path string) *bolt.Store {
	tb.Helper()
	s, err := bolt.Open(context.Background(), path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	m := mix{true, true}
	conformance.RunBroker(t, m.harness(true))
	conformance.RunBackend(t, m.harness(true))
	conformance.RunApp(t, m.harness(true))
}
