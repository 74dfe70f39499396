package chicory_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

// plain hides the optional interfaces of a broker.
type plain struct{ driver.Broker }

// controlled runs f on an app whose worker runs t and notes what it ran.
func controlled(t *testing.T, broker driver.Broker, backend driver.Backend, o worker.Options, f func(app *chicory.App, ran chan string, stop func() error)) {
	t.Helper()
	app, err := chicory.NewWith(broker, backend, chicory.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	ran := make(chan string, 100)
	for _, q := range []string{"a", "b"} {
		chicory.Define[int, int]("t-"+q, chicory.Queue(q)).Handle(app, func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Second)
			ran <- q
			return n, nil
		})
	}
	if err := app.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := app.Pause(t.Context(), "b"); err != nil && !errors.Is(err, chicory.ErrNoControl) {
		t.Fatal(err)
	}
	stop, err := worker.New(app, o).Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	f(app, ran, stop)
}

func sendTo(t *testing.T, app *chicory.App, queue string) {
	t.Helper()
	if _, err := chicory.Define[int, int]("t-"+queue, chicory.Queue(queue)).On(app).Send(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
}

func drained(ran chan string) (got []string) {
	time.Sleep(10 * time.Second)
	for len(ran) > 0 {
		got = append(got, <-ran)
	}
	return got
}

func TestPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		o := worker.Options{Concurrency: 1}
		controlled(t, store.Broker("ns"), store.Backend("ns"), o, func(app *chicory.App, ran chan string, _ func() error) {
			sendTo(t, app, "b")
			sendTo(t, app, "a")
			if got := drained(ran); !slices.Equal(got, []string{"a"}) {
				t.Errorf("paused before the worker started: ran %v, want a", got)
			}
			if got, err := app.Paused(t.Context()); !slices.Equal(got, []string{"b"}) || err != nil {
				t.Errorf("Paused: got %v, %v", got, err)
			}
			if err := app.Resume(t.Context(), "b"); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if <-ran; time.Since(begin) > 1100*time.Millisecond {
				t.Errorf("a resumed queue ran after %v", time.Since(begin))
			}
			for range 3 {
				sendTo(t, app, "a")
				sendTo(t, app, "b")
			}
			time.Sleep(500 * time.Millisecond)
			for _, q := range []string{"a", "b"} {
				if err := app.Pause(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			if got := drained(ran); len(got) != 1 {
				t.Errorf("all queues paused while one task ran: ran %v, want that one", got)
			}
			for _, q := range []string{"a", "b"} {
				if err := app.Resume(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			if got := drained(ran); len(got) != 5 {
				t.Errorf("resumed: ran %v, want the other five", got)
			}
			if err := app.Pause(t.Context(), ""); !errors.Is(err, chicory.ErrValidation) {
				t.Errorf("Pause of an empty name: got %v", err)
			}
		})
	})
}

func TestPauseWithoutControl(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		controlled(t, plain{store.Broker("ns")}, nil, worker.Options{}, func(app *chicory.App, ran chan string, _ func() error) {
			if err := app.Pause(t.Context(), "a"); !errors.Is(err, chicory.ErrNoControl) {
				t.Errorf("Pause: got %v, want ErrNoControl", err)
			}
			if _, err := app.Workers(t.Context()); !errors.Is(err, chicory.ErrNoControl) {
				t.Errorf("Workers: got %v, want ErrNoControl", err)
			}
			sendTo(t, app, "b")
			if got := drained(ran); len(got) != 1 {
				t.Errorf("a store without Control runs all the same: ran %v", got)
			}
		})
	})
}

func TestPauseThroughTheBackend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, be := plain{memory.New().Broker("ns")}, memory.New().Backend("ns")
		controlled(t, b, be, worker.Options{}, func(app *chicory.App, ran chan string, _ func() error) {
			sendTo(t, app, "b")
			if got := drained(ran); len(got) != 0 {
				t.Errorf("paused through the backend: ran %v", got)
			}
		})
	})
}

func TestWorkers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		o := worker.Options{Name: "w1", Concurrency: 3}
		controlled(t, store.Broker("ns"), store.Backend("ns"), o, func(app *chicory.App, ran chan string, stop func() error) {
			sendTo(t, app, "a")
			sendTo(t, app, "a")
			time.Sleep(11 * time.Second)
			ws, err := app.Workers(t.Context())
			if err != nil || len(ws) != 1 {
				t.Fatalf("got %v, %v, want one worker", ws, err)
			}
			w := ws[0]
			if w.Name != "w1" || w.Concurrency != 3 || !slices.Equal(w.Queues, []string{"a", "b"}) || !slices.Equal(w.Tasks, []string{"t-a", "t-b"}) ||
				w.Running != 0 || w.Processed != 2 || w.Failed != 0 || w.Health != "" || time.Since(w.Seen) > 2*time.Second || w.PID == 0 {
				t.Errorf("got %+v", w)
			}
			// One that died is gone after its lease.
			k := store.Broker("ns")
			if err := k.Put(t.Context(), "worker/dead", []byte(`{"name":"dead","later":1}`), 30*time.Second); err != nil {
				t.Fatal(err)
			}
			if ws, _ = app.Workers(t.Context()); len(ws) != 2 || ws[0].Name != "dead" {
				t.Errorf("got %+v, want both, ordered", ws)
			}
			time.Sleep(31 * time.Second)
			if ws, _ = app.Workers(t.Context()); len(ws) != 1 {
				t.Errorf("got %+v: a dead worker is still there", ws)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if ws, _ = app.Workers(t.Context()); len(ws) != 0 {
				t.Errorf("got %+v after the worker stopped", ws)
			}
			k.Close(t.Context())
		})
	})
}
