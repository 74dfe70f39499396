package chicory_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

// TestLastWorkerDisconnects: a worker that connected the app must not take the
// connection from another worker, nor from a program that called Connect.
func TestLastWorkerDisconnects(t *testing.T) {
	t.Parallel()
	app := newApp(t, chicory.Config{})
	task := chicory.Register(app, "tasks.add", add)
	ctx := t.Context()
	first := chicory.Must(worker.New(app, worker.Options{}).Start(ctx))
	second := chicory.Must(worker.New(app, worker.Options{}).Start(ctx))
	if err := first(); err != nil {
		t.Fatal(err)
	}
	res, err := task.Delay(ctx, addArgs{10, 32})
	if err != nil {
		t.Fatalf("Delay while the second worker runs: %v", err)
	}
	if n, err := res.Get(ctx); n != 42 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if err := second(); err != nil {
		t.Fatal(err)
	}
	if _, err := task.Delay(ctx, addArgs{1, 2}); !errors.Is(err, chicory.ErrNotConnected) {
		t.Errorf("after the last worker: got %v, want ErrNotConnected", err)
	}
	third := chicory.Must(worker.New(app, worker.Options{}).Start(ctx))
	if err := app.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	if err := third(); err != nil {
		t.Fatal(err)
	}
	if _, err := task.Send(ctx, addArgs{1, 2}); err != nil {
		t.Errorf("after Connect, the worker stopped: %v", err)
	}
}

// hanging is a broker whose Publish ends when it is closed.
type hanging struct {
	driver.Broker
	once   sync.Once
	closed chan struct{}
}

func (b *hanging) Publish(context.Context, []*driver.Message) error {
	<-b.closed
	return driver.ErrClosed
}

func (b *hanging) Close(ctx context.Context) error {
	b.once.Do(func() { close(b.closed) })
	return b.Broker.Close(ctx)
}

func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		app, err := chicory.NewWith(&hanging{Broker: store.Broker("ns"), closed: make(chan struct{})}, store.Backend("ns"), chicory.Config{})
		if err != nil {
			t.Fatal(err)
		}
		task := chicory.Register(app, "tasks.add", add)
		if err := app.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			_, err := task.Send(context.Background(), addArgs{1, 2})
			sent <- err
		}()
		synctest.Wait()
		begin := time.Now()
		if err := app.Close(); err != nil || time.Since(begin) > 3*time.Second {
			t.Errorf("Close beside a call that hangs took %v, %v", time.Since(begin), err)
		}
		if err := <-sent; !errors.Is(err, chicory.ErrClosed) {
			t.Errorf("the call that hung: got %v, want ErrClosed", err)
		}
	})
}

func TestCloseEndsConnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r driver.Registry
		r.Register("slow", driver.Driver{OpenBroker: func(ctx context.Context, _ *driver.Config) (driver.Broker, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}})
		app, err := chicory.New(chicory.Config{URL: "slow:", Registry: &r, Backend: chicory.BackendNone})
		if err != nil {
			t.Fatal(err)
		}
		connected := make(chan error, 1)
		go func() { connected <- app.Connect(context.Background()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := app.Disconnect(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Second {
			t.Errorf("Disconnect beside a Connect that hangs: got %v after %v", err, time.Since(begin))
		}
		begin = time.Now()
		if err := app.Close(); err != nil || time.Since(begin) > time.Second {
			t.Errorf("Close beside a Connect that hangs: got %v after %v", err, time.Since(begin))
		}
		if err := <-connected; err == nil {
			t.Error("Connect succeeded though the app was closed")
		}
	})
}

