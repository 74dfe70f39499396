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
}

const randomTasks = 12

var randomScenarios = []scenario{
	{}, {fails: 1, retries: 1}, {fails: 9, retries: 1}, {once: true}, {once: true, fails: 1, retries: 1}, {once: true, fails: 9, retries: 1},
}

// chance runs the schedule of a seed.
func (e *exploration) chance(seed uint64) {
	e.run(false, []chicory.TaskOption{soon}, fmt.Sprint("seed ", seed), func(w *world) {
		r := rand.New(rand.NewPCG(seed, 1))
		producer := w.app()
		scs := map[string]scenario{}
		for i := range randomTasks {
			sc := randomScenarios[r.IntN(len(randomScenarios))]
			opts := []chicory.CallOption{chicory.ID(fmt.Sprint("task-", i)), chicory.MaxRetries(sc.retries),
				chicory.After(time.Duration(r.IntN(3)) * w.sec), chicory.Priority(r.IntN(10))}
			if sc.once {
				opts = append(opts, chicory.AtMostOnce())
			}
			id, err := w.task(producer, "t").Send(context.Background(), sc.fails, opts...)
			w.must(err, "send")
			scs[id] = sc
		}
		h := w.handler("t", func(ctx context.Context, fails int) (int, error) {
			var err error
			if info, _ := chicory.TaskFrom(ctx); info.Attempt <= fails {
				err = errFails
			}
			return sleeping(w.sec, err)(ctx, 0)
		})
		workers := 4
		for range workers {
			p := rand.New(rand.NewPCG(r.Uint64(), 2))
			w.start(worker.Options{Concurrency: 1 + r.IntN(4), MaxDeliveries: 50}, func(op string) fault {
				if p.IntN(20) > 0 {
					return none
				}
				return fault(1 + p.IntN(int(itemRefused)))
			}, h)
			w.sleep(time.Duration(r.IntN(20)) * w.sec)
		}
		w.sleep(3 * w.lease)
		w.start(worker.Options{Concurrency: 4, MaxDeliveries: 50}, nil, h)
		w.rest()
		w.judgeAll(scs)
	})
}

// judgeAll holds the end of many tasks against the invariants.
func (w *world) judgeAll(scs map[string]scenario) {
	w.TB.Helper()
	w.expect(w.live() == 0, "I1: something is stuck though faults have stopped")
	reasons := map[string]string{}
	for _, l := range w.deadOf(w.watch, q) {
		_, twice := reasons[l.ID]
		w.expect(!twice, "I7: %s is among the dead letters twice", l.ID)
		reasons[l.ID] = l.Dead.Reason
	}
	for id, sc := range scs {
		reason, died := reasons[id]
		lost := reason == driver.ReasonLost
		w.expect(!lost || sc.once, "%s is at-least-once, and lost", id)
		w.expect(lost || died == (sc.fails > sc.retries), "I7: exhausted means dead-lettered, and nothing else does: %s: %q", id, reason)
		want := driver.Success
		if died {
			want = driver.DeadLettered
		}
		if !w.bare {
			w.expect(w.stateOf(id) == want, "I5: %s is %q, want %s", id, w.stateOf(id), want)
		}
		for attempt := 1; sc.once && attempt <= sc.retries+1; attempt++ {
			n := w.startsOf(fmt.Sprintf("%s/0/%d", id, attempt))
			w.expect(n <= 1, "I2: attempt %d of at-most-once %s started %d times", attempt, id, n)
		}
	}
}
