package chicory

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// A Task is a definition bound to an app: it can be sent. It is safe for
// concurrent use.
type Task[In, Out any] struct {
	app    *App
	def    *Definition[In, Out]
	policy engine.Policy  // registration over app
	check  func(In) error // of arguments; nil: nothing to check
}

// Name returns the task's name.
func (t *Task[In, Out]) Name() string { return t.def.name }

// Delay enqueues the task and returns the handle of its result. It returns
// once the broker has stored the message. Nothing is enqueued if it fails with
// ErrNotConnected, ErrNoBackend, ErrValidation (a *ValidationError for an
// argument that was refused), ErrTooLarge, ErrDuplicate, the cause of a context
// that has ended before, or an error of the middleware; what the broker refuses
// or leaves open is a *PublishError, which says whether the outcome is known.
func (t *Task[In, Out]) Delay(ctx context.Context, in In, opts ...CallOption) (*AsyncResult[Out], error) {
	eng, c, err := t.answered(opts)
	if err != nil {
		return nil, err
	}
	id, err := t.send(ctx, eng, c, in, eng.Hub.Address())
	if err != nil {
		return nil, err
	}
	return &AsyncResult[Out]{app: t.app, id: id, name: t.def.name, ignored: t.ignored(c)}, nil
}

// ready returns what a call needs.
func (t *Task[In, Out]) ready(opts []CallOption) (*engine.Engine, *callSettings, error) {
	eng, err := t.app.core.Engine()
	if err != nil {
		return nil, nil, err
	}
	c, err := t.call(opts)
	return eng, c, err
}

// answered is ready for a call whose result is to come.
func (t *Task[In, Out]) answered(opts []CallOption) (*engine.Engine, *callSettings, error) {
	eng, c, err := t.ready(opts)
	if err == nil && eng.Backend == nil {
		err = fmt.Errorf("%w: task %s; use Send or SendMany, or set Config.Backend", ErrNoBackend, t.def.name)
	}
	return eng, c, err
}

// ignored reports whether the call's result is ignored.
func (t *Task[In, Out]) ignored(c *callSettings) bool {
	p := c.policy.Over(&t.policy)
	return p.IgnoreResult
}

// Send enqueues the task and returns its id: fire and forget. The result is
// still stored, if there is a backend and the task does not ignore it; see
// Result. It fails as Delay does.
func (t *Task[In, Out]) Send(ctx context.Context, in In, opts ...CallOption) (string, error) {
	eng, c, err := t.ready(opts)
	if err != nil {
		return "", err
	}
	return t.send(ctx, eng, c, in, "")
}

// DelayMany enqueues a batch, which is faster than one by one. The handles are
// in the order of ins, with ids set even where an item failed; the error is
// then a *BatchError with one *PublishError per failed item.
func (t *Task[In, Out]) DelayMany(ctx context.Context, ins []In, opts ...CallOption) ([]*AsyncResult[Out], error) {
	eng, c, err := t.answered(opts)
	if err != nil {
		return nil, err
	}
	ids, err := t.sendMany(ctx, eng, c, ins, eng.Hub.Address())
	if ids == nil {
		return nil, err
	}
	handles, rs := make([]AsyncResult[Out], len(ids)), make([]*AsyncResult[Out], len(ids))
	for i, id := range ids {
		handles[i] = AsyncResult[Out]{app: t.app, id: id, name: t.def.name, ignored: t.ignored(c)}
		rs[i] = &handles[i]
	}
	return rs, err
}

// SendMany enqueues a batch: fire and forget, and faster than one by one. The ids
// are in the order of ins, and set even where an item failed; the error is then a
// *BatchError with one *PublishError per failed item.
func (t *Task[In, Out]) SendMany(ctx context.Context, ins []In, opts ...CallOption) ([]string, error) {
	eng, c, err := t.ready(opts)
	if err != nil {
		return nil, err
	}
	return t.sendMany(ctx, eng, c, ins, "")
}

