package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"Task ID has 36 characters\n",
		"Result: 42\n",
		"Later: 2, early: false\n",
	)
}
