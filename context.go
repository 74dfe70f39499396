package chicory

import (
	"context"
	"maps"

	"github.com/chicory-go/chicory/internal/engine"
)

// TaskInfo is what a handler knows of its task.
type TaskInfo struct {
	ID          string
	Name        string
	Queue       string
	Attempt     int               // from 1
	MaxAttempts int               // 1 + retries
	IsLast      bool              // no retry follows this attempt
	Deliveries  int               // 1 + deliveries whose worker died
	Epoch       int               // replays from the dead letters so far
	Headers     map[string]string // a copy
}

// TaskFrom returns what is known of the task whose handler runs with ctx; ok
// is false outside of handlers.
func TaskFrom(ctx context.Context) (info TaskInfo, ok bool) {
	c := engine.CallFrom(ctx)
	if c == nil {
		return TaskInfo{}, false
	}
	return TaskInfo{ID: c.ID, Name: c.Name, Queue: c.Queue, Attempt: c.Attempt, MaxAttempts: c.MaxAttempts,
		IsLast: c.Attempt >= c.MaxAttempts, Deliveries: c.Deliveries, Epoch: c.Epoch, Headers: maps.Clone(c.Headers)}, true
}

// AllowWait permits Get with the returned context inside a handler. A handler
// that waits keeps its slot: if all slots wait for tasks that have none, the
// worker stands still.
func AllowWait(ctx context.Context) context.Context {
	return context.WithValue(ctx, engine.WaitKey{}, true)
}
