package contract

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/worker"
)

var (
	schedules = flag.Int("schedules", 60, "random schedules to run")
	seed      = flag.Uint64("seed", 0, "run this one schedule")
)

// TestRandomSchedules runs many tasks on several workers whose calls fail at
// random. A failure prints the seed that repeats it.
func TestRandomSchedules(t *testing.T) {
	t.Parallel()
	if *seed != 0 {
		random(t, *seed)
		return
	}
	base := rand.Uint64()
	for i := range *schedules {
		if random(t, base+uint64(i)); t.Failed() {
			t.Fatalf("repeat with: go test ./internal/contract -run RandomSchedules -seed=%d", base+uint64(i))
		}
	}
}

const randomTasks = 24

func random(t *testing.T, seed uint64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, []pairing{same, separate, amqpLike}[r.IntN(3)], chicory.Fixed(time.Second))
		producer, _ := w.process(nil)
		scs := map[string]scenario{}
		for i := range randomTasks {
			sc := scenarios[r.IntN(len(scenarios))]
			opts := []chicory.CallOption{chicory.ID(fmt.Sprint("task-", i)), chicory.MaxRetries(sc.retries),
				chicory.After(time.Duration(r.IntN(3)) * time.Second), chicory.Priority(r.IntN(10))}
			if sc.once {
				opts = append(opts, chicory.AtMostOnce())
			}
			scs[must(w.task(producer, "t").Send(t.Context(), sc.fails, opts...))] = sc
		}
		h := w.handler("t", func(ctx context.Context, fails int) (int, error) {
			if info, _ := chicory.TaskFrom(ctx); info.Attempt <= fails {
				return sleeping(time.Second, errFails)(ctx, 0)
			}
			return sleeping(time.Second, nil)(ctx, 0)
		})
		var faults atomic.Int64
		for range 6 {
			plan := rand.New(rand.NewPCG(r.Uint64(), 2))
			w.start(worker.Options{Concurrency: 1 + r.IntN(4), MaxDeliveries: 50}, func(int, string, any) fault {
				if plan.IntN(25) > 0 {
					return none
				}
				faults.Add(1)
				return fault(1 + plan.IntN(int(late)))
			}, h)
			time.Sleep(time.Duration(r.IntN(20)) * time.Second)
		}
		time.Sleep(10 * time.Minute)
		last := w.start(worker.Options{Concurrency: 4, MaxDeliveries: 50}, nil, h)
		w.rest()
		synctest.Wait()
		w.judgeAll(scs, last.app, int(faults.Load()))
	})
}

// judgeAll holds the end of many tasks against the invariants.
func (w *world) judgeAll(scs map[string]scenario, app *chicory.App, faults int) {
	w.t.Helper()
	w.want(w.live() == 0, "I1: nothing is stuck once faults stop; %+v", w.stats())
	dead := map[string]string{}
	for _, l := range w.dead(app) {
		_, twice := dead[l.ID]
		w.want(!twice, "I7: a task is among the dead letters once per epoch; %s is there twice", l.ID)
		dead[l.ID] = l.Reason
	}
	for id, sc := range scs {
		reason, died := dead[id]
		lost := reason == driver.ReasonLost
		w.want(!lost || sc.once && faults > 0, "only an at-most-once task can be lost, and only by a fault; %s", id)
		want := driver.Success
		if died {
			want = driver.DeadLettered
		}
		w.want(w.state(id) == want, "record and dead letters agree; %s is %s, dead-lettered: %v", id, w.state(id), died)
		w.want(lost || died == (sc.fails > sc.retries), "exhausted means dead-lettered, and nothing else does; %s (%s): %q", id, sc.name, reason)
		for attempt := 1; sc.once && attempt <= sc.retries+1; attempt++ {
			n := w.starts[fmt.Sprintf("%s/0/%d", id, attempt)]
			w.want(n <= 1, "I2: an at-most-once task starts at most once per attempt; %s: %d in attempt %d", id, n, attempt)
		}
	}
}
