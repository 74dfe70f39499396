package conformance

import (
	"context"
	"errors"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
)

var stateCases = []Case{
	{Name: "State/Transitions", Contract: "PENDING, STARTED, RETRY, STARTED and SUCCESS are seen in this order", run: app(stateTransitions, chicory.MaxRetries(1))},
	{Name: "State/Unknown", Contract: "an id that was never sent is ErrNotFound, never PENDING", run: app(stateUnknown)},
	{Name: "State/Get", Contract: "Get waits for the end, is woken by it, and its context never cancels the task", run: app(stateGet)},
	{Name: "State/Ignored", Contract: "Get of a task that ignores its result says so at once", run: app(stateIgnored, chicory.IgnoreResult())},
	{Name: "State/TTL", Contract: "a result is kept for its TTL from the end, then Get answers ErrNotFound", run: app(stateTTL)},
	{Name: "State/Replay", Contract: "after a replay Get waits for the new epoch, not for the old failure", run: app(stateReplay, chicory.MaxRetries(0))},
	{Name: "State/CancelBefore", Contract: "a task that was cancelled before its start never starts", run: app(stateCancelBefore)},
	{Name: "State/CancelRunning", Contract: "cancelling a running task cancels its context within a heartbeat, with the cause", run: app(stateCancelRunning)},
	{Name: "State/CancelHeld", Contract: "a cancelled task stays cancelled however late its message is met; its TTL begins then", run: app(stateCancelHeld)},
	{Name: "State/Expired", Contract: "a task that is not started in time ends EXPIRED, unrun", run: app(stateExpired)},
	{Name: "State/ExpiredStays", Contract: "expiry is judged after the grant: what has ended stays as it is", run: app(stateExpiredStays, chicory.ResultTTL(time.Hour))},
	{Name: "State/IDAlive", Contract: "a user-chosen id is refused with ErrDuplicate while it is alive, and free afterwards", limit: 8 * time.Hour, run: app(stateIDAlive)},
	{Name: "State/Oversized", Contract: "an oversized result is a FAILURE or dead letter, never a second run", run: app(stateOversized, chicory.MaxRetries(3), soon)},
	{Name: "State/DeadLettered", Contract: "a dead-lettered task is DEAD_LETTERED, failed, and ready; with dead-lettering off it is FAILURE", run: app(stateDeadLettered, chicory.MaxRetries(0))},
}

func stateTransitions(w *world) {
	id := w.send(1, chicory.Fixed(2*w.lease))
	w.expect(w.stateOf(id) == driver.Pending, "sent, it is %q, want PENDING", w.stateOf(id))
	release := make(chan struct{})
	w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		<-release
		if info, _ := chicory.TaskFrom(ctx); info.Attempt == 1 {
			return 0, errFails
		}
		return 42, nil
	}))
	reaches := func(s driver.State) { w.TB.Helper(); w.reaches(id, s) }
	reaches(driver.Started)
	release <- struct{}{}
	reaches(driver.Retry)
	w.sleep(2 * w.lease)
	reaches(driver.Started)
	release <- struct{}{}
	reaches(driver.Success)
	info, err := w.task(w.app(), "t").Result(id).Info(context.Background())
	w.must(err, "info")
	w.expect(!info.Enqueued.IsZero() && !info.Started.Before(info.Enqueued) && !info.Finished.Before(info.Started) && info.Attempt == 2,
		"Info tells when: got %+v", info)
}

func stateUnknown(w *world) {
	app := w.app()
	r := w.task(app, "t").Result("never-sent")
	_, err := r.Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrNotFound), "Get: got %v", err)
	_, err = r.State(context.Background())
	w.expect(errors.Is(err, chicory.ErrNotFound), "State: got %v", err)
	w.expect(errors.Is(app.Cancel(context.Background(), "never-sent"), chicory.ErrNotFound), "Cancel")
}

