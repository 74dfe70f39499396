package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/worker"
)

var workerCases = []Case{
	{Name: "Worker/Long", Contract: "a task of any length starts once while its worker lives", run: app(workerLong, chicory.Timeout(20*time.Minute))},
	{Name: "Worker/SettleFails", Contract: "a failed verdict or ack is tried again apart, and runs nothing again", run: app(workerSettleFails)},
	{Name: "Worker/StoresAway", Contract: "stores that are away for less than a lease cost no execution and no task", run: app(workerStoresAway)},
	{Name: "Worker/BackendAway", Contract: "while the backend is away a start is held, and its lease extended", run: app(workerBackendAway, once)},
	{Name: "Worker/LeaseLost", Contract: "a handler whose lease is lost is cancelled with the cause ErrLeaseLost", run: app(workerLeaseLost)},
	{Name: "Worker/Hung", Contract: "a handler that ignores its context keeps its slot, and its task goes on elsewhere", run: app(workerHung, chicory.Timeout(time.Second), chicory.MaxRetries(1), soon)},
	{Name: "Worker/HungOnce", Contract: "an at-most-once task whose handler hangs is lost", run: app(workerHungOnce, chicory.Timeout(time.Second), once)},
	{Name: "Worker/Takeover", Contract: "a thousand tasks of a dead worker are all taken over", run: app(workerTakeover)},
}

var shutdownCases = []Case{
	{Name: "Shutdown/GivesBack", Contract: "a stopping worker gives back at once what has not started, and lets the rest finish", run: app(shutdownGivesBack)},
	{Name: "Shutdown/Idle", Contract: "an idle worker stops at once", run: app(shutdownIdle)},
	{Name: "Shutdown/CutOff", Contract: "after the grace a handler is cancelled with the cause, and its attempt is not spent", run: app(shutdownCutOff, chicory.MaxRetries(0))},
	{Name: "Shutdown/CutOffOnce", Contract: "an at-most-once task that was cut off runs again only if its handler returned", run: app(shutdownCutOff, once, chicory.MaxRetries(0))},
	{Name: "Shutdown/HungOnce", Contract: "if it did not return, it is lost", run: app(shutdownHungOnce, once)},
	{Name: "Shutdown/Embedded", Contract: "a worker that stops leaves its app connected: producers go on", run: app(shutdownEmbedded)},
	{Name: "Shutdown/Race", Contract: "stopping during delivery, again and again, loses nothing", run: app(shutdownRace)},
}

var boundCases = []Case{
	{Name: "Bound/Concurrency", Contract: "concurrency is a hard bound, and is reached", run: app(boundConcurrency)},
	{Name: "Bound/Prefetch", Contract: "a worker holds at most Prefetch deliveries over all its queues, and another shares the rest", run: app(boundPrefetch)},
	{Name: "Bound/Queues", Contract: "a worker serves its queues by weight under one credit", run: app(boundQueues)},
	{Name: "Bound/Strict", Contract: "in strict order the first queue goes first", run: app(boundStrict)},
	{Name: "Bound/Priority", Contract: "a task of higher priority overtakes", run: app(boundPriority)},
	{Name: "Bound/Many", Contract: "many tasks at once all end, each once", run: app(boundMany)},
}

func workerLong(w *world) {
	id := w.send(1)
	w.start(one, nil, w.handler("t", sleeping(6*w.lease, nil)))
	w.start(one, nil, w.handler("t", sleeping(6*w.lease, nil))) // idle, and would take it
	w.end(id, driver.Success, 1, 0)
}

func workerSettleFails(w *world) {
	id := w.send(1)
	begin := time.Now()
	fails := 3
	w.start(one, func(op string) fault {
		if (op == "settle" || op == "apply") && fails > 0 {
			fails--
			return refused
		}
		return none
	}, w.handler("t", instant))
	w.reaches(id, driver.Success)
	w.expect(time.Since(begin) < w.lease/2 || !w.h.Bubble, "the write is tried again, not left to the lease: it took %v", time.Since(begin))
	w.end(id, driver.Success, 1, 0)
}

// awayFor is a plan of stores that are away from a to b after the first call.
func awayFor(a, b time.Duration, ops ...string) plan {
	begin := sync.OnceValue(time.Now)
	return func(op string) fault {
		since := time.Since(begin())
		if since < a || since > b {
			return none
		}
		for _, o := range ops {
			if o == op {
				return refused
			}
		}
		if len(ops) == 0 {
			return refused
		}
		return none
	}
}

