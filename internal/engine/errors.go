package engine

import (
	"errors"
	"fmt"
	"time"
)

// Errors that cross packages of core. The root package documents and exports
// them.
var (
	ErrNotConnected  = errors.New("chicory: not connected; call Connect first")
	ErrClosed        = errors.New("chicory: app is closed")
	ErrNoBackend     = errors.New("chicory: no result backend")
	ErrNotFound      = errors.New("chicory: no such task")
	ErrDuplicate     = errors.New("chicory: id is in use")
	ErrTooLarge      = errors.New("chicory: too large")
	ErrValidation    = errors.New("chicory: invalid")
	ErrUnknownTask   = errors.New("chicory: unknown task")
	ErrWaitInTask    = errors.New("chicory: waiting for a result inside a handler can deadlock the worker; use AllowWait if there are slots for both")
	ErrFinished      = errors.New("chicory: task had finished before")
	ErrResultIgnored = errors.New("chicory: the task ignores its result")
)

// Causes of a cancelled handler context.
var (
	ErrLeaseLost = errors.New("chicory: lease lost; the task goes on elsewhere")
	ErrCancelled = errors.New("chicory: task was cancelled")
	ErrTimeout   = errors.New("chicory: task timed out")
	ErrShutdown  = errors.New("chicory: worker is shutting down")
)

// A PublishError says that a task was not, or perhaps not, enqueued.
type PublishError struct {
	ID      string
	Unknown bool // it may have been enqueued
	Err     error
}

func (e *PublishError) Error() string { return e.Err.Error() }
func (e *PublishError) Unwrap() error { return e.Err }

// A RetryAfterError asks for a retry after a given wait.
type RetryAfterError struct {
	Wait time.Duration
	Err  error
}

func (e *RetryAfterError) Error() string { return e.Err.Error() }
func (e *RetryAfterError) Unwrap() error { return e.Err }

// A PermanentError asks not to retry.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }

// A SnoozeError asks to run again later without spending an attempt.
type SnoozeError struct{ Wait time.Duration }

func (e *SnoozeError) Error() string { return fmt.Sprintf("chicory: snooze for %v", e.Wait) }

// A ReasonError gives the verdict of a failure that no handler saw.
type ReasonError struct {
	Reason string // a Reason constant of package driver
	Kind   string
	Err    error
}

func (e *ReasonError) Error() string { return e.Err.Error() }
func (e *ReasonError) Unwrap() error { return e.Err }

// Code returns the kind of the failure.
func (e *ReasonError) Code() string { return e.Kind }

// A ResultError is a result that cannot be kept. The handler succeeded: running
// it again would not mend its result.
type ResultError struct{ Err error }

func (e *ResultError) Error() string { return e.Err.Error() }
func (e *ResultError) Unwrap() error { return e.Err }

// A PanicError is a panic of a handler.
type PanicError struct {
	Value any
	Stack string
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Code returns "panic".
func (e *PanicError) Code() string { return "panic" }

// Unwrap returns the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Kind returns the class of err: what its Code method says, if it or an error
// it wraps has one, the standard library's time-out, otherwise its type.
func Kind(err error) string {
	var coder interface{ Code() string }
	switch {
	case err == nil:
		return ""
	case errors.As(err, &coder):
		return coder.Code()
	case errors.Is(err, ErrTimeout):
		return "timeout"
	}
	for {
		switch err.(type) {
		case *RetryAfterError, *PermanentError:
			err = errors.Unwrap(err)
			continue
		}
		return fmt.Sprintf("%T", err)
	}
}
