package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

var nameCount atomic.Int64

// A Worker runs the tasks of an app. It is safe for concurrent use.
type Worker struct {
	core *engine.Core
	opts Options
	err  error // of the options

	mu      sync.Mutex
	session *session // while running
}

// New returns a worker of app. Mistakes in the options are returned by Run.
func New(app *chicory.App, opts Options) *Worker {
	w := &Worker{core: app.Core()}
	w.opts, w.err = opts.filled()
	if w.opts.Logger == nil {
		w.opts.Logger = w.core.Log
	}
	return w
}

// ErrRunning is returned by Run of a worker that runs already.
var ErrRunning = errors.New("chicory: worker is running already")

// Run runs tasks until ctx ends, then stops receiving, gives back what has not
// started, lets handlers run on for Options.ShutdownTimeout, cancels those that
// are left, and returns nil. It connects the app if it is not connected; the last
// worker that does so disconnects it, unless Connect was called. Mistakes in options or registrations, and a broker
// that was closed underneath, are returned as errors.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.mistakes(); err != nil {
		return err
	}
	s, disconnect, err := w.begin(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // stopped before it began
	case err != nil:
		return err
	}
	return w.finish(ctx, s, disconnect)
}

// Start runs the worker behind, until ctx ends or stop is called. It returns
// once the worker is connected and takes tasks; stop waits for what Run waits
// for and returns what Run returns. Stopping twice is no error.
func (w *Worker) Start(ctx context.Context) (stop func() error, err error) {
	s, disconnect, err := w.begin(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var result error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result = w.finish(ctx, s, disconnect)
	}()
	return func() error {
		cancel()
		<-done
		return result
	}, nil
}

// mistakes returns those in the options and in the registered tasks.
func (w *Worker) mistakes() error { return errors.Join(w.err, w.core.Tasks.Err()) }

// begin connects and subscribes.
func (w *Worker) begin(ctx context.Context) (s *session, disconnect func(), err error) {
	if err := w.mistakes(); err != nil {
		return nil, nil, err
	}
	eng, disconnect, err := w.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	queues, err := w.queues()
	if err == nil {
		s, err = newSession(ctx, w, eng, queues)
	}
	if err == nil && !w.enter(s) {
		err = errors.Join(ErrRunning, s.sub.Close(context.WithoutCancel(ctx)))
	}
	if err != nil {
		disconnect()
		return nil, nil, err
	}
	backend := "none"
	if eng.Backend != nil {
		backend = eng.Backend.Info().Name
	}
	w.opts.Logger.Info("chicory: worker started", "worker", w.opts.Name, "concurrency", w.opts.Concurrency,
		"broker", eng.Broker.Info().Name, "backend", backend, "queues", queueNames(queues), "tasks", w.core.Tasks.Names())
	return s, disconnect, nil
}

// finish runs s to its end.
func (w *Worker) finish(ctx context.Context, s *session, disconnect func()) error {
	defer disconnect()
	defer w.enter(nil)
	err := s.run(ctx)
	w.opts.Logger.Info("chicory: worker stopped", "worker", w.opts.Name)
	return err
}

// enter makes s the running session; nil ends it.
func (w *Worker) enter(s *session) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s != nil && w.session != nil {
		return false
	}
	w.session = s
	return true
}

// connect holds the app connected until disconnect is called.
func (w *Worker) connect(ctx context.Context) (eng *engine.Engine, disconnect func(), err error) {
	release, err := w.core.Hold(ctx)
	if err != nil {
		return nil, nil, err
	}
	disconnect = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := release(ctx); err != nil {
			w.opts.Logger.Warn("chicory: disconnect", "error", err)
		}
	}
	if eng, err = w.core.Engine(); err != nil {
		disconnect()
	}
	return eng, disconnect, err
}

func (w *Worker) queues() ([]driver.QueueSpec, error) {
	var qs []driver.QueueSpec
	for _, q := range w.opts.Queues {
		qs = append(qs, driver.QueueSpec{Name: q.Name, Weight: max(1, q.Weight)})
	}
	if len(qs) == 0 {
		for _, name := range w.core.Tasks.Queues(&w.core.Defaults) {
			qs = append(qs, driver.QueueSpec{Name: name, Weight: 1})
		}
	}
	if len(qs) == 0 {
		return nil, fmt.Errorf("%w: worker has no queues: no task has a handler and Options.Queues is empty", chicory.ErrValidation)
	}
	return qs, nil
}

func queueNames(qs []driver.QueueSpec) string {
	var names []string
	for _, q := range qs {
		names = append(names, q.Name)
	}
	return strings.Join(names, ",")
}

// Name returns Options.Name, or what stands for it.
func (w *Worker) Name() string { return w.opts.Name }

// Concurrency returns how many handlers run at once at most.
func (w *Worker) Concurrency() int { return w.opts.Concurrency }

// Running returns how many handlers run now.
func (w *Worker) Running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.session == nil {
		return 0
	}
	return int(w.session.running.Load())
}

// slots bounds the handlers that run at once.
type slots struct {
	size int
	free atomic.Int64
	wake chan struct{}
}

func newSlots(n int) *slots {
	s := &slots{size: n, wake: make(chan struct{}, 1)}
	s.free.Store(int64(n))
	return s
}

// take waits for free slots and takes all of them; 0 if ctx ends.
func (s *slots) take(ctx context.Context) int {
	for {
		if ctx.Err() != nil {
			return 0
		}
		if n := s.free.Swap(0); n > 0 {
			return int(n)
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return 0
		}
	}
}

func (s *slots) give(n int) {
	if n == 0 {
		return
	}
	s.free.Add(int64(n))
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// inflight holds the jobs whose deliveries are not settled.
type inflight struct {
	mu   sync.Mutex
	jobs map[*job]struct{}
	none sync.Cond
}

func newInflight() *inflight {
	f := &inflight{jobs: map[*job]struct{}{}}
	f.none.L = &f.mu
	return f
}

func (f *inflight) add(j *job) {
	f.mu.Lock()
	f.jobs[j] = struct{}{}
	f.mu.Unlock()
}

func (f *inflight) remove(j *job) {
	f.mu.Lock()
	delete(f.jobs, j)
	if len(f.jobs) == 0 {
		f.none.Broadcast()
	}
	f.mu.Unlock()
}

func (f *inflight) all() []*job {
	f.mu.Lock()
	defer f.mu.Unlock()
	js := make([]*job, 0, len(f.jobs))
	for j := range f.jobs {
		js = append(js, j)
	}
	return js
}

// empty returns a channel that is closed once there are no jobs.
func (f *inflight) empty() <-chan struct{} {
	ch := make(chan struct{})
	go func() {
		f.mu.Lock()
		for len(f.jobs) > 0 {
			f.none.Wait()
		}
		f.mu.Unlock()
		close(ch)
	}()
	return ch
}

func sortedNames(js []*job) []string {
	var names []string
	for _, j := range js {
		names = append(names, fmt.Sprintf("%s (%s)", j.name(), j.d.ID))
	}
	slices.Sort(names)
	return names
}

// name is the task's name, empty before the delivery was read.
func (j *job) name() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.admitted {
		return ""
	}
	return j.call.Name
}

// logAttrs are what every line about a job says.
func (j *job) logAttrs(more ...any) []any {
	return append([]any{slog.String("task", j.name()), slog.String("id", j.d.ID),
		slog.String("queue", j.d.Queue), slog.Int("attempt", int(j.d.Attempt))}, more...)
}
