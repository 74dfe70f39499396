package contract

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/worker"
)

var (
	one = worker.Options{Concurrency: 1}
	all = []pairing{same, separate, amqpLike}
)

// cases are the experiments and traces that once lost tasks. Each runs on
// every pairing where it can arise.
var cases = []struct {
	name     string
	pairings []pairing
	opts     []chicory.TaskOption
	run      func(*world)
}{
	{"E2 the live run's SUCCESS beats a zombie's late failure", all, opts(chicory.MaxRetries(0)), zombieFailsLate},
	{"E3 at-most-once published twice starts once", []pairing{amqpLike}, opts(chicory.AtMostOnce()), publishedTwice},
	{"E3 at-least-once published twice starts once", []pairing{amqpLike}, nil, publishedTwice},
	{"E3 published twice, the first worker dies in mid-run: 2 starts, 1 result", []pairing{amqpLike}, nil, publishedTwiceCrash},
	{"E4 at-most-once: retries, dead letter, replay", all, opts(chicory.AtMostOnce(), chicory.MaxRetries(3), chicory.Fixed(time.Second)), onceRetriesAndReplay},
	{"E5 a process-killer takes no bystanders", all, nil, killerAmongHealthy},
	{"E6 a field the worker does not know is ignored", all, nil, extraField},
	{"E7 Get after a replay waits for the new epoch", all, opts(chicory.MaxRetries(0)), getAfterReplay},
	{"E8 one credit over all queues", all, nil, oneCredit},
	{"M1 at-most-once, crash after the start: lost, never STARTED for ever", all, opts(chicory.AtMostOnce()), onceCrashInMidRun},
	{"M1 at-most-once, redelivered without a record: lost", []pairing{separate, amqpLike}, opts(chicory.AtMostOnce()), onceWithoutRecord},
	{"M2 a late start of an older delivery is refused", []pairing{separate, amqpLike}, opts(chicory.MaxRetries(1), chicory.Fixed(time.Second)), lateStart},
	{"M3 M11 a give-back after a crash keeps copy and count", all, nil, giveBackAfterCrash},
	{"M4 poison does not pass over SUCCESS", []pairing{separate, amqpLike}, nil, poisonOverSuccess},
	{"M4 a zombie's verdict does not pass over RETRY", []pairing{separate, amqpLike}, opts(chicory.MaxRetries(1), chicory.Fixed(5*time.Minute)), zombieOverRetry},
	{"M4 a park finishes a stored DEAD_LETTERED", []pairing{separate, amqpLike}, opts(chicory.MaxRetries(0)), parkOverDead},
	{"M5 a replay moves first, then writes PENDING", all, opts(chicory.MaxRetries(0)), replayCrash},
	{"M6 a cancelled task stays cancelled however late its message comes", all, nil, cancelledLongAgo},
	{"M7 a skeleton refuses the redelivery of an expired success", []pairing{separate, amqpLike}, opts(chicory.ResultTTL(time.Second)), skeletonRefuses},
	{"M8 a producer that dies before publishing blocks its id for minutes only", []pairing{separate, amqpLike}, nil, provisionalExpires},
	{"M9 cancelled before the start never starts", all, nil, cancelBeforeStart},
	{"M10 at-most-once without record and dedup is not replayed", []pairing{amqpBare}, opts(chicory.AtMostOnce(), chicory.MaxRetries(0)), bareReplay},
	{"M10 M12 at-most-once without a record is never published twice", []pairing{bare, amqpBare}, opts(chicory.AtMostOnce()), bareOnceReplyLost},
	{"M13 a start that comes after the end changes nothing", all, opts(chicory.AtMostOnce(), chicory.ResultTTL(time.Second)), startAfterTheEnd},
	{"M14 two entries of one dead letter are one", []pairing{amqpLike}, opts(chicory.MaxRetries(0)), deadTwice},
	{"a failed settle is tried apart and runs nothing again", all, nil, settleFails},
	{"stores away for a second: one execution", all, nil, storesAway},
	{"an unknown task is parked, then taken by a newer worker", all, nil, unknownTask},
	{"an unknown task is dead-lettered after a day", all, nil, unknownForADay},
	{"an undecodable message is dead-lettered, the worker lives", all, nil, undecodable},
	{"a newer envelope is parked", all, nil, newerEnvelope},
	{"cancel reaches a running handler within a heartbeat", all, nil, cancelRunning},
	{"a task that is not started in time expires", all, nil, expires},
	{"a panic is an error with its stack", all, opts(chicory.MaxRetries(0)), panics},
	{"a time-out cancels the handler and spends the attempt", all, opts(chicory.Timeout(time.Minute), chicory.MaxRetries(1), chicory.Fixed(time.Second)), timeOut},
	{"a handler that ignores its context keeps its slot, and its task goes on", all, opts(chicory.Timeout(time.Minute), chicory.MaxRetries(1), chicory.Fixed(time.Second)), hung},
	{"at-most-once: a hung handler's task is lost", all, opts(chicory.Timeout(time.Minute), chicory.AtMostOnce()), hungOnce},
	{"a long task starts once while its worker lives", all, opts(chicory.Timeout(time.Hour)), longTask},
	{"shutdown gives back what has not started", all, nil, shutdownGivesBack},
	{"shutdown after the grace: the attempt is not spent", all, opts(chicory.MaxRetries(0)), shutdownCutsOff},
	{"shutdown after the grace, at-most-once: runs again if the handler returned", all, opts(chicory.AtMostOnce(), chicory.MaxRetries(0)), shutdownCutsOff},
	{"shutdown after the grace, at-most-once: lost if it does not return", all, opts(chicory.AtMostOnce()), shutdownHung},
	{"concurrency is a hard bound", all, nil, hardBound},
	{"an id is refused while alive", all, nil, idAlive},
}

