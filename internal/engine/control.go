package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// Prefixes of control keys.
const (
	pausePrefix  = "paused/"
	workerPrefix = "worker/"
)

// ErrNoControl: neither broker nor backend keeps control keys.
var ErrNoControl = errors.New("chicory: neither the broker nor the backend can keep pauses and the list of workers")

// WorkerInfo is what a worker tells of itself, three times a lease.
type WorkerInfo struct {
	Name        string        `json:"name"`
	Host        string        `json:"host,omitempty"`
	PID         int           `json:"pid,omitempty"`
	Started     time.Time     `json:"started"`
	Seen        time.Time     `json:"seen"` // when it told this, by its own clock
	Concurrency int           `json:"concurrency"`
	Queues      []string      `json:"queues"`
	Tasks       []string      `json:"tasks"`
	Running     int           `json:"running"`          // handlers that run now
	Processed   uint64        `json:"processed"`        // handlers that have returned
	Failed      uint64        `json:"failed"`           // of those, with an error
	Health      string        `json:"health,omitempty"` // why it is unhealthy; empty: it is not
	TTL         time.Duration `json:"-"`                // how long this may be believed
}

// Control returns who keeps the control keys: the broker, or else the backend.
func (e *Engine) Control(ctx context.Context) (driver.Control, error) {
	e.controlMu.Lock()
	defer e.controlMu.Unlock()
	if e.control != nil {
		return e.control, nil
	}
	for _, store := range []any{e.Broker, e.Backend} {
		k, ok := driver.As[driver.Control](store)
		if !ok {
			continue
		}
		_, _, err := k.Entries(ctx, pausePrefix)
		switch {
		case err == nil:
			e.control = k
			return k, nil
		case !errors.Is(err, errors.ErrUnsupported):
			return nil, err
		}
	}
	return nil, ErrNoControl
}

// Pause pauses queue, or resumes it.
func (e *Engine) Pause(ctx context.Context, queue string, paused bool) error {
	if err := driver.CheckQueue(queue); err != nil {
		return fmt.Errorf("%w: %w", ErrValidation, err)
	}
	k, err := e.Control(ctx)
	if err != nil {
		return err
	}
	if paused {
		return k.Put(ctx, pausePrefix+queue, nil, 0)
	}
	return k.Remove(ctx, pausePrefix+queue)
}

// Paused returns the paused queues, ordered, and the revision of what it saw.
func (e *Engine) Paused(ctx context.Context) (queues []string, rev uint64, err error) {
	k, err := e.Control(ctx)
	if err != nil {
		return nil, 0, err
	}
	es, rev, err := k.Entries(ctx, pausePrefix)
	for _, entry := range es {
		queues = append(queues, strings.TrimPrefix(entry.Key, pausePrefix))
	}
	slices.Sort(queues)
	return queues, rev, err
}

// AwaitPause returns once a queue was paused or resumed after rev.
func (e *Engine) AwaitPause(ctx context.Context, rev uint64) error {
	k, err := e.Control(ctx)
	if err != nil {
		return err
	}
	return k.Await(ctx, pausePrefix, rev)
}

// Announce stores what a worker tells of itself.
func (e *Engine) Announce(ctx context.Context, w *WorkerInfo) error {
	k, err := e.Control(ctx)
	if err != nil {
		return err
	}
	value, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return k.Put(ctx, workerPrefix+w.Name, value, w.TTL)
}

// Leave takes a worker off the list.
func (e *Engine) Leave(ctx context.Context, name string) error {
	k, err := e.Control(ctx)
	if err != nil {
		return err
	}
	return k.Remove(ctx, workerPrefix+name)
}

// Workers returns the workers that live, ordered by name.
func (e *Engine) Workers(ctx context.Context) ([]WorkerInfo, error) {
	k, err := e.Control(ctx)
	if err != nil {
		return nil, err
	}
	es, _, err := k.Entries(ctx, workerPrefix)
	ws := make([]WorkerInfo, 0, len(es))
	for _, entry := range es {
		w := WorkerInfo{Name: strings.TrimPrefix(entry.Key, workerPrefix)}
		if err := json.Unmarshal(entry.Value, &w); err != nil {
			w.Health = fmt.Sprintf("what it tells cannot be read: %v", err)
		}
		ws = append(ws, w)
	}
	return ws, err
}
