package chicory

import (
	"context"
	"time"

	"github.com/chicory-go/chicory/internal/engine"
)

// ErrNoControl is returned where neither broker nor backend can keep pauses and
// the list of workers.
var ErrNoControl = engine.ErrNoControl

// WorkerInfo is what a worker tells of itself, three times a lease.
type WorkerInfo struct {
	Name        string // worker.Options.Name
	Host        string
	PID         int
	Started     time.Time
	Seen        time.Time // when it told this, by its own clock
	Concurrency int       // handlers that may run at once
	Queues      []string  // that it serves, paused ones too
	Tasks       []string  // names that it has handlers for, ordered
	Running     int       // handlers that run now
	Processed   uint64    // handlers that have returned
	Failed      uint64    // of those, with an error
	Health      string    // why it is unhealthy; empty: it is not
}

// Pause stops all workers of the app's namespace from taking tasks of queue,
// those that start later included, until Resume. Running handlers go on; what
// was fetched and has not started goes back, uncounted. Sending goes on too.
// Pausing a paused queue is no error. Without a store that can keep it, it
// returns ErrNoControl.
func (a *App) Pause(ctx context.Context, queue string) error {
	eng, err := a.core.Engine()
	if err != nil {
		return err
	}
	return eng.Pause(ctx, queue, true)
}

// Resume ends a pause; waiting workers start at once. Resuming a queue that is
// not paused is no error.
func (a *App) Resume(ctx context.Context, queue string) error {
	eng, err := a.core.Engine()
	if err != nil {
		return err
	}
	return eng.Pause(ctx, queue, false)
}

// Paused returns the paused queues, ordered.
func (a *App) Paused(ctx context.Context) ([]string, error) {
	eng, err := a.core.Engine()
	if err != nil {
		return nil, err
	}
	queues, _, err := eng.Paused(ctx)
	return queues, err
}

// Workers returns the workers that live, ordered by name. One that stopped is
// gone at once, one that died after a lease.
func (a *App) Workers(ctx context.Context) ([]WorkerInfo, error) {
	eng, err := a.core.Engine()
	if err != nil {
		return nil, err
	}
	found, err := eng.Workers(ctx)
	ws := make([]WorkerInfo, len(found))
	for i, w := range found {
		ws[i] = WorkerInfo{w.Name, w.Host, w.PID, w.Started, w.Seen, w.Concurrency, w.Queues, w.Tasks, w.Running, w.Processed, w.Failed, w.Health}
	}
	return ws, err
}