func opts(o ...chicory.TaskOption) []chicory.TaskOption { return o }

func TestCases(t *testing.T) {
	t.Parallel()
	for _, c := range cases {
		for _, p := range c.pairings {
			t.Run(c.name+"/"+string(p), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { c.run(newWorld(t, p, c.opts...)) })
			})
		}
	}
}

// send enqueues a task from a process that is gone afterwards.
func (w *world) send(n int, o ...chicory.CallOption) string {
	w.t.Helper()
	app, _ := w.process(nil)
	return must(w.task(app, "t").Send(context.Background(), n, o...))
}

func instant(context.Context, int) (int, error) { return 42, nil }

// sleeping is a handler that takes d, and obeys its context.
func sleeping(d time.Duration, result error) func(context.Context, int) (int, error) {
	return func(ctx context.Context, _ int) (int, error) {
		select {
		case <-time.After(d):
			return 42, result
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// stubborn ignores its context until the world ends.
func (w *world) stubborn() func(context.Context, int) (int, error) {
	end := make(chan struct{})
	w.t.Cleanup(func() { close(end) })
	return func(context.Context, int) (int, error) { <-end; return 0, errFails }
}

// end checks the state, the number of starts and of dead letters.
func (w *world) end(id string, state driver.State, starts, dead int) {
	w.t.Helper()
	w.settle()
	synctest.Wait()
	app, _ := w.process(nil)
	total, _ := w.started()
	w.want(w.live() == 0, "nothing is left in the queue; got %+v", w.stats())
	w.want(w.state(id) == state, "the state is %s; got %s", state, w.state(id))
	w.want(total == starts, "the handler starts %d times; got %v", starts, w.starts)
	ls := w.dead(app)
	w.want(len(ls) == dead, "%d dead letters; got %+v", dead, ls)
}

func zombieFailsLate(w *world) {
	id := w.send(1)
	w.start(one, cutOff(nil), w.handler("t", func(ctx context.Context, _ int) (int, error) {
		time.Sleep(45 * time.Second)
		return 0, errFails
	}))
	synctest.Wait()
	w.start(one, nil, w.handler("t", sleeping(time.Minute, nil)))
	w.end(id, driver.Success, 2, 0)
}

// twice publishes a task whose first reply is lost.
func (w *world) twice() string {
	app, _ := w.process(on("publish", 1, replyLost))
	return must(w.task(app, "t").Send(context.Background(), 1))
}

func publishedTwice(w *world) {
	id := w.twice()
	w.want(w.live() == 2, "the broker holds two copies; got %+v", w.stats())
	w.start(worker.Options{Concurrency: 2}, nil, w.handler("t", sleeping(time.Minute, nil)))
	w.end(id, driver.Success, 1, 0)
}

func publishedTwiceCrash(w *world) {
	id := w.twice()
	first := w.start(one, nil, w.handler("t", sleeping(time.Minute, nil)))
	time.Sleep(time.Second)
	first.crash()
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 2, 0)
}

func onceRetriesAndReplay(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		if info, _ := chicory.TaskFrom(ctx); info.Epoch > 0 {
			return 42, nil
		}
		return 0, errFails
	}))
	w.end(id, driver.DeadLettered, 4, 1)
	n, err := r.app.DeadLetters(queue).Replay(context.Background(), id)
	w.want(n == 1 && err == nil, "a dead letter is replayed; got %d, %v", n, err)
	w.end(id, driver.Success, 5, 0)
	w.want(w.starts[id+"/1/1"] == 1, "a replay starts epoch 1 with its attempts unspent; got %v", w.starts)
}

