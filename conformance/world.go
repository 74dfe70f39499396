package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/worker"
)

// A world is the stores of a case, the processes on them, and what happened.
type world struct {
	*C
	bare bool // no backend
	opts []chicory.TaskOption
	info driver.BrokerInfo
	// covered: the broker covers the backend, so verdict and settlement are
	// one step.
	covered bool
	sec     time.Duration // a short while: a thirtieth of a lease
	// resultTTL is that of apps opened later; 0 is the default.
	resultTTL time.Duration
	began     time.Time
	watch     driver.Broker  // of the world itself, without faults
	back      driver.Backend // likewise; nil: none

	mu      sync.Mutex
	starts  map[string]int // "id/epoch/attempt" → starts
	order   []string
	held    map[*client]int
	acted   time.Time // of the last call
	settled time.Time // of the last settlement
	trace   []string
	names   int
	all     []*client
}

func newWorld(c *C, bare bool, opts ...chicory.TaskOption) *world {
	c.TB.Helper()
	if c.lease < time.Second {
		c.lease = time.Second // the shortest a worker takes
	}
	w := &world{C: c, bare: bare || c.h.OpenBackend == nil, opts: append([]chicory.TaskOption{chicory.Queue(q)}, opts...),
		sec: c.lease / 30, began: time.Now(), starts: map[string]int{}, held: map[*client]int{}, acted: time.Now()}
	w.watch = c.broker()
	w.info = w.watch.Info()
	if !w.bare {
		w.back = c.h.OpenBackend(c.TB, namespace, w.watch)
		c.Cleanup(func() { w.back.Close(context.Background()) })
		cover, ok := driver.As[driver.Coverer](w.watch)
		w.covered = ok && cover.Covers(w.back)
	}
	return w
}

// tell adds a call to the trace.
func (w *world) tell(who, op, what string, f fault, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acted = time.Now()
	if op == "settle" {
		w.settled = w.acted
	}
	line := fmt.Sprintf("%8.3fs  %-9s %-8s %s", time.Since(w.began).Seconds(), who, op, what)
	if f != none {
		line += "  ← " + strings.ToUpper(f.String())
	}
	if err != nil {
		line += "  = " + err.Error()
	}
	w.trace = append(w.trace, line)
}

// story returns the calls of all processes in their order.
func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.trace); n > 150 {
		return fmt.Sprintf("… %d earlier calls\n%s", n-150, strings.Join(w.trace[n-150:], "\n"))
	}
	return strings.Join(w.trace, "\n")
}

// faults returns how many faults have met a call.
func (w *world) faults() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.all {
		c.mu.Lock()
		n += c.faults
		c.mu.Unlock()
	}
	return n
}

// proved fails the case if a fault that it planned met no call.
func (w *world) proved() {
	w.TB.Helper()
	w.mu.Lock()
	all := w.all
	w.mu.Unlock()
	for _, c := range all {
		if c.plan != nil && !c.perhaps && !c.met() {
			w.Errorf("the fault planned for %s met no call, so this proves nothing", c.name)
		}
	}
}

func (w *world) hold(c *client, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held[c] += n
}

// holding returns how many deliveries processes that live hold.
func (w *world) holding() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c, k := range w.held {
		if !c.crashed() {
			n += k
		}
	}
	return n
}

// process returns an app of a new process; p decides the faults of its calls.
func (w *world) process(name string, p plan) (*chicory.App, *client) {
	w.TB.Helper()
	b := w.h.OpenBroker(w.TB, namespace)
	c := &client{w: w, name: name, plan: p, dead: make(chan struct{}), over: make(chan struct{})}
	c.broker = &faultyBroker{b, c}
	w.mu.Lock()
	w.all = append(w.all, c)
	w.mu.Unlock()
	var be driver.Backend
	if !w.bare {
		be = w.h.OpenBackend(w.TB, namespace, b)
		c.backend = &faultyBackend{be, c}
	}
	c.kill = func() {
		w.kill(b)
		if be != nil {
			w.kill(be)
		}
	}
	w.Cleanup(func() {
		b.Close(context.Background())
		if be != nil {
			be.Close(context.Background())
		}
	})
	cfg := chicory.Config{Namespace: namespace, Queue: q, ResultTTL: w.resultTTL,
		ResultSweep: chicory.NoSweep, Logger: slog.New(slog.DiscardHandler)}
	app, err := chicory.NewWith(c.broker, c.backend, cfg)
	w.must(err, "new app")
	w.must(app.Connect(context.Background()), "connect")
	w.Cleanup(func() {
		close(c.over)
		app.Close()
	})
	return app, c
}

