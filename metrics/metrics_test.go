package metrics_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/metrics"
	"github.com/chicory-go/chicory/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gathered returns the value of each series, as "name{label=value,…}", and the
// number of observations of histograms.
func gathered(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			all[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = v
		}
	}
	return all
}

func setUp(t *testing.T, o worker.Options) (*metrics.Metrics, *chicory.App, *worker.Worker) {
	t.Helper()
	m := metrics.New(metrics.Options{})
	app, err := chicory.NewWith(memory.New().Broker("ns"), memory.New().Backend("ns"), chicory.Config{
		Logger: slog.New(slog.DiscardHandler), Middleware: []chicory.Middleware{m.Dispatch}, Backoff: chicory.Fixed(time.Second)})
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
	o.Middleware, o.OnSettled = []worker.Middleware{m.Run}, m.Settled
	return m, app, worker.New(app, o)
}

func start(t *testing.T, w *worker.Worker) (stop func() error) {
	t.Helper()
	stop, err := w.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

// TestCountsWhatHappens runs a task to each of its ends and compares all that is
// counted.
func TestCountsWhatHappens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, app, w := setUp(t, worker.Options{Concurrency: 1, Name: "w"})
		m.WatchWorker(w)
		task := chicory.Register(app, "t", func(ctx context.Context, how string) (int, error) {
			switch how {
			case "fail":
				return 0, errors.New("no")
			case "panic":
				panic("no")
			case "exit":
				runtime.Goexit()
			case "timeout":
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return 1, nil
		}, chicory.MaxRetries(1), chicory.Timeout(time.Minute))
		var rs []*chicory.AsyncResult[int]
		for _, how := range []string{"succeed", "fail", "panic", "exit", "timeout"} {
			r, err := task.Delay(t.Context(), how)
			if err != nil {
				t.Fatal(err)
			}
			rs = append(rs, r)
		}
		if _, err := task.Send(t.Context(), strings.Repeat("x", 2<<20)); !errors.Is(err, chicory.ErrTooLarge) {
			t.Fatal(err)
		}
		if _, err := task.Send(t.Context(), "late", chicory.ExpiresIn(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		unknown := chicory.Define[int, int]("somebody's").On(app)
		if _, err := unknown.Send(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // "late" expires
		start(t, w)
		_, _ = chicory.GetAll(t.Context(), rs)
		synctest.Wait()
		got := gathered(t, m)
		settled := "chicory_deliveries_settled_total{queue=default,reason="
		want := map[string]float64{
			"chicory_dispatches_total{outcome=success,queue=default,task=t}":          6,
			"chicory_dispatches_total{outcome=error,queue=default,task=t}":            1,
			"chicory_dispatches_total{outcome=success,queue=default,task=somebody's}": 1,
			"chicory_dispatch_duration_seconds{queue=default,task=t}":                 7,
			"chicory_dispatch_duration_seconds{queue=default,task=somebody's}":        1,
			"chicory_task_duration_seconds{outcome=success,queue=default,task=t}":     1,
			"chicory_task_duration_seconds{outcome=error,queue=default,task=t}":       2,
			"chicory_task_duration_seconds{outcome=panic,queue=default,task=t}":       4,
			"chicory_task_duration_seconds{outcome=timeout,queue=default,task=t}":     2,
			"chicory_tasks_running{queue=default,task=t}":                             0,
			settled + ",state=success,task=t}":                                        1,
			settled + "failed,state=retry,task=t}":                                    4,
			settled + "failed,state=dead_lettered,task=t}":                            4,
			settled + ",state=expired,task=t}":                                        1,
			"chicory_worker_slots{worker=w}":                                          1,
			"chicory_worker_slots_busy{worker=w}":                                     0,
			"chicory_worker_healthy{worker=w}":                                        1,
		}
		parked := settled + "unknown_task,state=retry,task=}" // again and again
		if got[parked] < 2 {
			t.Errorf("%s is %v, want it parked more than once", parked, got[parked])
		}
		delete(got, parked)
		if !maps.Equal(got, want) {
			for k := range want {
				if got[k] != want[k] {
					t.Errorf("%s is %v, want %v", k, got[k], want[k])
				}
				delete(got, k)
			}
			for k, v := range got {
				t.Errorf("%s is %v, want none", k, v)
			}
		}
	})
}

// TestSnoozeAndShutdown: neither is an error of the handler.
func TestSnoozeAndShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, app, w := setUp(t, worker.Options{Name: "w", ShutdownTimeout: worker.NoGrace})
		m.WatchWorker(w)
		asked := 0
		snooze := chicory.Register(app, "snooze", func(context.Context, int) (int, error) {
			if asked++; asked == 1 {
				return 0, chicory.Snooze(time.Second)
			}
			return 1, nil
		})
		wait := chicory.Register(app, "wait", func(ctx context.Context, _ int) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		stop := start(t, w)
		r, err := snooze.Delay(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone, err := wait.Delay(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := gathered(t, m); got["chicory_tasks_running{queue=default,task=wait}"] != 1 || got["chicory_worker_slots_busy{worker=w}"] != 1 {
			t.Errorf("while it runs: %v", got)
		}
		if err := app.Cancel(t.Context(), gone.ID()); err != nil {
			t.Fatal(err)
		}
		_, _ = gone.Get(t.Context())
		time.Sleep(time.Minute) // a heartbeat finds it cancelled
		if _, err := wait.Send(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
		got := gathered(t, m)
		for name, want := range map[string]float64{
			"chicory_task_duration_seconds{outcome=snooze,queue=default,task=snooze}":             1,
			"chicory_task_duration_seconds{outcome=success,queue=default,task=snooze}":            1,
			"chicory_task_duration_seconds{outcome=cancelled,queue=default,task=wait}":            1,
			"chicory_task_duration_seconds{outcome=shutdown,queue=default,task=wait}":             1,
			"chicory_deliveries_settled_total{queue=default,reason=,state=retry,task=snooze}":     1,
			"chicory_deliveries_settled_total{queue=default,reason=,state=released,task=wait}":    1,
			"chicory_deliveries_settled_total{queue=default,reason=,state=cancelled,task=wait}":   1,
			"chicory_worker_healthy{worker=w}":                                                    0,
			"chicory_deliveries_settled_total{queue=default,reason=failed,state=retry,task=wait}": 0,
			"chicory_task_duration_seconds{outcome=error,queue=default,task=wait}":                0,
		} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
	})
}

func TestTellsOfQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, app, w := setUp(t, worker.Options{Queues: []worker.Queue{{Name: "dead"}}})
		m.WatchApp(app)
		task := chicory.Register(app, "t", func(context.Context, int) (int, error) { return 0, errors.New("no") }, chicory.MaxRetries(0))
		start(t, w)
		for _, o := range [][]chicory.CallOption{{chicory.Queue("a")}, {chicory.Queue("a")}, {chicory.Queue("a"), chicory.After(time.Hour)}, {chicory.Queue("dead")}} {
			if _, err := task.Send(t.Context(), 1, o...); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second)
		got := gathered(t, m)
		for name, want := range map[string]float64{
			"chicory_queues_up{}":                                1,
			"chicory_queue_messages{queue=a,state=ready}":        2,
			"chicory_queue_messages{queue=a,state=delayed}":      1,
			"chicory_queue_messages{queue=a,state=leased}":       0,
			"chicory_queue_messages{queue=a,state=dead}":         0,
			"chicory_queue_messages{queue=dead,state=dead}":      1,
			"chicory_queue_oldest_ready_age_seconds{queue=a}":    3,
			"chicory_queue_oldest_ready_age_seconds{queue=dead}": 0,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s is %v, want %v", name, v, want)
			}
		}
		if err := app.Disconnect(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAStoreThatIsAwayIsTold(t *testing.T) {
	t.Parallel()
	app, err := chicory.New(chicory.Config{URL: "memory:"})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	m := metrics.New(metrics.Options{})
	m.WatchApp(app) // which is not connected
	if got := gathered(t, m); len(got) != 1 || got["chicory_queues_up{}"] != 0 {
		t.Errorf("got %v", got)
	}
}

// TestConventions holds names and help texts against Prometheus's own linter.
func TestConventions(t *testing.T) {
	t.Parallel()
	m, app, w := setUp(t, worker.Options{})
	m.WatchApp(app)
	m.WatchWorker(w)
	task := chicory.Register(app, "t", func(context.Context, int) (int, error) { return 1, nil })
	start(t, w)
	r, err := task.Delay(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(gathered(t, m)); n < 10 {
		t.Fatalf("%d series, want all kinds", n)
	}
	problems, err := testutil.CollectAndLint(m)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestHostileNames: Prometheus has no labels that are not UTF-8.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	m, app, w := setUp(t, worker.Options{Name: "w\xff"})
	m.WatchWorker(w)
	task := chicory.Register(app, "t\xff", func(context.Context, int) (int, error) { return 1, nil })
	stop := start(t, w)
	r, err := task.Delay(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := gathered(t, m)
	for _, name := range []string{"chicory_dispatches_total{outcome=success,queue=default,task=t\ufffd}",
		"chicory_task_duration_seconds{outcome=success,queue=default,task=t\ufffd}",
		"chicory_deliveries_settled_total{queue=default,reason=,state=success,task=t\ufffd}"} {
		if got[name] != 1 {
			t.Errorf("%s is %v, want 1", name, got[name])
		}
	}
	if _, ok := got["chicory_worker_slots{worker=w\ufffd}"]; !ok {
		t.Error("the worker is not told of")
	}
}