func workerStoresAway(w *world) {
	var sent []string
	for range 20 {
		sent = append(sent, w.send(1))
	}
	var ops []string // all
	if w.info.Lease == driver.LeaseSession {
		ops = []string{"start", "apply", "settle", "extend"} // a receive that fails ends the session, and all leases
	}
	w.start(worker.Options{Concurrency: 2}, awayFor(w.sec, w.lease/3, ops...), w.handler("t", sleeping(w.sec/2, nil)))
	w.end(sent[0], driver.Success, 20, 0)
	for _, id := range sent {
		w.expect(w.until(func() bool { return w.stateOf(id) == driver.Success }), "%s is %s", id, w.stateOf(id))
	}
}

func workerBackendAway(w *world) {
	id := w.send(1)
	away := awayFor(0, 3*w.lease, "start", "apply", "get")
	w.start(one, away, w.handler("t", instant)).perhaps = true
	second := w.start(one, away, w.handler("t", instant))
	second.perhaps = true
	w.end(id, driver.Success, 1, 0)
	w.expect(w.faults() > 0, "neither worker has met the outage")
}

func workerLeaseLost(w *world) {
	id := w.send(1)
	causes := make(chan error, 2)
	var again atomic.Bool
	var stalls plan // where the lease is a session, it is lost without an extension
	if w.info.Lease == driver.LeaseTimed {
		stalls = on("extend", 1, late)
	}
	r := w.start(one, stalls, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		if again.Swap(true) {
			return 42, nil // where the lease is a session it may be the first to be back
		}
		select {
		case <-ctx.Done():
			causes <- context.Cause(ctx)
		case <-time.After(10 * w.lease):
			causes <- nil
		}
		return 0, errFails
	}))
	w.awaitStarts(1)
	if w.info.Lease == driver.LeaseSession {
		w.lose(r.broker.(*faultyBroker).Broker)
	}
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 2, 0)
	cause := <-causes
	w.expect(errors.Is(cause, chicory.ErrLeaseLost) || errors.Is(cause, driver.ErrLeaseLost), "got %v", cause)
}

func workerHung(w *world) {
	id := w.send(1)
	first := w.start(one, nil, w.handler("t", w.stubborn()))
	ok := w.until(func() bool { return first.worker.Health() != nil })
	if !ok {
		w.sleep(10 * time.Second)
	}
	err := first.worker.Health()
	w.expect(err != nil && strings.Contains(err.Error(), id), "the worker says which task hangs: got %v", err)
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 2, 0)
	w.end(w.send(1), driver.Success, 3, 0)
	w.expect(first.worker.Running() == 1, "the hung handler keeps its slot: %d run", first.worker.Running())
}

func workerHungOnce(w *world) {
	id := w.send(1)
	w.start(one, nil, w.handler("t", w.stubborn()))
	w.end(id, driver.DeadLettered, 1, 1)
	w.expect(w.recordOf(id).Error.Reason == driver.ReasonLost, "it may still be running: lost; got %+v", w.recordOf(id).Error)
}

func workerTakeover(w *world) {
	n := 1000
	if !w.h.Bubble {
		n = 200
	}
	if _, err := w.task(w.app(), "t").DelayMany(context.Background(), make([]int, n)); err != nil {
		w.Fatalf("delay many: %v", err)
	}
	first := w.start(worker.Options{Concurrency: 4, Prefetch: n}, nil, w.handler("t", sleeping(100*w.lease, nil)))
	w.awaitStarts(4)
	first.crash()
	w.start(worker.Options{Concurrency: 16}, nil, w.handler("t", instant))
	w.settleAll()
	total, _ := w.started()
	w.expect(w.live() == 0 && total == n+4, "%d starts, want %d", total, n+4)
}