func killerAmongHealthy(w *world) {
	var ids []string
	for i := range 8 {
		ids = append(ids, w.send(i, chicory.ID(fmt.Sprint("task-", i))))
	}
	for range 12 {
		kill := make(chan func(), 1)
		r := w.start(worker.Options{Concurrency: 8}, nil, w.handler("t", func(ctx context.Context, n int) (int, error) {
			if n == 3 {
				(<-kill)()
				<-ctx.Done()
			}
			return sleeping(time.Second, nil)(ctx, n)
		}))
		kill <- r.crash
		for range 600 {
			if time.Sleep(time.Second); r.crashed() || w.live() == 0 {
				break
			}
		}
	}
	synctest.Wait()
	app, _ := w.process(nil)
	ls := w.dead(app)
	w.want(len(ls) == 1 && ls[0].ID == ids[3] && ls[0].Reason == driver.ReasonPoison, "the killer alone is dead-lettered, as poison; got %+v", ls)
	for i, id := range ids {
		w.want(i == 3 || w.state(id) == driver.Success, "healthy neighbours finish; task %d is %s", i, w.state(id))
	}
}

func extraField(w *world) {
	app, _ := w.process(nil)
	type newer struct{ A, Later int }
	id := must(chicory.Define[newer, int]("t", chicory.Queue(queue)).On(app).Send(context.Background(), newer{1, 2}))
	type older struct{ A int }
	w.start(one, nil, func(app *chicory.App) {
		chicory.Define[older, int]("t", chicory.Queue(queue)).Handle(app, func(ctx context.Context, in older) (int, error) {
			w.count(ctx)
			return in.A, nil
		})
	})
	w.end(id, driver.Success, 1, 0)
}

func getAfterReplay(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		if info, _ := chicory.TaskFrom(ctx); info.Epoch > 0 {
			return sleeping(time.Minute, nil)(ctx, 0)
		}
		return 0, errFails
	}))
	w.end(id, driver.DeadLettered, 1, 1)
	must(r.app.DeadLetters(queue).Replay(context.Background(), id))
	v, err := w.task(r.app, "t").Result(id).Get(context.Background())
	w.want(v == 42 && err == nil, "Get returns the result of the new epoch; got %d, %v", v, err)
}

func oneCredit(w *world) {
	app, _ := w.process(nil)
	qs := []worker.Queue{{Name: queue}, {Name: "b"}, {Name: "c"}}
	for _, q := range qs {
		for range 3 {
			must(w.task(app, "t").Send(context.Background(), 1, chicory.Queue(q.Name)))
		}
	}
	w.start(worker.Options{Concurrency: 1, Prefetch: 1, Queues: qs}, nil, w.handler("t", sleeping(time.Minute, nil)))
	time.Sleep(10 * time.Second)
	b := w.broker.Broker(namespace)
	defer b.Close(context.Background())
	leased := 0
	for _, s := range must(b.Inspect(context.Background(), []string{queue, "b", "c"})) {
		leased += s.Leased
	}
	w.want(leased == 1, "one free slot holds one delivery over all queues; got %d", leased)
}

