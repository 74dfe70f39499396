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
			OpenBroker: func(_ testing.TB, namespace string) driver.Broker { return messages.Broker(namespace) },
			OpenBackend: func(_ testing.TB, namespace string, _ driver.Broker) driver.Backend {
				return records.Backend(namespace)
			},
		}
		if !bubble {
			h.Lease, h.Slack = 500*time.Millisecond, 250*time.Millisecond
		}
		return h
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("Broker", func(t *testing.T) { conformance.RunBroker(t, harness(true, false)) })
	t.Run("Backend", func(t *testing.T) { conformance.RunBackend(t, harness(true, false)) })
	t.Run("RealTime/Backend", func(t *testing.T) { conformance.RunBackend(t, harness(false, false)) })
	t.Run("RealTime/Broker", func(t *testing.T) { conformance.RunBroker(t, harness(false, false)) })
}
