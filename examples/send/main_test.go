package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"Delivered to ada@example.org\n",
		"5 * 8 = 40\n",
	)
}