func onceCrashInMidRun(w *world) {
	id := w.send(1)
	first := w.start(one, nil, w.handler("t", sleeping(time.Minute, nil)))
	time.Sleep(time.Second)
	first.crash()
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.DeadLettered, 1, 1)
	w.want(w.record(id).Error.Reason == driver.ReasonLost, "what may have started is lost; got %+v", w.record(id).Error)
}

func onceWithoutRecord(w *world) {
	app, _ := w.process(on("apply", 1, crashBefore)) // PENDING is never written
	if _, err := w.task(app, "t").Send(context.Background(), 1, chicory.Header("h", "v")); err != nil {
		w.want(false, "a failing backend fails no publish; got %v", err)
	}
	first := w.start(one, on("start", 1, crashBefore), w.handler("t", instant))
	time.Sleep(2 * lease)
	w.want(first.crashed(), "the first worker died")
	w.start(one, nil, w.handler("t", instant))
	w.settle()
	synctest.Wait()
	reader, _ := w.process(nil)
	ls := w.dead(reader)
	total, _ := w.started()
	w.want(total == 0 && len(ls) == 1 && ls[0].Reason == driver.ReasonLost, "nobody can tell whether it started: lost; got %v, %+v", w.starts, ls)
}

func lateStart(w *world) {
	id := w.send(1)
	h := w.handler("t", func(ctx context.Context, _ int) (int, error) {
		if info, _ := chicory.TaskFrom(ctx); info.Attempt == 1 {
			return sleeping(time.Minute, errFails)(ctx, 0)
		}
		return 42, nil
	})
	w.start(one, cutOff(on("start", 1, late)), h)
	synctest.Wait()
	w.start(one, nil, h)
	w.end(id, driver.Success, 2, 0)
}

func giveBackAfterCrash(w *world) {
	id := w.send(1)
	first := w.start(one, nil, w.handler("t", sleeping(time.Hour, nil)))
	time.Sleep(time.Second)
	first.crash()
	time.Sleep(lease)
	// A worker that stops while it waits for the backend gives the task back.
	second := w.start(one, func(_ int, op string, _ any) fault {
		if op == "start" {
			return refused
		}
		return none
	}, w.handler("t", sleeping(time.Hour, nil)))
	time.Sleep(time.Second)
	w.want(second.stop() == nil, "the worker stops")
	w.start(one, nil, w.handler("t", instant))
	w.settle()
	synctest.Wait()
	w.want(w.state(id) == driver.Success, "a task given back after a crash runs; it is %s", w.state(id))
}

func poisonOverSuccess(w *world) {
	id := w.send(1)
	h := w.handler("t", instant)
	w.start(one, on("settle", 1, crashBefore), h)
	time.Sleep(2 * lease)
	for range 4 {
		w.start(one, on("receive", 1, crashAfter), h)
		time.Sleep(2 * lease)
	}
	w.want(w.live() == 1, "the message waits for its sixth delivery; got %+v", w.stats())
	w.start(one, nil, h)
	w.end(id, driver.Success, 1, 0)
}

func zombieOverRetry(w *world) {
	id := w.send(1)
	w.start(one, cutOff(on("receive", 2, crashAfter)), w.handler("t", func(context.Context, int) (int, error) {
		time.Sleep(100 * time.Second)
		return 0, chicory.Permanent(errFails)
	}))
	synctest.Wait()
	w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		if info, _ := chicory.TaskFrom(ctx); info.Attempt == 1 {
			return 0, errFails
		}
		return 42, nil
	}))
	w.end(id, driver.Success, 3, 0)
}

