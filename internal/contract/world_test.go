package contract

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	lease     = 30 * time.Second
	queue     = "work"
	namespace = "test"
)

// A pairing is how broker and backend belong together.
type pairing string

const (
	same     pairing = "same store"
	separate pairing = "separate stores"
	amqpLike pairing = "publish first"
	bare     pairing = "no backend"
	amqpBare pairing = "publish first, no backend"
)

// hasRecords reports whether tasks have records.
func (p pairing) hasRecords() bool { return p != bare && p != amqpBare }

// publishesFirst reports whether the broker behaves as one on RabbitMQ.
func (p pairing) publishesFirst() bool { return p == amqpLike || p == amqpBare }

// A world is the stores and what happened on them. It lives in one bubble.
type world struct {
	t       *testing.T
	pairing pairing
	broker  *memory.Store
	backend *memory.Store
	pf      *publishFirstState
	opts    []chicory.TaskOption // of every task

	mu     sync.Mutex
	starts map[string]int // "id/epoch/attempt" → starts
	order  []string
}

func newWorld(t *testing.T, p pairing, opts ...chicory.TaskOption) *world {
	w := &world{t: t, pairing: p, broker: memory.New(), pf: &publishFirstState{copies: map[string]string{}},
		starts: map[string]int{}, opts: append([]chicory.TaskOption{chicory.Queue(queue)}, opts...)}
	w.backend = w.broker
	if p != same {
		w.backend = memory.New()
	}
	return w
}

// process returns an app of a new process. Plan decides the faults of its
// calls; nil is none.
func (w *world) process(plan func(n int, op string, arg any) fault) (*chicory.App, *client) {
	w.t.Helper()
	c := newClient(plan)
	b := w.broker.Broker(namespace)
	c.broker = &faultBroker{b, c}
	if w.pairing.publishesFirst() {
		c.broker = &publishFirst{c.broker, w.pf}
	}
	w.t.Cleanup(func() { b.Close(context.Background()) })
	if w.pairing.hasRecords() {
		be := w.backend.Backend(namespace)
		c.backend = &faultBackend{be, c}
		w.t.Cleanup(func() { be.Close(context.Background()) })
	}
	app, err := chicory.NewWith(c.broker, c.backend, chicory.Config{Namespace: namespace, Queue: queue,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := app.Connect(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { app.Close() })
	return app, c
}

// A running worker, and the app it runs in.
type running struct {
	*client
	app    *chicory.App
	worker *worker.Worker
	stop   func() error
}

// start runs a worker in a process of its own until the world ends.
func (w *world) start(o worker.Options, plan func(int, string, any) fault, register func(*chicory.App)) *running {
	w.t.Helper()
	app, c := w.process(plan)
	register(app)
	wk := worker.New(app, o)
	stop, err := wk.Start(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { stop() })
	return &running{c, app, wk, stop}
}

// handler registers a handler that counts its starts.
func (w *world) handler(name string, h func(ctx context.Context, n int) (int, error)) func(*chicory.App) {
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

// task is a task to send from app.
func (w *world) task(app *chicory.App, name string) *chicory.Task[int, int] {
	return chicory.Define[int, int](name, w.opts...).On(app)
}

// stats returns the counts of the queue, by the store's own account.
func (w *world) stats() driver.QueueStats {
	w.t.Helper()
	b := w.broker.Broker(namespace)
	defer b.Close(context.Background())
	qs, err := b.Inspect(context.Background(), []string{queue})
	if err != nil {
		w.t.Fatal(err)
	}
	return qs[0]
}

// live returns the messages that are not dead letters.
func (w *world) live() int {
	s := w.stats()
	return s.Ready + s.Leased + s.Delayed
}

// record returns the record of id, nil if there is none.
func (w *world) record(id string) *driver.Record {
	w.t.Helper()
	b := w.backend.Backend(namespace)
	defer b.Close(context.Background())
	rs, err := b.Get(context.Background(), []string{id})
	if err != nil {
		w.t.Fatal(err)
	}
	return rs[0]
}

func (w *world) state(id string) driver.State {
	if r := w.record(id); r != nil {
		return r.State
	}
	return ""
}

// dead returns the dead letters, as app sees them.
func (w *world) dead(app *chicory.App) (ls []*chicory.DeadLetter) {
	w.t.Helper()
	for l, err := range app.DeadLetters(queue).All(context.Background()) {
		if err != nil {
			w.t.Fatal(err)
		}
		ls = append(ls, l)
	}
	return ls
}

// settle waits, in virtual time, until no message is left, or for an hour.
func (w *world) settle() {
	for range 3600 {
		if w.live() == 0 {
			time.Sleep(time.Second) // what is under way in the workers
			return
		}
		time.Sleep(time.Second)
	}
}

// rest waits until no message has been left for longer than leases last: a
// worker that was stalled may publish late.
func (w *world) rest() {
	for quiet := 0; quiet < int(3*lease/time.Second); quiet++ {
		if w.live() > 0 {
			w.settle()
			quiet = 0
		}
		time.Sleep(time.Second)
	}
}

// want fails the test with the sentence of the contract that does not hold.
func (w *world) want(ok bool, sentence string, args ...any) {
	w.t.Helper()
	if !ok {
		w.t.Errorf("%s: %s", w.pairing, fmt.Sprintf(sentence, args...))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var errFails = errors.New("fails")

// on returns a plan with one fault: at the nth call, from 1, of op.
func on(op string, nth int, f fault) func(int, string, any) fault {
	return func(_ int, got string, _ any) fault {
		if got != op {
			return none
		}
		if nth--; nth == 0 {
			return f
		}
		return none
	}
}

// cutOff is the plan of a worker whose leases run out: it cannot extend.
func cutOff(rest func(int, string, any) fault) func(int, string, any) fault {
	return func(n int, op string, arg any) fault {
		if op == "extend" {
			return refused
		}
		if rest != nil {
			return rest(n, op, arg)
		}
		return none
	}
}

// step reports whether a call moves a task; heartbeats do not.
func step(op string) bool {
	return slices.Contains([]string{"publish", "receive", "start", "apply", "settle", "get"}, op)
}
