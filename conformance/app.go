package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/worker"
)

func appCases() []Case {
	return suite("App", modeCases, retryCases, stateCases, deadAppCases, workerCases, shutdownCases, boundCases, controlCases, traceCases, coverCases, faultCases)
}

// app returns the run of a case on a world.
func app(run func(*world), opts ...chicory.TaskOption) func(*C) {
	return onWorld(false, run, opts...)
}

// bare returns the run of a case on a world without a backend.
func bare(run func(*world), opts ...chicory.TaskOption) func(*C) {
	return onWorld(true, run, opts...)
}

func onWorld(bare bool, run func(*world), opts ...chicory.TaskOption) func(*C) {
	return func(c *C) {
		w := newWorld(c, bare, opts...)
		c.Cleanup(func() {
			if c.Failed() {
				c.Logf("calls:\n%s", w.story())
			}
		})
		run(w)
		w.proved()
	}
}

// soon is a retry policy that costs no time.
var (
	soon = chicory.Fixed(100 * time.Millisecond)
	once = chicory.AtMostOnce()
	one  = worker.Options{Concurrency: 1}
)

var modeCases = []Case{
	{Name: "Mode/AtLeastOnce", Contract: "an at-least-once task whose worker dies runs again, and its result is kept once", run: app(modeAtLeastOnce)},
	{Name: "Mode/AtMostOnce", Contract: "an at-most-once task whose worker dies in mid-run never runs again: it is lost, among the dead letters", run: app(modeAtMostOnce, once)},
	{Name: "Mode/BeforeTheStart", Contract: "an at-most-once task whose worker died before the start was recorded runs, or is lost where the hand-out counts; it never runs twice", run: app(modeBeforeTheStart, once)},
	{Name: "Mode/NoRecordOnce", Contract: "at-most-once without a backend: every redelivery is lost", run: bare(modeNoRecordOnce, once)},
	{Name: "Mode/NoRecord", Contract: "at-least-once without a backend: a redelivery runs", run: bare(modeNoRecord)},
	{Name: "Mode/OnceRetries", Contract: "an at-most-once task is retried after an observed failure, dead-lettered when exhausted, and may be replayed", run: app(modeOnceRetries, once, chicory.MaxRetries(3), soon)},
	{Name: "Mode/Saturated", Contract: "prefetched at-most-once tasks that wait for a slot start once", run: app(modeSaturated, once)},
	{Name: "Mode/PerCall", Contract: "the delivery mode may be set per call", run: app(modePerCall)},
	{Name: "Mode/LostWithoutDLQ", Contract: "with dead-lettering off, what is lost ends as FAILURE", run: app(modeLostWithoutDLQ, once, chicory.DeadLettering(false))},
}

var retryCases = []Case{
	{Name: "Retry/Counts", Contract: "a task is attempted 1 + MaxRetries times, then dead-lettered with its history", run: app(retryCounts, chicory.MaxRetries(3), soon)},
	{Name: "Retry/Keeps", Contract: "a retry and a replay keep id, queue, priority and headers", run: app(retryKeeps, chicory.MaxRetries(1), soon)},
	{Name: "Retry/Backoff", Contract: "a retry waits for its backoff, held by the store", run: app(retryBackoff, chicory.MaxRetries(1))},
	{Name: "Retry/After", Contract: "RetryAfter sets the delay, Permanent ends the task, Snooze spends no attempt", run: app(retryAfter, chicory.MaxRetries(1), soon)},
	{Name: "Retry/Last", Contract: "a handler learns its attempt, and which is the last", run: app(retryLast, chicory.MaxRetries(2), soon)},
	{Name: "Retry/NoBackend", Contract: "retries and dead letters need no backend", run: bare(retryNoBackend, chicory.MaxRetries(2), soon)},
	{Name: "Retry/Unserialisable", Contract: "a result that cannot be stored is a failure of the task, not a second run", run: app(retryUnserialisable, chicory.MaxRetries(3), soon)},
	{Name: "Retry/Timeout", Contract: "a time-out cancels the handler and spends the attempt", run: app(retryTimeout, chicory.Timeout(time.Second), chicory.MaxRetries(1), soon)},
	{Name: "Retry/Panic", Contract: "a panic is an error with its stack, and the worker lives", run: app(retryPanic, chicory.MaxRetries(0))},
}

func modeAtLeastOnce(w *world) {
	id := w.send(1)
	w.dieRunning()
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 2, 0)
	w.expect(string(w.recordOf(id).Body) == "42", "the result is %q", w.recordOf(id).Body)
}

func modeAtMostOnce(w *world) {
	id := w.send(1)
	w.dieRunning()
	r := w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.DeadLettered, 1, 1)
	w.expect(w.recordOf(id).Error.Reason == driver.ReasonLost, "what may have started is lost: got %+v", w.recordOf(id).Error)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	w.expect(errors.Is(err, chicory.ErrDeadLettered), "Get says so: got %v", err)
}

