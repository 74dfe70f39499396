package chicory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// Bounds of closing.
const (
	closeTimeout = 10 * time.Second
	stopGrace    = 2 * time.Second // of calls in progress, before their stores are closed
)

// An App sends tasks, waits for their results and knows their handlers. It is
// safe for concurrent use.
type App struct {
	cfg      Config
	core     *engine.Core
	decoders []codec.Codec // those of cfg

	connecting lock // guards what follows
	broker     source
	back       source
	// Stores of NewWith, which Disconnect leaves open.
	ownBroker  driver.Broker
	ownBackend driver.Backend
	held       bool // Connect was called
	workers    int  // that need the connection

	giveUp atomic.Pointer[context.CancelFunc] // of a Connect in progress
}

// New returns an app. It checks the configuration, finds the drivers and does
// no I/O; Connect opens the stores.
func New(cfg Config) (*App, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	a := newApp(cfg)
	var err error
	a.broker, a.back, err = cfg.sources()
	if err != nil {
		return nil, err
	}
	return a, nil
}

// NewWith returns an app on stores that are already open: your own client, or
// a driver of your own. A nil backend is no results. Close closes them,
// Disconnect does not. The environment's stores are not looked for.
func NewWith(broker driver.Broker, backend driver.Backend, cfg Config) (*App, error) {
	if broker == nil {
		return nil, fmt.Errorf("%w: NewWith without a broker", ErrValidation)
	}
	def(&cfg.Broker, "own") // with one set, no store is looked for in the environment
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	if backend == nil {
		cfg.Backend = BackendNone
	}
	a := newApp(cfg)
	a.ownBroker, a.ownBackend = broker, backend
	return a, nil
}

// Must returns v, or panics if err is not nil. It is for examples, and for
// programs that cannot go on without v.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newApp(cfg Config) *App {
	a := &App{cfg: cfg, decoders: cfg.decoders(), connecting: make(lock, 1)}
	a.core = &engine.Core{Tasks: &engine.Registry{}, Defaults: cfg.policy(), Log: cfg.Logger, MaxPayload: cfg.MaxPayload,
		MaxResult: cfg.MaxResult, Hold: a.hold, Override: a.override}
	return a
}

// Core returns what workers need of the app. It is for packages worker and
// chicorytest.
func (a *App) Core() *engine.Core { return a.core }

// Connect opens the stores, within ctx. It returns the mistakes made in
// registering tasks, ErrNoBackend with the names of tasks whose results have
// nowhere to go, and whatever the drivers say. Connecting twice is no error.
func (a *App) Connect(ctx context.Context) error {
	if err := a.connecting.take(ctx); err != nil {
		return fmt.Errorf("chicory: connect: %w", err)
	}
	defer a.connecting.free()
	err := a.connect(ctx)
	a.held = a.held || err == nil
	return err
}

// hold connects the app for a worker. Release disconnects it, unless Connect
// was called or another worker needs it.
func (a *App) hold(ctx context.Context) (release func(context.Context) error, err error) {
	if err := a.connecting.take(ctx); err != nil {
		return nil, fmt.Errorf("chicory: connect: %w", err)
	}
	defer a.connecting.free()
	if err := a.connect(ctx); err != nil {
		return nil, err
	}
	a.workers++
	return a.release, nil
}

func (a *App) release(ctx context.Context) error {
	if err := a.connecting.take(ctx); err != nil {
		return err
	}
	defer a.connecting.free()
	if a.workers--; a.workers > 0 || a.held {
		return nil
	}
	return a.disconnect(ctx, false)
}

// connect opens the stores, unless they are open.
func (a *App) connect(ctx context.Context) error {
	if a.core.Closed() {
		return ErrClosed
	}
	if _, err := a.core.Engine(); err == nil {
		return nil
	}
	if err := a.core.Tasks.Err(); err != nil {
		return err
	}
	if err := a.wantBackend(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.giveUp.Store(&cancel)
	defer a.giveUp.Store(nil)
	broker, backend, err := a.open(ctx)
	if err == nil && a.core.Closed() {
		err = errors.Join(ErrClosed, a.closeStores(ctx, broker, backend))
	}
	if err != nil {
		return err
	}
	eng, err := engine.New(ctx, broker, backend, a.cfg.Logger, a.cfg.ResultSweep)
	if err != nil {
		return errors.Join(err, a.closeStores(ctx, broker, backend))
	}
	a.core.SetEngine(eng)
	return nil
}

// wantBackend refuses to connect where results would be lost by accident.
func (a *App) wantBackend() error {
	if a.ownBackend != nil || a.back.name != "" || a.cfg.Backend == BackendNone {
		return nil
	}
	names := a.core.Tasks.Wanting(&a.core.Defaults)
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%w: broker %s keeps no results, and these tasks have some: %s; set Config.Backend or BackendURL, mark the tasks IgnoreResult, or say BackendNone",
		ErrNoBackend, a.broker.name, strings.Join(names, ", "))
}

