//go:build !race

package bolt_test

import (
	"testing"

	"github.com/chicory-go/chicory/conformance"
)

// The suite in real time: not beside the tests in bubbles.

func TestRealTimeConformance(t *testing.T) {
	t.Parallel()
	all(t, both.harness(false))
}

func TestRealTimeConformanceMemoryBackend(t *testing.T) {
	t.Parallel()
	conformance.RunApp(t, brokerOnly.harness(false))
}

func TestRealTimeConformanceMemoryBroker(t *testing.T) {
	t.Parallel()
	conformance.RunApp(t, backendOnly.harness(false))
}
