package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"Total: 1600 cents\n",
		"Bad address: true, the argument\n",
		"Tea twice: true\n",
		"Air for nothing: DEAD_LETTERED, validation, attempt 1\n",
	)
}
