package chicory_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

type addArgs struct{ X, Y int }

func add(_ context.Context, in addArgs) (int, error) { return in.X + in.Y, nil }

// noEnv keeps the machine's own settings out of a test.
func noEnv(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "CHICORY_") {
			t.Setenv(name, "")
		}
	}
}

func newApp(t *testing.T, cfg chicory.Config) *chicory.App {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = "memory:"
	}
	app, err := chicory.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := app.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return app
}

func connected(t *testing.T, cfg chicory.Config) *chicory.App {
	t.Helper()
	app := newApp(t, cfg)
	if err := app.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return app
}

// start runs a worker until the test ends.
func start(t *testing.T, app *chicory.App, o worker.Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.New(app, o).Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("worker: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestNewRefuses(t *testing.T) {
	noEnv(t)
	tests := []struct {
		name string
		cfg  chicory.Config
		want error
		says []string
	}{
		{"neither URL nor type", chicory.Config{}, chicory.ErrValidation, []string{"CHICORY_URL", "memory:"}},
		{"unknown driver", chicory.Config{URL: "carrier-pigeon:"}, chicory.ErrUnknownDriver, []string{"carrier-pigeon", "memory", "import"}},
		{"driver not imported", chicory.Config{URL: "redis://localhost"}, chicory.ErrUnknownDriver, []string{"drivers/redis"}},
		{"unknown broker type", chicory.Config{Broker: "nats"}, chicory.ErrUnknownDriver, []string{"broker", "nats"}},
		{"unknown backend type", chicory.Config{URL: "memory:", Backend: "sql"}, chicory.ErrUnknownDriver, []string{"backend", "sql"}},
		{"no URL at all", chicory.Config{URL: "just words"}, chicory.ErrValidation, []string{"scheme"}},
		{"unparsable URL", chicory.Config{URL: "memory://user:s3cr%ZZet@host"}, chicory.ErrValidation, nil},
		{"unknown parameter", chicory.Config{URL: "memory:?speed=11"}, chicory.ErrValidation, []string{"speed"}},
		{"namespace", chicory.Config{URL: "memory:", Namespace: "Mine!"}, chicory.ErrValidation, []string{"namespace"}},
		{"queue too long", chicory.Config{URL: "memory:", Queue: strings.Repeat("q", 201)}, chicory.ErrValidation, []string{"201"}},
		{"negative timeout", chicory.Config{URL: "memory:", Timeout: -2}, chicory.ErrValidation, []string{"Timeout"}},
		{"negative TTL", chicory.Config{URL: "memory:", ResultTTL: -time.Hour}, chicory.ErrValidation, []string{"ResultTTL"}},
		{"retries", chicory.Config{URL: "memory:", MaxRetries: -2}, chicory.ErrValidation, []string{"MaxRetries"}},
		{"delivery", chicory.Config{URL: "memory:", Delivery: "exactly-once"}, chicory.ErrValidation, []string{"exactly-once"}},
		{"backoff", chicory.Config{URL: "memory:", Backoff: chicory.Fixed(-1)}, chicory.ErrValidation, []string{"Backoff"}},
		{"sizes", chicory.Config{URL: "memory:", MaxPayload: -1}, chicory.ErrValidation, []string{"MaxPayload"}},
	}
	for _, tt := range tests {
		app, err := chicory.New(tt.cfg)
		if app != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			continue
		}
		for _, s := range tt.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not say %q", tt.name, err, s)
			}
		}
		if strings.Contains(err.Error(), "s3cr") {
			t.Errorf("%s: the error repeats a password: %v", tt.name, err)
		}
	}
	if _, err := chicory.NewWith(nil, nil, chicory.Config{}); !errors.Is(err, chicory.ErrValidation) {
		t.Errorf("NewWith(nil): %v", err)
	}
}

func TestEnvironmentFillsTheConfiguration(t *testing.T) {
	noEnv(t)
	t.Setenv("CHICORY_URL", "memory:")
	t.Setenv("CHICORY_NAMESPACE", "Bad!")
	if _, err := chicory.New(chicory.Config{}); !errors.Is(err, chicory.ErrValidation) {
		t.Errorf("got %v, want the bad namespace of the environment", err)
	}
	if _, err := chicory.New(chicory.Config{Namespace: "good"}); err != nil {
		t.Errorf("got %v: what is explicit beats the environment", err)
	}
}

