package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/worker"
)

// traceCases are the shortest traces by which older contracts lost tasks or ran
// them twice.
var traceCases = []Case{
	{Name: "Trace/ZombieFailsLate", Contract: "the live run's SUCCESS beats a zombie's late failure", run: app(traceZombieFailsLate, chicory.MaxRetries(0))},
	{Name: "Trace/ZombieOverRetry", Contract: "a zombie's verdict does not pass over RETRY", run: app(traceZombieOverRetry, chicory.MaxRetries(1))},
	{Name: "Trace/PublishedTwice", Contract: "a task whose publish is repeated after a lost reply starts once", run: app(tracePublishedTwice)},
	{Name: "Trace/PublishedTwiceOnce", Contract: "so does an at-most-once task", run: app(tracePublishedTwice, once)},
	{Name: "Trace/PublishedTwiceCrash", Contract: "published twice, the first worker dies in mid-run: two starts, one result", run: app(tracePublishedTwiceCrash)},
	{Name: "Trace/OnceNeverRepeated", Contract: "core never repeats the publish of an at-most-once task that has no record", run: bare(traceOnceNeverRepeated, once)},
	{Name: "Trace/OnceNeverRepublished", Contract: "nor a settlement that could publish such a task twice", run: bare(traceOnceNeverRepublished, once, chicory.MaxRetries(1), soon)},
	{Name: "Trace/StartItemFails", Contract: "a start that failed by itself, in a call that did not, is asked for again: it is no reason to acknowledge", run: app(traceStartItemFails, once)},
	{Name: "Trace/LateStart", Contract: "a start of an older delivery that comes late does not take the run away", run: app(traceLateStart, chicory.MaxRetries(1), soon)},
	{Name: "Trace/LateStartAtTheEnd", Contract: "a start that comes after the end, and after its record expired, changes nothing", run: app(traceStartAtTheEnd, once, chicory.ResultTTL(time.Second))},
	{Name: "Trace/GiveBackAfterCrash", Contract: "a give-back after a crash keeps copy and count: the task runs", run: app(traceGiveBackAfterCrash)},
	{Name: "Trace/RefusedUpdate", Contract: "an update refused by a newer run is no reason to acknowledge its message", run: app(traceRefusedUpdate, chicory.MaxRetries(0))},
	{Name: "Trace/ParkOverDead", Contract: "a park finishes a stored DEAD_LETTERED", run: app(traceParkOverDead, chicory.MaxRetries(0))},
	{Name: "Trace/ReplayMovesFirst", Contract: "a replay that dies in the middle has moved its task, which runs", run: app(traceReplayMovesFirst, chicory.MaxRetries(0))},
	{Name: "Trace/DeadTwice", Contract: "a dead letter that was published twice is one, and is replayed once", run: app(traceDeadTwice, chicory.MaxRetries(0))},
	{Name: "Trace/Skeleton", Contract: "the redelivery of a task whose result has expired does not run", run: app(traceSkeleton, chicory.ResultTTL(time.Second))},
	{Name: "Trace/ProducerDies", Contract: "a producer that dies before publishing leaves nothing PENDING for ever, and its chosen id is free again", run: app(traceProducerDies)},
	{Name: "Trace/DeadSkeleton", Contract: "nor is a verdict of death lost whose record has expired before it was settled", run: app(traceDeadSkeleton, chicory.MaxRetries(0), chicory.ResultTTL(time.Second))},
	{Name: "Trace/WithoutRecord", Contract: "an at-most-once task redelivered without a record is lost, never run on a guess", run: app(traceWithoutRecord, once)},
	{Name: "Trace/Finish", Contract: "a redelivery finishes a verdict that was recorded and not settled: RETRY is published, DEAD_LETTERED buried", run: app(traceFinish, chicory.MaxRetries(1), soon)},
}

// firstFails is a handler whose first attempt fails.
func firstFails(ctx context.Context, _ int) (int, error) {
	if info, _ := chicory.TaskFrom(ctx); info.Attempt == 1 {
		return 0, errFails
	}
	return 42, nil
}

