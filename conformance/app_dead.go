package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/worker"
)

var deadAppCases = []Case{
	{Name: "DLQ/Unknown", Contract: "a task nobody knows is parked without spending attempts, then taken by a worker that knows it", run: app(dlqUnknown)},
	{Name: "DLQ/UnknownForADay", Contract: "after a day it is dead-lettered, with its reason", run: app(dlqUnknownForADay)},
	{Name: "DLQ/Undecodable", Contract: "what cannot be decoded is dead-lettered with its reason, and the worker lives", run: app(dlqUndecodable)},
	{Name: "DLQ/NewerEnvelope", Contract: "a message of a newer envelope version is parked", run: app(dlqNewerEnvelope)},
	{Name: "DLQ/Tolerant", Contract: "a field that the worker does not know is ignored: no rolling deploy loses a task", run: app(dlqTolerant)},
	{Name: "DLQ/Off", Contract: "with dead-lettering off a failed task ends as FAILURE and leaves no dead letter", run: app(dlqOff, chicory.MaxRetries(0), chicory.DeadLettering(false))},
	{Name: "DLQ/ReplayAll", Contract: "all dead letters are listed, replayed and run again, each once", run: app(dlqReplayAll, chicory.MaxRetries(0))},
	{Name: "DLQ/OnceWithoutRecord", Contract: "an at-most-once task without a record is replayed only where the broker can tell a second copy", run: bare(dlqOnceWithoutRecord, once, chicory.MaxRetries(0))},
	{Name: "Poison/Killer", Contract: "a task that kills its workers is dead-lettered as poison after MaxDeliveries, and takes no neighbour with it", run: app(poisonKiller)},
	{Name: "Poison/NoBackend", Contract: "so it is without a backend", run: bare(poisonKiller)},
	{Name: "Poison/Record", Contract: "poison obeys the record: what has succeeded is not dead-lettered", run: app(poisonRecord)},
}

func dlqUnknown(w *world) {
	id := w.send(1)
	older := w.start(one, nil, w.handler("other", instant))
	w.reaches(id, driver.Retry)
	w.sleep(w.lease)
	w.must(older.stop(), "stop")
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
	w.expect(w.startsOf(id+"/0/1") == 1, "no attempt was spent: got %v", w.starts)
}

func dlqUnknownForADay(w *world) {
	id := w.raw(driver.Message{Envelope: envelopeOf("nobody"), ParkedSince: time.Now().Add(-engine.ParkLimit - time.Hour).UnixMilli()})
	r := w.start(one, nil, w.handler("other", instant))
	w.end(id, driver.DeadLettered, 0, 1)
	w.expect(w.deadOf(w.watch, q)[0].Dead.Reason == driver.ReasonUnknownTask, "its reason: got %+v", w.deadOf(w.watch, q)[0].Dead)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrUnknownTask), "Get says that nobody knew it: got %v", err)
}

func dlqUndecodable(w *world) {
	id := w.raw(driver.Message{Envelope: []byte("\xff\xffno envelope")})
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.DeadLettered, 0, 1)
	d := w.deadOf(w.watch, q)[0]
	w.expect(d.Dead.Reason == driver.ReasonUndecodable && string(d.Envelope) == "\xff\xffno envelope", "the reason and the bytes are kept: got %+v, %q", d.Dead, d.Envelope)
	bad, err := chicory.Define[string, int]("t", w.opts...).On(w.app()).Send(context.Background(), "no number")
	w.must(err, "send")
	w.end(bad, driver.DeadLettered, 0, 2)
	w.end(w.send(1), driver.Success, 1, 2) // the worker lives
}

func dlqNewerEnvelope(w *world) {
	newer := append([]byte{1 << 3, engine.EnvelopeVersion + 1}, envelopeOf("t")[2:]...)
	id := w.raw(driver.Message{Envelope: newer})
	w.start(one, nil, w.handler("t", instant))
	w.reaches(id, driver.Retry)
	w.expect(len(w.deadOf(w.watch, q)) == 0, "and is not dead")
}

func dlqTolerant(w *world) {
	type newer struct{ A, Later int }
	type older struct{ A int }
	id, err := chicory.Define[newer, int]("t", w.opts...).On(w.app()).Send(context.Background(), newer{1, 2})
	w.must(err, "send")
	w.start(one, nil, func(app *chicory.App) {
		chicory.Define[older, int]("t", w.opts...).Handle(app, func(ctx context.Context, in older) (int, error) {
			w.count(ctx)
			return in.A, nil
		})
	})
	w.end(id, driver.Success, 1, 0)
}

func dlqOff(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", failing))
	w.end(id, driver.Failure, 1, 0)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrFailed) && !errors.Is(err, chicory.ErrDeadLettered), "Get: got %v", err)
}

