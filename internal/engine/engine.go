package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/batch"
	"github.com/chicory-go/chicory/internal/hub"
)

// An Engine is the connected half of an app: its stores and the batchers and
// loops on them. It is safe for concurrent use.
type Engine struct {
	Broker  driver.Broker
	Backend driver.Backend // nil: no results
	Hub     *hub.Hub       // nil: no results
	Covered bool           // Broker applies records in its own steps
	Log     *slog.Logger

	ctx     context.Context
	cancel  context.CancelFunc
	publish *batch.Batcher[*Publication]
	behind  behind
	done    sync.WaitGroup

	controlMu sync.Mutex
	control   driver.Control // who keeps control keys; nil: not asked yet
}

// publishBatch bounds a publish, so that one call of a driver stays short.
const publishBatch = 256

// New returns an engine on stores that are open. Its loops end with Close.
func New(ctx context.Context, broker driver.Broker, backend driver.Backend, log *slog.Logger, sweep time.Duration) (*Engine, error) {
	e := &Engine{Broker: broker, Backend: backend, Log: log}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.publish = batch.New(e.ctx, publishBatch, e.flush, nil)
	if backend == nil {
		return e, nil
	}
	if c, ok := driver.As[driver.Coverer](broker); ok {
		e.Covered = c.Covers(backend)
	}
	h, err := hub.New(ctx, backend, hub.Options{Sweep: sweep, Alive: e.behind.has, Logger: log})
	if err != nil {
		e.cancel()
		return nil, fmt.Errorf("chicory: result notifications: %w", err)
	}
	e.Hub = h
	return e, nil
}

// Stop ends the engine's loops and its waits; the stores stay open.
func (e *Engine) Stop() {
	e.cancel()
	if e.Hub != nil {
		if err := e.Hub.Close(); err != nil {
			e.Log.Warn("chicory: closing result notifications", "error", err)
		}
	}
	e.publish.Close()
	e.done.Wait()
}

// deduped reports whether a publish of m may be repeated without making a
// second task: the store can tell, or a record refuses the second start.
func deduped(m *driver.Message) bool { return !m.NoRecord }

// A Publication is a message on its way, with its PENDING record.
type Publication struct {
	Message driver.Message
	pending driver.Update
	apart   bool // pending is to be written by itself
}

// Tries of a publish that certainly did not, or harmlessly may have, happened.
const (
	publishTries = 4
	publishWait  = 25 * time.Millisecond
)

// Publish stores p's message, and its PENDING record unless it has none. A
// chosen id is claimed with a provisional record first, where the record is
// kept apart. Failures are *PublishError.
func (e *Engine) Publish(ctx context.Context, p *Publication, chosen bool) error {
	e.prepare(p)
	if chosen && p.apart {
		if err := e.claim(ctx, &p.pending); err != nil {
			return &PublishError{ID: p.Message.ID, Err: explain(err)}
		}
	}
	err := e.publish.Do(ctx, p)
	if err == nil {
		return nil
	}
	return e.retry(ctx, p, err)
}

// PublishAll is Publish for a batch; it returns one error per message.
func (e *Engine) PublishAll(ctx context.Context, ps []*Publication, chosen bool) []error {
	errs := make([]error, len(ps))
	if chosen {
		for i, p := range ps {
			errs[i] = e.Publish(ctx, p, true)
		}
		return errs
	}
	for from := 0; from < len(ps); from += publishBatch {
		to := min(from+publishBatch, len(ps))
		e.publishPart(ctx, ps[from:to], errs[from:to])
	}
	return errs
}

// publishPart publishes one batch, then what may be repeated one by one.
func (e *Engine) publishPart(ctx context.Context, ps []*Publication, errs []error) {
	for _, p := range ps {
		e.prepare(p)
	}
	err := e.flush(ctx, ps)
	if err == nil {
		return
	}
	for i, p := range ps {
		if first := driver.ItemError(err, i, len(ps)); first != nil {
			errs[i] = e.retry(ctx, p, first)
		}
	}
}

