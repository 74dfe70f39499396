package contract

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/worker"
)

// A scenario is the life of one task: what its handler does, attempt by
// attempt, and in which mode.
type scenario struct {
	name    string
	once    bool
	fails   int // attempts that fail before one succeeds
	retries int
}

var scenarios = []scenario{
	{"success", false, 0, 1},
	{"retry", false, 1, 1},
	{"dead", false, 9, 1},
	{"at-most-once success", true, 0, 1},
	{"at-most-once retry", true, 1, 1},
	{"at-most-once dead", true, 9, 1},
}

// TestEveryFaultAtEveryCall runs one task on a worker whose nth call has a
// fault, for every n and every fault, beside a second worker that is healthy.
func TestEveryFaultAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, p := range []pairing{same, separate, amqpLike, bare, amqpBare} {
		for _, sc := range scenarios {
			t.Run(string(p)+"/"+sc.name, func(t *testing.T) {
				t.Parallel()
				calls := explore(t, p, sc, -1, none, -1, none)
				runs := 0
				for n := range calls {
					for f := crashBefore; f <= stalled; f++ {
						explore(t, p, sc, n, f, -1, none)
						runs++
						if t.Failed() {
							return
						}
						for m := n + 1; m < calls+4; m++ {
							for g := crashBefore; g <= stalled; g++ {
								explore(t, p, sc, n, f, m, g)
								runs++
								if t.Failed() {
									return
								}
							}
						}
					}
				}
				t.Logf("%d calls, %d schedules", calls, runs)
			})
		}
	}
}

// explore runs sc with fault f at the nth step of the first worker and g at
// its mth, and returns how many steps there were.
func explore(t *testing.T, p pairing, sc scenario, n int, f fault, m int, g fault) (steps int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts := []chicory.TaskOption{chicory.MaxRetries(sc.retries), chicory.Fixed(time.Second)}
		if sc.once {
			opts = append(opts, chicory.AtMostOnce())
		}
		w := newWorld(t, p, opts...)
		producer, _ := w.process(nil)
		id := must(w.task(producer, "t").Send(t.Context(), 1, chicory.ID("task")))
		h := w.handler("t", func(ctx context.Context, _ int) (int, error) {
			if info, _ := chicory.TaskFrom(ctx); info.Attempt <= sc.fails {
				return 0, errFails
			}
			return 42, nil
		})
		first := w.start(worker.Options{Concurrency: 1}, func(_ int, op string, _ any) fault {
			if !step(op) {
				return none
			}
			steps++
			switch steps - 1 {
			case n:
				return f
			case m:
				return g
			}
			return none
		}, h)
		if f == none {
			w.settle() // alone, to count its steps
			synctest.Wait()
		}
		second := w.start(worker.Options{Concurrency: 1}, nil, h)
		w.rest()
		synctest.Wait()
		faults := 0
		for _, at := range []int{n, m} {
			if at >= 0 && at < steps {
				faults++
			}
		}
		w.judge(sc, id, second.app, faults)
		if t.Failed() {
			t.Logf("%s, %s: fault %q at step %d, %q at step %d; calls of the first worker: %v", p, sc.name, f, n, g, m, first.log())
		}
	})
	return steps
}

// judge holds the end of a scenario against the invariants.
func (w *world) judge(sc scenario, id string, app *chicory.App, faults int) {
	w.t.Helper()
	total, most := w.started()
	dead := w.dead(app)
	attempts := min(sc.fails, sc.retries) + 1
	w.want(w.live() == 0, "I1: nothing is stuck once faults stop; %+v", w.stats())
	w.want(len(dead) <= 1, "I7: a task is among the dead letters once per epoch; got %d", len(dead))
	if sc.once {
		w.want(most <= 1, "I2: an at-most-once task starts at most once per attempt; got %v", w.starts)
	} else {
		w.want(most <= 1+faults, "I3: no more starts than faults explain; got %v with %d faults", w.starts, faults)
	}
	w.want(faults > 0 || total == attempts, "I3: without faults every attempt starts once; got %v", w.starts)
	lost := len(dead) == 1 && dead[0].Reason == driver.ReasonLost
	w.want(!lost || sc.once && faults > 0, "only an at-most-once task can be lost, and only by a fault; got %+v", dead)
	exhausted := sc.fails > sc.retries
	w.want(lost || (len(dead) == 1) == exhausted, "I7: exhausted means dead-lettered, and nothing else does; got %+v", dead)
	if !w.pairing.hasRecords() {
		w.want(lost || total >= attempts, "I1: nothing vanishes; %v", w.starts)
		return
	}
	r := w.record(id)
	want := driver.Success
	if lost || exhausted {
		want = driver.DeadLettered
	}
	w.want(r != nil && r.State == want, "the record says how it ended: want %s, got %+v", want, r)
	w.want(r == nil || r.State != driver.Success || string(r.Body) == "42", "the result is there; got %+v", r)
}
