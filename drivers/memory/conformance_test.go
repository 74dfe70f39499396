package memory_test

import (
	"testing"
	"time"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

// harness returns the harness of one store; separate gives records another.
func harness(bubble, separate bool) conformance.NewHarness {
	return func(tb testing.TB) *conformance.Harness {
		messages, records := memory.New(), memory.New()
		if !separate {
			records = messages
		}
		h := &conformance.Harness{Bubble: bubble,
			Size:       func(testing.TB) int { return memory.Size(messages) },
			OpenBroker: func(_ testing.TB, namespace string) driver.Broker { return messages.Broker(namespace) },
			OpenBackend: func(_ testing.TB, namespace string, _ driver.Broker) driver.Backend {
				return records.Backend(namespace)
			},
		}
		if !bubble {
			h.Parallel = 200
			h.Lease, h.Slack = 500*time.Millisecond, 250*time.Millisecond
		}
		return h
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	all(t, harness(true, false))
}

func TestConformanceSeparate(t *testing.T) {
	t.Parallel()
	all(t, harness(true, true))
}

func all(t *testing.T, newHarness conformance.NewHarness) {
	conformance.RunBroker(t, newHarness)
	conformance.RunBackend(t, newHarness)
	conformance.RunApp(t, newHarness)
}

func BenchmarkConformance(b *testing.B) {
	conformance.BenchBroker(b, harness(false, false))
	conformance.BenchBackend(b, harness(false, false))
}
