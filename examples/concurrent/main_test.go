package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"Dispatched 5 tasks\n",
		"Results: [3 6 9 12 15]\n",
		"Sum as they came: 45\n",
	)
}
