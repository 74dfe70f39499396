package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// A Task is a registered handler with its types erased.
type Task struct {
	Name    string
	Aliases []string
	Policy  Policy
	RetryIf func(error) bool // nil: any error
	// Run decodes the argument in env, calls the handler and encodes what it
	// returns.
	Run   func(ctx context.Context, env *Envelope) (contentType string, body []byte, err error)
	Where string // file:line of the registration
}

// A Core is what an app and its workers share, connected or not.
type Core struct {
	Tasks      *Registry
	Defaults   Policy // every field set
	Log        *slog.Logger
	MaxPayload int
	MaxResult  int
	// Hold connects the app for a worker, until it is released.
	Hold func(ctx context.Context) (release func(context.Context) error, err error)
	// Override replaces the stores of an app that is not connected.
	Override func(url string) error
	engine   atomic.Pointer[Engine]
	closed   atomic.Bool
}

// Engine returns the connected engine, ErrNotConnected or ErrClosed.
func (c *Core) Engine() (*Engine, error) {
	if e := c.engine.Load(); e != nil {
		return e, nil
	}
	if c.closed.Load() {
		return nil, ErrClosed
	}
	return nil, ErrNotConnected
}

// SetEngine installs e; nil disconnects. It returns the one before.
func (c *Core) SetEngine(e *Engine) *Engine { return c.engine.Swap(e) }

// SetClosed makes every later call fail with ErrClosed. It reports whether that
// was so already.
func (c *Core) SetClosed() (before bool) { return c.closed.Swap(true) }

// Closed reports whether the app was closed.
func (c *Core) Closed() bool { return c.closed.Load() }

// A Registry holds the tasks of an app, and the mistakes made on the way. It
// is safe for concurrent use.
type Registry struct {
	mu    sync.RWMutex
	tasks map[string]*Task // by name and alias
	sends map[string]bool  // names bound for dispatch: wants a result
	errs  []error
}

// Add registers t. A name that is taken is a mistake that Err reports.
func (r *Registry) Add(t *Task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks == nil {
		r.tasks = map[string]*Task{}
	}
	for _, name := range append([]string{t.Name}, t.Aliases...) {
		if other, ok := r.tasks[name]; ok {
			r.errs = append(r.errs, fmt.Errorf("%w: task %q is registered twice, at %s and at %s", ErrValidation, name, other.Where, t.Where))
			continue
		}
		r.tasks[name] = t
	}
}

// AddSend notes that a task is bound for dispatch, and whether it has results.
func (r *Registry) AddSend(name string, results bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sends == nil {
		r.sends = map[string]bool{}
	}
	r.sends[name] = r.sends[name] || results
}

// AddErr notes a mistake.
func (r *Registry) AddErr(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, known := range r.errs {
		if known.Error() == err.Error() {
			return
		}
	}
	r.errs = append(r.errs, err)
}

// Err returns the mistakes, joined.
func (r *Registry) Err() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return errors.Join(r.errs...)
}

// Find returns the task of that name or alias, or nil.
func (r *Registry) Find(name string) *Task {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tasks[name]
}

// Names returns the names and aliases of the registered tasks, ordered.
func (r *Registry) Names() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.tasks))
}

// Wanting returns the names of tasks that have results, ordered.
func (r *Registry) Wanting(defaults *Policy) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var names []string
	for name, wants := range r.sends {
		if wants {
			names = append(names, name)
		}
	}
	for name, t := range r.tasks {
		if p := t.Policy.Over(defaults); !p.IgnoreResult && !r.sends[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Queues returns the queues of the registered tasks, ordered.
func (r *Registry) Queues(defaults *Policy) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var qs []string
	for _, t := range r.tasks {
		p := t.Policy.Over(defaults)
		qs = append(qs, p.Queue)
	}
	slices.Sort(qs)
	return slices.Compact(qs)
}

// A Call is what a handler's context knows of its task.
type Call struct {
	ID, Name, Queue string
	Attempt         int
	MaxAttempts     int
	Deliveries      int
	Epoch           int
	Headers         map[string]string
}

// CallKey is the context key of the *Call; WaitKey that of a permission to
// wait inside a handler.
type (
	CallKey struct{}
	WaitKey struct{}
)

// CallFrom returns the call of ctx, or nil outside of handlers.
func CallFrom(ctx context.Context) *Call {
	c, _ := ctx.Value(CallKey{}).(*Call)
	return c
}