func stateGet(w *world) {
	app := w.app()
	r, err := w.task(app, "t").Delay(context.Background(), 1)
	w.must(err, "delay")
	ctx, cancel := context.WithTimeout(context.Background(), w.lease/4)
	defer cancel()
	_, err = r.Get(ctx)
	w.expect(errors.Is(err, context.DeadlineExceeded), "Get under a context that ends: got %v", err)
	var ended time.Time
	w.start(one, nil, w.handler("t", func(ctx context.Context, n int) (int, error) {
		v, err := sleeping(w.lease/2, nil)(ctx, n)
		w.mu.Lock()
		ended = time.Now()
		w.mu.Unlock()
		return v, err
	}))
	v, err := r.Get(context.Background())
	w.expect(v == 42 && err == nil, "the task was not cancelled: got %d, %v", v, err)
	w.mu.Lock()
	took := time.Since(ended)
	w.mu.Unlock()
	w.expect(took <= 300*time.Millisecond+w.slack, "Get was woken after %v", took)
	ok, err := r.Ready(context.Background())
	bad, err2 := r.Failed(context.Background())
	w.expect(ok && !bad && err == nil && err2 == nil, "ready %v, failed %v, %v, %v", ok, bad, err, err2)
}

func stateIgnored(w *world) {
	app := w.app()
	r, err := w.task(app, "t").Delay(context.Background(), 1)
	w.must(err, "delay")
	_, err = r.Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrResultIgnored), "got %v", err)
	w.expect(w.recordOf(r.ID()) == nil, "an at-least-once task that ignores its result has no record")
	w.start(one, nil, w.handler("t", instant))
	w.settleAll()
	total, _ := w.started()
	w.expect(total == 1, "it ran %d times", total)
	w.expect(w.recordOf(r.ID()) == nil, "nor has it one after it ran")
}

func stateTTL(w *world) {
	id := w.send(1, chicory.ResultTTL(2*w.lease))
	w.sleep(3 * w.lease) // it waits for longer than it will be kept
	w.start(one, nil, w.handler("t", instant))
	w.reaches(id, driver.Success)
	w.sleep(w.lease / 2)
	w.expect(w.stateOf(id) == driver.Success, "kept: it is %q", w.stateOf(id))
	w.sleep(2 * w.lease)
	_, err := w.task(w.app(), "t").Result(id).Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrNotFound), "then gone: got %v", err)
}

func stateReplay(w *world) {
	id := w.send(1)
	release := make(chan struct{})
	r := w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		if info, _ := chicory.TaskFrom(ctx); info.Epoch == 0 {
			return 0, errFails
		}
		<-release
		return 42, nil
	}))
	w.end(id, driver.DeadLettered, 1, 1)
	if _, err := r.app.DeadLetters(q).Replay(context.Background(), id); err != nil {
		w.Errorf("replay: %v", err)
	}
	w.expect(!w.stateOf(id).Terminal(), "after the replay it is %s", w.stateOf(id))
	time.AfterFunc(w.lease/4, func() { close(release) })
	v, err := w.task(r.app, "t").Result(id).Get(context.Background())
	w.expect(v == 42 && err == nil, "Get returns the new epoch's result: got %d, %v", v, err)
}

func stateCancelBefore(w *world) {
	id := w.send(1)
	app := w.app()
	for range 2 {
		w.must(app.Cancel(context.Background(), id), "cancel")
	}
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Cancelled, 0, 0)
	_, err := w.task(app, "t").Result(id).Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrCancelled), "Get says so: got %v", err)
	done := w.send(1)
	w.end(done, driver.Success, 1, 0)
	w.expect(errors.Is(app.Cancel(context.Background(), done), chicory.ErrFinished), "what has ended cannot be cancelled")
}

func stateCancelRunning(w *world) {
	id := w.send(1)
	causes := make(chan error, 1)
	r := w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return 0, context.Cause(ctx)
	}))
	w.until(func() bool { return w.stateOf(id) == driver.Started })
	begin := time.Now()
	w.must(r.app.Cancel(context.Background(), id), "cancel")
	cause := <-causes
	w.expect(errors.Is(cause, chicory.ErrCancelled), "the handler learns the cause: got %v", cause)
	w.expect(time.Since(begin) < w.lease/3+w.lease/6+w.slack, "within a heartbeat: it took %v", time.Since(begin))
	w.end(id, driver.Cancelled, 1, 0)
}

