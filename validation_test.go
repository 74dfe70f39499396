package chicory_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

var errBad = errors.New("must be good")

func good(ok bool) error {
	if !ok {
		return errBad
	}
	return nil
}

// Values that check themselves, by value and by pointer.
type (
	byValue   struct{ Good bool }
	byPointer struct{ Good bool }
	snoozing  struct{ Good bool }
)

func (v byValue) Validate() error    { return good(v.Good) }
func (v *byPointer) Validate() error { return good(v.Good) }
func (v snoozing) Validate() error   { return chicory.Snooze(time.Millisecond) }

// raw is an argument of any shape, which nobody checks where it is sent.
type raw map[string]any

// TestArgumentsAreRefusedAtDispatch sends good and bad arguments in each mode.
func TestArgumentsAreRefusedAtDispatch(t *testing.T) {
	t.Parallel()
	always, never := []chicory.ValidationMode{chicory.ValidationInputs, chicory.ValidationStrict}, []chicory.ValidationMode{chicory.ValidationNone, chicory.ValidationOutputs}
	app := connected(t, chicory.Config{})
	for _, mode := range append(always, never...) {
		refuses := mode == chicory.ValidationInputs || mode == chicory.ValidationStrict
		for name, send := range map[string]func(string, bool) error{
			"value":                  sender[byValue](t, app, mode, func(ok bool) byValue { return byValue{ok} }),
			"pointer receiver":       sender[byPointer](t, app, mode, func(ok bool) byPointer { return byPointer{ok} }),
			"pointer":                sender[*byPointer](t, app, mode, func(ok bool) *byPointer { return &byPointer{ok} }),
			"pointer, value's":       sender[*byValue](t, app, mode, func(ok bool) *byValue { return &byValue{ok} }),
			"interface":              sender[any](t, app, mode, func(ok bool) any { return byValue{ok} }),
			"interface of a pointer": sender[any](t, app, mode, func(ok bool) any { return &byPointer{ok} }),
		} {
			if err := send(name, true); err != nil {
				t.Errorf("%s, %s: a good argument: %v", mode, name, err)
			}
			before := waiting(t, app)
			err := send(name, false)
			if !refuses {
				if err != nil {
					t.Errorf("%s, %s: got %v, want nothing checked", mode, name, err)
				}
				continue
			}
			var ve *chicory.ValidationError
			if !errors.Is(err, chicory.ErrValidation) || !errors.Is(err, errBad) || !errors.As(err, &ve) || ve.Value != "argument" || ve.Task == "" {
				t.Errorf("%s, %s: got %v, want a *ValidationError that wraps why", mode, name, err)
			}
			if n := waiting(t, app); n != before {
				t.Errorf("%s, %s: %d messages enqueued by a refused call", mode, name, n-before)
			}
		}
	}
}

func sender[In any](t *testing.T, app *chicory.App, mode chicory.ValidationMode, value func(bool) In) func(string, bool) error {
	return func(name string, ok bool) error {
		task := chicory.Define[In, int](fmt.Sprintf("%s.%s", mode, name), chicory.Validation(mode)).On(app)
		_, err := task.Send(t.Context(), value(ok))
		return err
	}
}

func TestABatchKeepsWhatIsGood(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	task := chicory.Define[byValue, int]("t").On(app)
	rs, err := task.DelayMany(t.Context(), []byValue{{true}, {false}, {true}})
	var be *chicory.BatchError
	if !errors.As(err, &be) || be.Errs[0] != nil || be.Errs[2] != nil || !errors.Is(be.Errs[1], errBad) || len(rs) != 3 {
		t.Errorf("got %v, %v", rs, err)
	}
	if n := waiting(t, app); n != 2 {
		t.Errorf("%d messages, want the 2 good ones", n)
	}
}

