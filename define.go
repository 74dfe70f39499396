package chicory

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// A Definition declares a task: its name, its types and how it is sent. It
// belongs to no app, so that producers and workers can share it.
type Definition[In, Out any] struct {
	name     string
	settings taskSettings
	where    string
}

// Define declares the task name with argument In and result Out. Mistakes in
// it are reported by Connect of the apps that use it. Names are 1 to 200
// bytes; the field's custom is "package.verb".
func Define[In, Out any](name string, opts ...TaskOption) *Definition[In, Out] {
	return define[In, Out](name, caller(2), opts)
}

func define[In, Out any](name, where string, opts []TaskOption) *Definition[In, Out] {
	d := &Definition[In, Out]{name: name, where: where}
	d.settings.add(checkName(name))
	for _, o := range opts {
		if o == nil {
			d.settings.add(fmt.Errorf("%w: nil option", ErrValidation))
			continue
		}
		o.applyTask(&d.settings)
	}
	return d
}

func checkName(name string) error {
	if name == "" || len(name) > driver.MaxQueue {
		return fmt.Errorf("%w: task name has %d bytes, want 1 to %d", ErrValidation, len(name), driver.MaxQueue)
	}
	return nil
}

// caller returns file:line of the caller skip frames up.
func caller(skip int) string {
	_, file, line, _ := runtime.Caller(skip)
	return fmt.Sprintf("%s:%d", file, line)
}

// Name returns the task's name.
func (d *Definition[In, Out]) Name() string { return d.name }

// mistake says where the definition is.
func (d *Definition[In, Out]) mistake(err error) error {
	return fmt.Errorf("task %q, defined at %s: %w", d.name, d.where, err)
}

// On binds the definition to an app, for sending.
func (d *Definition[In, Out]) On(app *App) *Task[In, Out] {
	p := d.settings.policy.Over(&app.core.Defaults)
	app.core.Tasks.AddSend(d.name, !p.IgnoreResult)
	if err := d.settings.err(); err != nil {
		app.core.Tasks.AddErr(d.mistake(err))
	}
	check := checker[In](app.cfg.validation(&d.settings).inputs(), d.name, "argument", app.cfg.Validator)
	return &Task[In, Out]{app: app, def: d, policy: p, check: check}
}

// Handle makes h the handler of the task in workers of app, with options for
// how it is run that beat those of the definition. How a task is sent belongs
// to its definition, which producers see: Queue, Priority, the delivery mode,
// ExpiresIn and IgnoreResult are refused here. A name can have one handler per
// app; Connect reports a second one, and a nil function.
func (d *Definition[In, Out]) Handle(app *App, h func(context.Context, In) (Out, error), opts ...TaskOption) {
	d.handle(app, h, caller(2), opts)
}

func (d *Definition[In, Out]) handle(app *App, h func(context.Context, In) (Out, error), where string, opts []TaskOption) {
	s := d.settings
	s.errs, s.policy.Set = append([]error(nil), s.errs...), 0
	for _, o := range opts {
		if o == nil {
			s.add(fmt.Errorf("%w: nil option", ErrValidation))
			continue
		}
		o.applyTask(&s)
	}
	if s.policy.Set&sending != 0 {
		s.add(fmt.Errorf("%w: Queue, Priority, AtMostOnce, AtLeastOnce, ExpiresIn and IgnoreResult say how a task is sent: give them to Define", ErrValidation))
	}
	s.policy = s.policy.Over(&d.settings.policy)
	if h == nil {
		s.add(fmt.Errorf("%w: nil function", ErrValidation))
	}
	if err := s.err(); err != nil {
		app.core.Tasks.AddErr(fmt.Errorf("task %q, at %s: %w", d.name, where, err))
		return
	}
	r := newRunner(app, d.name, h, &s)
	if _, err := strictForm(app.cfg.Codec); r.strict && err != nil {
		app.core.Tasks.AddErr(fmt.Errorf("task %q, at %s: %w: %w", d.name, where, ErrValidation, err))
		return
	}
	app.core.Tasks.Add(&engine.Task{Name: d.name, Aliases: s.aliases, Policy: s.policy, RetryIf: s.retryIf,
		Run: r.run, Where: where})
}

