package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"10 + 32 = 42\n",
		"Batch results: [3 6 9 12 15]\n",
		"Ada bought 2 items for 14.00\n",
	)
}
