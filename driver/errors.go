package driver

import (
	"errors"
	"fmt"
)

// Verdicts of a store. Drivers return them, wrapped or not; callers match them
// with errors.Is.
var (
	// ErrClosed ends the broker, backend or subscription it came from. Return
	// it only after Close or Stop: an outage is a retryable error.
	ErrClosed = errors.New("driver: closed")
	// ErrLeaseLost: the delivery belongs to somebody else, or was settled.
	ErrLeaseLost = errors.New("driver: lease lost")
	// ErrStale: the record is newer than the start or the update.
	ErrStale = errors.New("driver: stale")
	// ErrSuperseded: another stored copy or a later delivery has started.
	ErrSuperseded = errors.New("driver: superseded")
	// ErrStarted: an at-most-once task may have started before.
	ErrStarted = errors.New("driver: already started")
	// ErrDuplicate: the ID is alive.
	ErrDuplicate = errors.New("driver: duplicate id")
	// ErrTooLarge: the message or result exceeds the driver's limit.
	ErrTooLarge = errors.New("driver: too large")
	// ErrFull: the store takes no more; consumers drain it.
	ErrFull = errors.New("driver: store is full")
	// ErrLeaseMismatch: the queue is stored with another lease.
	ErrLeaseMismatch = errors.New("driver: queue has another lease")
	// ErrTransient matches errors after which certainly nothing was applied.
	ErrTransient = errors.New("driver: transient")
)

// Transient marks err: certainly nothing was applied, so the call may be
// repeated as it was. It must not be returned if there is a possibility that
// the store performed the operation. Transient(nil) is nil.
func Transient(err error) error {
	if err == nil {
		return nil
	}
	return &transientError{err}
}

type transientError struct{ err error }

func (e *transientError) Error() string        { return e.err.Error() }
func (e *transientError) Unwrap() error        { return e.err }
func (e *transientError) Is(target error) bool { return target == ErrTransient }

// A BatchError holds one error per item of a batch, nil for those that
// succeeded.
type BatchError struct{ Errs []error }

// Error returns the first error and how many there are.
func (e *BatchError) Error() string {
	n, first := 0, error(nil)
	for _, err := range e.Errs {
		if err != nil {
			if n++; first == nil {
				first = err
			}
		}
	}
	if n == 1 {
		return first.Error()
	}
	return fmt.Sprintf("%v (and %d more of %d)", first, n-1, len(e.Errs))
}

// Unwrap returns the errors of the items that failed.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// Batch returns nil if all errs are nil, otherwise a *BatchError of them.
func Batch(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return &BatchError{errs}
		}
	}
	return nil
}

// ItemError returns the error of item i in what a batch of n returned: its own
// from a *BatchError of that size, otherwise err itself.
func ItemError(err error, i, n int) error {
	if err == nil {
		return nil
	}
	var be *BatchError
	if errors.As(err, &be) && len(be.Errs) == n {
		return be.Errs[i]
	}
	return err
}
