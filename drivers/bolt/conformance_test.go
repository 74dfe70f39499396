package bolt_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
	"github.com/chicory-go/chicory/drivers/memory"
)

// A mix says what of a harness is a file; the rest is memory.
type mix struct {
	broker, backend bool
	options         *bolt.Options
}

var (
	both        = mix{broker: true, backend: true}
	brokerOnly  = mix{broker: true}
	backendOnly = mix{backend: true}
	uncached    = mix{broker: true, backend: true, options: bolt.Uncached}
)

func (m mix) harness(bubble bool) conformance.NewHarness {
	return func(tb testing.TB) *conformance.Harness {
		path, other := filepath.Join(tb.TempDir(), "jobs.db"), memory.New()
		h := &conformance.Harness{Bubble: bubble, Restart: func(testing.TB) { bolt.Abandon(path) }}
		if m == both {
			h.Size = func(tb testing.TB) int { return bolt.Size(tb, path) }
		}
		if bubble {
			if h.PairStride = 8; racing { // each opens a file
				h.PairStride = 80
			}
		} else {
			h.Parallel, h.Lease, h.Slack = 16, 2*time.Second, time.Second
		}
		h.OpenBroker = func(tb testing.TB, namespace string) driver.Broker {
			if !m.broker {
				return other.Broker(namespace)
			}
			s := open(tb, path, m.options)
			defer s.Close() // the broker has it
			return s.Broker(namespace)
		}
		h.OpenBackend = func(tb testing.TB, namespace string, _ driver.Broker) driver.Backend {
			if !m.backend {
				return other.Backend(namespace)
			}
			s := open(tb, path, m.options)
			defer s.Close() // the backend has it
			return s.Backend(namespace)
		}
		return h
	}
}

func open(tb testing.TB, path string, o *bolt.Options) *bolt.Store {
	tb.Helper()
	s, err := bolt.Open(context.Background(), path, o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func all(t *testing.T, newHarness conformance.NewHarness) {
	conformance.RunBroker(t, newHarness)
	conformance.RunBackend(t, newHarness)
	conformance.RunApp(t, newHarness)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	all(t, both.harness(true))
}

// TestConformanceUncached reads every record from the file.
func TestConformanceUncached(t *testing.T) {
	t.Parallel()
	conformance.RunBroker(t, uncached.harness(true))
	conformance.RunBackend(t, uncached.harness(true))
	if !racing { // which makes the faults too slow to try them once more
		conformance.RunApp(t, uncached.harness(true))
	}
}

func TestConformanceMemoryBackend(t *testing.T) {
	t.Parallel()
	conformance.RunApp(t, brokerOnly.harness(true))
}

func TestConformanceMemoryBroker(t *testing.T) {
	t.Parallel()
	conformance.RunApp(t, backendOnly.harness(true))
}