func parkOverDead(w *world) {
	id := w.send(1)
	w.start(one, on("settle", 1, crashBefore), w.handler("t", func(context.Context, int) (int, error) { return 0, errFails }))
	time.Sleep(2 * lease)
	w.start(one, nil, w.handler("other", instant)) // does not know t
	w.end(id, driver.DeadLettered, 1, 1)
}

func replayCrash(w *world) {
	id := w.send(1)
	h := w.handler("t", func(ctx context.Context, _ int) (int, error) {
		if info, _ := chicory.TaskFrom(ctx); info.Epoch > 0 {
			return 42, nil
		}
		return 0, errFails
	})
	w.start(one, nil, h)
	w.end(id, driver.DeadLettered, 1, 1)
	operator, _ := w.process(on("apply", 1, crashBefore)) // moved, PENDING not written
	if _, err := operator.DeadLetters(queue).Replay(context.Background(), id); err != nil {
		w.want(false, "replay: %v", err)
	}
	w.end(id, driver.Success, 2, 0)
	// Two replayers, one entry: one of them moves it.
	n, err := operator.DeadLetters(queue).Replay(context.Background(), id)
	w.want(n == 0 && (err == nil || errors.Is(err, driver.ErrClosed)), "what was replayed is gone; got %d, %v", n, err)
}

func cancelledLongAgo(w *world) {
	id := w.send(1, chicory.After(10*24*time.Hour))
	app, _ := w.process(nil)
	w.want(app.Cancel(context.Background(), id) == nil, "a task that waits can be cancelled")
	w.start(one, nil, w.handler("t", instant))
	time.Sleep(10*24*time.Hour + 12*time.Hour)
	w.want(w.state(id) == driver.Cancelled, "its time to live begins when its message is met; it is %q", w.state(id))
	w.end(id, driver.Cancelled, 0, 0)
	time.Sleep(25 * time.Hour)
	w.want(w.state(id) == "", "and ends a day later; it is %s", w.state(id))
}

func skeletonRefuses(w *world) {
	id := w.send(1)
	w.start(one, cutOff(on("settle", 1, crashBefore)), w.handler("t", instant))
	time.Sleep(10 * time.Second)
	w.want(w.state(id) == "", "the record has expired; got %s", w.state(id))
	w.start(one, nil, w.handler("t", instant))
	w.end(id, "", 1, 0)
}

func provisionalExpires(w *world) {
	app, _ := w.process(on("publish", 1, crashBefore))
	_, err := w.task(app, "t").Send(context.Background(), 1, chicory.ID("mine"))
	w.want(err != nil, "the process died")
	time.Sleep(driver.ProvisionalAge)
	w.want(w.state("mine") == "", "a provisional record expires; got %s", w.state("mine"))
	id := w.send(1, chicory.ID("mine"))
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
}

func cancelBeforeStart(w *world) {
	id := w.send(1)
	app, _ := w.process(nil)
	w.want(app.Cancel(context.Background(), id) == nil, "a task that has not started can be cancelled")
	w.want(app.Cancel(context.Background(), id) == nil, "twice is no error")
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Cancelled, 0, 0)
	_, err := w.task(app, "t").Result(id).Get(context.Background())
	w.want(errors.Is(err, chicory.ErrCancelled), "Get says so; got %v", err)
	done := w.send(1)
	w.settle()
	w.want(errors.Is(app.Cancel(context.Background(), done), chicory.ErrFinished), "what has ended cannot be cancelled")
}

func bareOnceReplyLost(w *world) {
	app, c := w.process(on("publish", 1, replyLost))
	_, err := w.task(app, "t").Send(context.Background(), 1)
	var pe *chicory.PublishError
	w.want(errors.As(err, &pe) && pe.Unknown, "the caller is told that the outcome is unknown; got %v", err)
	w.want(slices.Equal(c.log(), []string{"publish"}), "core does not publish it again; got %v", c.log())
	w.start(one, nil, w.handler("t", instant))
	w.settle()
	synctest.Wait()
	total, _ := w.started()
	w.want(total == 1, "it starts once; got %v", w.starts)
}

