package chicorytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/worker"
)

// A process is a worker with clients of its own of the stores, which a crash
// closes: nothing is given back, and nothing more is taken.
type process struct {
	kit     *Kit
	broker  driver.Broker
	backend driver.Backend // nil: no results
	app     *chicory.App
	cancel  context.CancelFunc
	stop    func() error
	dead    atomic.Bool // set under kit.mu

	// Guarded by kit.mu.
	doomed  bool                                        // a crash is on its way
	held    map[*driver.Delivery]string                 // not settled: the task's name
	running map[context.Context]context.CancelCauseFunc // of handlers
}

// processKey is the key of the process in the contexts of its handlers.
type processKey struct{}

func (p *process) start(number int) (err error) {
	p.broker, p.backend = p.kit.stores()
	var backend driver.Backend
	if p.backend != nil {
		backend = &processBackend{p.backend, p}
	}
	cfg, o := p.kit.opts.Config, p.kit.opts.Worker
	cfg.Logger = slog.New(&logHandler{cfg.Logger.Handler(), p})
	if o.Logger != nil {
		o.Logger = slog.New(&logHandler{o.Logger.Handler(), p})
	}
	if p.app, err = chicory.NewWith(&processBroker{p.broker, p}, backend, cfg); err != nil {
		return err
	}
	p.app.Core().Tasks = p.kit.App.Core().Tasks
	def(&o.Name, fmt.Sprint("worker-", number))
	o.Middleware = append(slices.Clone(o.Middleware), p.middleware)
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.stop, err = worker.New(p.app, o).Start(ctx)
	return err
}

// end stops the worker and closes its clients, if they are not.
func (p *process) end() error {
	switch { // it did not start
	case p.app == nil:
		return nil
	case p.stop == nil:
		return p.app.Close()
	}
	err := p.stop()
	if p.dead.Load() {
		err = nil // its stores were closed underneath
	}
	p.cancel()
	return errors.Join(err, p.app.Close())
}

// crash ends the process; another takes its place.
func (p *process) crash() {
	k := p.kit
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.dead.Swap(true) {
		return
	}
	p.doomed = true
	p.broker.Close(context.Background())
	if p.backend != nil {
		p.backend.Close(context.Background())
	}
	for _, cancel := range p.running {
		cancel(ErrCrashed)
	}
	p.cancel()
	if k.current == p {
		k.current = nil
	}
	k.changed.Broadcast()
	if k.closed {
		return
	}
	k.starting.Go(func() {
		if err := k.start(); err != nil {
			k.t.Errorf("chicorytest: after a crash: %v", err)
		}
	})
}

// reaches says that tasks have got to a point, and reports whether the process
// crashes there.
func (p *process) reaches(at Point, names []string) bool {
	if !p.meets(at, names) {
		return false
	}
	p.crash()
	return true
}

// middleware is around every handler.
func (p *process) middleware(next worker.Handler) worker.Handler {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithCancelCause(context.WithValue(ctx, processKey{}, p))
		defer cancel(nil)
		if !p.enter(ctx, cancel) {
			return ErrCrashed
		}
		defer p.leave(ctx)
		info, _ := chicory.TaskFrom(ctx)
		if p.meets(InHandler, []string{info.Name}) {
			// Fake time passes once everything waits, the handler too.
			defer time.AfterFunc(time.Nanosecond, p.crash).Stop()
			defer p.crash()
		}
		return next(ctx)
	}
}

// enter notes that a handler starts. In a dead process none does.
func (p *process) enter(ctx context.Context, cancel context.CancelCauseFunc) bool {
	p.kit.mu.Lock()
	defer p.kit.mu.Unlock()
	if p.dead.Load() {
		return false
	}
	p.running[ctx] = cancel
	return true
}

func (p *process) leave(ctx context.Context) {
	p.kit.mu.Lock()
	defer p.kit.mu.Unlock()
	delete(p.running, ctx)
}

// hold notes what the worker received.
func (p *process) hold(ds []*driver.Delivery, names []string) {
	p.kit.mu.Lock()
	defer p.kit.mu.Unlock()
	for i, d := range ds {
		p.held[d] = names[i]
	}
}

// drop notes that the worker no longer holds a delivery.
func (p *process) drop(d *driver.Delivery) {
	p.kit.mu.Lock()
	defer p.kit.mu.Unlock()
	delete(p.held, d)
	p.kit.changed.Broadcast()
}

// names returns the names of the tasks held that are wanted.
func (p *process) names(wanted func(*driver.Delivery) bool) (names []string) {
	p.kit.mu.Lock()
	defer p.kit.mu.Unlock()
	for d, name := range p.held {
		if wanted(d) {
			names = append(names, name)
		}
	}
	return names
}

// A logHandler is silent once its process is dead.
type logHandler struct {
	slog.Handler
	p *process
}

func (h *logHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return !h.p.dead.Load() && h.Handler.Enabled(ctx, l)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.Handler.WithAttrs(attrs), h.p}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.Handler.WithGroup(name), h.p}
}

// processBroker is the broker of a process.
type processBroker struct {
	driver.Broker
	p *process
}

func (b *processBroker) Unwrap() any { return b.Broker }

func (b *processBroker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	s, err := b.Broker.Subscribe(ctx, o)
	if err != nil {
		return nil, err
	}
	return &subscription{s, b.p}, nil
}

type subscription struct {
	driver.Subscription
	p *process
}

func (s *subscription) Receive(ctx context.Context, max int) ([]*driver.Delivery, error) {
	ds, err := s.Subscription.Receive(ctx, max)
	names := make([]string, len(ds))
	for i, d := range ds {
		names[i] = taskName(d.Envelope)
	}
	if s.p.reaches(BeforeStart, names) {
		return nil, driver.ErrClosed
	}
	s.p.hold(ds, names)
	return ds, err
}

// taskName returns the name in an envelope, empty if it cannot be read.
func taskName(envelope []byte) string {
	var env engine.Envelope
	if engine.DecodeEnvelope(envelope, &env) != nil {
		return ""
	}
	return env.Name
}

func (s *subscription) Settle(ctx context.Context, ss []driver.Settlement) error {
	acked := func(d *driver.Delivery) bool {
		return slices.ContainsFunc(ss, func(st driver.Settlement) bool { return st.Delivery == d && st.Action == driver.Ack })
	}
	unrecorded := func(d *driver.Delivery) bool { return d.NoRecord && acked(d) }
	if s.p.reaches(BeforeVerdict, s.p.names(unrecorded)) || s.p.reaches(BeforeSettle, s.p.names(acked)) {
		return driver.ErrClosed
	}
	err := s.Subscription.Settle(ctx, ss)
	for i := range ss {
		if item := driver.ItemError(err, i, len(ss)); item == nil || errors.Is(item, driver.ErrLeaseLost) {
			s.p.drop(ss[i].Delivery)
		}
	}
	return err
}

func (s *subscription) Extend(ctx context.Context, ds []*driver.Delivery) error {
	err := s.Subscription.Extend(ctx, ds)
	for i, d := range ds {
		if errors.Is(driver.ItemError(err, i, len(ds)), driver.ErrLeaseLost) {
			s.p.drop(d)
		}
	}
	return err
}

// processBackend is the backend of a process. A worker applies nothing but
// verdicts.
type processBackend struct {
	driver.Backend
	p *process
}

func (b *processBackend) Unwrap() any { return b.Backend }

func (b *processBackend) Apply(ctx context.Context, us []driver.Update) error {
	decided := func(d *driver.Delivery) bool {
		return slices.ContainsFunc(us, func(u driver.Update) bool { return u.ID == d.ID && u.Version() == d.Version() })
	}
	if b.p.reaches(BeforeVerdict, b.p.names(decided)) {
		return driver.ErrClosed
	}
	return b.Backend.Apply(ctx, us)
}