func TestReadsEndWithErrClosed(t *testing.T) {
	t.Parallel()
	for range 20 {
		app := connected(t, chicory.Config{})
		task := chicory.Register(app, "tasks.add", add)
		res, err := task.Delay(t.Context(), addArgs{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for {
					_, err := res.State(context.Background())
					if err == nil {
						continue
					}
					if !errors.Is(err, chicory.ErrClosed) {
						t.Errorf("State beside Close: got %v, want ErrClosed", err)
					}
					return
				}
			})
		}
		if err := app.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

func TestConnectReportsDefinitions(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(app *chicory.App){
		"bound":             func(app *chicory.App) { chicory.Define[int, int]("z", chicory.Priority(77)).On(app) },
		"bound twice":       func(app *chicory.App) { d := chicory.Define[int, int](""); d.On(app); d.On(app) },
		"a long alias":      func(app *chicory.App) { chicory.Define[int, int]("a", chicory.Alias(strings.Repeat("x", 201))).On(app) },
		"nil for an option": func(app *chicory.App) { chicory.Define[addArgs, int]("a").Handle(app, add, nil) },
		"Queue in Handle":   func(app *chicory.App) { chicory.Define[addArgs, int]("a").Handle(app, add, chicory.Queue("b")) },
		"mode in Handle":    func(app *chicory.App) { chicory.Define[addArgs, int]("a").Handle(app, add, chicory.AtMostOnce()) },
		"expiry in Handle": func(app *chicory.App) {
			chicory.Define[addArgs, int]("a").Handle(app, add, chicory.ExpiresIn(time.Second))
		},
		"priority in Handle": func(app *chicory.App) { chicory.Define[addArgs, int]("a").Handle(app, add, chicory.Priority(1)) },
		"ignored in Handle":  func(app *chicory.App) { chicory.Define[addArgs, int]("a").Handle(app, add, chicory.IgnoreResult()) },
	} {
		app := newApp(t, chicory.Config{})
		use(app)
		err := app.Connect(t.Context())
		if !errors.Is(err, chicory.ErrValidation) || !strings.Contains(err.Error(), "lifecycle_test.go:") {
			t.Errorf("%s: Connect said %v, want ErrValidation and the place", name, err)
		}
		if err != nil && strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%s: said more than once: %v", name, err)
		}
	}
}

// TestHandleOptions: what is set in Handle beats the definition.
func TestHandleOptions(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{})
	d := chicory.Define[int, int]("flaky", chicory.Queue("special"), chicory.MaxRetries(9))
	d.Handle(app, func(context.Context, int) (int, error) { return 0, errors.New("fails") }, chicory.MaxRetries(1), chicory.Fixed(time.Millisecond))
	start(t, app, worker.Options{})
	res, err := d.On(app).Delay(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = res.Get(t.Context())
	var te *chicory.TaskError
	if !errors.As(err, &te) || te.Attempt != 2 {
		t.Errorf("got %v, want a failure after attempt 2", err)
	}
}

func TestDispatchMiddlewareSeesThePublish(t *testing.T) {
	t.Parallel()
	type seen struct {
		id  string
		err error
	}
	var mu sync.Mutex
	var saw []seen
	watch := func(next chicory.Dispatch) chicory.Dispatch {
		return func(ctx context.Context, out *chicory.Outgoing) error {
			other := *out
			other.Headers = map[string]string{"trace": "1"}
			err := next(ctx, &other)
			mu.Lock()
			defer mu.Unlock()
			saw = append(saw, seen{out.ID, err})
			return err
		}
	}
	app := connected(t, chicory.Config{Middleware: []chicory.Middleware{watch}})
	ctx := t.Context()
	headers := chicory.Register(app, "headers", func(ctx context.Context, _ int) (string, error) {
		info, _ := chicory.TaskFrom(ctx)
		return info.Headers["trace"], nil
	})
	odd := chicory.Define[func(), int]("odd").On(app)
	start(t, app, worker.Options{})
	res, err := headers.Delay(ctx, 1, chicory.ID("one"))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := res.Get(ctx); v != "1" || err != nil {
		t.Errorf("the headers of what was passed on count: got %q, %v", v, err)
	}
	if _, err := headers.Delay(ctx, 1, chicory.ID("one")); !errors.Is(err, chicory.ErrDuplicate) {
		t.Errorf("got %v, want ErrDuplicate", err)
	}
	if _, err := odd.Send(ctx, nil); !errors.Is(err, chicory.ErrValidation) {
		t.Errorf("got %v, want ErrValidation", err)
	}
	if _, err := headers.DelayMany(ctx, []int{1, 2}); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(saw) != 5 || saw[0].err != nil || !errors.Is(saw[1].err, chicory.ErrDuplicate) || !errors.Is(saw[2].err, chicory.ErrValidation) {
		t.Errorf("the middleware saw %+v", saw)
	}
}