// TestWorkersRefuseArguments sends what no producer's check has seen: it never
// reaches the handler and is not retried.
func TestWorkersRefuseArguments(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		handle func(app *chicory.App, ran func())
		in     any
		reason string // empty: it runs
	}{
		{"value", handler[byValue](), raw{"Good": false}, driver.ReasonValidation},
		{"value, good", handler[byValue](), raw{"Good": true}, ""},
		{"pointer receiver", handler[byPointer](), raw{"Good": false}, driver.ReasonValidation},
		{"pointer receiver, good", handler[byPointer](), raw{"Good": true}, ""},
		{"a nil pointer whose check panics", handler[*byValue](), nil, driver.ReasonValidation},
		{"a check that asks to wait", handler[snoozing](), raw{}, driver.ReasonValidation},
		{"not checked", handler[byValue](chicory.Validation(chicory.ValidationNone)), raw{"Good": false}, ""},
		{"only results", handler[byValue](chicory.Validation(chicory.ValidationOutputs)), raw{"Good": false}, ""},
		{"strict", handler[byValue](chicory.Validation(chicory.ValidationStrict)), raw{"Good": false}, driver.ReasonValidation},
		{"strict, good", handler[byValue](chicory.Validation(chicory.ValidationStrict)), raw{"Good": true}, ""},
		{"strict, unknown field", handler[byValue](chicory.Validation(chicory.ValidationStrict)), raw{"Good": true, "Later": 1}, driver.ReasonValidation},
		{"strict, not to be read", handler[byValue](chicory.Validation(chicory.ValidationStrict)), raw{"Good": 7}, driver.ReasonUndecodable},
		{"unknown field", handler[byValue](), raw{"Good": true, "Later": 1}, ""},
		{"by the app's validator", handler[int](), 13, driver.ReasonValidation},
		{"not by the app's validator", handler[int](chicory.Validation(chicory.ValidationNone)), 13, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app := onTwoStores(t, chicory.Config{Validator: func(v any) error { return good(v != 13) }})
			var runs atomic.Int64
			tt.handle(app, func() { runs.Add(1) })
			start(t, app, worker.Options{})
			sends := chicory.Define[any, int]("t", chicory.Validation(chicory.ValidationNone)).On(app)
			res, err := sends.Delay(t.Context(), tt.in)
			if err != nil {
				t.Fatal(err)
			}
			_, err = res.Get(t.Context())
			if tt.reason == "" {
				if err != nil || runs.Load() != 1 {
					t.Errorf("got %v after %d runs, want it run", err, runs.Load())
				}
				return
			}
			var te *chicory.TaskError
			if !errors.As(err, &te) || te.Reason != tt.reason || te.Kind != tt.reason || te.Attempt != 1 || te.State != chicory.StateDeadLettered {
				t.Fatalf("got %v, %+v, want it dead-lettered at once as %s", err, te, tt.reason)
			}
			if is := errors.Is(err, chicory.ErrValidation); is != (tt.reason == driver.ReasonValidation) {
				t.Errorf("matches ErrValidation: %v, reason %s", is, te.Reason)
			}
			if runs.Load() != 0 {
				t.Error("the handler saw it")
			}
			dead, err := app.DeadLetters("default").Get(t.Context(), res.ID())
			if err != nil || dead.Reason != tt.reason || dead.Message == "" {
				t.Errorf("dead letter: %+v, %v", dead, err)
			}
		})
	}
}