// app returns an app without faults.
func (w *world) app() *chicory.App {
	w.TB.Helper()
	app, _ := w.process("client", nil)
	return app
}

// A running worker, and the app it runs in.
type running struct {
	*client
	app    *chicory.App
	worker *worker.Worker
	stop   func() error
}

// start runs a worker in a process of its own until the world ends.
func (w *world) start(o worker.Options, p plan, register func(*chicory.App)) *running {
	w.TB.Helper()
	w.mu.Lock()
	w.names++
	name := fmt.Sprint("worker-", w.names)
	w.mu.Unlock()
	app, c := w.process(name, p)
	register(app)
	o.Name, o.Lease = name, w.lease
	if o.ShutdownTimeout == 0 {
		o.ShutdownTimeout = w.lease
	}
	wk := worker.New(app, o)
	stop, err := wk.Start(context.Background())
	w.must(err, "start the worker")
	w.Cleanup(func() { stop() })
	return &running{c, app, wk, stop}
}

// startCutOff runs a worker that loses what it takes after a lease, although it
// lives: it cannot extend or, where the lease is a session, is cut off.
func (w *world) startCutOff(o worker.Options, p plan, register func(*chicory.App)) *running {
	w.TB.Helper()
	if w.info.Lease == driver.LeaseTimed {
		return w.start(o, cutOff(p), register)
	}
	if w.h.Cut == nil {
		w.Fatal("the harness must be able to Cut: the lease is a session")
	}
	r := w.start(o, p, register)
	b := r.broker.(*faultyBroker).Broker
	go func() {
		w.sleep(w.lease)
		w.h.Cut(w.TB, b)
	}()
	return r
}

type handler = func(ctx context.Context, n int) (int, error)

// handler registers a handler that counts its starts.
func (w *world) handler(name string, h handler) func(*chicory.App) {
	return func(app *chicory.App) {
		chicory.Define[int, int](name, w.opts...).Handle(app, func(ctx context.Context, n int) (int, error) {
			w.count(ctx)
			return h(ctx, n)
		})
	}
}