func shutdownGivesBack(w *world) {
	sent := []string{w.send(1), w.send(1), w.send(1)}
	r := w.start(worker.Options{Concurrency: 1, Prefetch: 3}, nil, w.handler("t", sleeping(w.lease/3, nil)))
	w.awaitStarts(1)
	begin := time.Now()
	w.must(r.stop(), "stop")
	w.expect(time.Since(begin) <= w.lease/3+w.slack, "it waits for the running handler only: it took %v", time.Since(begin))
	ended := 0
	for _, id := range sent {
		if w.stateOf(id) == driver.Success {
			ended++
		}
	}
	w.expect(ended == 1, "the running one finished, the others did not start: %d ended", ended)
	s := w.worker()
	begin = time.Now()
	ds := w.receive(s, 2)
	w.expect(time.Since(begin) < w.lease/2+w.slack, "what has not started is back at once: after %v", time.Since(begin))
	for _, d := range ds {
		w.expect(d.Count == 1, "uncounted: %s has count %d", d.ID, d.Count)
	}
}

func shutdownIdle(w *world) {
	r := w.start(one, nil, w.handler("t", instant))
	w.sleep(w.lease / 3)
	begin := time.Now()
	w.must(r.stop(), "stop")
	w.expect(time.Since(begin) < 100*time.Millisecond || !w.h.Bubble && time.Since(begin) < w.slack, "it took %v", time.Since(begin))
}

func shutdownCutOff(w *world) {
	id := w.send(1)
	causes := make(chan error, 2)
	o := worker.Options{Concurrency: 1, ShutdownTimeout: w.sec}
	r := w.start(o, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return 0, ctx.Err()
	}))
	w.awaitStarts(1)
	w.must(r.stop(), "stop")
	w.expect(errors.Is(<-causes, chicory.ErrShutdown), "the handler learns the cause")
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 2, 0)
	w.expect(w.startsOf(id+"/0/1") == 2, "the attempt was not spent: got %v", w.starts)
}

func shutdownHungOnce(w *world) {
	id := w.send(1)
	r := w.start(worker.Options{Concurrency: 1, ShutdownTimeout: w.sec}, nil, w.handler("t", w.stubborn()))
	w.awaitStarts(1)
	begin := time.Now()
	w.must(r.stop(), "stop")
	w.expect(time.Since(begin) < 20*time.Second, "on time: it took %v", time.Since(begin))
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.DeadLettered, 1, 1)
	w.expect(w.recordOf(id).Error.Reason == driver.ReasonLost, "it may still be running: lost; got %+v", w.recordOf(id).Error)
}

func shutdownEmbedded(w *world) {
	r := w.start(one, nil, w.handler("t", instant))
	w.must(r.stop(), "stop")
	id, err := w.task(r.app, "t").Send(context.Background(), 1)
	w.must(err, "send after the worker stopped")
	w.start(one, nil, w.handler("t", instant))
	w.end(id, driver.Success, 1, 0)
}

func shutdownRace(w *world) {
	n := 12
	if w.h.Bubble {
		n = 60
	}
	var sent []string
	producer := w.app()
	for i := range n {
		r := w.start(worker.Options{Concurrency: 2}, nil, w.handler("t", sleeping(w.sec, nil)))
		for range 2 {
			id, err := w.task(producer, "t").Send(context.Background(), 1)
			w.must(err, "send")
			sent = append(sent, id)
		}
		w.sleep(time.Duration(i%5) * w.sec / 3)
		w.must(r.stop(), "stop")
	}
	w.start(worker.Options{Concurrency: 8}, nil, w.handler("t", instant))
	w.settleAll()
	total, most := w.started()
	w.expect(total == len(sent) && most == 1, "%d sent, %d starts, at most %d of one", len(sent), total, most)
	for _, id := range sent {
		w.expect(w.until(func() bool { return w.stateOf(id) == driver.Success }), "%s is %s", id, w.stateOf(id))
	}
}

// gauge measures how many handlers run at once.
type gauge struct {
	mu        sync.Mutex
	now, most int
}

func (g *gauge) around(h handler) handler {
	return func(ctx context.Context, n int) (int, error) {
		g.mu.Lock()
		g.now++
		g.most = max(g.most, g.now)
		g.mu.Unlock()
		defer func() { g.mu.Lock(); g.now--; g.mu.Unlock() }()
		return h(ctx, n)
	}
}

func boundConcurrency(w *world) {
	if _, err := w.task(w.app(), "t").DelayMany(context.Background(), make([]int, 40)); err != nil {
		w.Fatalf("delay many: %v", err)
	}
	var g gauge
	w.start(worker.Options{Concurrency: 4}, nil, w.handler("t", g.around(sleeping(w.sec, nil))))
	w.settleAll()
	total, _ := w.started()
	w.expect(total == 40 && g.most == 4, "%d ran, at most %d at once, want 4", total, g.most)
}