func TestDispatchMiddlewareMisbehaves(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		m    chicory.Middleware
		sent bool
	}{
		"keeps it": {func(chicory.Dispatch) chicory.Dispatch {
			return func(context.Context, *chicory.Outgoing) error { return nil }
		}, false},
		"passes nil on": {func(next chicory.Dispatch) chicory.Dispatch {
			return func(ctx context.Context, _ *chicory.Outgoing) error { return next(ctx, nil) }
		}, false},
		"twice": {func(next chicory.Dispatch) chicory.Dispatch {
			return func(ctx context.Context, out *chicory.Outgoing) error {
				return errors.Join(next(ctx, out), next(ctx, out))
			}
		}, true},
		"fails afterwards": {func(next chicory.Dispatch) chicory.Dispatch {
			return func(ctx context.Context, out *chicory.Outgoing) error {
				return errors.Join(next(ctx, out), errors.New("after"))
			}
		}, true},
	} {
		app := connected(t, chicory.Config{Middleware: []chicory.Middleware{test.m}, Logger: slog.New(slog.DiscardHandler)})
		task := chicory.Define[addArgs, int]("tasks.add").On(app)
		_, err := task.Send(t.Context(), addArgs{}, chicory.ID("a"))
		_, serr := task.Result("a").State(t.Context())
		if err == nil || (serr == nil) != test.sent {
			t.Errorf("%s: got %v, sent: %v, want an error and %v", name, err, serr == nil, test.sent)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	app := connected(t, chicory.Config{MaxRetries: chicory.NoRetries, Logger: slog.New(slog.DiscardHandler)})
	big := strings.Repeat("é", 1<<20)
	task := chicory.Register(app, "tasks.big", func(_ context.Context, n int) (int, error) { return 0, errors.New(big) })
	ctx := t.Context()
	if _, err := task.Send(ctx, 1, chicory.Header("x", big)); !errors.Is(err, chicory.ErrTooLarge) {
		t.Errorf("a header of 2 MiB: got %v, want ErrTooLarge", err)
	}
	start(t, app, worker.Options{})
	res, err := task.Delay(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = res.Get(ctx)
	var te *chicory.TaskError
	if !errors.As(err, &te) || len(te.Message) > 20<<10 || !strings.Contains(te.Message, "2097152 bytes in all") || len(te.History[0].Message) > 2<<10 {
		t.Errorf("an error of 2 MiB: got %d bytes", len(err.Error()))
	}
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(-1e9, 0), time.Now().Add(-time.Hour)} {
		res, err := task.Delay(ctx, 1, chicory.ExpiresAt(at))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := res.Get(ctx); !errors.Is(err, chicory.ErrExpired) {
			t.Errorf("expires at %v: got %v, want ErrExpired", at, err)
		}
	}
}

func TestSecretsInParameters(t *testing.T) {
	t.Parallel()
	_, err := chicory.New(chicory.Config{Broker: chicory.BrokerMemory, BrokerURL: "memory:x?password=sekret&ACCESS_KEY=sekret&odd=1"})
	if err == nil || strings.Contains(err.Error(), "sekret") || !strings.Contains(err.Error(), "password=xxxxx") {
		t.Errorf("got %v", err)
	}
}

// TestDeadLetterFollowsItsRecord: on two stores the record comes first.
func TestDeadLetterFollowsItsRecord(t *testing.T) {
	t.Parallel()
	app, err := chicory.NewWith(memory.New().Broker("ns"), memory.New().Backend("ns"), chicory.Config{MaxRetries: chicory.NoRetries, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	task := chicory.Register(app, "fails", func(_ context.Context, n int) (int, error) { return 0, errors.New("fails") })
	ctx := t.Context()
	if err := app.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	start(t, app, worker.Options{Concurrency: 8})
	rs, err := task.DelayMany(ctx, make([]int, 200))
	if err != nil {
		t.Fatal(err)
	}
	dead := app.DeadLetters("default")
	for i, r := range rs {
		if _, err := r.Get(ctx); !errors.Is(err, chicory.ErrDeadLettered) {
			t.Fatalf("got %v", err)
		}
		if i%2 == 0 {
			if _, err := dead.Get(ctx, r.ID()); err != nil {
				t.Errorf("the record says DEAD_LETTERED, the dead letter: %v", err)
			}
		} else if n, err := dead.Replay(ctx, r.ID()); n != 1 || err != nil {
			t.Errorf("the record says DEAD_LETTERED, replayed: %d, %v", n, err)
		}
	}
}
