package chicory_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

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
		{"one id for many sent", func() error {
			_, err := task.SendMany(t.Context(), []unserialisable{ok, ok}, chicory.ID("x"))
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

// TestSendMany enqueues a batch where no results are kept.
func TestSendMany(t *testing.T) {
	t.Parallel()
	app, err := chicory.NewWith(memory.New().Broker("ns"), nil, chicory.Config{MaxPayload: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	if err := app.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := chicory.Register(app, "text", func(context.Context, string) (int, error) { return 0, nil })
	ids, err := text.SendMany(t.Context(), []string{"a", strings.Repeat("x", 101), "b"})
	var be *chicory.BatchError
	if !errors.As(err, &be) || len(be.Errs) != 3 || be.Errs[0] != nil || be.Errs[2] != nil || !errors.Is(be.Errs[1], chicory.ErrTooLarge) {
		t.Errorf("a batch with an oversize item: got %v", err)
	}
	if len(ids) != 3 || slices.Contains(ids, "") {
		t.Errorf("ids: got %q, want one for each item", ids)
	}
	if n := waiting(t, app); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	if _, err := text.DelayMany(t.Context(), []string{"a"}); !errors.Is(err, chicory.ErrNoBackend) {
		t.Errorf("DelayMany without a backend: got %v, want ErrNoBackend", err)
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