// prepare gives p its PENDING record, in the message itself where the broker
// applies it.
func (e *Engine) prepare(p *Publication) {
	if p.Message.NoRecord {
		return
	}
	p.pending = pending(&p.Message, time.Now())
	if e.Covered {
		p.Message.Record = &p.pending
	} else {
		p.apart = true
	}
}

// retry repeats what may be repeated after a first failure, and classifies what
// fails for good.
func (e *Engine) retry(ctx context.Context, p *Publication, err error) error {
	m, unknown := &p.Message, false
	for n, wait := 1, publishWait; err != nil; n, wait = n+1, 2*wait {
		final := finalPublish(err)
		transient := errors.Is(err, driver.ErrTransient)
		unknown = unknown || !transient && !final
		again := transient || !final && deduped(m)
		if e.ctx.Err() != nil && errors.Is(err, context.Canceled) { // stopped meanwhile
			return &PublishError{ID: m.ID, Unknown: unknown, Err: fmt.Errorf("%w: %w", ErrClosed, err)}
		}
		if final || !again || n == publishTries || !Sleep(ctx, wait) {
			return &PublishError{ID: m.ID, Unknown: unknown, Err: explain(err)}
		}
		m.Repeat = m.Repeat || unknown
		err = e.publish.Do(ctx, p)
	}
	return nil
}

// finalPublish reports whether err is an answer rather than an accident.
func finalPublish(err error) bool {
	return errors.Is(err, driver.ErrDuplicate) || errors.Is(err, driver.ErrTooLarge) ||
		errors.Is(err, driver.ErrFull) || errors.Is(err, driver.ErrClosed)
}

// explain translates a driver's sentinel to core's.
func explain(err error) error {
	for from, to := range map[error]error{
		driver.ErrDuplicate: ErrDuplicate, driver.ErrTooLarge: ErrTooLarge, driver.ErrClosed: ErrClosed,
	} {
		if errors.Is(err, from) {
			return fmt.Errorf("%w: %w", to, err)
		}
	}
	return err
}

// Sleep waits for d and reports whether it did, or ctx ended before.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// flush publishes a batch, then writes the PENDING records of what was stored.
// A record that cannot be written now is written behind: it fails no publish.
func (e *Engine) flush(ctx context.Context, ps []*Publication) error {
	ms := messages.Get().(*[]*driver.Message)
	defer messages.Put(ms)
	*ms = (*ms)[:0]
	for _, p := range ps {
		*ms = append(*ms, &p.Message)
	}
	err := e.Broker.Publish(ctx, *ms)
	clear(*ms)
	var us []driver.Update
	for i, p := range ps {
		if p.apart && driver.ItemError(err, i, len(ps)) == nil {
			us = append(us, p.pending)
		}
	}
	if len(us) > 0 {
		e.WritePending(ctx, us)
	}
	return err
}

var messages = sync.Pool{New: func() any { return new([]*driver.Message) }}

// claim writes the provisional record of a chosen id, or refuses the id as in
// use.
func (e *Engine) claim(ctx context.Context, u *driver.Update) error {
	p := *u
	p.Provisional = true
	err := driver.ItemError(e.Backend.Apply(ctx, []driver.Update{p}), 0, 1)
	if err == nil || !errors.Is(err, driver.ErrStale) {
		return err
	}
	rs, err := e.Backend.Get(ctx, []string{u.ID})
	if err != nil {
		return err
	}
	if rs[0] != nil && rs[0].Provisional { // a publish that failed; the broker tells two of them apart
		return nil
	}
	return fmt.Errorf("%w: %s", ErrDuplicate, u.ID)
}

// pending is the record of a message just published.
func pending(m *driver.Message, now time.Time) driver.Update {
	return driver.Update{ID: m.ID, Epoch: m.Epoch, Seq: m.Seq, Attempt: m.Attempt, State: driver.Pending,
		Once: m.Once, Due: now.Add(m.Delay).UnixMilli(), ReplyTo: m.ReplyTo}
}