func bareReplay(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", func(context.Context, int) (int, error) { return 0, errFails }))
	w.settle()
	for _, replay := range []func() (int, error){
		func() (int, error) { return r.app.DeadLetters(queue).Replay(context.Background(), id) },
		func() (int, error) { return r.app.DeadLetters(queue).ReplayAll(context.Background()) },
	} {
		n, err := replay()
		w.want(n == 0 && errors.Is(err, chicory.ErrValidation), "it is refused; got %d, %v", n, err)
	}
	w.want(len(w.dead(r.app)) == 1, "and nothing is lost by it")
}

func startAfterTheEnd(w *world) {
	id := w.send(1)
	w.start(one, cutOff(on("start", 1, late)), w.handler("t", instant))
	synctest.Wait()
	w.start(one, nil, w.handler("t", instant))
	time.Sleep(3 * lease)
	w.settle()
	synctest.Wait()
	total, _ := w.started()
	w.want(total <= 1, "an at-most-once task starts at most once; got %v", w.starts)
	w.want(w.state(id) != driver.Started, "nothing is STARTED for ever")
}

func deadTwice(w *world) {
	id := w.send(1)
	h := w.handler("t", func(ctx context.Context, _ int) (int, error) {
		if info, _ := chicory.TaskFrom(ctx); info.Epoch > 0 {
			return 42, nil
		}
		return 0, errFails
	})
	r := w.start(one, on("publish", 1, replyLost), h) // the dead letter's confirmation is lost
	w.end(id, driver.DeadLettered, 1, 1)
	w.want(w.stats().Dead == 2, "the store holds two entries; got %+v", w.stats())
	n, err := r.app.DeadLetters(queue).ReplayAll(context.Background())
	w.want(n == 1 && err == nil, "entries of one id and epoch are one; got %d, %v", n, err)
	w.end(id, driver.Success, 2, 0)
}

func settleFails(w *world) {
	id := w.send(1)
	begin := time.Now()
	fails := 3
	w.start(one, func(_ int, op string, _ any) fault {
		if (op == "settle" || op == "apply") && fails > 0 {
			fails--
			return refused
		}
		return none
	}, w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
	w.want(time.Since(begin) < lease/2, "the write is tried again, not left to the lease; it took %v", time.Since(begin))
}

func storesAway(w *world) {
	var ids []string
	for range 20 {
		ids = append(ids, w.send(1))
	}
	begin := time.Now()
	away := func(int, string, any) fault {
		if since := time.Since(begin); since > 50*time.Millisecond && since < time.Second {
			return refused
		}
		return none
	}
	w.start(worker.Options{Concurrency: 2}, away, w.handler("t", sleeping(20*time.Millisecond, nil)))
	w.end(ids[0], driver.Success, 20, 0)
	for _, id := range ids {
		w.want(w.state(id) == driver.Success, "every task ends in SUCCESS; %s is %s", id, w.state(id))
	}
}

func unknownTask(w *world) {
	id := w.send(1)
	older := w.start(one, nil, w.handler("other", instant))
	time.Sleep(time.Hour)
	w.want(w.state(id) == driver.Retry, "a parked task waits; it is %s", w.state(id))
	w.want(older.stop() == nil, "the worker stops")
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
	w.want(w.starts[id+"/0/1"] == 1, "no attempt was spent; got %v", w.starts)
}

func unknownForADay(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("other", instant))
	time.Sleep(engine.ParkLimit + time.Hour)
	w.end(id, driver.DeadLettered, 0, 1)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	w.want(errors.Is(err, chicory.ErrUnknownTask), "Get says that nobody knew it; got %v", err)
}

// raw publishes a message with an envelope of its own.
func (w *world) raw(envelope []byte) string {
	app, _ := w.process(nil)
	eng := must(app.Core().Engine())
	p := &engine.Publication{Message: driver.Message{ID: "raw", Queue: queue, Attempt: 1, Envelope: envelope}}
	if err := eng.Publish(context.Background(), p, false); err != nil {
		w.t.Fatal(err)
	}
	return "raw"
}

