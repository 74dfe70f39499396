package chicory_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/worker"
)

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