func TestRegistrationMistakesAreCollected(t *testing.T) {
	t.Parallel()
	app := newApp(t, chicory.Config{})
	first := chicory.Register(app, "tasks.add", add)
	chicory.Register(app, "tasks.add", add)
	chicory.Register(app, "", add)
	chicory.Register[addArgs, int](app, "tasks.nil", nil)
	chicory.Register(app, "tasks.retries", add, chicory.MaxRetries(-1))
	chicory.Register(app, "tasks.opt", add, nil)
	chicory.Define[addArgs, int]("tasks.alias", chicory.Alias("tasks.add")).Handle(app, add)
	err := app.Connect(t.Context())
	if !errors.Is(err, chicory.ErrValidation) {
		t.Fatalf("got %v, want the mistakes", err)
	}
	for _, want := range []string{`"tasks.add" is registered twice, at `, "app_test.go:", " and at ", "0 bytes", `"tasks.nil"`, "nil function", "MaxRetries(-1)", "nil option"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
	if err := worker.New(app, worker.Options{}).Run(t.Context()); !errors.Is(err, chicory.ErrValidation) {
		t.Errorf("Run: got %v, want the mistakes", err)
	}
	if _, err := first.Delay(t.Context(), addArgs{}); err == nil {
		t.Error("Delay accepted an app with mistakes")
	}
}

type unserialisable struct{ F float64 }

func TestDispatchRefusesAndEnqueuesNothing(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{MaxPayload: 100})
	task := chicory.Register(app, "tasks.sum", func(_ context.Context, in unserialisable) (int, error) { return 0, nil })
	text := chicory.Register(app, "tasks.text", func(_ context.Context, in string) (int, error) { return 0, nil })
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	ok := unserialisable{1}
	tests := []struct {
		name string
		send func() error
		want error
	}{
		{"unserialisable argument", func() error { _, err := task.Delay(t.Context(), unserialisable{math.Inf(1)}); return err }, chicory.ErrValidation},
		{"oversize payload", func() error { _, err := text.Send(t.Context(), strings.Repeat("x", 101)); return err }, chicory.ErrTooLarge},
		{"cancelled context", func() error { _, err := task.Delay(cancelled, ok); return err }, context.Canceled},
		{"negative delay", func() error { _, err := task.Delay(t.Context(), ok, chicory.After(-1)); return err }, chicory.ErrValidation},
		{"negative timeout", func() error { _, err := task.Delay(t.Context(), ok, chicory.Timeout(-5)); return err }, chicory.ErrValidation},
		{"zero expiry", func() error { _, err := task.Delay(t.Context(), ok, chicory.ExpiresIn(0)); return err }, chicory.ErrValidation},
		{"invalid id", func() error { _, err := task.Delay(t.Context(), ok, chicory.ID("no spaces")); return err }, chicory.ErrValidation},
		{"empty id", func() error { _, err := task.Delay(t.Context(), ok, chicory.ID("")); return err }, chicory.ErrValidation},
		{"queue too long", func() error {
			_, err := task.Delay(t.Context(), ok, chicory.Queue(strings.Repeat("ü", 101)))
			return err
		}, chicory.ErrValidation},
		{"priority", func() error { _, err := task.Delay(t.Context(), ok, chicory.Priority(10)); return err }, chicory.ErrValidation},
		{"reserved header", func() error { _, err := task.Delay(t.Context(), ok, chicory.Header("chicory-x", "")); return err }, chicory.ErrValidation},
		{"nil option", func() error { _, err := task.Delay(t.Context(), ok, nil); return err }, chicory.ErrValidation},
		{"one id for many", func() error {
			_, err := task.DelayMany(t.Context(), []unserialisable{ok, ok}, chicory.ID("x"))
			return err
		}, chicory.ErrValidation},
	}
	for _, tt := range tests {
		if err := tt.send(); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if n := waiting(t, app); n != 0 {
		t.Errorf("%d messages enqueued by refused calls", n)
	}
	rs, err := text.DelayMany(t.Context(), []string{"a", strings.Repeat("x", 101), "b"})
	var be *chicory.BatchError
	if !errors.As(err, &be) || len(rs) != 3 || be.Errs[0] != nil || !errors.Is(be.Errs[1], chicory.ErrTooLarge) || rs[1].ID() == "" {
		t.Errorf("batch with an oversize item: %v, %v", rs, err)
	}
	if n := waiting(t, app); n != 2 {
		t.Errorf("%d messages after a batch with one bad item, want its 2 mates", n)
	}
}

// waiting returns how many messages the app's broker holds.
func waiting(t *testing.T, app *chicory.App) (n int) {
	t.Helper()
	eng, err := app.Core().Engine()
	if err != nil {
		t.Fatal(err)
	}
	in, ok := driver.As[driver.Inspector](eng.Broker)
	if !ok {
		t.Fatal("the broker has no Inspector")
	}
	qs, err := in.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stats, err := in.Inspect(t.Context(), qs)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats {
		n += s.Ready + s.Leased + s.Delayed
	}
	return n
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	app := newApp(t, chicory.Config{})
	task := chicory.Register(app, "tasks.add", add)
	calls := map[string]func() error{
		"Delay":       func() error { _, err := task.Delay(t.Context(), addArgs{}); return err },
		"Send":        func() error { _, err := task.Send(t.Context(), addArgs{}); return err },
		"DelayMany":   func() error { _, err := task.DelayMany(t.Context(), []addArgs{{}}); return err },
		"Get":         func() error { _, err := task.Result("x").Get(t.Context()); return err },
		"State":       func() error { _, err := task.Result("x").State(t.Context()); return err },
		"Cancel":      func() error { return app.Cancel(t.Context(), "x") },
		"DeadLetters": func() error { _, err := app.DeadLetters("q").Len(t.Context()); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, chicory.ErrNotConnected) {
			t.Errorf("%s before Connect: got %v", name, err)
		}
	}
	for range 2 {
		if err := app.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
	if err := calls["Send"](); !errors.Is(err, chicory.ErrNotConnected) {
		t.Errorf("after Disconnect: got %v", err)
	}
	if err := app.Connect(t.Context()); err != nil {
		t.Errorf("Connect again: %v", err)
	}
	for range 2 {
		if err := app.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, chicory.ErrClosed) {
			t.Errorf("%s after Close: got %v", name, err)
		}
	}
	if err := app.Connect(t.Context()); !errors.Is(err, chicory.ErrClosed) {
		t.Errorf("Connect after Close: got %v", err)
	}
}

func TestResultsNeedABackend(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{Backend: chicory.BackendNone})
	task := chicory.Register(app, "tasks.add", add)
	if _, err := task.Delay(t.Context(), addArgs{}); !errors.Is(err, chicory.ErrNoBackend) {
		t.Errorf("Delay: got %v", err)
	}
	id, err := task.Send(t.Context(), addArgs{1, 2})
	if err != nil {
		t.Errorf("Send: got %v, want it sent: nobody asked for the result", err)
	}
	if _, err := task.Result(id).Get(t.Context()); !errors.Is(err, chicory.ErrNoBackend) {
		t.Errorf("Get: got %v", err)
	}
}