func undecodable(w *world) {
	id := w.raw([]byte("\xff\xffno envelope"))
	h := w.handler("t", instant)
	w.start(one, nil, h)
	w.end(id, driver.DeadLettered, 0, 1)
	app, _ := w.process(nil)
	w.want(w.dead(app)[0].Reason == driver.ReasonUndecodable, "the reason is kept; got %+v", w.dead(app)[0])
	bad := must(chicory.Define[string, int]("t", chicory.Queue(queue)).On(app).Send(context.Background(), "no number"))
	w.end(bad, driver.DeadLettered, 0, 2)
	w.end(w.send(1), driver.Success, 1, 2) // the worker lives
}

func newerEnvelope(w *world) {
	env := engine.Envelope{Name: "t", ContentType: "application/json", Body: []byte("1")}
	newer := append([]byte{1 << 3, engine.EnvelopeVersion + 1}, env.Encode()[2:]...)
	id := w.raw(newer)
	w.start(one, nil, w.handler("t", instant))
	time.Sleep(time.Hour)
	w.want(w.state(id) == driver.Retry && w.live() == 1, "it waits for a newer worker; it is %s", w.state(id))
}

func cancelRunning(w *world) {
	id := w.send(1)
	var cause error
	r := w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		cause = context.Cause(ctx)
		return 0, cause
	}))
	time.Sleep(time.Second)
	w.want(w.state(id) == driver.Started, "a running task is STARTED; it is %s", w.state(id))
	begin := time.Now()
	w.want(r.app.Cancel(context.Background(), id) == nil, "a running task can be cancelled")
	w.end(id, driver.Cancelled, 1, 0)
	w.want(errors.Is(cause, chicory.ErrCancelled), "the handler learns the cause; got %v", cause)
	w.want(time.Since(begin) < lease/3+5*time.Second, "within a heartbeat; it took %v", time.Since(begin))
}

func expires(w *world) {
	id := w.send(1, chicory.ExpiresIn(time.Minute))
	time.Sleep(2 * time.Minute)
	r := w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Expired, 0, 0)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	w.want(errors.Is(err, chicory.ErrExpired), "Get says so; got %v", err)
	w.end(w.send(1, chicory.ExpiresIn(time.Minute)), driver.Success, 1, 0)
}

func panics(w *world) {
	id := w.send(1)
	r := w.start(one, nil, w.handler("t", func(context.Context, int) (int, error) { panic("boom") }))
	w.end(id, driver.DeadLettered, 1, 1)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	var te *chicory.TaskError
	ok := errors.As(err, &te) && te.Kind == "panic" && te.Message == "panic: boom" && strings.Contains(te.Stack, "cases_test.go")
	w.want(ok, "the panic and where it happened cross the wire; got %+v", te)
}

func timeOut(w *world) {
	id := w.send(1)
	var errs []error
	r := w.start(one, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		errs = append(errs, ctx.Err(), context.Cause(ctx))
		return 0, ctx.Err()
	}))
	w.end(id, driver.DeadLettered, 2, 1)
	w.want(len(errs) == 4 && errors.Is(errs[0], context.DeadlineExceeded) && errors.Is(errs[1], chicory.ErrTimeout), "the context says why; got %v", errs)
	_, err := w.task(r.app, "t").Result(id).Get(context.Background())
	var te *chicory.TaskError
	w.want(errors.As(err, &te) && te.Kind == "timeout", "the kind is timeout; got %+v", te)
}

func hung(w *world) {
	id := w.send(1)
	stuck := w.stubborn()
	first := w.start(one, nil, w.handler("t", stuck))
	time.Sleep(2 * time.Minute)
	err := first.worker.Health()
	w.want(err != nil && strings.Contains(err.Error(), id), "the worker says which task hangs; got %v", err)
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 2, 0)
	other := w.send(1)
	w.end(other, driver.Success, 3, 0)
	w.want(first.worker.Running() == 1, "the hung handler keeps its slot; %d run", first.worker.Running())
}

