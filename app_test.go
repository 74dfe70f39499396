package chicory_test

import (
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory"
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
		{"jitter", chicory.Config{URL: "memory:", Backoff: chicory.Fixed(1).Jitter(math.NaN())}, chicory.ErrValidation, []string{"jitter"}},
		{"factor", chicory.Config{URL: "memory:", Backoff: chicory.Exponential(1, 2).Factor(math.NaN())}, chicory.ErrValidation, []string{"factor"}},
		{"middleware", chicory.Config{URL: "memory:", Middleware: []chicory.Middleware{nil}}, chicory.ErrValidation, []string{"nil"}},
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

func TestLifecycle(t *testing.T) {
	t.Parallel()
	app := newApp(t, chicory.Config{})
	task := chicory.Register(app, "tasks.add", add)
	calls := map[string]func() error{
		"Delay":       func() error { _, err := task.Delay(t.Context(), addArgs{}); return err },
		"Send":        func() error { _, err := task.Send(t.Context(), addArgs{}); return err },
		"SendMany":    func() error { _, err := task.SendMany(t.Context(), []addArgs{{}}); return err },
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