func dlqReplayAll(w *world) {
	const n = 130
	for i := range n {
		w.send(i)
	}
	r := w.start(worker.Options{Concurrency: 8}, nil, w.handler("t", inEpoch))
	w.settleAll()
	size, err := r.app.DeadLetters(q).Len(context.Background())
	w.expect(size == n && err == nil, "%d dead letters, %v, want %d", size, err, n)
	listed := map[string]bool{}
	for l, err := range r.app.DeadLetters(q).All(context.Background()) {
		w.must(err, "list")
		listed[l.ID] = true
	}
	w.expect(len(listed) == n, "%d are listed", len(listed))
	moved, err := r.app.DeadLetters(q).ReplayAll(context.Background())
	w.expect(moved == n && err == nil, "replayed %d, %v", moved, err)
	w.settleAll()
	total, most := w.started()
	w.expect(total == 2*n && most == 1, "each runs once per epoch: %d starts, at most %d of one", total, most)
	for id := range listed {
		w.expect(w.until(func() bool { return w.stateOf(id) == driver.Success }), "%s is %s", id, w.stateOf(id))
	}
}

func dlqOnceWithoutRecord(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", inEpoch))
	w.end("", "", 1, 1)
	dead := r.app.DeadLetters(q)
	if w.info.Dedup {
		n, err := dead.Replay(context.Background(), id)
		w.expect(n == 1 && err == nil, "replay: got %d, %v", n, err)
		w.end("", "", 2, 0)
		return
	}
	for _, replay := range []func() (int, error){
		func() (int, error) { return dead.Replay(context.Background(), id) },
		func() (int, error) { return dead.ReplayAll(context.Background()) },
	} {
		n, err := replay()
		w.expect(n == 0 && errors.Is(err, chicory.ErrValidation), "it is refused: got %d, %v", n, err)
	}
	w.expect(len(w.deadOf(w.watch, q)) == 1, "and nothing is lost by it")
}

func poisonKiller(w *world) {
	const healthy, limit = 7, 4
	var ids []string
	for i := range healthy + 1 {
		ids = append(ids, w.send(i, chicory.ID(fmt.Sprint("task-", i))))
	}
	done := map[int]int{}
	for range 3 * limit {
		if w.live() == 0 {
			break
		}
		kill := make(chan func(), 1)
		r := w.start(worker.Options{Concurrency: 8, MaxDeliveries: limit}, nil, w.handler("t", func(ctx context.Context, n int) (int, error) {
			if n == 3 {
				(<-kill)()
				<-ctx.Done()
				return 0, errFails
			}
			v, err := sleeping(w.lease/10, nil)(ctx, n)
			if err == nil && ctx.Err() == nil {
				w.mu.Lock()
				done[n]++
				w.mu.Unlock()
			}
			return v, err
		}))
		kill <- r.crash
		for end := time.Now().Add(4*w.lease + 5*time.Second); time.Now().Before(end) && !r.crashed() && w.live() > 0; {
			w.sleep(max(w.sec, 20*time.Millisecond))
		}
	}
	w.settleAll()
	ls := w.deadOf(w.watch, q)
	w.expect(len(ls) == 1 && ls[0].ID == ids[3] && ls[0].Dead.Reason == driver.ReasonPoison, "the killer alone is dead-lettered, as poison: got %v", ids)
	for _, l := range ls {
		w.expect(int(l.Dead.Deliveries) >= limit && int(l.Dead.Deliveries) <= limit+1, "after MaxDeliveries: %d", l.Dead.Deliveries)
	}
	for i, id := range ids {
		w.expect(i == 3 || w.bare || w.stateOf(id) == driver.Success, "healthy neighbours finish: %s is %s", id, w.stateOf(id))
		w.expect(i == 3 || done[i] > 0, "healthy neighbours finish: %s did not", id)
	}
}

func poisonRecord(w *world) {
	id := w.send(1)
	w.start(one, on("settle", 1, crashBefore), w.handler("t", instant))
	w.awaitStarts(1)
	w.sleep(w.lease + w.lease/2)
	// Workers die with the message before they see the record.
	for range 3 {
		w.start(worker.Options{Concurrency: 1, MaxDeliveries: 2}, on("receive", 1, crashAfter), w.handler("t", instant))
		w.sleep(w.lease + w.lease/2)
	}
	w.start(worker.Options{Concurrency: 1, MaxDeliveries: 2}, nil, w.handler("t", instant))
	if w.recordedFirst() {
		w.end(id, driver.Success, 1, 0)
	} else { // verdict and settlement are one step: neither happened
		w.end(id, driver.DeadLettered, 1, 1)
	}
}
