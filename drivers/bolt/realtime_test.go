//go:build !race

package bolt_test

import (
	"testing"

	"github.com/chicory-go/chicory/conformance"
)

// TestRealTimeConformance is the suite in real time: not beside the tests in
// bubbles, which wait until it has ended.
func TestRealTimeConformance(t *testing.T) {
	t.Run("File", func(t *testing.T) {
		t.Parallel()
		all(t, both.harness(false))
	})
	t.Run("MemoryBackend", func(t *testing.T) {
		t.Parallel()
		conformance.RunApp(t, brokerOnly.harness(false))
	})
	t.Run("MemoryBroker", func(t *testing.T) {
		t.Parallel()
		conformance.RunApp(t, backendOnly.harness(false))
	})
}