func stateCancelHeld(w *world) {
	w.resultTTL = 2 * w.lease
	id := w.send(1, chicory.After(5*w.lease))
	w.must(w.app().Cancel(context.Background(), id), "cancel")
	w.start(one, nil, w.handler("t", instant))
	w.sleep(4 * w.lease)
	w.expect(w.stateOf(id) == driver.Cancelled, "for as long as its message waits: it is %q", w.stateOf(id))
	w.sleep(3*w.lease + w.slack)
	total, _ := w.started()
	w.expect(total == 0, "it started %d times", total)
	w.expect(w.stateOf(id) == "", "and is gone after its TTL: it is %q", w.stateOf(id))
}

func stateExpired(w *world) {
	id := w.send(1, chicory.ExpiresIn(w.lease))
	w.sleep(2 * w.lease)
	r := w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Expired, 0, 0)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrExpired), "Get says so: got %v", err)
	w.end(w.send(1, chicory.ExpiresIn(10*w.lease)), driver.Success, 1, 0)
}

func stateExpiredStays(w *world) {
	w.send(0) // so that all that a store does at first is done
	warm := w.start(one, nil, w.handler("t", instant))
	w.awaitStarts(1)
	w.must(warm.stop(), "stop")
	id := w.send(1, chicory.ExpiresIn(w.lease))
	w.start(one, on("settle", 1, crashBefore), w.handler("t", instant))
	w.awaitStarts(2)
	w.sleep(2 * w.lease) // its deadline has passed
	w.start(one, nil, w.handler("t", instant))
	w.settleAll()
	w.wait()
	starts := w.startsOf(id + "/0/1")
	if s := w.stateOf(id); s == driver.Success {
		w.expect(starts == 1, "it succeeded and ran %d times", starts)
	} else { // verdict and settle are one step: neither happened
		w.expect(s == driver.Expired && starts == 1, "it is %s, started %d times", s, starts)
	}
}

func stateIDAlive(w *world) {
	app := w.app()
	again := func(want error, when string) {
		w.TB.Helper()
		_, err := w.task(app, "t").Send(context.Background(), 2, chicory.ID("mine"))
		w.expect(errors.Is(err, want), "%s: got %v, want %v", when, err, want)
	}
	id := w.send(1, chicory.ID("mine"), chicory.ResultTTL(4*w.lease))
	again(chicory.ErrDuplicate, "while it waits")
	w.start(one, nil, w.handler("t", instant))
	w.reaches(id, driver.Success)
	again(chicory.ErrDuplicate, "while its record lives")
	w.sleep(5 * w.lease)
	again(chicory.ErrDuplicate, "while its skeleton lives")
	if w.h.Bubble {
		w.sleep(4 * time.Hour)
		w.end(w.send(4, chicory.ID("mine")), driver.Success, 2, 0)
	}
}

func stateOversized(w *world) {
	app := w.app()
	big := chicory.Define[int, string]("big", w.opts...)
	id, err := big.On(app).Send(context.Background(), 1)
	w.must(err, "send")
	w.start(one, nil, func(app *chicory.App) {
		big.Handle(app, func(ctx context.Context, _ int) (string, error) {
			w.count(ctx)
			return string(make([]byte, 5<<20)), nil
		})
	})
	w.end(id, driver.DeadLettered, 1, 1)
	_, err = big.On(app).Send(context.Background(), 1)
	w.must(err, "the worker lives")
}

func stateDeadLettered(w *world) {
	w.start(one, nil, w.handler("t", failing))
	id := w.send(1)
	w.end(id, driver.DeadLettered, 1, 1)
	r := w.task(w.app(), "t").Result(id)
	ready, err := r.Ready(context.Background())
	failed, err2 := r.Failed(context.Background())
	w.expect(ready && failed && err == nil && err2 == nil, "ready %v, failed %v, %v, %v", ready, failed, err, err2)
	_, err = r.Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrDeadLettered) && !errors.Is(err, chicory.ErrNotFound), "Get: got %v", err)
}