func (t *Task[In, Out]) sendMany(ctx context.Context, eng *engine.Engine, c *callSettings, ins []In, replyTo string) ([]string, error) {
	if c.id != "" && len(ins) > 1 {
		return nil, fmt.Errorf("%w: ID with %d tasks", ErrValidation, len(ins))
	}
	ids := make([]string, len(ins))
	all := make([]engine.Publication, len(ins))
	ps := make([]*engine.Publication, 0, len(ins))
	index := make([]int, 0, len(ins))
	errs := make([]error, len(ins))
	for i := range ins {
		p := &all[i]
		p.Message.ReplyTo = replyTo
		err := t.dispatch(ctx, eng, c, &p.Message, ins[i], nil)
		ids[i] = p.Message.ID
		if err != nil {
			errs[i] = &PublishError{ID: ids[i], Err: err}
			continue
		}
		ps, index = append(ps, p), append(index, i)
	}
	for j, err := range eng.PublishAll(ctx, ps, c.id != "") {
		errs[index[j]] = publishError(err)
	}
	return ids, driver.Batch(errs)
}

// Result returns the handle of a task sent before, in any process. It does no
// I/O; the id is checked when the handle is used.
func (t *Task[In, Out]) Result(id string) *AsyncResult[Out] {
	return &AsyncResult[Out]{app: t.app, id: id, name: t.def.name}
}

// noOptions is what a call without options shares; it is never changed.
var noOptions callSettings

// call resolves the options of one call.
func (t *Task[In, Out]) call(opts []CallOption) (*callSettings, error) {
	c := &noOptions
	if len(opts) > 0 {
		c = &callSettings{}
	}
	for _, o := range opts {
		if o == nil {
			return nil, fmt.Errorf("%w: nil option", ErrValidation)
		}
		o.applyCall(c)
	}
	for _, err := range []error{c.err(), t.def.settings.err(), t.app.core.Tasks.Err()} {
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (t *Task[In, Out]) send(ctx context.Context, eng *engine.Engine, c *callSettings, in In, replyTo string) (string, error) {
	p := publications.Get().(*engine.Publication)
	p.Message.ReplyTo = replyTo
	err := t.dispatch(ctx, eng, c, &p.Message, in, p)
	if err != nil {
		return "", err // p is not used again: it may still be on its way
	}
	id := p.Message.ID
	*p = engine.Publication{}
	publications.Put(p)
	return id, nil
}

var publications = sync.Pool{New: func() any { return new(engine.Publication) }}

// dispatch fills in m, passes it through the middleware, encodes it and, with
// p, publishes it. The id is set even if it fails.
func (t *Task[In, Out]) dispatch(ctx context.Context, eng *engine.Engine, c *callSettings, m *driver.Message, in In, p *engine.Publication) error {
	if err := t.fill(eng, c, m); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(t.app.cfg.Middleware) == 0 {
		return t.deliver(ctx, eng, c, m, c.headers, in, p)
	}
	out := &Outgoing{ID: m.ID, Name: t.def.name, Queue: m.Queue, Headers: map[string]string{}}
	maps.Copy(out.Headers, c.headers)
	return t.app.through(ctx, out, func(ctx context.Context, out *Outgoing) error {
		return t.deliver(ctx, eng, c, m, out.Headers, in, p)
	})
}

// fill sets what the call, the task and the app say of m.
func (t *Task[In, Out]) fill(eng *engine.Engine, c *callSettings, m *driver.Message) error {
	p := c.policy.Over(&t.policy)
	m.ID, m.Queue, m.Attempt, m.Priority, m.Once = c.id, p.Queue, 1, p.Priority, p.Once
	m.Delay, m.Deadline = c.delay, deadline(c, &p)
	if m.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("chicory: make an id: %w", err)
		}
		m.ID = id.String()
	}
	if !c.at.IsZero() {
		m.Delay = max(0, time.Until(c.at))
	}
	m.NoRecord = eng.Backend == nil || p.IgnoreResult && !p.Once
	if m.NoRecord {
		m.ReplyTo = ""
	}
	return nil
}