func TestUnknownAndBadIDs(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	task := chicory.Register(app, "tasks.add", add)
	for id, want := range map[string]error{"unknown": chicory.ErrNotFound, "": chicory.ErrValidation, "a b": chicory.ErrValidation} {
		r := task.Result(id)
		_, get := r.Get(t.Context())
		_, state := r.State(t.Context())
		_, ready := r.Ready(t.Context())
		_, failed := r.Failed(t.Context())
		_, info := r.Info(t.Context())
		for i, err := range []error{get, state, ready, failed, info, app.Cancel(t.Context(), id)} {
			if !errors.Is(err, want) {
				t.Errorf("id %q, call %d: got %v, want %v", id, i, err, want)
			}
		}
	}
}

func TestChosenIDs(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	task := chicory.Register(app, "tasks.add", add)
	if _, err := task.Delay(t.Context(), addArgs{1, 1}, chicory.ID("mine")); err != nil {
		t.Fatal(err)
	}
	_, err := task.Delay(t.Context(), addArgs{2, 2}, chicory.ID("mine"))
	var pe *chicory.PublishError
	if !errors.Is(err, chicory.ErrDuplicate) || !errors.As(err, &pe) || pe.ID != "mine" || pe.Unknown {
		t.Errorf("got %v, want ErrDuplicate in a PublishError", err)
	}
	start(t, app, worker.Options{})
	if v, err := task.Result("mine").Get(t.Context()); v != 2 || err != nil {
		t.Errorf("got %d, %v", v, err)
	}
	if _, err := task.Send(t.Context(), addArgs{}, chicory.ID("mine")); !errors.Is(err, chicory.ErrDuplicate) {
		t.Errorf("got %v: the record is still alive", err)
	}
}

func TestResults(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	task := chicory.Register(app, "tasks.add", add)
	start(t, app, worker.Options{Concurrency: 4})
	var ins []addArgs
	for i := range 300 {
		ins = append(ins, addArgs{i, i})
	}
	rs, err := task.DelayMany(t.Context(), ins)
	if err != nil {
		t.Fatal(err)
	}
	vs, err := chicory.GetAll(t.Context(), rs)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range vs {
		if v != 2*i {
			t.Fatalf("result %d: got %d", i, v)
		}
	}
	seen := map[int]bool{}
	for i, o := range chicory.Completed(t.Context(), rs) {
		if o.Err != nil || o.Value != 2*i || o.Result != rs[i] || seen[i] {
			t.Errorf("outcome %d: %+v, seen %v", i, o, seen[i])
		}
		seen[i] = true
	}
	if len(seen) != len(rs) {
		t.Errorf("%d of %d outcomes", len(seen), len(rs))
	}
	for range chicory.Completed(t.Context(), rs) {
		break // must not leave its goroutines behind
	}
	info, err := rs[0].Info(t.Context())
	if err != nil || info.State != chicory.StateSuccess || info.Attempt != 1 || info.Enqueued.IsZero() || info.Started.IsZero() || info.Finished.IsZero() || info.Err != nil {
		t.Errorf("Info: %+v, %v", info, err)
	}
}

type codedError struct{}

func (codedError) Error() string { return "no stock" }
func (codedError) Code() string  { return "out_of_stock" }

func TestFailureCrossesTheWire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := connected(t, chicory.Config{})
		task := chicory.Register(app, "shop.order", func(context.Context, int) (int, error) {
			return 0, fmt.Errorf("order: %w", codedError{})
		}, chicory.MaxRetries(2), chicory.Fixed(time.Second))
		start(t, app, worker.Options{Name: "w1"})
		r, err := task.Delay(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Get(t.Context())
		var te *chicory.TaskError
		if !errors.As(err, &te) || !errors.Is(err, chicory.ErrFailed) || !errors.Is(err, chicory.ErrDeadLettered) || errors.Is(err, chicory.ErrExpired) {
			t.Fatalf("got %v", err)
		}
		if te.Kind != "out_of_stock" || te.Attempt != 3 || len(te.History) != 3 || te.Name != "shop.order" || te.History[2].Worker != "w1" || te.ID != r.ID() {
			t.Errorf("got %+v", te)
		}
		for i, h := range te.History {
			if h.Attempt != i+1 || i > 0 && h.At.Sub(te.History[i-1].At) != time.Second {
				t.Errorf("history %d: %+v", i, h)
			}
		}
		dead, err := app.DeadLetters("default").Get(t.Context(), r.ID())
		if err != nil || dead.Reason != "failed" || dead.Kind != "out_of_stock" || dead.Attempts != 3 || string(dead.Body) != "1" {
			t.Errorf("dead letter: %+v, %v", dead, err)
		}
		if failed, err := r.Failed(t.Context()); !failed || err != nil {
			t.Errorf("Failed: %v, %v", failed, err)
		}
	})
}

func TestHandlerOptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := connected(t, chicory.Config{})
		permanent := errors.New("permanent")
		runs := map[string]int{}
		fail := func(name string, err error, opts ...chicory.TaskOption) *chicory.Task[int, int] {
			return chicory.Register(app, name, func(context.Context, int) (int, error) { runs[name]++; return 0, err }, opts...)
		}
		tasks := map[string]*chicory.Task[int, int]{
			"ignore-on": fail("ignore-on", fmt.Errorf("x: %w", permanent), chicory.IgnoreOn(permanent)),
			"retry-on":  fail("retry-on", permanent, chicory.RetryOn(permanent)),
			"other":     fail("other", errors.New("other"), chicory.RetryOn(permanent)),
			"permanent": fail("permanent", chicory.Permanent(permanent)),
			"after":     fail("after", chicory.RetryAfter(time.Hour, permanent), chicory.MaxRetries(1)),
			"none":      fail("none", permanent, chicory.MaxRetries(0)),
			"off":       fail("off", permanent, chicory.MaxRetries(0), chicory.DeadLettering(false)),
		}
		want := map[string]int{"ignore-on": 1, "retry-on": 4, "other": 1, "permanent": 1, "after": 2, "none": 1, "off": 1}
		start(t, app, worker.Options{Concurrency: 1})
		for name, task := range tasks {
			r, err := task.Delay(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			_, err = r.Get(t.Context())
			if !errors.Is(err, chicory.ErrFailed) || runs[name] != want[name] {
				t.Errorf("%s: %d runs, want %d; %v", name, runs[name], want[name], err)
			}
			if name == "after" && time.Since(begin) != time.Hour {
				t.Errorf("RetryAfter(1h) took %v", time.Since(begin))
			}
			if name == "off" && errors.Is(err, chicory.ErrDeadLettered) {
				t.Error("dead-lettered with dead-lettering off")
			}
		}
		if n, err := app.DeadLetters("default").Len(t.Context()); n != 6 || err != nil {
			t.Errorf("%d dead letters, %v; want 6", n, err)
		}
	})
}

func TestTaskContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := connected(t, chicory.Config{Middleware: []chicory.Middleware{func(next chicory.Dispatch) chicory.Dispatch {
			return func(ctx context.Context, out *chicory.Outgoing) error {
				out.Headers["trace"] = "abc"
				return next(ctx, out)
			}
		}}})
		var infos []chicory.TaskInfo
		var order []string
		var inner *chicory.Task[int, int]
		task := chicory.Register(app, "ctx", func(ctx context.Context, n int) (string, error) {
			info, _ := chicory.TaskFrom(ctx)
			infos = append(infos, info)
			if len(infos) == 1 {
				return "", chicory.Snooze(time.Minute)
			}
			if info.Attempt == 1 {
				return "", errors.New("again")
			}
			if _, err := inner.Result("x").Get(ctx); !errors.Is(err, chicory.ErrWaitInTask) {
				t.Errorf("Get in a handler: %v", err)
			}
			if _, err := inner.Result("x").Get(chicory.AllowWait(ctx)); !errors.Is(err, chicory.ErrNotFound) {
				t.Errorf("Get in a handler with AllowWait: %v", err)
			}
			return info.Headers["trace"] + info.Headers["own"], nil
		}, chicory.MaxRetries(1))
		inner = chicory.Register(app, "inner", func(context.Context, int) (int, error) { return 0, nil })
		note := func(name string) worker.Middleware {
			return func(next worker.Handler) worker.Handler {
				return func(ctx context.Context) error { order = append(order, name); return next(ctx) }
			}
		}
		start(t, app, worker.Options{Middleware: []worker.Middleware{note("outer"), note("inner")}})
		r, err := task.Delay(t.Context(), 1, chicory.Header("own", "def"), chicory.Priority(5))
		if err != nil {
			t.Fatal(err)
		}
		if v, err := r.Get(t.Context()); v != "abcdef" || err != nil {
			t.Errorf("got %q, %v", v, err)
		}
		if len(infos) != 3 || infos[0].Attempt != 1 || infos[1].Attempt != 1 || infos[2].Attempt != 2 || infos[1].IsLast || !infos[2].IsLast || infos[0].MaxAttempts != 2 || infos[0].ID != r.ID() || infos[0].Queue != "default" {
			t.Errorf("got %+v", infos)
		}
		if !slices.Equal(order[:2], []string{"outer", "inner"}) {
			t.Errorf("middleware ran as %v", order)
		}
		if _, ok := chicory.TaskFrom(t.Context()); ok {
			t.Error("TaskFrom outside of a handler")
		}
	})
}

