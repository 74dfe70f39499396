package chicorytest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/internal/settings"
	"github.com/chicory-go/chicory/worker"
)

// Options configure a kit. The zero value is the documented default.
type Options struct {
	// Config is the app's. URL, Broker and Backend are left out of account, as
	// the stores are in memory; BackendNone is obeyed. Namespace and Queue, if
	// empty, are "test" and "default". None of these is looked for in the
	// environment, which has its say where others are left open; CHICORY_CONFIG
	// is passed over. A nil Logger writes to the output of the test. ResultSweep
	// 0 is NoSweep.
	Config chicory.Config
	// Worker is that of the worker. Concurrency 0 is 1 here, so that tasks run
	// one after the other. Lease 0 is 30 minutes, as a worker has something to
	// do every third of it, while days should pass at once.
	Worker worker.Options
}

// A Kit is an app in memory and a worker that runs its tasks when the test says
// so. Only one goroutine, that of the test, may call RunUntilIdle and Advance;
// everything else is safe for concurrent use.
type Kit struct {
	// App is connected. Give it to the code under test, and register handlers
	// with it before the first RunUntilIdle or Advance.
	App *chicory.App

	t        testing.TB
	opts     Options
	bubble   bool // of testing/synctest: time is fake
	messages *memory.Store
	records  *memory.Store // nil: no results
	watch    driver.Backend
	starting sync.WaitGroup // workers in the place of those that crashed

	mu      sync.Mutex
	sent    []sending
	crashes []crash    // still to come
	all     []*process // started so far, not changed once closed
	current *process   // the one that lives; nil before the first, and for a moment after a crash
	changed sync.Cond  // a delivery was settled or lost, or a worker crashed
	closed  bool
}

// New returns a kit, which is closed when t ends. Call it inside synctest.Test,
// with the T of the bubble: outside of one the kit works too, but only for
// sending, [Sent] and what follows from it. No worker runs before the first
// RunUntilIdle or Advance.
func New(t testing.TB, o Options) *Kit {
	t.Helper()
	k := &Kit{t: t, bubble: inBubble(), opts: o, messages: memory.New()}
	k.changed.L = &k.mu
	c := &k.opts.Config
	def(&c.Namespace, "test")
	def(&c.Queue, "default")
	def(&c.ResultSweep, chicory.NoSweep)
	def(&k.opts.Worker.Concurrency, 1)
	def(&k.opts.Worker.Lease, driver.MaxLease)
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if c.Codec == nil {
		c.Codec = codec.JSON
	}
	if c.Backend != chicory.BackendNone {
		k.records = memory.New()
		k.watch = k.records.Backend(c.Namespace)
	}
	// What is set is not looked for in the environment, where it may even be wrong.
	c.URL, c.BrokerURL, c.BackendURL, c.Broker = "memory:", "memory:", "memory:", "memory"
	def(&c.Backend, "memory")
	broker, backend := k.stores()
	var app *chicory.App
	var err error
	settings.WithoutFile(func() { app, err = chicory.NewWith(&appBroker{broker, k}, backend, *c) })
	if err == nil {
		err = app.Connect(context.Background())
	}
	if err != nil {
		t.Fatalf("chicorytest: %v", err)
	}
	k.App = app
	t.Cleanup(k.close)
	return k
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// inBubble reports whether time is fake. Nothing but Wait tells.
func inBubble() (in bool) {
	defer func() {
		if recover() != nil {
			in = false
		}
	}()
	synctest.Wait()
	return true
}

// stores returns new clients of the stores, as another process would have them.
// They are two stores, so that to record a verdict and to settle are two steps.
func (k *Kit) stores() (driver.Broker, driver.Backend) {
	broker := k.messages.Broker(k.opts.Config.Namespace)
	if k.records == nil {
		return broker, nil
	}
	return broker, k.records.Backend(k.opts.Config.Namespace)
}

// RunUntilIdle runs every task that is due, those that handlers send on the way
// included, and returns once no worker holds one. Time passes only as handlers
// wait for it. Delayed tasks, retries that are not due and what a crashed worker
// held stay where they are: see Advance. Handlers that ignore their cancelled
// context for 5 seconds are not waited for. Outside of a bubble it fails the test.
func (k *Kit) RunUntilIdle() {
	k.t.Helper()
	k.work("RunUntilIdle")
	for {
		synctest.Wait()
		if k.idle() {
			return
		}
	}
}

// idle reports whether no worker that lives holds a task; if one does, it first
// waits for that to change.
func (k *Kit) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == nil || len(k.current.held) == 0 {
		return true
	}
	k.changed.Wait()
	return false
}

// Advance lets d pass, while a worker runs what becomes due on the way and at its
// end: delayed tasks, retries, and what a crashed worker held, once its lease has
// run out. It does not wait for handlers that still run then. For time to pass
// without a worker call time.Sleep before the first Advance. Outside of a bubble
// it fails the test.
func (k *Kit) Advance(d time.Duration) {
	k.t.Helper()
	k.work("Advance")
	time.Sleep(d)
	synctest.Wait()
}

// Lease returns the lease of the worker: after so long a task comes back whose
// worker has crashed, and a third of it is how long the handler of a cancelled
// task may take to learn of that.
func (k *Kit) Lease() time.Duration { return k.opts.Worker.Lease }

// work makes sure that a worker runs.
func (k *Kit) work(caller string) {
	k.t.Helper()
	if !k.bubble {
		k.t.Fatalf("chicorytest: %s needs fake time: call it and New inside synctest.Test", caller)
	}
	synctest.Wait() // for a worker that starts in the place of another
	k.mu.Lock()
	runs := k.current != nil
	k.mu.Unlock()
	if runs {
		return
	}
	if err := k.start(); err != nil {
		k.t.Fatalf("chicorytest: %s: %v", caller, err)
	}
}

// start starts a worker, which is a process of its own.
func (k *Kit) start() error {
	k.mu.Lock()
	p := &process{kit: k, held: map[*driver.Delivery]string{}, running: map[context.Context]context.CancelCauseFunc{}}
	k.all = append(k.all, p)
	number := len(k.all)
	k.mu.Unlock()
	if err := p.start(number); err != nil {
		return fmt.Errorf("start a worker: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !p.dead.Load() { // it may have crashed already
		k.current = p
	}
	return nil
}

func (k *Kit) close() {
	k.t.Helper()
	k.mu.Lock()
	k.closed = true
	unmet := k.crashes
	k.crashes = nil // what a handler meets as the worker stops does not count
	k.mu.Unlock()
	k.starting.Wait()
	for _, p := range k.all {
		if err := p.end(); err != nil {
			k.t.Errorf("chicorytest: stop a worker: %v", err)
		}
	}
	if err := k.App.Close(); err != nil {
		k.t.Errorf("chicorytest: %v", err)
	}
	if k.watch != nil {
		k.watch.Close(context.Background())
	}
	for _, c := range unmet {
		k.t.Errorf("chicorytest: no worker crashed at %s, because no task got there", c)
	}
}