func modeBeforeTheStart(w *world) {
	id := w.send(1)
	w.start(one, on("start", 1, crashBefore), w.handler("t", instant))
	w.sleep(2 * w.lease)
	w.start(one, nil, w.handler("t", instant))
	w.settleAll()
	total, _ := w.started()
	w.expect(w.until(func() bool { return w.stateOf(id).Terminal() }), "it ends: it is %s", w.stateOf(id))
	w.expect(total <= 1, "it ran %d times", total)
	w.expect(w.live() == 0, "nothing is left")
}

func modeNoRecordOnce(w *world) {
	w.send(1)
	w.dieRunning()
	w.start(one, nil, w.handler("t", instant))
	w.end("", "", 1, 1)
	w.expect(w.deadOf(w.watch, q)[0].Dead.Reason == driver.ReasonLost, "as lost: got %+v", w.deadOf(w.watch, q)[0].Dead)
}

func modeNoRecord(w *world) {
	w.send(1)
	w.dieRunning()
	w.start(one, nil, w.handler("t", instant))
	w.end("", "", 2, 0)
}

// inEpoch is a handler that fails in the first epoch only.
func inEpoch(ctx context.Context, _ int) (int, error) {
	if info, _ := chicory.TaskFrom(ctx); info.Epoch > 0 {
		return 42, nil
	}
	return 0, errFails
}

func modeOnceRetries(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", inEpoch))
	w.end(id, driver.DeadLettered, 4, 1)
	n, err := r.app.DeadLetters(q).Replay(context.Background(), id)
	w.expect(n == 1 && err == nil, "a dead letter is replayed: got %d, %v", n, err)
	w.end(id, driver.Success, 5, 0)
	w.expect(w.startsOf(id+"/1/1") == 1, "a replay starts epoch 1 with its attempts unspent: got %v", w.starts)
}

func modeSaturated(w *world) {
	for range 6 {
		w.send(1)
	}
	o := worker.Options{Concurrency: 1, Prefetch: 6}
	w.start(o, nil, w.handler("t", sleeping(w.lease/2, nil))) // the last waits for longer than a lease
	w.start(o, nil, w.handler("t", sleeping(w.lease/2, nil)))
	w.settleAll()
	total, most := w.started()
	w.expect(total == 6 && most == 1, "each of 6 runs once: got %v", w.starts)
	w.expect(len(w.deadOf(w.watch, q)) == 0, "none is lost")
}

func modePerCall(w *world) {
	id := w.send(1, chicory.AtMostOnce())
	w.dieRunning()
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.DeadLettered, 1, 1)
}

func modeLostWithoutDLQ(w *world) {
	id := w.send(1)
	w.dieRunning()
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Failure, 1, 0)
	w.expect(w.recordOf(id).Error.Reason == driver.ReasonLost, "the reason is kept: got %+v", w.recordOf(id).Error)
}

func retryCounts(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", failing))
	w.end(id, driver.DeadLettered, 4, 1)
	d := w.deadOf(w.watch, q)[0]
	w.expect(d.ID == id && d.Dead.Reason == driver.ReasonFailed && d.Dead.Attempts == 4 && len(d.Dead.History) == 4 && d.Dead.Message == "fails",
		"the dead letter tells all: got %+v", d.Dead)
	w.expect(d.Dead.FirstAt > 0 && d.Dead.FirstAt <= d.Dead.LastAt && d.Dead.Worker != "" && d.Dead.Name == "t", "when, where and what: got %+v", d.Dead)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	var te *chicory.TaskError
	w.expect(errors.As(err, &te) && te.Attempt == 4 && len(te.History) == 4 && errors.Is(err, chicory.ErrDeadLettered), "Get returns it: got %+v", err)
}

func retryKeeps(w *world) {
	id := w.send(1, chicory.Priority(7), chicory.Header("h", "v"), chicory.ID("chosen:id"))
	var infos []chicory.TaskInfo
	r := w.start(one, nil, w.handler("t", func(ctx context.Context, n int) (int, error) {
		info, _ := chicory.TaskFrom(ctx)
		w.mu.Lock()
		infos = append(infos, info)
		w.mu.Unlock()
		return inEpoch(ctx, n)
	}))
	w.end(id, driver.DeadLettered, 2, 1)
	w.expect(w.deadOf(w.watch, q)[0].Priority == 7, "the priority is kept")
	if _, err := r.app.DeadLetters(q).Replay(context.Background(), id); err != nil {
		w.Errorf("replay: %v", err)
	}
	w.end(id, driver.Success, 3, 0)
	for _, info := range infos {
		w.expect(info.ID == "chosen:id" && info.Queue == q && info.Headers["h"] == "v", "kept: got %+v", info)
	}
}

