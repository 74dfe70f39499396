package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
)

// Options configure a worker. The zero value is the documented default.
type Options struct {
	// Concurrency is how many handlers run at once: a hard bound. 0 is the
	// number of cores.
	Concurrency int
	// Queues to take tasks from; empty is the queues of the app's tasks.
	// Weights share out a busy worker.
	Queues []Queue
	// Strict takes from a queue only while those before it are empty.
	Strict bool
	// Prefetch is the most deliveries held and not settled; 0 is twice the
	// concurrency. It is never less than the concurrency.
	Prefetch int
	// Lease is how long a silent worker keeps its tasks: 0 is 30 s. It is
	// stored with the queue; all its workers must agree. 1 s to 30 min.
	Lease time.Duration
	// MaxDeliveries is how often a task may be delivered without a verdict,
	// because its worker died, before it is dead-lettered as poison. 0 is 5.
	MaxDeliveries int
	// ShutdownTimeout is the grace that running handlers get when the worker
	// stops: 0 is 25 s, NoGrace is none.
	ShutdownTimeout time.Duration
	// NoDeadLetters ends tasks that failed for good as FAILURE, unless a task
	// or a call says otherwise.
	NoDeadLetters bool
	// deadLetters beats NoDeadLetters and the app's default: a flag of Main.
	deadLetters *bool
	// DeadLetterAge is how long dead letters are kept: 0 is 30 days,
	// chicory.Forever is for ever.
	DeadLetterAge time.Duration
	// Middleware wraps every handler, the first outermost.
	Middleware []Middleware
	// OnSettled, if set, is told of each delivery once it is settled: to count.
	// Several calls run at once; each holds up the settling of others, so it
	// must return soon. Of a delivery that was lost, or whose settling has an
	// unknown outcome, nothing is told.
	OnSettled func(Outcome)
	// Name tells this worker from others; empty is host, process and a number.
	Name string
	// Logger is where the worker reports; nil is the app's.
	Logger *slog.Logger
}

// A Queue is a queue and its share of a worker.
type Queue struct {
	Name   string
	Weight int // relative; 0 is 1
}

// UnmarshalText reads a name, or a name and a weight as in "images=3". The
// weight follows the last "=", so that names may hold one.
func (q *Queue) UnmarshalText(text []byte) error {
	name, weight := string(text), 0
	if i := strings.LastIndex(name, "="); i >= 0 {
		var err error
		if weight, err = strconv.Atoi(name[i+1:]); err != nil || weight < 1 {
			return fmt.Errorf("%w: worker: queue %q: want name or name=weight", chicory.ErrValidation, text)
		}
		name = name[:i]
	}
	if err := driver.CheckQueue(name); err != nil {
		return fmt.Errorf("%w: worker: %w", chicory.ErrValidation, err)
	}
	*q = Queue{name, weight}
	return nil
}

// NoGrace, as Options.ShutdownTimeout, cancels running handlers at once.
const NoGrace time.Duration = -1

// A Handler runs one task; chicory.TaskFrom tells which.
type Handler func(ctx context.Context) error

// Middleware wraps handlers: to trace, to measure, to refuse. It sees what the
// handler returned, panics included, as errors. An argument or a result that was
// refused stays refused, whatever it returns.
type Middleware func(next Handler) Handler

// An Outcome is what became of one delivery of a task.
type Outcome struct {
	ID      string
	Name    string // the task's name; empty if this worker has no handler for it
	Queue   string
	Attempt int // from 1
	// State is that of the task from now on. RETRY is any later run: after a
	// failure, a snooze, or parking. CANCELLED is told of tasks that ran. It is
	// empty if the delivery was given back, or found the task decided already.
	State chicory.State
	// Reason and Kind are those of chicory.TaskError, where State is a failure,
	// RETRY after one, or RETRY of a parked task.
	Reason, Kind string
	Released     bool // given back, for another worker to run
}

const (
	defaultLease         = 30 * time.Second
	defaultMaxDeliveries = 5
	defaultGrace         = 25 * time.Second
	defaultDeadAge       = 30 * 24 * time.Hour
	maxConcurrency       = 1_000_000
)

func (o Options) filled() (Options, error) {
	def(&o.Concurrency, runtime.NumCPU())
	def(&o.Prefetch, 2*o.Concurrency)
	if o.Prefetch > 0 {
		o.Prefetch = max(o.Prefetch, o.Concurrency)
	}
	def(&o.Lease, defaultLease)
	def(&o.MaxDeliveries, defaultMaxDeliveries)
	def(&o.ShutdownTimeout, defaultGrace)
	def(&o.DeadLetterAge, defaultDeadAge)
	if o.Name == "" {
		o.Name = defaultName()
	}
	if o.NoDeadLetters && o.deadLetters == nil {
		o.deadLetters = new(bool)
	}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: worker: "+format, append([]any{chicory.ErrValidation}, args...)...))
	}
	if o.Concurrency < 0 || o.Concurrency > maxConcurrency {
		bad("Concurrency %d: want 1 to %d, or 0 for the number of cores", o.Concurrency, maxConcurrency)
		o.Concurrency = 0
	}
	if o.MaxDeliveries < 0 || o.Prefetch < 0 {
		bad("MaxDeliveries %d, Prefetch %d: want more than 0, or 0 for the default", o.MaxDeliveries, o.Prefetch)
	}
	if o.DeadLetterAge < chicory.Forever {
		bad("DeadLetterAge %v: want more than 0, 0 for the default or chicory.Forever", o.DeadLetterAge)
	}
	if slices.ContainsFunc(o.Middleware, func(m Middleware) bool { return m == nil }) {
		bad("nil Middleware")
	}
	if o.Lease < time.Second || o.Lease > driver.MaxLease || o.Lease%time.Millisecond != 0 {
		bad("Lease %v: want whole milliseconds, 1s to %v", o.Lease, driver.MaxLease)
	}
	if o.ShutdownTimeout < NoGrace {
		bad("ShutdownTimeout %v", o.ShutdownTimeout)
	}
	seen := map[string]bool{}
	for _, q := range o.Queues {
		switch err := driver.CheckQueue(q.Name); {
		case err != nil:
			bad("%w", err)
		case q.Weight < 0:
			bad("queue %q: weight %d, want more than 0", q.Name, q.Weight)
		case seen[q.Name]:
			bad("queue %q is named twice", q.Name)
		}
		seen[q.Name] = true
	}
	return o, errors.Join(errs...)
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func defaultName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return fmt.Sprintf("%s-%d-%d", host, os.Getpid(), nameCount.Add(1))
}
