package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"Before Connect: chicory: not connected; call Connect first\n",
		"Connected: sent\n",
		"Disconnected: true\n",
		"carrier-pigeon\" (registered: memory)",
	)
}