// sending are the fields of a policy that producers need.
const sending = engine.FieldQueue | engine.FieldPriority | engine.FieldOnce | engine.FieldExpiry | engine.FieldIgnore

// Register defines a task, makes h its handler and binds it for sending, in
// one step.
func Register[In, Out any](app *App, name string, h func(context.Context, In) (Out, error), opts ...TaskOption) *Task[In, Out] {
	where := caller(2)
	d := define[In, Out](name, where, opts)
	d.handle(app, h, where, nil)
	return d.On(app)
}

// None is the result of tasks that have none.
type None struct{}

// NoResult makes a handler of a function that returns only an error.
func NoResult[In any](h func(context.Context, In) error) func(context.Context, In) (None, error) {
	if h == nil {
		return nil
	}
	return func(ctx context.Context, in In) (None, error) { return None{}, h(ctx, in) }
}

// A runner is a handler on its way to lose its types.
type runner[In, Out any] struct {
	h        func(context.Context, In) (Out, error)
	checkIn  func(In) error // nil: nothing to check
	checkOut func(Out) error
	mode     ValidationMode
	strict   bool
	codec    codec.Codec
	decoders []codec.Codec // codec among them
	max      int
}

func newRunner[In, Out any](app *App, name string, h func(context.Context, In) (Out, error), s *taskSettings) *runner[In, Out] {
	mode := app.cfg.validation(s)
	return &runner[In, Out]{h: h, mode: mode, strict: s.strict || mode == ValidationStrict,
		codec: app.cfg.Codec, decoders: app.decoders, max: app.cfg.MaxResult,
		checkIn:  checker[In](mode.inputs(), name, "argument", app.cfg.Validator),
		checkOut: checker[Out](mode.outputs(), name, "result", app.cfg.Validator)}
}

func (r *runner[In, Out]) run(ctx context.Context, env *engine.Envelope) (string, []byte, error) {
	var in In
	if err := r.decode(env, &in); err != nil {
		return "", nil, refusal(fmt.Errorf("argument of %s: %w", env.Name, err))
	}
	if r.checkIn != nil {
		if err := r.checkIn(in); err != nil {
			return "", nil, refusal(err)
		}
	}
	out, err := r.h(ctx, in)
	if err != nil {
		return "", nil, err
	}
	body, err := r.encode(out)
	if err != nil {
		return "", nil, &engine.ResultError{Err: err}
	}
	return r.codec.ContentType(), body, nil
}

// refusal is the error of an argument that no handler saw.
func refusal(err error) error {
	var invalid *ValidationError
	if errors.As(err, &invalid) {
		return &engine.ReasonError{Reason: driver.ReasonValidation, Kind: invalid.Code(), Err: invalid}
	}
	return &engine.ReasonError{Reason: driver.ReasonUndecodable, Kind: "undecodable", Err: err}
}

func (r *runner[In, Out]) decode(env *engine.Envelope, in *In) error {
	c, err := codec.Lookup(env.ContentType, r.decoders...)
	if err != nil {
		return err
	}
	if !r.strict {
		return c.Decode(env.Body, in)
	}
	strict, err := strictForm(c)
	if err != nil {
		return err
	}
	err = strict.Decode(env.Body, in)
	if err != nil && r.mode == ValidationStrict && c.Decode(env.Body, new(In)) == nil {
		err = &ValidationError{Task: env.Name, Value: "argument", Err: err} // it can be read
	}
	return err
}

// encode checks and encodes a result. Running the handler again would not mend
// one that fails.
func (r *runner[In, Out]) encode(out Out) ([]byte, error) {
	if r.checkOut != nil {
		if err := r.checkOut(out); err != nil {
			return nil, refusal(err)
		}
	}
	body, err := r.codec.Append(nil, out)
	if err == nil && len(body) > r.max {
		err = fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(body), r.max)
	}
	if err != nil {
		return nil, &resultError{err}
	}
	return body, nil
}

// A resultError is a result that cannot be stored.
type resultError struct{ err error }

func (e *resultError) Error() string { return "result: " + e.err.Error() }
func (e *resultError) Unwrap() error { return e.err }
func (e *resultError) Code() string  { return "result" }
