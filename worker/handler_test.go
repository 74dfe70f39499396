package worker

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/drivers/memory"
)

// A nilError cannot be asked for its text once it is nil.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

type badCode struct{}

func (badCode) Error() string { return "bad code" }
func (badCode) Code() string  { panic("no code") }

type badIs struct{}

func (badIs) Error() string   { return "bad is" }
func (badIs) Is(error) bool   { panic("no is") }
func (badIs) As(any) bool     { panic("no as") }
func (badIs) Unwrap() []error { panic("no unwrap") }

// TestHandlersCannotHurt runs handlers that end in ways that are none, one
// after the other on a worker of one slot: each is a failure that says why, and
// the task after it runs.
func TestHandlersCannotHurt(t *testing.T) {
	t.Parallel()
	var none *nilError
	panics := func(Handler) Handler { panic("built badly") }
	exits := func(Handler) Handler { return func(context.Context) error { runtime.Goexit(); return nil } }
	predicate := chicory.RetryIf(func(error) bool { panic("no predicate") })
	for _, test := range []struct {
		name       string
		handler    func() error
		middleware Middleware
		opts       []chicory.TaskOption
		want       string
	}{
		{"Goexit", func() error { runtime.Goexit(); return nil }, nil, nil, "Goexit"},
		{"panic", func() error { panic("ouch") }, nil, nil, "ouch"},
		{"panic of a nil error", func() error { panic(none) }, nil, nil, "panic"},
		{"a nil pointer for an error", func() error { return none }, nil, nil, "nilError"},
		{"a Code that panics", func() error { return badCode{} }, nil, nil, "no code"},
		{"an Is that panics", func() error { return badIs{} }, nil, nil, "badIs"},
		{"a predicate that panics", func() error { return errors.New("fails") }, nil, []chicory.TaskOption{predicate}, "fails"},
		{"middleware that panics as it is built", func() error { return nil }, panics, nil, "built badly"},
		{"middleware that exits", func() error { return nil }, exits, nil, "Goexit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				app, err := chicory.NewWith(memory.New().Broker("ns"), memory.New().Backend("ns"), chicory.Config{Logger: slog.New(slog.DiscardHandler), MaxRetries: 1})
				if err != nil {
					t.Fatal(err)
				}
				defer app.Close()
				bad := chicory.Register(app, "bad", chicory.NoResult(func(context.Context, int) error { return test.handler() }), test.opts...)
				good := chicory.Register(app, "good", func(_ context.Context, n int) (int, error) { return n, nil })
				o := Options{Concurrency: 1}
				if test.middleware != nil {
					o.Middleware = []Middleware{only("bad", test.middleware)}
				}
				stop, err := New(app, o).Start(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				res, err := bad.Delay(t.Context(), 1)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err = res.Get(ctx)
				var te *chicory.TaskError
				if !errors.As(err, &te) || te.Attempt != 2 || !strings.Contains(te.Message, test.want) {
					t.Errorf("got %v, want a failure after 2 attempts that says %q", err, test.want)
				}
				after, err := good.Delay(ctx, 7)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := after.Get(ctx); n != 7 || err != nil {
					t.Errorf("the task after it: got %d, %v", n, err)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// only applies m to one task.
func only(name string, m Middleware) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context) error {
			if info, _ := chicory.TaskFrom(ctx); info.Name == name {
				return m(next)(ctx)
			}
			return next(ctx)
		}
	}
}