// deliver encodes the message and, with p, publishes it.
func (t *Task[In, Out]) deliver(ctx context.Context, eng *engine.Engine, c *callSettings, m *driver.Message, headers map[string]string, in In, p *engine.Publication) error {
	env := engine.Envelope{Name: t.def.name, ContentType: t.app.cfg.Codec.ContentType(), Headers: headers, Policy: travelling(c.policy)}
	if err := t.encode(m, &env, in); err != nil || p == nil {
		return err
	}
	return publishError(eng.Publish(ctx, p, c.id != ""))
}

// travelling returns the fields of a call's policy that the envelope carries;
// the others are in the message itself.
func travelling(p engine.Policy) engine.Policy {
	p.Set &= engine.FieldTimeout | engine.FieldRetries | engine.FieldBackoff | engine.FieldTTL | engine.FieldIgnore | engine.FieldDead
	return p
}

func (t *Task[In, Out]) encode(m *driver.Message, env *engine.Envelope, in In) error {
	if t.check != nil {
		if err := t.check(in); err != nil {
			return err
		}
	}
	body, err := t.app.cfg.Codec.Append(nil, in)
	if err != nil {
		return fmt.Errorf("%w: argument of %s: %w", ErrValidation, t.def.name, err)
	}
	size := len(body)
	for k, v := range env.Headers {
		size += len(k) + len(v)
	}
	if size > t.app.cfg.MaxPayload {
		return fmt.Errorf("%w: argument of %s has %d bytes with its headers, limit %d", ErrTooLarge, t.def.name, size, t.app.cfg.MaxPayload)
	}
	env.Body = body
	m.Envelope = env.Encode()
	return nil
}

func deadline(c *callSettings, p *engine.Policy) int64 {
	switch {
	case !c.expire.IsZero():
		return max(1, c.expire.UnixMilli()) // 0 is none
	case p.Has(engine.FieldExpiry):
		return time.Now().Add(p.Expiry).UnixMilli()
	}
	return 0
}

// An Outgoing is a task on its way to be enqueued. Middleware may add headers.
type Outgoing struct {
	ID, Name, Queue string
	Headers         map[string]string // never nil
}

// A Dispatch sends a task on: the innermost encodes and publishes it and
// returns what came of it, as Delay does.
type Dispatch func(ctx context.Context, out *Outgoing) error

// Middleware wraps dispatches: to add headers, to trace, to refuse. It runs once
// per task and passes it on at most once. The tasks of a DelayMany are published
// together, after the middleware of all has run: there the innermost Dispatch
// only encodes.
type Middleware func(next Dispatch) Dispatch

// through passes out through the middleware to deliver.
func (a *App) through(ctx context.Context, out *Outgoing, deliver Dispatch) error {
	passed, result := false, error(nil)
	next := Dispatch(func(ctx context.Context, out *Outgoing) error {
		if passed || out == nil {
			return fmt.Errorf("%w: middleware passed a task on twice, or none", ErrValidation)
		}
		for k := range out.Headers {
			if err := checkHeader(k); err != nil {
				return err
			}
		}
		passed = true
		result = deliver(ctx, out)
		return result
	})
	for i := len(a.cfg.Middleware) - 1; i >= 0; i-- {
		next = a.cfg.Middleware[i](next)
	}
	err := next(ctx, out)
	switch {
	case !passed && err == nil:
		return fmt.Errorf("%w: middleware kept task %s", ErrValidation, out.Name)
	case passed && result == nil && err != nil:
		return fmt.Errorf("chicory: middleware failed after task %s (%s) was passed on: %w", out.Name, out.ID, err)
	case err == nil:
		return result
	}
	return err
}