func (w *world) count(ctx context.Context) {
	info, _ := chicory.TaskFrom(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starts[fmt.Sprintf("%s/%d/%d", info.ID, info.Epoch, info.Attempt)]++
	w.order = append(w.order, info.ID)
	w.acted = time.Now()
	w.trace = append(w.trace, fmt.Sprintf("%8.3fs  %-9s runs     %s, epoch %d, attempt %d", time.Since(w.began).Seconds(), "", info.ID, info.Epoch, info.Attempt))
}

// started returns all starts, and the most of any one attempt.
func (w *world) started() (total, most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range maps.Values(w.starts) {
		total += n
		most = max(most, n)
	}
	return total, most
}

func (w *world) startsOf(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.starts[key]
}

// task is a task to send from app.
func (w *world) task(app *chicory.App, name string) *chicory.Task[int, int] {
	return chicory.Define[int, int](name, w.opts...).On(app)
}

// send enqueues task t from a process that is gone afterwards.
func (w *world) send(n int, o ...chicory.CallOption) string {
	w.TB.Helper()
	id, err := w.task(w.app(), "t").Send(context.Background(), n, o...)
	w.must(err, "send")
	return id
}

// live returns how many messages are left that are no dead letters. Where the
// broker does not count, it is one until nothing has happened for long.
func (w *world) live() int {
	w.TB.Helper()
	if i, ok := driver.As[driver.Inspector](w.watch); ok && w.info.Lease == driver.LeaseTimed {
		s := w.inspect(i, q)
		return s.Ready + s.Leased + s.Delayed
	}
	w.mu.Lock()
	quiet := time.Since(w.acted)
	w.mu.Unlock()
	if quiet < 10*w.lease { // longer than any delay of a case
		return 1
	}
	return 0
}

func (w *world) recordOf(id string) *driver.Record {
	w.TB.Helper()
	if w.bare {
		return nil
	}
	return w.C.record(w.back, id)
}

func (w *world) stateOf(id string) driver.State {
	w.TB.Helper()
	if r := w.recordOf(id); r != nil {
		return r.State
	}
	return ""
}

// wait lets everything happen that is under way.
func (w *world) wait() {
	if w.h.Bubble {
		synctest.Wait()
	} else {
		w.sleep(w.slack / 4)
	}
}

// until waits for ok, for a while, and reports whether it came true.
func (w *world) until(ok func() bool) bool {
	for range 400 {
		if ok() {
			return true
		}
		w.sleep(max(w.sec, 5*time.Millisecond))
	}
	return ok()
}

// settleAll waits until no message is left, or for long.
func (w *world) settleAll() {
	w.TB.Helper()
	w.settleUntil(nil)
}

// settleUntil is settleAll until end is closed.
func (w *world) settleUntil(ended <-chan struct{}) {
	w.TB.Helper()
	pause := max(w.sec, 20*time.Millisecond)
	limit := 120 * w.lease
	if !w.h.Bubble {
		limit = 30*w.lease + 10*time.Second
	}
	for end := time.Now().Add(limit); time.Now().Before(end) && w.live() > 0; {
		if closed(ended) {
			return
		}
		w.sleep(pause)
	}
	w.sleep(pause) // what is under way in the workers
	w.wait()
}

// awaitStarts waits until n handlers have started, and reports whether they did.
func (w *world) awaitStarts(n int) bool {
	return w.until(func() bool { total, _ := w.started(); return total == n })
}

// dieRunning starts a worker whose process dies while it runs task t.
func (w *world) dieRunning() {
	w.TB.Helper()
	r := w.start(one, nil, w.handler("t", sleeping(100*w.lease, nil)))
	w.awaitStarts(1)
	r.crash()
}

// rest waits until no message has been left for longer than leases last: a
// worker that was stalled may publish late.
func (w *world) rest() {
	w.TB.Helper()
	pause := max(w.sec, 20*time.Millisecond)
	for end := time.Now().Add(3 * w.lease); time.Now().Before(end); {
		if w.live() > 0 {
			w.settleAll()
			end = time.Now().Add(3 * w.lease)
			if w.live() > 0 {
				return // stuck: the judge says so
			}
		}
		w.sleep(pause)
	}
	w.wait()
}

// reaches waits, for a few leases, until the record of id is in state.
func (w *world) reaches(id string, state driver.State) {
	w.TB.Helper()
	pause := max(w.sec/4, 5*time.Millisecond)
	for end := time.Now().Add(3*w.lease + 2*time.Second); time.Now().Before(end) && w.stateOf(id) != state; {
		w.sleep(pause)
	}
	w.expect(w.stateOf(id) == state, "it is %q, want %s", w.stateOf(id), state)
}

// end checks the state, the number of starts and of dead letters.
func (w *world) end(id string, state driver.State, starts, dead int) {
	w.TB.Helper()
	w.settleAll()
	if !w.bare {
		w.until(func() bool { return w.stateOf(id) == state })
		w.expect(w.stateOf(id) == state, "the state is %q, want %s", w.stateOf(id), state)
	}
	total, _ := w.started()
	w.expect(w.live() == 0, "something is left in the queue")
	w.expect(total == starts, "the handler started %d times, want %d: %v", total, starts, w.starts)
	ls := w.deadOf(w.watch, q)
	w.expect(len(ls) == dead, "%d dead letters, want %d", len(ls), dead)
}
