package hub

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/batch"
)

// Options configure a hub; the zero value is the default.
type Options struct {
	// Sweep is how often outstanding waiters are read again; 0 is 5 s,
	// negative never.
	Sweep time.Duration
	// Alive reports whether a task without a record is known to be alive: its
	// PENDING is still being written. Nil is never.
	Alive  func(id string) bool
	Logger *slog.Logger // nil is slog.Default
}

const (
	sweepDefault = 5 * time.Second
	pollFirst    = 2 * time.Millisecond // without notifications
	pollMax      = 200 * time.Millisecond
	readBatch    = 500
)

// ErrNotFound: the task has no record.
var ErrNotFound = errors.New("hub: no record")

// A Hub waits for the records of one backend. It is safe for concurrent use.
type Hub struct {
	backend driver.Backend
	notify  driver.Notifications // nil: poll
	opts    Options
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup
	watch   *batch.Batcher[string]
	read    *batch.Batcher[*lookup]

	mu      sync.Mutex
	waiting map[string][]*waiter
	looping bool
	wake    chan struct{} // the sweep sleeps until the first waiter
}

type waiter struct{ found chan *driver.Record }

type lookup struct {
	id     string
	record *driver.Record
}

// New returns a hub on backend. It opens the stream of notifications if the
// backend has one; goroutines start with the first wait.
func New(ctx context.Context, backend driver.Backend, opts Options) (*Hub, error) {
	if opts.Sweep == 0 {
		opts.Sweep = sweepDefault
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	h := &Hub{backend: backend, opts: opts, waiting: map[string][]*waiter{}, wake: make(chan struct{}, 1)}
	if n, ok := driver.As[driver.Notifier](backend); ok {
		stream, err := n.Notify(ctx)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return nil, err
		}
		if err == nil {
			h.notify = stream
		}
	}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	h.read = batch.New(h.ctx, readBatch, h.lookup, nil)
	if h.notify != nil {
		h.watch = batch.New(h.ctx, readBatch, h.notify.Watch, nil)
	}
	return h, nil
}

// Address is what to send along as ReplyTo; empty if there is none.
func (h *Hub) Address() string {
	if h.notify == nil {
		return ""
	}
	return h.notify.Address()
}

// Close ends all waits with driver.ErrClosed.
func (h *Hub) Close() error {
	h.cancel()
	var err error
	if h.notify != nil {
		err = h.notify.Close()
	}
	h.done.Wait()
	return err
}

// Get returns the records of ids; concurrent calls share their reads.
func (h *Hub) Get(ctx context.Context, id string) (*driver.Record, error) {
	l := &lookup{id: id}
	if err := h.ended(ctx, h.read.Do(ctx, l)); err != nil {
		return nil, err // l may still be written to: ctx ended first
	}
	return l.record, nil
}

// ended says closed where the hub's end is behind err, rather than ctx's.
func (h *Hub) ended(ctx context.Context, err error) error {
	if err != nil && h.ctx.Err() != nil && ctx.Err() == nil {
		return driver.ErrClosed
	}
	return err
}

func (h *Hub) lookup(ctx context.Context, ls []*lookup) error {
	ids := make([]string, len(ls))
	for i, l := range ls {
		ids[i] = l.id
	}
	rs, err := h.backend.Get(ctx, ids)
	if err != nil {
		return err
	}
	for i, l := range ls {
		l.record = rs[i]
	}
	return nil
}

// Wait returns the terminal record of id once there is one. It returns
// ErrNotFound if there is no record and none is on its way.
func (h *Hub) Wait(ctx context.Context, id string) (*driver.Record, error) {
	w := &waiter{found: make(chan *driver.Record, 1)}
	h.add(id, w)
	defer h.remove(id, w)
	if h.watch != nil {
		if err := h.ended(ctx, h.watch.Do(ctx, id)); err != nil && !transient(err) {
			return nil, err
		}
	}
	r, err := h.Get(ctx, id)
	switch {
	case err != nil && !transient(err):
		return nil, err
	case err == nil && r == nil && !h.alive(id):
		return nil, ErrNotFound
	case r != nil && r.State.Terminal():
		return r, nil
	}
	return h.block(ctx, w)
}