func boundPrefetch(w *world) {
	app := w.app()
	qs := []worker.Queue{{Name: q}, {Name: "b"}, {Name: "c"}}
	for _, name := range []string{q, "b", "c"} {
		for range 3 {
			_, err := w.task(app, "t").Send(context.Background(), 1, chicory.Queue(name))
			w.must(err, "send")
		}
	}
	o := worker.Options{Concurrency: 1, Prefetch: 1, Queues: qs}
	w.start(o, nil, w.handler("t", sleeping(100*w.lease, nil)))
	w.awaitStarts(1)
	w.sleep(w.lease / 2)
	w.expect(w.holding() == 1, "one free slot holds one delivery over all queues: got %d", w.holding())
	o.Concurrency, o.Prefetch = 8, 8
	w.start(o, nil, w.handler("t", instant))
	ok := w.awaitStarts(9)
	n, _ := w.started()
	w.expect(ok, "another worker gets the others: %d of 9 started", n)
}

// runOrder sends n tasks to each queue and returns the queues in the order in
// which one worker ran them.
func (w *world) runOrder(o worker.Options, n int) (order []string) {
	w.TB.Helper()
	app := w.app()
	for i := len(o.Queues) - 1; i >= 0; i-- {
		for range n {
			_, err := w.task(app, "t").Send(context.Background(), 1, chicory.Queue(o.Queues[i].Name))
			w.must(err, "send")
		}
	}
	done := make(chan struct{})
	w.start(o, nil, w.handler("t", func(ctx context.Context, _ int) (int, error) {
		info, _ := chicory.TaskFrom(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		if order = append(order, info.Queue); len(order) == n*len(o.Queues) {
			close(done)
		}
		return 0, nil
	}))
	select {
	case <-done:
	case <-time.After(w.patience()):
		w.Errorf("not all tasks ran")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), order...)
}

func boundQueues(w *world) {
	order := w.runOrder(worker.Options{Concurrency: 1, Prefetch: 1, Queues: []worker.Queue{{Name: "light"}, {Name: "heavy", Weight: 5}}}, 60)
	if len(order) < 60 {
		w.Fatalf("%d tasks ran", len(order))
	}
	heavy := strings.Count(strings.Join(order[:60], " "), "heavy")
	w.expect(heavy >= 42 && heavy <= 57, "weights 5:1: %d of the first 60 were of the heavy queue", heavy)
}

func boundStrict(w *world) {
	order := w.runOrder(worker.Options{Concurrency: 1, Prefetch: 1, Strict: true, Queues: []worker.Queue{{Name: "first"}, {Name: "last"}}}, 20)
	w.expect(strings.Count(strings.Join(order[:min(20, len(order))], " "), "first") == 20, "got %v", order)
}

func boundPriority(w *world) {
	app := w.app()
	var want []string
	for _, p := range []int{0, 9, 0, 9} {
		id, err := w.task(app, "t").Send(context.Background(), 1, chicory.Priority(p), chicory.ID(fmt.Sprintf("p%d-%d", p, len(want))))
		w.must(err, "send")
		want = append(want, id)
	}
	w.start(worker.Options{Concurrency: 1, Prefetch: 1}, nil, w.handler("t", instant))
	w.settleAll()
	w.mu.Lock()
	defer w.mu.Unlock()
	ok := len(w.order) == 4 && strings.HasPrefix(w.order[0], "p9") && strings.HasPrefix(w.order[1], "p9")
	w.expect(ok, "the order was %v", w.order)
}

func boundMany(w *world) {
	n := 2000
	if !w.h.Bubble {
		n = 500
	}
	ins := make([]int, n)
	for i := range ins {
		ins[i] = i
	}
	for range 3 {
		w.start(worker.Options{Concurrency: 8}, nil, w.handler("t", func(_ context.Context, n int) (int, error) { return 2 * n, nil }))
	}
	rs, err := w.task(w.app(), "t").DelayMany(context.Background(), ins)
	w.must(err, "delay many")
	vs, err := chicory.GetAll(context.Background(), rs)
	w.must(err, "get all")
	for i, v := range vs {
		w.expect(v == 2*i, "result %d is %d", i, v)
	}
	total, most := w.started()
	w.expect(total == n && most == 1, "%d starts, at most %d of one", total, most)
}
