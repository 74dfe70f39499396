package chicory

import "github.com/chicory-go/chicory/driver"

// State is the state of a task.
type State = driver.State

// The states of a task:
//
//	PENDING → STARTED → SUCCESS
//	                  → RETRY → STARTED …
//	                  → DEAD_LETTERED (kept), FAILURE (dead-lettering off)
//	        → EXPIRED, CANCELLED
const (
	// StatePending: enqueued, not started.
	StatePending = driver.Pending
	// StateStarted: a worker has it.
	StateStarted = driver.Started
	// StateRetry: an attempt failed, or the task was snoozed or parked; it
	// runs again later.
	StateRetry = driver.Retry
	// StateSuccess: the handler returned a result.
	StateSuccess = driver.Success
	// StateFailure: failed for good, with dead-lettering off.
	StateFailure = driver.Failure
	// StateDeadLettered: failed for good and kept among the dead letters.
	StateDeadLettered = driver.DeadLettered
	// StateExpired: was not started before its deadline.
	StateExpired = driver.Expired
	// StateCancelled: was cancelled.
	StateCancelled = driver.Cancelled
)
