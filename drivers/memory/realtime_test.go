//go:build !race

package memory_test

import (
	"testing"

	"github.com/chicory-go/chicory/conformance"
)

// The suite in real time, where leases are short and the race detector would
// make them run out: not beside the tests in bubbles.

func TestRealTimeConformance(t *testing.T) { all(t, harness(false, false)) }

func TestRealTimeConformanceSeparate(t *testing.T) { conformance.RunApp(t, harness(false, true)) }