func hungOnce(w *world) {
	id := w.send(1)
	w.start(one, nil, w.handler("t", w.stubborn()))
	w.end(id, driver.DeadLettered, 1, 1)
	w.want(w.record(id).Error.Reason == driver.ReasonLost, "it may still be running: lost; got %+v", w.record(id).Error)
}

func longTask(w *world) {
	id := w.send(1)
	w.start(one, nil, w.handler("t", sleeping(10*lease, nil)))
	w.start(one, nil, w.handler("t", instant)) // idle, and would take it
	w.end(id, driver.Success, 1, 0)
}

func shutdownGivesBack(w *world) {
	ids := []string{w.send(1), w.send(1), w.send(1)}
	r := w.start(one, nil, w.handler("t", sleeping(10*time.Second, nil)))
	time.Sleep(time.Second)
	begin := time.Now()
	w.want(r.stop() == nil, "the worker stops")
	w.want(time.Since(begin) <= 10*time.Second, "it waits for the running handler only; it took %v", time.Since(begin))
	s := w.stats()
	w.want(s.Ready == 2 && s.Leased == 0, "what has not started is back at once; got %+v", s)
	w.want(w.state(ids[0]) == driver.Success, "the running one finished; it is %s", w.state(ids[0]))
	w.start(one, nil, w.handler("t", instant))
	w.end(ids[2], driver.Success, 3, 0)
	idle := w.start(one, nil, w.handler("t", instant))
	begin = time.Now()
	w.want(idle.stop() == nil && time.Since(begin) < 100*time.Millisecond, "an idle worker stops at once; it took %v", time.Since(begin))
}

func shutdownCutsOff(w *world) {
	id := w.send(1)
	var cause error
	o := worker.Options{Concurrency: 1, ShutdownTimeout: time.Second}
	r := w.start(o, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		cause = context.Cause(ctx)
		return 0, ctx.Err()
	}))
	time.Sleep(time.Second)
	w.want(r.stop() == nil, "the worker stops")
	w.want(errors.Is(cause, chicory.ErrShutdown), "the handler learns the cause; got %v", cause)
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 2, 0)
	w.want(w.starts[id+"/0/1"] == 2, "the attempt was not spent; got %v", w.starts)
}

func shutdownHung(w *world) {
	id := w.send(1)
	o := worker.Options{Concurrency: 1, ShutdownTimeout: time.Second}
	r := w.start(o, nil, w.handler("t", w.stubborn()))
	time.Sleep(time.Second)
	begin := time.Now()
	w.want(r.stop() == nil, "the worker stops")
	w.want(time.Since(begin) < 20*time.Second, "on time; it took %v", time.Since(begin))
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.DeadLettered, 1, 1)
	w.want(w.record(id).Error.Reason == driver.ReasonLost, "it may still be running: lost; got %+v", w.record(id).Error)
}

func hardBound(w *world) {
	for range 50 {
		w.send(1)
	}
	id := w.send(1)
	running, most := make(chan int, 100), 0
	w.start(worker.Options{Concurrency: 4}, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		running <- 1
		w.mu.Lock()
		most = max(most, len(running))
		w.mu.Unlock()
		defer func() { <-running }()
		return sleeping(time.Second, nil)(ctx, 0)
	}))
	w.end(id, driver.Success, 51, 0)
	w.want(most == 4, "four slots run four tasks at once, never more; got %d", most)
}

func idAlive(w *world) {
	id := w.send(1, chicory.ID("mine"))
	app, _ := w.process(nil)
	_, err := w.task(app, "t").Send(context.Background(), 2, chicory.ID("mine"))
	w.want(errors.Is(err, chicory.ErrDuplicate), "a living id is refused; got %v", err)
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
	_, err = w.task(app, "t").Send(context.Background(), 3, chicory.ID("mine"))
	w.want(errors.Is(err, chicory.ErrDuplicate), "its record is alive; got %v", err)
	time.Sleep(24*time.Hour + driver.SkeletonAge + time.Minute)
	w.end(w.send(4, chicory.ID("mine")), driver.Success, 2, 0)
}