func TestIgnoredResults(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	ran := make(chan struct{}, 2)
	h := func(context.Context, int) (int, error) { ran <- struct{}{}; return 1, nil }
	plain := chicory.Register(app, "plain", h, chicory.IgnoreResult())
	once := chicory.Register(app, "once", h, chicory.IgnoreResult(), chicory.AtMostOnce())
	start(t, app, worker.Options{})
	r, err := plain.Delay(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context()); !errors.Is(err, chicory.ErrResultIgnored) {
		t.Errorf("Get: got %v at once", err)
	}
	<-ran
	id, err := once.Send(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := once.Result(id).Get(t.Context()); !errors.Is(err, chicory.ErrResultIgnored) {
		t.Errorf("Get of an at-most-once task: %v", err)
	}
	if s, err := once.Result(id).State(t.Context()); s != chicory.StateSuccess || err != nil {
		t.Errorf("State: %v, %v; an at-most-once task has a record", s, err)
	}
}

func TestEmbeddedWorkerLeavesTheAppConnected(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	task := chicory.Register(app, "tasks.add", add)
	stop := start(t, app, worker.Options{})
	stop()
	if _, err := task.Send(t.Context(), addArgs{}); err != nil {
		t.Errorf("Send after the worker stopped: %v", err)
	}
}

func TestBadResultIsNotRunAgain(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{MaxResult: 10})
	runs := make(chan int, 10)
	inf := chicory.Register(app, "inf", func(context.Context, int) (float64, error) { runs <- 1; return math.Inf(1), nil })
	big := chicory.Register(app, "big", func(context.Context, int) (string, error) { runs <- 1; return strings.Repeat("x", 11), nil })
	start(t, app, worker.Options{})
	r1, err1 := inf.Delay(t.Context(), 1)
	r2, err2 := big.Delay(t.Context(), 1)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var te *chicory.TaskError
	if _, err := r1.Get(t.Context()); !errors.As(err, &te) || te.Kind != "result" {
		t.Errorf("unserialisable result: %v", err)
	}
	if _, err := r2.Get(t.Context()); !errors.As(err, &te) || te.Kind != "result" {
		t.Errorf("oversize result: %v", err)
	}
	if len(runs) != 2 {
		t.Errorf("%d runs of two tasks that succeeded", len(runs))
	}
}

func TestConnectNamesTasksWhoseResultsAreLost(t *testing.T) {
	noEnv(t)
	var registry driver.Registry
	registry.Register("mute", driver.Driver{OpenBroker: func(context.Context, *driver.Config) (driver.Broker, error) {
		return nil, errors.New("must not be opened")
	}})
	app, err := chicory.New(chicory.Config{URL: "mute:", Registry: &registry})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	chicory.Register(app, "has.result", add)
	chicory.Define[addArgs, int]("also.has").On(app)
	chicory.Register(app, "has.none", add, chicory.IgnoreResult())
	err = app.Connect(t.Context())
	if !errors.Is(err, chicory.ErrNoBackend) || !strings.Contains(err.Error(), "also.has, has.result;") || strings.Contains(err.Error(), "has.none") {
		t.Errorf("got %v, want ErrNoBackend with the tasks that have results", err)
	}
	if _, err := chicory.New(chicory.Config{URL: "memory:", Backend: "mute", Registry: &registry}); err == nil {
		t.Error("a driver without a backend was accepted as one")
	}
}