func retryBackoff(w *world) {
	delay := 2 * w.lease
	id := w.send(1, chicory.Fixed(delay))
	var failed, settled, again time.Time
	w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if info, _ := chicory.TaskFrom(ctx); info.Attempt == 1 {
			failed = time.Now()
			return 0, errFails
		}
		settled, again = w.settled, time.Now()
		return 42, nil
	}))
	w.until(func() bool { return w.stateOf(id) == driver.Retry })
	w.expect(w.stateOf(id) == driver.Retry, "while it waits it is %s, want RETRY", w.stateOf(id))
	w.end(id, driver.Success, 2, 0)
	w.expect(again.Sub(failed) >= delay, "a backoff of %v took %v", delay, again.Sub(failed))
	w.expect(again.Sub(settled) <= delay+w.lease+w.slack, "a backoff of %v took %v after the retry was stored", delay, again.Sub(settled))
}

func retryAfter(w *world) {
	var snoozes int
	w.start(one, nil, w.handler("t", func(ctx context.Context, n int) (int, error) {
		info, _ := chicory.TaskFrom(ctx)
		switch {
		case n == 1 && info.Attempt == 1:
			return 0, chicory.RetryAfter(w.lease, errFails)
		case n == 2:
			return 0, chicory.Permanent(errFails)
		case n == 3 && snoozes < 3:
			snoozes++
			return 0, chicory.Snooze(w.sec)
		}
		return 42, nil
	}))
	begin := time.Now()
	id := w.send(1)
	w.end(id, driver.Success, 2, 0)
	w.expect(time.Since(begin) >= w.lease, "RetryAfter a lease came after %v", time.Since(begin))
	w.end(w.send(2), driver.DeadLettered, 3, 1)
	id = w.send(3)
	w.end(id, driver.Success, 7, 1)
	w.expect(w.startsOf(id+"/0/1") == 4, "snoozing spends no attempt: got %v", w.starts)
}

func retryLast(w *world) {
	id := w.send(1)
	var got []string
	w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		info, _ := chicory.TaskFrom(ctx)
		w.mu.Lock()
		got = append(got, fmt.Sprint(info.Attempt, info.IsLast))
		w.mu.Unlock()
		return 0, errFails
	}))
	w.end(id, driver.DeadLettered, 3, 1)
	w.expect(fmt.Sprint(got) == "[1 false 2 false 3 true]", "attempts: got %v", got)
}

func retryNoBackend(w *world) {
	w.send(1)
	r := w.start(one, nil, w.handler("t", inEpoch))
	w.end("", "", 3, 1)
	n, err := r.app.DeadLetters(q).ReplayAll(context.Background())
	w.expect(n == 1 && err == nil, "replay: got %d, %v", n, err)
	w.end("", "", 4, 0)
}

func retryUnserialisable(w *world) {
	app := w.app()
	bad := chicory.Define[int, chan int]("bad", w.opts...)
	id, err := bad.On(app).Send(context.Background(), 1)
	w.must(err, "send")
	w.start(one, nil, func(app *chicory.App) {
		bad.Handle(app, func(ctx context.Context, _ int) (chan int, error) {
			w.count(ctx)
			return make(chan int), nil
		})
	})
	w.end(id, driver.DeadLettered, 1, 1)
}

func retryTimeout(w *world) {
	id := w.send(1)
	var errs []error
	r := w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		w.mu.Lock()
		errs = append(errs, ctx.Err(), context.Cause(ctx))
		w.mu.Unlock()
		return 0, ctx.Err()
	}))
	w.end(id, driver.DeadLettered, 2, 1)
	w.expect(len(errs) == 4 && errors.Is(errs[0], context.DeadlineExceeded) && errors.Is(errs[1], chicory.ErrTimeout), "the context says why: got %v", errs)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	var te *chicory.TaskError
	w.expect(errors.As(err, &te) && te.Kind == "timeout", "the kind is timeout: got %+v", te)
}

func retryPanic(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", func(_ context.Context, n int) (int, error) {
		if n == 1 {
			panic("boom")
		}
		return 42, nil
	}))
	w.end(id, driver.DeadLettered, 1, 1)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	var te *chicory.TaskError
	ok := errors.As(err, &te) && te.Kind == "panic" && te.Message == "panic: boom" && strings.Contains(te.Stack, "app.go")
	w.expect(ok, "the panic and where it happened cross the wire: got %+v", te)
	w.end(w.send(2), driver.Success, 2, 1)
}

// raw publishes a message as core would, with an envelope and fields of its
// own.
func (w *world) raw(m driver.Message) string {
	w.TB.Helper()
	eng, err := w.app().Core().Engine()
	w.must(err, "engine")
	m.ID, m.Queue, m.Attempt = "raw", q, 1
	w.must(eng.Publish(context.Background(), &engine.Publication{Message: m}, false), "publish")
	return m.ID
}

func envelopeOf(name string) []byte {
	env := engine.Envelope{Name: name, ContentType: "application/json", Body: []byte("1")}
	return env.Encode()
}
