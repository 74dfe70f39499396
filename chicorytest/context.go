package chicorytest

import (
	"cmp"
	"context"
	"maps"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/internal/engine"
)

// defaultAttempts is 1 + the retries of a task that says nothing.
const defaultAttempts = 4

// Context returns a context for calling a handler alone: chicory.TaskFrom finds
// info in it, and waiting for a result is refused, as in a worker. It ends with
// parent. Of what info leaves out, ID and Name are "test", Queue is "default",
// Attempt and Deliveries are 1, and MaxAttempts is 4. IsLast makes Attempt the
// last one.
//
// No retry follows what the handler returns, and its argument is not encoded or
// validated: for that, send the task and call [Kit.RunUntilIdle].
func Context(parent context.Context, info chicory.TaskInfo) context.Context {
	call := &engine.Call{
		ID:          cmp.Or(info.ID, "test"),
		Name:        cmp.Or(info.Name, "test"),
		Queue:       cmp.Or(info.Queue, "default"),
		Attempt:     cmp.Or(info.Attempt, 1),
		MaxAttempts: cmp.Or(info.MaxAttempts, defaultAttempts),
		Deliveries:  cmp.Or(info.Deliveries, 1),
		Epoch:       info.Epoch,
		Headers:     maps.Clone(info.Headers),
	}
	if info.IsLast {
		call.MaxAttempts = call.Attempt
	}
	return context.WithValue(parent, engine.CallKey{}, call)
}