func TestDeadLettersAreListedDeletedAndPurged(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	task := chicory.Register(app, "fail", func(context.Context, int) (int, error) { return 0, errors.New("no") }, chicory.MaxRetries(0))
	start(t, app, worker.Options{})
	rs, err := task.DelayMany(t.Context(), make([]int, 250))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chicory.GetAll(t.Context(), rs); !errors.Is(err, chicory.ErrDeadLettered) {
		t.Fatal(err)
	}
	dead := app.DeadLetters("default")
	seen := map[string]bool{}
	for l, err := range dead.All(t.Context()) {
		if err != nil || seen[l.ID] || l.Message != "no" || l.Name != "fail" {
			t.Fatalf("got %+v, %v", l, err)
		}
		seen[l.ID] = true
	}
	if n, err := dead.Len(t.Context()); n != 250 || len(seen) != 250 || err != nil {
		t.Errorf("%d dead letters, %d listed, %v; want 250", n, len(seen), err)
	}
	if n, err := dead.Delete(t.Context(), rs[0].ID(), rs[1].ID(), "unknown"); n != 2 || err != nil {
		t.Errorf("deleted %d, %v; want 2", n, err)
	}
	if _, err := dead.Get(t.Context(), rs[0].ID()); !errors.Is(err, chicory.ErrNotFound) {
		t.Errorf("Get of a deleted one: %v", err)
	}
	if n, err := dead.Purge(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("purged %d older than an hour, %v; want 0", n, err)
	}
	if n, err := dead.Purge(t.Context(), 0); n != 248 || err != nil {
		t.Errorf("purged %d, %v; want 248", n, err)
	}
	if _, err := app.DeadLetters("").Len(t.Context()); !errors.Is(err, chicory.ErrValidation) {
		t.Errorf("a queue without a name: %v", err)
	}
}

func TestAliasAndStrictFields(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	type newer struct{ X, Y, Z int }
	chicory.Define[addArgs, int]("new.name", chicory.Alias("old.name")).Handle(app, add)
	chicory.Define[addArgs, int]("strict", chicory.StrictFields()).Handle(app, add)
	start(t, app, worker.Options{})
	r, err := chicory.Define[newer, int]("old.name").On(app).Delay(t.Context(), newer{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := r.Get(t.Context()); v != 3 || err != nil {
		t.Errorf("by its old name, with a new field: got %d, %v", v, err)
	}
	r, err = chicory.Define[newer, int]("strict").On(app).Delay(t.Context(), newer{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	var te *chicory.TaskError
	if _, err := r.Get(t.Context()); !errors.As(err, &te) || te.Reason != "undecodable" || te.Attempt != 1 {
		t.Errorf("a strict task with an unknown field: got %v, want it dead-lettered without a retry", err)
	}
}

func TestWhenAndInWhichOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := connected(t, chicory.Config{})
		begin := time.Now()
		var order []int
		var times []time.Duration
		task := chicory.Register(app, "note", func(_ context.Context, n int) (int, error) {
			order, times = append(order, n), append(times, time.Since(begin))
			return n, nil
		})
		send := func(n int, opts ...chicory.CallOption) *chicory.AsyncResult[int] {
			r, err := task.Delay(t.Context(), n, opts...)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		rs := []*chicory.AsyncResult[int]{
			send(5, chicory.After(time.Hour)),
			send(4, chicory.At(begin.Add(time.Minute))),
			send(3),
			send(2, chicory.Priority(3)),
			send(1, chicory.Priority(9)),
			send(6, chicory.At(begin.Add(-time.Hour)), chicory.Priority(9)),
		}
		late := send(7, chicory.After(time.Hour), chicory.ExpiresAt(begin.Add(time.Minute)))
		start(t, app, worker.Options{Concurrency: 1})
		if _, err := chicory.GetAll(t.Context(), rs); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(order, []int{1, 6, 2, 3, 4, 5}) || times[4] != time.Minute || times[5] != time.Hour {
			t.Errorf("ran %v at %v", order, times)
		}
		if _, err := late.Get(t.Context()); !errors.Is(err, chicory.ErrExpired) {
			t.Errorf("due after its expiry: got %v", err)
		}
	})
}
