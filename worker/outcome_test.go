package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

// TestOnSettledTellsWhatBecameOfEachDelivery runs tasks to their ends, with and
// without records, on stores that share a step and that do not.
func TestOnSettledTellsWhatBecameOfEachDelivery(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{true, false} {
		for _, record := range []bool{true, false} {
			t.Run(fmt.Sprintf("shared %v, record %v", shared, record), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					one, other := memory.New(), memory.New()
					if shared {
						other = one
					}
					outcomes(t, one.Broker("ns"), other.Backend("ns"), record)
				})
			})
		}
	}
}

func outcomes(t *testing.T, broker driver.Broker, backend driver.Backend, record bool) {
	app, err := chicory.NewWith(broker, backend, chicory.Config{Logger: slog.New(slog.DiscardHandler), MaxRetries: 1, Backoff: chicory.Fixed(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	opts := []chicory.TaskOption{chicory.Alias("old")}
	if !record {
		opts = append(opts, chicory.IgnoreResult())
	}
	task := chicory.Register(app, "t", func(ctx context.Context, how string) (int, error) {
		info, _ := chicory.TaskFrom(ctx)
		switch {
		case how == "fail":
			return 0, errors.New("no")
		case how == "snooze" && time.Now().Second() == 0: // the bubble's clock starts with a whole minute
			return 0, chicory.Snooze(time.Second)
		case how == "stay" && info.Deliveries == 1:
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return 1, nil
	}, opts...)
	if err := app.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string][]Outcome{}
	w := New(app, Options{ShutdownTimeout: NoGrace, OnSettled: func(o Outcome) {
		mu.Lock()
		defer mu.Unlock()
		id := o.ID
		o.ID = ""
		got[id] = append(got[id], o)
	}})
	stop, err := w.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, how := range []string{"succeed", "fail", "snooze"} {
		if ids[how], err = task.Send(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	send := func(name string, in any, o ...chicory.CallOption) {
		def := chicory.Define[any, int](name)
		if !record {
			def = chicory.Define[any, int](name, chicory.IgnoreResult())
		}
		if ids[name], err = def.On(app).Send(t.Context(), in, o...); err != nil {
			t.Fatal(err)
		}
	}
	send("old", 7) // undecodable, by its other name
	send("unknown", 1)
	time.Sleep(1500 * time.Millisecond)
	if ids["stay"], err = task.Send(t.Context(), "stay"); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	done := func(o Outcome) Outcome {
		o.Name, o.Queue, o.Attempt = "t", "default", max(1, o.Attempt)
		return o
	}
	failed := Outcome{State: chicory.StateRetry, Reason: driver.ReasonFailed, Kind: "*errors.errorString"}
	dead := Outcome{State: chicory.StateDeadLettered, Reason: driver.ReasonFailed, Kind: "*errors.errorString", Attempt: 2}
	parked := Outcome{Queue: "default", Attempt: 1, State: chicory.StateRetry, Reason: driver.ReasonUnknownTask, Kind: driver.ReasonUnknownTask}
	for how, want := range map[string][]Outcome{
		"succeed": {done(Outcome{State: chicory.StateSuccess})},
		"fail":    {done(failed), done(dead)},
		"snooze":  {done(Outcome{State: chicory.StateRetry}), done(Outcome{State: chicory.StateSuccess})},
		"old":     {done(Outcome{State: chicory.StateDeadLettered, Reason: driver.ReasonUndecodable, Kind: "undecodable"})},
		"unknown": {parked, parked},
		"stay":    {done(Outcome{Released: true})},
	} {
		if !slices.Equal(got[ids[how]], want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", how, got[ids[how]], want)
		}
	}
}

// TestOnSettledMayPanic: the worker goes on, and says so.
func TestOnSettledMayPanic(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	var mu sync.Mutex
	handler := slog.NewTextHandler(writer(func(b []byte) { mu.Lock(); log.Write(b); mu.Unlock() }), nil)
	app, err := chicory.NewWith(memory.New().Broker("ns"), memory.New().Backend("ns"), chicory.Config{Logger: slog.New(handler)})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	task := chicory.Register(app, "t", func(_ context.Context, n int) (int, error) { return n, nil })
	stop, err := New(app, Options{OnSettled: func(Outcome) { panic("ouch") }}).Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r, err := task.Delay(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Get(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(log.String(), "OnSettled panics"); n != 3 {
		t.Errorf("told %d times, want 3", n)
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }
