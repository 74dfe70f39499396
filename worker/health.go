package worker

import (
	"errors"
	"fmt"
	"strings"
)

// Errors of Health, to match with errors.Is. Handlers that do not return are a
// *HungError.
var (
	// ErrNotRunning: Run was not called, is still connecting, or has returned.
	ErrNotRunning = errors.New("chicory: worker is not running")
	// ErrStopping: Run's context has ended; the handlers have their grace.
	ErrStopping = errors.New("chicory: worker is stopping")
	// ErrBrokerAway: the last attempt to receive from the broker failed. The
	// worker keeps trying.
	ErrBrokerAway = errors.New("chicory: broker is away")
)

// A HungError tells of handlers that ignore their cancelled contexts. Each keeps
// its slot until it returns; its task went on elsewhere.
type HungError struct {
	Tasks []string // "name (id)", ordered
}

// Error names the tasks.
func (e *HungError) Error() string {
	return "chicory: handlers ignore their cancelled contexts: " + strings.Join(e.Tasks, ", ")
}

// Health returns nil while the worker runs and can take tasks. Otherwise it
// says what is wrong, with ErrNotRunning, ErrStopping, ErrBrokerAway and a
// *HungError, several of them joined.
func (w *Worker) Health() error {
	w.mu.Lock()
	s := w.session
	w.mu.Unlock()
	if s == nil {
		return ErrNotRunning
	}
	return s.health()
}

func (s *session) health() error {
	var errs []error
	if s.stopping.Load() {
		errs = append(errs, ErrStopping)
	}
	if err := s.away.Load(); err != nil {
		errs = append(errs, fmt.Errorf("%w: %w", ErrBrokerAway, *err))
	}
	if names := s.hung.names(); len(names) > 0 {
		errs = append(errs, &HungError{Tasks: names})
	}
	return errors.Join(errs...)
}
