package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"Enqueued: state PENDING, ready false, failed false\n",
		"Running: state STARTED, ready false, failed false\n",
		"Result: packed a book\n",
		"Done: state SUCCESS, ready true, failed false\n",
		"Failed for good: no stock, 2 attempts, dead-lettered: true\n",
		"Failed: state DEAD_LETTERED, ready true, failed true\n",
		"Unknown: true\n",
	)
}
