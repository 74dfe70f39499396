package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/worker"
)

// random runs random schedules of many tasks on several workers.
func random(e *exploration) {
	n := *randomFlag
	if n == 0 && e.bubble() {
		n = 12
	}
	n = max(n, 1)
	base := rand.Uint64()
	if *seedFlag != 0 {
		base, n = *seedFlag, 1
	}
	for i := range uint64(n) {
		e.chance(base + i)
		if e.failed() {
			e.out.lines = append(e.out.lines, fmt.Sprintf("repeat with: -args -conformance.seed=%d", base+i))
			return
		}
	}
	if e.met == 0 && n >= 10 {
		e.out = failure("of the faults of %d schedules none met a call", n)
	}
}

const randomTasks = 12

var randomScenarios = []scenario{
	{}, {fails: 1, retries: 1}, {fails: 9, retries: 1}, {fails: 9, retries: 1, replay: true},
	{cancel: true}, {fails: 1, retries: 1, ttl: time.Second}, {fails: 9, ttl: time.Second},
}

// A sent task is one that its producer was told is stored, unless it is unsure.
type sent struct {
	scenario
	unsure, cancelled bool
}

// atRandom is a plan in which one call in n fails.
func atRandom(r *rand.Rand, n int) plan {
	p := rand.New(rand.NewPCG(r.Uint64(), 2))
	return func(string) fault {
		if p.IntN(n) > 0 {
			return none
		}
		return fault(1 + p.IntN(int(itemRefused)))
	}
}

// chance runs the schedule of a seed.
func (e *exploration) chance(seed uint64) {
	e.run(false, []chicory.TaskOption{soon}, fmt.Sprint("seed ", seed), func(w *world) {
		r := rand.New(rand.NewPCG(seed, 1))
		tasks := w.sendAll(r)
		h := w.handler("t", func(ctx context.Context, fails int) (int, error) {
			var err error
			if info, _ := chicory.TaskFrom(ctx); info.Epoch == 0 && info.Attempt <= fails {
				err = errFails
			}
			return sleeping(w.sec, err)(ctx, 0)
		})
		workers := 4
		for range workers {
			w.start(worker.Options{Concurrency: 1 + r.IntN(4), MaxDeliveries: 50}, atRandom(r, 20), h)
			w.sleep(time.Duration(r.IntN(20)) * w.sec)
		}
		w.sleep(3 * w.lease)
		w.start(worker.Options{Concurrency: 4, MaxDeliveries: 50}, nil, h)
		w.rest()
		w.replaySome(r, tasks)
		w.judgeAll(tasks)
		e.mu.Lock()
		e.met += w.faults()
		e.mu.Unlock()
	})
}

// sendAll sends tasks at random from producers whose calls fail at random.
func (w *world) sendAll(r *rand.Rand) map[string]*sent {
	w.TB.Helper()
	tasks := map[string]*sent{}
	operator := w.app()
	producer, c := w.process("producer", atRandom(r, 20))
	for i := range randomTasks {
		if c.crashed() {
			producer, c = w.process("producer", atRandom(r, 20))
		}
		t := &sent{scenario: randomScenarios[r.IntN(len(randomScenarios))]}
		t.once = r.IntN(2) == 0
		id := fmt.Sprint("task-", i)
		opts := []chicory.CallOption{chicory.ID(id), chicory.MaxRetries(t.retries),
			chicory.After(time.Duration(r.IntN(3)) * w.sec), chicory.Priority(r.IntN(10))}
		if t.once {
			opts = append(opts, chicory.AtMostOnce())
		}
		if t.ttl > 0 {
			opts = append(opts, chicory.ResultTTL(t.ttl))
		}
		_, err := w.task(producer, "t").Send(context.Background(), t.fails, opts...)
		t.unsure = err != nil
		if t.cancel && !t.unsure && !w.bare {
			w.must(operator.Cancel(context.Background(), id), "cancel")
			t.cancelled = true
		}
		tasks[id] = t
	}
	return tasks
}

// replaySome replays the dead letters of tasks that are to be replayed, first by
// an operator whose calls fail at random.
func (w *world) replaySome(r *rand.Rand, tasks map[string]*sent) {
	w.TB.Helper()
	faulty, _ := w.process("operator", atRandom(r, 5))
	for _, operator := range []*chicory.App{faulty, w.app()} {
		var ids []string
		for _, l := range w.deadOf(w.watch, q) {
			if t := tasks[l.ID]; t != nil && t.replay && l.Epoch == 0 && !(w.bare && t.once) {
				ids = append(ids, l.ID)
			}
		}
		if len(ids) > 0 {
			operator.DeadLetters(q).Replay(context.Background(), ids...)
			w.rest()
		}
	}
}

// judgeAll holds the end of many tasks against the invariants.
func (w *world) judgeAll(tasks map[string]*sent) {
	w.TB.Helper()
	w.expect(w.live() == 0, "I1: something is stuck though faults have stopped")
	reasons := map[string]string{}
	for _, l := range w.deadOf(w.watch, q) {
		_, twice := reasons[l.ID]
		w.expect(!twice, "I7: %s is among the dead letters twice", l.ID)
		reasons[l.ID] = l.Dead.Reason
	}
	for id, t := range tasks {
		for epoch := range 3 {
			for attempt := 1; t.once && attempt <= t.retries+1; attempt++ {
				n := w.startsOf(fmt.Sprintf("%s/%d/%d", id, epoch, attempt))
				w.expect(n <= 1, "I2: attempt %d of at-most-once %s started %d times in epoch %d", attempt, id, n, epoch)
			}
		}
		if !t.unsure {
			w.judgeOne(id, t, reasons[id])
		}
	}
}

// judgeOne holds the end of a task, which died for reason if any, against the
// invariants.
func (w *world) judgeOne(id string, t *sent, reason string) {
	w.TB.Helper()
	lost := reason == driver.ReasonLost
	w.expect(!lost || t.once, "%s is at-least-once, and lost", id)
	replayed := t.replay && !(w.bare && t.once)
	want := driver.Success
	switch exhausted := t.fails > t.retries && !replayed; {
	case t.cancelled:
		w.expect(w.startsOf(id+"/0/1") == 0 && reason == "", "I8: %s was cancelled before its start, and started or died: %q", id, reason)
		want = driver.Cancelled
	case lost:
		want = driver.DeadLettered
	default:
		w.expect((reason != "") == exhausted, "I7: exhausted means dead-lettered, and nothing else does: %s: %q", id, reason)
		w.expect(!replayed || w.startsOf(id+"/1/1")+w.startsOf(id+"/2/1") > 0, "I7: %s was replayed, and did not start in its new epoch", id)
		if exhausted {
			want = driver.DeadLettered
		}
	}
	if w.bare {
		return
	}
	if state := w.stateOf(id); state != "" || t.ttl == 0 {
		w.expect(state == want, "I5: %s is %q, want %s", id, state, want)
	}
}
