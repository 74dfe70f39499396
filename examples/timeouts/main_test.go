package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"Gave up waiting; the task runs on\n",
		"Task completed: slept 700ms\n",
		"Timed out: timeout\n",
	)
}