func (a *App) open(ctx context.Context) (driver.Broker, driver.Backend, error) {
	if a.ownBroker != nil {
		return a.ownBroker, a.ownBackend, nil
	}
	bc := *a.broker.cfg
	broker, err := a.broker.drv.OpenBroker(ctx, &bc)
	if err != nil {
		return nil, nil, fmt.Errorf("chicory: open broker %s: %w", a.broker.name, err)
	}
	if a.back.name == "" {
		return broker, nil, nil
	}
	cfg := *a.back.cfg
	cfg.Broker = broker
	backend, err := a.back.drv.OpenBackend(ctx, &cfg)
	if err != nil {
		err = fmt.Errorf("chicory: open backend %s: %w", a.back.name, err)
		return nil, nil, errors.Join(err, broker.Close(ctx))
	}
	return broker, backend, nil
}

func (a *App) closeStores(ctx context.Context, broker driver.Broker, backend driver.Backend) error {
	if a.ownBroker != nil {
		return nil
	}
	if backend != nil {
		return errors.Join(backend.Close(ctx), broker.Close(ctx))
	}
	return broker.Close(ctx)
}

// Disconnect closes the stores, within ctx. Connect opens them again. What a
// private memory store held is gone. Waits in progress end with ErrClosed.
func (a *App) Disconnect(ctx context.Context) error {
	if err := a.connecting.take(ctx); err != nil {
		return fmt.Errorf("chicory: disconnect: %w", err)
	}
	defer a.connecting.free()
	a.held = false
	return a.disconnect(ctx, false)
}

func (a *App) disconnect(ctx context.Context, closing bool) error {
	eng := a.core.SetEngine(nil)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if eng != nil {
			eng.Stop()
		}
	}()
	// Calls in progress may hang in a store: closing it ends them.
	grace, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	within(grace, stopped)
	var err error
	switch {
	case a.ownBroker != nil && closing:
		err = a.ownBroker.Close(ctx)
		if a.ownBackend != nil {
			err = errors.Join(a.ownBackend.Close(ctx), err)
		}
	case a.ownBroker == nil && eng != nil:
		err = a.closeStores(ctx, eng.Broker, eng.Backend)
	}
	if !within(ctx, stopped) {
		err = errors.Join(err, fmt.Errorf("chicory: calls in progress do not end: %w", context.Cause(ctx)))
	}
	return err
}

func within(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// Close closes the app for good, within 10 seconds, and ends a Connect in
// progress. Later calls return ErrClosed; closing twice is no error.
func (a *App) Close() error {
	if a.core.SetClosed() {
		return nil
	}
	if cancel := a.giveUp.Load(); cancel != nil {
		(*cancel)()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := a.connecting.take(ctx); err != nil {
		return fmt.Errorf("chicory: close: a store does not finish opening or closing: %w", err)
	}
	defer a.connecting.free()
	return a.disconnect(ctx, true)
}

// A lock is a mutex whose wait ends with a context.
type lock chan struct{}

func (l lock) take(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l lock) free() { <-l }

// override replaces broker and backend before Connect. It keeps BackendNone.
func (a *App) override(raw string) error {
	a.connecting <- struct{}{}
	defer a.connecting.free()
	if a.ownBroker != nil {
		return fmt.Errorf("%w: the app was made with NewWith, it has no URL", ErrValidation)
	}
	cfg := a.cfg
	cfg.URL, cfg.Broker, cfg.BrokerURL, cfg.BackendURL = raw, "", "", ""
	if cfg.Backend != BackendNone {
		cfg.Backend = ""
	}
	broker, back, err := cfg.sources()
	if err != nil {
		return err
	}
	a.cfg, a.broker, a.back = cfg, broker, back
	return nil
}

// Cancel cancels a task: one that has not started never starts, the context of
// a running one is cancelled with cause ErrCancelled within one heartbeat of
// its worker (a third of the lease). It returns ErrNotFound for an unknown id
// and ErrFinished if the task had ended.
func (a *App) Cancel(ctx context.Context, id string) error {
	eng, err := a.results()
	if err != nil {
		return err
	}
	return eng.CancelTask(ctx, id, max(0, a.cfg.ResultTTL))
}

// results returns the engine if there is a backend.
func (a *App) results() (*engine.Engine, error) {
	eng, err := a.core.Engine()
	if err == nil && eng.Backend == nil {
		err = ErrNoBackend
	}
	return eng, err
}
