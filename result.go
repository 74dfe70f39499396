package chicory

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/internal/hub"
)

// An AsyncResult is the handle of a task's result. It holds no resources and
// is safe for concurrent use.
type AsyncResult[T any] struct {
	app     *App
	id      string
	name    string
	ignored bool
}

// ID returns the task's id.
func (r *AsyncResult[T]) ID() string { return r.id }

// Get waits for the end of the task and returns its result. ctx bounds the
// wait and never cancels the task; its end is returned as its cause
// (context.DeadlineExceeded). A task that did not succeed is a *TaskError.
// Other errors are ErrNotFound, ErrResultIgnored, ErrNoBackend, ErrNotConnected,
// ErrClosed, and ErrWaitInTask inside a handler.
func (r *AsyncResult[T]) Get(ctx context.Context) (T, error) {
	var zero T
	if engine.CallFrom(ctx) != nil && ctx.Value(engine.WaitKey{}) == nil {
		return zero, ErrWaitInTask
	}
	eng, err := r.engine()
	if err != nil {
		return zero, err
	}
	rec, err := eng.Hub.Wait(ctx, r.id)
	if err != nil {
		return zero, r.explain(err)
	}
	return r.value(rec)
}

func (r *AsyncResult[T]) engine() (*engine.Engine, error) {
	if r.ignored {
		return nil, fmt.Errorf("%w: %s", ErrResultIgnored, r.name)
	}
	if err := driver.CheckID(r.id); err != nil {
		return nil, invalid(err)
	}
	return r.app.results()
}

func (r *AsyncResult[T]) explain(err error) error {
	switch {
	case errors.Is(err, hub.ErrNotFound):
		return fmt.Errorf("%w: %s", ErrNotFound, r.id)
	case errors.Is(err, driver.ErrClosed):
		return ErrClosed
	}
	return err
}

func (r *AsyncResult[T]) value(rec *driver.Record) (T, error) {
	var v T
	if rec.State != driver.Success {
		return v, taskError(r.name, rec)
	}
	if rec.ContentType == "" {
		return v, fmt.Errorf("%w: %s", ErrResultIgnored, r.id)
	}
	c, err := codec.Lookup(rec.ContentType, r.app.decoders...)
	if err == nil {
		err = c.Decode(rec.Body, &v)
	}
	if err != nil {
		return v, fmt.Errorf("chicory: result of %s (%s): %w", r.name, r.id, err)
	}
	return v, nil
}

func (r *AsyncResult[T]) record(ctx context.Context) (*driver.Record, error) {
	eng, err := r.engine()
	if err != nil {
		return nil, err
	}
	rec, err := eng.Hub.Get(ctx, r.id)
	switch {
	case err != nil:
		return nil, r.explain(err)
	case rec == nil && eng.PendingBehind(r.id):
		rec = &driver.Record{Update: driver.Update{ID: r.id, State: driver.Pending}}
	case rec == nil:
		return nil, fmt.Errorf("%w: %s", ErrNotFound, r.id)
	}
	return rec, nil
}

// State returns the task's state. An unknown id is ErrNotFound, never PENDING.
func (r *AsyncResult[T]) State(ctx context.Context) (State, error) {
	rec, err := r.record(ctx)
	if err != nil {
		return "", err
	}
	return rec.State, nil
}

// Ready reports whether the task has ended, in success or not.
func (r *AsyncResult[T]) Ready(ctx context.Context) (bool, error) {
	s, err := r.State(ctx)
	return s.Terminal(), err
}

// Failed reports whether the task failed for good: FAILURE or DEAD_LETTERED.
func (r *AsyncResult[T]) Failed(ctx context.Context) (bool, error) {
	s, err := r.State(ctx)
	return s.Failed(), err
}

// Info is what is known of a task.
type Info struct {
	ID       string
	Name     string
	State    State
	Attempt  int       // the current or last attempt, from 1
	Enqueued time.Time // zero times: not seen
	Started  time.Time // the last start
	Retried  time.Time // when the last attempt failed
	Finished time.Time
	Due      time.Time  // of a task that waits: when it runs
	Err      *TaskError // why the last attempt did not succeed, or nil
}

// Info returns what is known of the task.
func (r *AsyncResult[T]) Info(ctx context.Context) (*Info, error) {
	rec, err := r.record(ctx)
	if err != nil {
		return nil, err
	}
	i := &Info{ID: rec.ID, Name: r.name, State: rec.State, Attempt: int(rec.Attempt),
		Enqueued: at(rec.PendingAt), Started: at(rec.StartedAt), Retried: at(rec.RetriedAt), Finished: at(rec.FinishedAt)}
	if rec.State == driver.Pending || rec.State == driver.Retry {
		i.Due = at(rec.Due)
	}
	if rec.Error != nil || rec.State.Terminal() && rec.State != driver.Success {
		i.Err = taskError(r.name, rec)
	}
	return i, nil
}

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// GetAll waits for all results and returns them in order. The error joins
// those of all that failed: errors.As finds each *TaskError. Values of failed
// tasks are zero.
func GetAll[T any](ctx context.Context, rs []*AsyncResult[T]) ([]T, error) {
	vs := make([]T, len(rs))
	errs := make([]error, len(rs))
	var wg sync.WaitGroup
	for i, r := range rs {
		wg.Go(func() { vs[i], errs[i] = r.Get(ctx) })
	}
	wg.Wait()
	return vs, errors.Join(errs...)
}

// An Outcome is how one of several tasks ended.
type Outcome[T any] struct {
	Result *AsyncResult[T]
	Value  T
	Err    error
}

// Completed yields the results as they come, with their index in rs. It ends
// when all have come; those still missing when ctx ends come with its cause.
func Completed[T any](ctx context.Context, rs []*AsyncResult[T]) iter.Seq2[int, Outcome[T]] {
	return func(yield func(int, Outcome[T]) bool) {
		ctx, cancel := context.WithCancel(ctx)
		type item struct {
			i int
			o Outcome[T]
		}
		found := make(chan item, len(rs))
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		for i, r := range rs {
			wg.Go(func() {
				v, err := r.Get(ctx)
				found <- item{i, Outcome[T]{r, v, err}}
			})
		}
		for range rs {
			if it := <-found; !yield(it.i, it.o) {
				return
			}
		}
	}
}