func traceZombieFailsLate(w *world) {
	id := w.send(1)
	w.startCutOff(one, nil, w.handler("t", func(context.Context, int) (int, error) {
		w.sleep(w.lease + w.lease/2)
		return 0, errFails
	}))
	w.awaitStarts(1)
	w.start(one, nil, w.handler("t", sleeping(2*w.lease, nil)))
	w.end(id, driver.Success, 2, 0)
}

func traceZombieOverRetry(w *world) {
	id := w.send(1, chicory.Fixed(8*w.lease))
	zombie := w.startCutOff(one, on("receive", 2, crashAfter), w.handler("t", func(context.Context, int) (int, error) {
		w.sleep(4 * w.lease)
		return 0, chicory.Permanent(errFails)
	}))
	zombie.perhaps = w.info.Lease == driver.LeaseSession // a broker that pushes may choose the other one
	w.awaitStarts(1)
	w.start(one, nil, w.handler("t", firstFails))
	w.end(id, driver.Success, 3, 0)
}

// twice publishes a task whose first reply is lost.
func (w *world) twice() string {
	w.TB.Helper()
	app, _ := w.process("producer", on("publish", 1, replyLost))
	id, err := w.task(app, "t").Send(context.Background(), 1)
	w.must(err, "send")
	return id
}

func tracePublishedTwice(w *world) {
	id := w.twice()
	w.start(worker.Options{Concurrency: 2}, nil, w.handler("t", sleeping(2*w.lease, nil)))
	w.end(id, driver.Success, 1, 0)
}

func tracePublishedTwiceCrash(w *world) {
	id := w.twice()
	w.dieRunning()
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 2, 0)
}

func traceOnceNeverRepeated(w *world) {
	app, c := w.process("producer", on("publish", 1, replyLost))
	_, err := w.task(app, "t").Send(context.Background(), 1)
	var pe *chicory.PublishError
	w.expect(errors.As(err, &pe) && pe.Unknown, "the caller is told that the outcome is unknown: got %v", err)
	w.expect(len(c.log()) == 1, "the calls were %v", c.log())
	w.start(one, nil, w.handler("t", instant))
	w.settleAll()
	total, _ := w.started()
	w.expect(total == 1, "it started %d times", total)
}

func traceOnceNeverRepublished(w *world) {
	w.send(1)
	first := w.start(one, on("settle", 1, replyLost), w.handler("t", firstFails))
	w.until(first.met)
	w.start(one, nil, w.handler("t", firstFails))
	w.rest()
	_, most := w.started()
	w.expect(most <= 1, "an attempt started twice: %v", w.starts)
}

