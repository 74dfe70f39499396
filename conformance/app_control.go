package conformance

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/worker"
)

const noControl = "neither broker nor backend serves Control: the calls say so, and workers run as ever"

var controlCases = []Case{
	{Name: "Control/Pause", Contract: "nothing of a paused queue starts, whenever its workers started, until it is resumed; then it starts at once",
		Denied: noControl, run: app(controlPause)},
	{Name: "Control/PauseAll", Contract: "what runs when its queue is paused ends, and nothing after it starts",
		Denied: noControl, run: app(controlPauseAll)},
	{Name: "Control/Workers", Contract: "workers that live are listed with what they do; one that stopped is gone at once, one that died after a lease",
		Denied: noControl, run: app(controlWorkers)},
}

// controlled reports whether broker or backend keep control keys; where none
// does it proves that the calls say so and that a task runs.
func (w *world) controlled() bool {
	w.TB.Helper()
	for _, store := range []any{w.watch, w.back} {
		if k, ok := driver.As[driver.Control](store); ok {
			if _, _, err := k.Entries(w.Context(), "paused/"); !errors.Is(err, errors.ErrUnsupported) {
				return true
			}
		}
	}
	operator := w.app()
	w.expect(errors.Is(operator.Pause(w.Context(), q), chicory.ErrNoControl), "Pause without Control is ErrNoControl")
	_, err := operator.Workers(w.Context())
	w.expect(errors.Is(err, chicory.ErrNoControl), "Workers without Control: got %v, want ErrNoControl", err)
	id := w.send(1)
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
	return false
}

func controlPause(w *world) {
	if !w.controlled() {
		return
	}
	operator, ctx := w.app(), context.Background()
	early := w.start(worker.Options{Concurrency: 1, Queues: []worker.Queue{{Name: q}, {Name: "other"}}}, nil, w.handler("t", instant))
	w.must(operator.Pause(ctx, q), "pause")
	paused, err := operator.Paused(ctx)
	w.expect(err == nil && slices.Equal(paused, []string{q}), "Paused: got %v, %v", paused, err)
	w.sleep(w.slack) // until the worker has seen it
	w.start(one, nil, w.handler("t", instant))
	id := w.send(1)
	w.send(2, chicory.Queue("other"))
	w.expect(w.awaitStarts(1), "the other queue goes on")
	w.sleep(w.lease / 2)
	w.expect(w.startsOf(id+"/0/1") == 0, "it started though its queue is paused")
	begin := time.Now()
	w.must(operator.Resume(ctx, q), "resume")
	w.expect(w.awaitStarts(2) && time.Since(begin) <= w.lease/2+w.slack, "resumed, it started after %v", time.Since(begin))
	w.expect(early.stop() == nil, "the worker stops")
	w.end(id, driver.Success, 2, 0)
}

func controlPauseAll(w *world) {
	if !w.controlled() {
		return
	}
	operator, ctx := w.app(), context.Background()
	first := w.send(1)
	paused := make(chan struct{}) // some time after it the first one ends
	w.start(worker.Options{Concurrency: 1, Prefetch: 3}, nil, w.handler("t", func(ctx context.Context, in int) (int, error) {
		select {
		case <-paused:
			return sleeping(w.lease/3, nil)(ctx, in)
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}))
	w.awaitStarts(1)
	w.send(2)
	w.send(3)
	w.must(operator.Pause(ctx, q), "pause")
	close(paused)
	w.reaches(first, driver.Success)
	w.sleep(w.lease / 2)
	total, _ := w.started()
	w.expect(total == 1, "%d started, want only what ran when its queue was paused", total)
	w.must(operator.Resume(ctx, q), "resume")
	w.settleAll()
	total, most := w.started()
	w.expect(total == 3 && most == 1, "resumed, all start, each once: %d, at most %d of one", total, most)
}

func controlWorkers(w *world) {
	if !w.controlled() {
		return
	}
	operator := w.app()
	names := func() (names []string) {
		ws, err := operator.Workers(context.Background())
		w.must(err, "list workers")
		for i := range ws {
			names = append(names, ws[i].Name)
		}
		return names
	}
	w.send(1)
	a := w.start(worker.Options{Concurrency: 3}, nil, w.handler("t", instant))
	b := w.start(one, nil, w.handler("t", instant))
	both := []string{a.name, b.name}
	w.expect(w.until(func() bool { return slices.Equal(names(), both) }), "got %v, want %v", names(), both)
	w.settleAll()
	w.sleep(w.lease) // they have told of it
	ws, err := operator.Workers(context.Background())
	w.must(err, "list workers")
	if len(ws) != 2 {
		w.Fatalf("got %+v, want both workers", ws)
	}
	w.expect(ws[0].Concurrency == 3 && slices.Equal(ws[0].Queues, []string{q}) && slices.Equal(ws[0].Tasks, []string{"t"}), "got %+v", ws[0])
	w.expect(ws[0].Processed+ws[1].Processed == 1, "one task ran: got %+v", ws)
	w.must(a.stop(), "stop")
	w.expect(slices.Equal(names(), both[1:]), "one that stopped is gone at once: got %v", names())
	b.crash()
	w.expect(w.until(func() bool { return len(names()) == 0 }), "one that died is gone after a lease: got %v", names())
}