// transient reports whether a wait survives err: the sweep reads again.
func transient(err error) bool {
	return !errors.Is(err, driver.ErrClosed) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

func (h *Hub) alive(id string) bool { return h.opts.Alive != nil && h.opts.Alive(id) }

func (h *Hub) block(ctx context.Context, w *waiter) (*driver.Record, error) {
	select {
	case r := <-w.found:
		if r == nil {
			return nil, ErrNotFound
		}
		return r, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-h.ctx.Done():
		return nil, driver.ErrClosed
	}
}

func (h *Hub) add(id string, w *waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting[id] = append(h.waiting[id], w)
	if !h.looping {
		h.looping = true
		h.start()
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *Hub) remove(id string, w *waiter) {
	h.mu.Lock()
	rest := h.waiting[id][:0]
	for _, o := range h.waiting[id] {
		if o != w {
			rest = append(rest, o)
		}
	}
	last := len(rest) == 0
	if last {
		delete(h.waiting, id)
	} else {
		h.waiting[id] = rest
	}
	// Under the lock: a new waiter of this id must not be unwatched.
	if last && h.notify != nil {
		h.notify.Unwatch([]string{id})
	}
	h.mu.Unlock()
}

// start runs the loops; h.mu is held.
func (h *Hub) start() {
	if h.ctx.Err() != nil {
		return
	}
	switch {
	case h.notify == nil:
		h.done.Go(h.poll)
	default:
		h.done.Go(h.listen)
		if h.opts.Sweep > 0 {
			h.done.Go(h.sweep)
		}
	}
}

// listen hands out what the stream brings.
func (h *Hub) listen() {
	for wait := pollFirst; ; {
		rs, err := h.notify.Next(h.ctx)
		switch {
		case errors.Is(err, driver.ErrClosed) || h.ctx.Err() != nil:
			return
		case err != nil:
			h.opts.Logger.Warn("chicory: result notifications failed", "error", err)
			if !h.sleep(wait) {
				return
			}
			wait = min(2*wait, sweepDefault)
			fallthrough
		case rs == nil:
			h.reread()
		default:
			wait = pollFirst
			h.deliver(rs)
		}
	}
}

// sweep reads what is outstanding again, slowly and at odd times.
func (h *Hub) sweep() {
	for h.await() && h.sleep(h.opts.Sweep/2+rand.N(h.opts.Sweep)) {
		h.reread()
	}
}

// poll reads what is outstanding, less and less often while nothing ends.
func (h *Hub) poll() {
	wait := pollFirst
	for h.await() && h.sleep(wait) {
		if h.reread() {
			wait = pollFirst
		} else {
			wait = min(wait*3/2, pollMax)
		}
	}
}

// await blocks until somebody waits; false if the hub closed.
func (h *Hub) await() bool {
	for {
		h.mu.Lock()
		n := len(h.waiting)
		h.mu.Unlock()
		if n > 0 {
			return h.ctx.Err() == nil
		}
		select {
		case <-h.wake:
		case <-h.ctx.Done():
			return false
		}
	}
}

func (h *Hub) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-h.ctx.Done():
		return false
	}
}

// reread reads everything outstanding and reports whether something had ended.
func (h *Hub) reread() bool {
	h.mu.Lock()
	ids := make([]string, 0, len(h.waiting))
	for id := range h.waiting {
		ids = append(ids, id)
	}
	h.mu.Unlock()
	ended := false
	for len(ids) > 0 {
		n := min(len(ids), readBatch)
		rs, err := h.backend.Get(h.ctx, ids[:n])
		if err != nil {
			return ended
		}
		ended = h.deliver(rs) || ended
		for i, r := range rs {
			if r == nil && !h.alive(ids[i]) {
				h.tell(ids[i], nil)
			}
		}
		ids = ids[n:]
	}
	return ended
}

// deliver hands terminal records to their waiters and reports whether there
// were any.
func (h *Hub) deliver(rs []*driver.Record) bool {
	any := false
	for _, r := range rs {
		if r != nil && r.State.Terminal() {
			h.tell(r.ID, r)
			any = true
		}
	}
	return any
}

func (h *Hub) tell(id string, r *driver.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.waiting[id] {
		select {
		case w.found <- r:
		default: // told already
		}
	}
}
