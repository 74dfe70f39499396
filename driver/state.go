package driver

// State is the state of a task, as its record tells it.
type State string

// The states. SUCCESS, FAILURE, DEAD_LETTERED, EXPIRED and CANCELLED are
// terminal: they absorb their epoch.
const (
	Pending      State = "PENDING"       // published, not started
	Started      State = "STARTED"       // a worker has it
	Retry        State = "RETRY"         // failed, snoozed or parked; will be back
	Success      State = "SUCCESS"       // returned a result
	Failure      State = "FAILURE"       // failed for good, dead-lettering off
	DeadLettered State = "DEAD_LETTERED" // failed for good, kept among the dead letters
	Expired      State = "EXPIRED"       // not started before its deadline
	Cancelled    State = "CANCELLED"     // cancelled by its owner
)

// Terminal reports whether a task in state s is finished.
func (s State) Terminal() bool {
	switch s {
	case Success, Failure, DeadLettered, Expired, Cancelled:
		return true
	}
	return false
}

// Failed reports whether a task in state s failed for good.
func (s State) Failed() bool { return s == Failure || s == DeadLettered }

// rank orders the states within one version.
func (u *Update) rank() int {
	switch {
	case u.Provisional:
		return 0
	case u.State == Pending:
		return 1
	case u.State == Started:
		return 2
	case u.State == Retry:
		return 3
	}
	return 4
}
