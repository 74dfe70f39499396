package main

import (
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	exampletest.Run(t, run,
		"200 ok\n",
		"The task ran in the trace of the request: true\n",
		"503 worker one: chicory: worker is not running\n",
		`200 chicory_deliveries_settled_total{queue="default",reason="",state="success",task="tasks.trace"} 1`+"\n",
	)
}