// onTwoStores is an app whose dead letters are waited for, if their record
// announces them.
func onTwoStores(t *testing.T, cfg chicory.Config) *chicory.App {
	t.Helper()
	app, err := chicory.NewWith(memory.New().Broker("ns"), memory.New().Backend("ns"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := app.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := app.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return app
}

// handler handles task "t" with arguments In.
func handler[In any](opts ...chicory.TaskOption) func(*chicory.App, func()) {
	return func(app *chicory.App, ran func()) {
		chicory.Define[In, int]("t", opts...).Handle(app, func(context.Context, In) (int, error) { ran(); return 0, nil })
	}
}

// Middleware that makes something else of an error.
func hide(next worker.Handler) worker.Handler {
	return func(ctx context.Context) error {
		if next(ctx) != nil {
			return errors.New("hidden")
		}
		return nil
	}
}

func swallow(next worker.Handler) worker.Handler {
	return func(ctx context.Context) error { _ = next(ctx); return nil }
}

// TestMiddlewareCannotAccept: an argument that is refused, or cannot be decoded,
// stays so.
func TestMiddlewareCannotAccept(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]worker.Middleware{"hides": hide, "swallows": swallow} {
		for reason, in := range map[string]any{driver.ReasonValidation: raw{"Good": false}, driver.ReasonUndecodable: 7} {
			app := connected(t, chicory.Config{})
			handler[byValue]()(app, func() { t.Error("the handler saw it") })
			start(t, app, worker.Options{Middleware: []worker.Middleware{m}})
			res, err := chicory.Define[any, int]("t").On(app).Delay(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			_, err = res.Get(t.Context())
			var te *chicory.TaskError
			if !errors.As(err, &te) || te.Reason != reason || te.Attempt != 1 {
				t.Errorf("%s: got %v, want it dead-lettered at once as %s", name, err, reason)
			}
		}
	}
}

// TestRefusedResultsAreFinal runs handlers that succeed with bad results: none
// runs again, whatever the middleware or a time-out makes of it.
func TestRefusedResultsAreFinal(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		opts       []chicory.TaskOption
		middleware []worker.Middleware
		takes      time.Duration
		refused    bool
	}{
		{"outputs", []chicory.TaskOption{chicory.Validation(chicory.ValidationOutputs)}, nil, 0, true},
		{"strict", []chicory.TaskOption{chicory.Validation(chicory.ValidationStrict)}, nil, 0, true},
		{"inputs", []chicory.TaskOption{chicory.Validation(chicory.ValidationInputs)}, nil, 0, false},
		{"none", []chicory.TaskOption{chicory.Validation(chicory.ValidationNone)}, nil, 0, false},
		{"default", nil, nil, 0, false},
		{"error hidden", []chicory.TaskOption{chicory.Validation(chicory.ValidationOutputs)}, []worker.Middleware{hide}, 0, true},
		{"error swallowed", []chicory.TaskOption{chicory.Validation(chicory.ValidationOutputs)}, []worker.Middleware{swallow}, 0, true},
		{"too late", []chicory.TaskOption{chicory.Validation(chicory.ValidationOutputs), chicory.Timeout(time.Second)}, nil, 2 * time.Second, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				app := connected(t, chicory.Config{})
				runs := 0
				task := chicory.Register(app, "t", func(context.Context, int) (byValue, error) {
					runs++
					time.Sleep(tt.takes)
					return byValue{}, nil
				}, tt.opts...)
				start(t, app, worker.Options{Concurrency: 1, Middleware: tt.middleware})
				res, err := task.Delay(t.Context(), 1)
				if err != nil {
					t.Fatal(err)
				}
				v, err := res.Get(t.Context())
				var te *chicory.TaskError
				switch {
				case !tt.refused && (err != nil || v.Good):
					t.Errorf("got %v, %v, want the result", v, err)
				case tt.refused && (!errors.As(err, &te) || te.Reason != driver.ReasonValidation || !strings.Contains(te.Message, errBad.Error()) || !errors.Is(err, chicory.ErrValidation)):
					t.Errorf("got %v, want it dead-lettered with its reason", err)
				}
				if runs != 1 {
					t.Errorf("%d runs, want 1", runs)
				}
			})
		})
	}
}

// TestARefusedResultSurvivesShutdown stops the worker while the handler runs:
// what it returns after the grace is refused, and must not run again.
func TestARefusedResultSurvivesShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := connected(t, chicory.Config{})
		runs := 0
		task := chicory.Register(app, "t", func(ctx context.Context, _ int) (byValue, error) {
			runs++
			<-ctx.Done()
			return byValue{}, nil
		}, chicory.Validation(chicory.ValidationOutputs))
		stop := start(t, app, worker.Options{ShutdownTimeout: worker.NoGrace})
		res, err := task.Delay(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		start(t, app, worker.Options{})
		if _, err := res.Get(t.Context()); !errors.Is(err, chicory.ErrValidation) || runs != 1 {
			t.Errorf("got %v after %d runs, want it refused after 1", err, runs)
		}
	})
}

// TestHandleBeatsDefine: the worker's side may check more, or less.
func TestHandleBeatsDefine(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{Validation: chicory.ValidationNone})
	lax := chicory.Define[byValue, int]("t")
	lax.Handle(app, func(context.Context, byValue) (int, error) { return 1, nil }, chicory.Validation(chicory.ValidationInputs))
	start(t, app, worker.Options{})
	res, err := lax.On(app).Delay(t.Context(), byValue{})
	if err != nil {
		t.Fatalf("the app's default is to check nothing: %v", err)
	}
	if _, err := res.Get(t.Context()); !errors.Is(err, chicory.ErrValidation) {
		t.Errorf("got %v", err)
	}
}

// lax is a codec without a strict form.
type lax struct{ codec.Codec }

func TestValidationMistakes(t *testing.T) {
	t.Parallel()
	if _, err := chicory.New(chicory.Config{URL: "memory:", Validation: "some"}); !errors.Is(err, chicory.ErrValidation) {
		t.Errorf("an unknown mode: %v", err)
	}
	for name, opt := range map[string]chicory.TaskOption{"unknown mode": chicory.Validation(""), "strict": chicory.Validation(chicory.ValidationStrict), "fields": chicory.StrictFields()} {
		app := newApp(t, chicory.Config{Codec: lax{codec.JSON}})
		chicory.Register(app, "t", add, opt)
		if err := app.Connect(t.Context()); !errors.Is(err, chicory.ErrValidation) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
