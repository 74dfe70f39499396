package chicory

import (
	"errors"
	"fmt"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// Errors to match with errors.Is.
var (
	// ErrNotConnected: call Connect first.
	ErrNotConnected = engine.ErrNotConnected
	// ErrClosed: the app was closed.
	ErrClosed = engine.ErrClosed
	// ErrNoBackend: a result was asked for and no backend is configured.
	ErrNoBackend = engine.ErrNoBackend
	// ErrNotFound: the id is unknown, or its record has expired.
	ErrNotFound = engine.ErrNotFound
	// ErrDuplicate: the chosen id is in use.
	ErrDuplicate = engine.ErrDuplicate
	// ErrTooLarge: the argument or result exceeds the limit.
	ErrTooLarge = engine.ErrTooLarge
	// ErrValidation: an option, a name, an argument or a result is invalid. It
	// matches *ValidationError, and the *TaskError of a task that a worker
	// refused.
	ErrValidation = engine.ErrValidation
	// ErrWaitInTask: Get was called inside a handler; see AllowWait.
	ErrWaitInTask = engine.ErrWaitInTask
	// ErrFinished: the task had ended before it could be cancelled.
	ErrFinished = engine.ErrFinished
	// ErrResultIgnored: the task runs with its result ignored.
	ErrResultIgnored = engine.ErrResultIgnored
	// ErrUnknownDriver: no driver of that name is registered.
	ErrUnknownDriver = driver.ErrUnknown

	// ErrFailed matches a *TaskError of a task that failed for good.
	ErrFailed = errors.New("chicory: task failed")
	// ErrDeadLettered matches the *TaskError of a task kept among the dead letters.
	ErrDeadLettered = errors.New("chicory: task was dead-lettered")
	// ErrExpired matches the *TaskError of a task that was not started in time.
	ErrExpired = errors.New("chicory: task expired")
	// ErrUnknownTask matches the *TaskError of a task that no worker knew.
	ErrUnknownTask = engine.ErrUnknownTask

	// ErrCancelled matches the *TaskError of a cancelled task, and is the
	// cause of its handler's context.
	ErrCancelled = engine.ErrCancelled
	// ErrTimeout is the cause of a handler's context when its time is up.
	ErrTimeout = engine.ErrTimeout
	// ErrLeaseLost is the cause of a handler's context when its worker was cut
	// off from the broker for longer than the lease: the task goes on
	// elsewhere, and nothing this handler does counts.
	ErrLeaseLost = engine.ErrLeaseLost
	// ErrShutdown is the cause of a handler's context when the worker stops
	// and its grace is over.
	ErrShutdown = engine.ErrShutdown
)

// A PublishError says that a task was not enqueued or, if Unknown, perhaps
// not. It may be sent again with the same id; see ID.
type PublishError struct {
	ID      string
	Unknown bool // it may have been enqueued
	Err     error
}

// Error says which task was not enqueued, and why.
func (e *PublishError) Error() string {
	if e.Unknown {
		return fmt.Sprintf("chicory: publish of %s: outcome unknown: %v", e.ID, e.Err)
	}
	return fmt.Sprintf("chicory: publish of %s: %v", e.ID, e.Err)
}

// Unwrap returns the cause.
func (e *PublishError) Unwrap() error { return e.Err }

// publishError is the exported form of the engine's error.
func publishError(err error) error {
	if err == nil {
		return nil // before pe, which goes to the heap
	}
	var pe *engine.PublishError
	if !errors.As(err, &pe) {
		return err
	}
	return &PublishError{ID: pe.ID, Unknown: pe.Unknown, Err: pe.Err}
}

// A BatchError holds one error per item of a batch, nil for those that
// succeeded.
type BatchError = driver.BatchError

// A TaskError is the end of a task that did not succeed, as its record tells
// it. It matches ErrFailed, ErrDeadLettered, ErrExpired, ErrCancelled,
// ErrUnknownTask and ErrValidation by its State and Reason.
type TaskError struct {
	ID      string
	Name    string // the task's name
	State   State
	Reason  string          // "failed", "poison", "lost", "undecodable", "validation", "unknown_task", or empty
	Kind    string          // class of the error: what its Code() string said, else its type
	Message string          // text of the error
	Attempt int             // the last attempt
	Stack   string          // of a panic
	History []FailedAttempt // oldest first, at most 20
}

// Error says which task failed, how and why.
func (e *TaskError) Error() string {
	what := fmt.Sprintf("chicory: task %s (%s): %s", e.Name, e.ID, e.State)
	if e.Message == "" {
		return what
	}
	what += fmt.Sprintf(" after attempt %d", e.Attempt)
	return what + ": " + e.Message
}

// Is reports whether target describes the end of the task.
func (e *TaskError) Is(target error) bool {
	switch target {
	case ErrFailed:
		return e.State.Failed()
	case ErrDeadLettered:
		return e.State == StateDeadLettered
	case ErrExpired:
		return e.State == StateExpired
	case ErrCancelled:
		return e.State == StateCancelled
	case ErrUnknownTask:
		return e.Reason == driver.ReasonUnknownTask
	case ErrValidation:
		return e.Reason == driver.ReasonValidation
	}
	return false
}

// A FailedAttempt is one line of a task's history.
type FailedAttempt struct {
	Attempt int
	At      time.Time
	Kind    string
	Message string
	Worker  string
}

func historyOf(h []driver.FailedAttempt) []FailedAttempt {
	var out []FailedAttempt
	for _, a := range h {
		out = append(out, FailedAttempt{int(a.Attempt), time.UnixMilli(a.At), a.Kind, a.Message, a.Worker})
	}
	return out
}

func taskError(name string, r *driver.Record) *TaskError {
	e := &TaskError{ID: r.ID, Name: name, State: r.State, Attempt: int(r.Attempt)}
	if d := r.Error; d != nil {
		if d.Name != "" {
			e.Name = d.Name
		}
		e.Reason, e.Kind, e.Message, e.Stack = d.Reason, d.Kind, d.Message, d.Stack
		e.History = historyOf(d.History)
	}
	return e
}
