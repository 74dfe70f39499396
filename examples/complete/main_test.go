package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"10 + 32 = 42\n",
		"Batch results: [3 6 9 12 15]\n",
		"Dead letter: tasks.process_data, failed: service is down (attempt 2 of 2)\n",
		"Replayed 1\n",
		"Processed 2 items of user 42\n",
	)
}