func traceStartItemFails(w *world) {
	id := w.send(1)
	w.start(one, on("start", 1, itemRefused), w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
}

func traceLateStart(w *world) {
	id := w.send(1)
	h := w.handler("t", func(ctx context.Context, n int) (int, error) {
		if info, _ := chicory.TaskFrom(ctx); info.Attempt == 1 {
			return sleeping(2*w.lease, errFails)(ctx, n)
		}
		return 42, nil
	})
	w.startCutOff(one, w.apart(on("start", 1, late)), h)
	w.sleep(w.lease / 4)
	w.start(one, nil, h)
	w.rest()
	w.expect(w.stateOf(id) == driver.Success, "it is %s", w.stateOf(id))
	_, most := w.started()
	w.expect(most <= 2, "more starts than the one lost lease explains: %v", w.starts)
}

func traceStartAtTheEnd(w *world) {
	id := w.send(1)
	w.startCutOff(one, on("start", 1, late), w.handler("t", instant))
	w.sleep(w.lease / 4)
	w.start(one, nil, w.handler("t", instant))
	w.rest()
	total, _ := w.started()
	w.expect(total <= 1, "an at-most-once task started %d times", total)
	w.expect(w.stateOf(id) != driver.Started, "it is STARTED for ever")
}

func traceGiveBackAfterCrash(w *world) {
	id := w.send(1)
	w.dieRunning()
	w.sleep(w.lease)
	// A worker that stops while it waits for the backend gives the task back.
	second := w.start(one, w.apart(always("start", refused)), w.handler("t", sleeping(100*w.lease, nil)))
	w.sleep(w.lease / 10)
	w.must(second.stop(), "stop")
	w.start(one, nil, w.handler("t", instant))
	w.settleAll()
	ok := w.until(func() bool { return w.stateOf(id) == driver.Success })
	w.expect(ok, "it is %s", w.stateOf(id))
}

func traceRefusedUpdate(w *world) {
	id := w.send(1)
	begun := make(chan struct{}, 4)
	var again atomic.Bool
	h := func(d time.Duration, err error) handler {
		return func(context.Context, int) (int, error) {
			if again.Swap(true) {
				return 42, nil // where the lease is a session the zombie may get it again
			}
			begun <- struct{}{}
			w.sleep(d)
			return 42, err
		}
	}
	// The zombie's failure comes while the second run, which then dies, is
	// under way: the message must survive both.
	w.startCutOff(one, nil, w.handler("t", h(w.lease+w.lease/3, errFails)))
	<-begun
	second := w.start(one, nil, w.handler("t", sleeping(100*w.lease, nil)))
	w.awaitStarts(2)
	w.sleep(w.lease)
	second.crash()
	w.start(one, nil, w.handler("t", instant))
	w.rest()
	w.expect(w.stateOf(id) == driver.Success, "it is %s", w.stateOf(id))
}

func traceParkOverDead(w *world) {
	id := w.send(1)
	w.start(one, on("settle", 1, crashBefore), w.handler("t", failing))
	w.sleep(2 * w.lease)
	older := w.start(one, nil, w.handler("other", instant)) // does not know t
	w.sleep(w.lease + time.Second)
	w.must(older.stop(), "stop")
	w.start(one, nil, w.handler("t", failing)) // where verdict and settle are one step, nothing was recorded
	w.settleAll()
	w.expect(w.until(func() bool { return w.stateOf(id) == driver.DeadLettered }), "it is %s", w.stateOf(id))
	w.expect(len(w.deadOf(w.watch, q)) == 1, "%d dead letters", len(w.deadOf(w.watch, q)))
}

func traceReplayMovesFirst(w *world) {
	id := w.send(1)
	w.start(one, nil, w.handler("t", inEpoch))
	w.end(id, driver.DeadLettered, 1, 1)
	dies := on("apply", 1, crashBefore) // moved, PENDING not written
	if !w.recordedFirst() {
		dies = on("replay", 1, crashAfter)
	}
	operator, _ := w.process("operator", dies)
	_, err := operator.DeadLetters(q).Replay(context.Background(), id)
	w.expect(err == nil || !w.recordedFirst(), "replay: %v", err)
	w.end(id, driver.Success, 2, 0)
	n, err := w.app().DeadLetters(q).Replay(context.Background(), id)
	w.expect(n == 0 && (err == nil || errors.Is(err, chicory.ErrNotFound)), "what was replayed is gone: got %d, %v", n, err)
}

func traceDeadTwice(w *world) {
	id := w.send(1)
	r := w.start(one, on("settle", 1, replyLost), w.handler("t", inEpoch))
	w.until(r.met)
	w.start(one, nil, w.handler("t", inEpoch))
	w.rest()
	w.expect(w.stateOf(id) == driver.DeadLettered, "it is %s", w.stateOf(id))
	n, err := r.app.DeadLetters(q).ReplayAll(context.Background())
	w.expect(n == 1 && err == nil, "entries of one id and epoch are one: got %d, %v", n, err)
	w.rest()
	w.expect(w.stateOf(id) == driver.Success && w.startsOf(id+"/1/1") == 1, "it is %s, replayed starts: %v", w.stateOf(id), w.starts)
	w.expect(len(w.deadOf(w.watch, q)) == 0, "its twin is left among the dead letters")
}

func traceDeadSkeleton(w *world) {
	id := w.send(1)
	first := w.start(one, on("settle", 1, crashBefore), w.handler("t", failing))
	w.until(first.crashed)
	w.sleep(max(w.lease, time.Second) + w.slack)
	w.start(one, nil, w.handler("t", failing))
	w.rest()
	w.expect(len(w.deadOf(w.watch, q)) == 1, "%d dead letters of %s", len(w.deadOf(w.watch, q)), id)
	if w.recordedFirst() {
		total, _ := w.started()
		w.expect(total == 1, "a recorded verdict is finished, not run again: %v", w.starts)
	}
}

func traceSkeleton(w *world) {
	id := w.send(1)
	w.startCutOff(one, on("settle", 1, crashBefore), w.handler("t", instant))
	w.awaitStarts(1)
	w.sleep(max(w.lease+w.slack, time.Second+w.slack))
	w.start(one, nil, w.handler("t", instant))
	w.rest()
	total, _ := w.started()
	if w.recordedFirst() {
		w.expect(total == 1, "it ran %d times", total)
	}
	w.expect(w.live() == 0 && w.stateOf(id) == "" || w.stateOf(id) == driver.Success, "it is %s", w.stateOf(id))
}

// apart returns p, or nothing on a broker that covers the backend: it makes no
// such call.
func (w *world) apart(p plan) plan {
	if w.covered {
		return nil
	}
	return p
}

// recordedFirst reports whether a verdict is recorded before its settlement:
// where both are one step, a crash before it leaves neither.
func (w *world) recordedFirst() bool { return !w.bare && !w.covered }

func traceProducerDies(w *world) {
	app, _ := w.process("producer", on("publish", 1, crashBefore))
	_, err := w.task(app, "t").Send(context.Background(), 1, chicory.ID("mine"))
	w.expect(err != nil, "the process died")
	if w.h.Bubble {
		w.sleep(driver.ProvisionalAge + w.slack)
		w.expect(w.stateOf("mine") == "", "it is %s", w.stateOf("mine"))
	}
	id := w.send(1, chicory.ID("mine"))
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
}

func traceWithoutRecord(w *world) {
	app, _ := w.process("producer", w.apart(on("apply", 1, crashBefore))) // PENDING is never written
	if _, err := w.task(app, "t").Send(context.Background(), 1, chicory.Header("h", "v")); err != nil {
		w.Errorf("a failing backend fails no publish: got %v", err)
	}
	first := w.start(one, on("start", 1, crashBefore), w.handler("t", instant))
	w.until(first.crashed)
	w.sleep(2 * w.lease)
	w.start(one, nil, w.handler("t", instant))
	w.settleAll()
	total, _ := w.started()
	ls := w.deadOf(w.watch, q)
	ran := total == 1 && len(ls) == 0
	lost := total == 0 && len(ls) == 1 && ls[0].Dead.Reason == driver.ReasonLost
	w.expect(lost || !w.recordedFirst() && ran, "it ran %d times, dead letters %v", total, ids(ls))
}

func traceFinish(w *world) {
	id := w.send(1)
	w.start(one, on("settle", 1, crashBefore), w.handler("t", failing))
	w.awaitStarts(1)
	w.start(one, on("settle", 2, crashBefore), w.handler("t", failing))
	w.sleep(3 * w.lease)
	w.start(one, nil, w.handler("t", failing))
	w.rest()
	w.expect(w.stateOf(id) == driver.DeadLettered && len(w.deadOf(w.watch, q)) == 1, "it is %s, %d dead letters", w.stateOf(id), len(w.deadOf(w.watch, q)))
	if w.recordedFirst() {
		total, most := w.started()
		w.expect(total == 2 && most == 1, "a recorded verdict is finished, not run again: %v", w.starts)
	}
}
