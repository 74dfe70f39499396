package chicorytest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/chicorytest"
	"github.com/chicory-go/chicory/worker"
)

const lease = 30 * time.Minute // of a kit

// TestCrash: at every point, in both modes, with a record and without. A task
// comes back when its lease has run out and not before.
func TestCrash(t *testing.T) {
	t.Parallel()
	const (
		once    = "at-most-once"
		record  = "with a record"
		nothing = "without results"
	)
	for _, test := range []struct {
		at     chicorytest.Point
		mode   string
		store  string
		runs   int
		lost   bool
		middle chicory.State // before the lease has run out
	}{
		{chicorytest.BeforeStart, "", record, 1, false, chicory.StatePending},
		{chicorytest.InHandler, "", record, 2, false, chicory.StateStarted},
		{chicorytest.BeforeVerdict, "", record, 2, false, chicory.StateStarted},
		{chicorytest.BeforeSettle, "", record, 1, false, chicory.StateSuccess},
		{chicorytest.BeforeStart, once, record, 1, false, chicory.StatePending},
		{chicorytest.InHandler, once, record, 1, true, chicory.StateStarted},
		{chicorytest.BeforeVerdict, once, record, 1, true, chicory.StateStarted},
		{chicorytest.BeforeSettle, once, record, 1, false, chicory.StateSuccess},
		{chicorytest.BeforeStart, "", nothing, 1, false, ""},
		{chicorytest.InHandler, "", nothing, 2, false, ""},
		{chicorytest.BeforeVerdict, "", nothing, 2, false, ""},
		{chicorytest.BeforeSettle, "", nothing, 2, false, ""},
		{chicorytest.BeforeStart, once, nothing, 0, true, ""}, // its hand-out counts as the start
		{chicorytest.InHandler, once, nothing, 1, true, ""},
		{chicorytest.BeforeVerdict, once, nothing, 1, true, ""},
		{chicorytest.BeforeSettle, once, nothing, 1, true, ""},
	} {
		t.Run(fmt.Sprint(test.at, " ", test.mode, " ", test.store), func(t *testing.T) {
			t.Parallel()
			var o chicorytest.Options
			if test.store == nothing {
				o.Config.Backend = chicory.BackendNone
			}
			if test.mode == once {
				o.Config.Delivery = chicory.AtMostOnceDelivery
			}
			bubble(t, o, func(t *testing.T, kit *chicorytest.Kit) {
				var runs counter
				id := send(t, counting(kit, "t", &runs), 1)
				kit.Crash(test.at)
				kit.RunUntilIdle()
				before := min(test.runs, 1)
				if test.at == chicorytest.BeforeStart {
					before = 0
				}
				kit.Advance(lease - time.Microsecond)
				runs.want(t, before)
				if test.middle != "" {
					kit.AssertState(id, test.middle)
				}
				kit.Advance(time.Microsecond)
				runs.want(t, test.runs)
				switch {
				case test.lost:
					kit.AssertDeadLetter(id, "lost")
				case test.middle != "":
					kit.AssertState(id, chicory.StateSuccess)
				}
				kit.Advance(10 * lease) // and nothing more
				runs.want(t, test.runs)
				if n, err := kit.App.DeadLetters("default").Len(t.Context()); n > 1 || !test.lost && n > 0 || err != nil {
					t.Errorf("%d dead letters, %v", n, err)
				}
			})
		})
	}
}

// TestCrashCarriesOutAnyVerdict: a retry and a dead letter that were recorded, and
// not settled, are carried out.
func TestCrashCarriesOutAnyVerdict(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		var runs counter
		fail := chicory.Register(kit.App, "t", chicory.NoResult(func(context.Context, int) error {
			runs.add()
			return errors.New("no")
		}), chicory.MaxRetries(1), chicory.Fixed(lease+time.Second))
		kit.Crash(chicorytest.BeforeSettle)
		id := send(t, fail, 1)
		kit.RunUntilIdle()
		kit.AssertState(id, chicory.StateRetry)
		kit.Advance(lease)
		runs.want(t, 1)
		kit.Crash(chicorytest.BeforeSettle)
		kit.Advance(time.Second) // due as the verdict said
		kit.AssertState(id, chicory.StateDeadLettered)
		runs.want(t, 2)
		kit.Advance(lease)
		kit.AssertDeadLetter(id, "failed")
		runs.want(t, 2)
	})
}

// TestCrashInHandlerThatWaits: it crashes there, the effects after it do not
// happen, and the handler learns why.
func TestCrashInHandlerThatWaits(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		var before, after, sent counter
		child := counting(kit, "child", &sent)
		causes := make(chan error, 2)
		task := chicory.Register(kit.App, "t", chicory.NoResult(func(ctx context.Context, _ int) error {
			before.add()
			select {
			case <-time.After(time.Hour):
			case <-ctx.Done():
				causes <- context.Cause(ctx)
				_, err := child.Send(ctx, 1) // of a dead worker
				return err
			}
			after.add()
			return nil
		}), chicory.Timeout(2*time.Hour))
		kit.Crash(chicorytest.InHandler, "t")
		began := time.Now()
		id := send(t, task, 1)
		kit.RunUntilIdle()
		if took := time.Since(began); took > time.Microsecond {
			t.Errorf("it crashed after %v, want at the first wait", took)
		}
		before.want(t, 1)
		if err := <-causes; !errors.Is(err, chicorytest.ErrCrashed) {
			t.Errorf("the cause is %v, want ErrCrashed", err)
		}
		kit.Advance(lease)
		kit.RunUntilIdle()
		before.want(t, 2)
		after.want(t, 1)
		sent.want(t, 0)
		chicorytest.AssertSent(kit, child)
		kit.AssertState(id, chicory.StateSuccess)
	})
}

// TestCrashNow from a fake ends the handler; from the test, whatever runs.
func TestCrashNow(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		var before, after counter
		fake := func(ctx context.Context) {
			if info, _ := chicory.TaskFrom(ctx); info.Deliveries == 1 {
				kit.CrashNow(ctx)
			}
		}
		task := chicory.Register(kit.App, "t", chicory.NoResult(func(ctx context.Context, _ int) error {
			before.add()
			fake(ctx)
			after.add()
			time.Sleep(time.Minute)
			return nil
		}))
		id := send(t, task, 1)
		kit.RunUntilIdle()
		before.want(t, 1)
		after.want(t, 0)
		kit.AssertState(id, chicory.StateStarted)
		kit.Advance(lease + time.Second) // it runs again
		after.want(t, 1)
		kit.CrashNow(t.Context()) // in the middle of the minute
		kit.Advance(2 * lease)
		before.want(t, 3)
		kit.RunUntilIdle()
		kit.AssertState(id, chicory.StateSuccess)
		after.want(t, 2)
		if ws, err := kit.App.Workers(t.Context()); len(ws) != 1 || ws[0].Name != "worker-3" || err != nil {
			t.Errorf("got %+v, %v; want the worker that lives", ws, err)
		}
	})
}

// TestCrashTakesAllThatTheWorkerHolds: bystanders come back too, and only a named
// task meets the crash.
func TestCrashTakesAllThatTheWorkerHolds(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{Worker: worker.Options{Concurrency: 3}}, func(t *testing.T, kit *chicorytest.Kit) {
		var runs, killed counter // the killer waits until the others do
		slow := chicory.Register(kit.App, "slow", chicory.NoResult(func(ctx context.Context, _ int) error {
			runs.add()
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}))
		killer := chicory.Register(kit.App, "killer", chicory.NoResult(func(context.Context, int) error {
			killed.add()
			time.Sleep(time.Millisecond)
			return nil
		}))
		kit.Crash(chicorytest.BeforeVerdict, "nobody", "killer")
		ids := []string{send(t, slow, 1), send(t, slow, 2), send(t, killer, 3)}
		kit.RunUntilIdle()
		runs.want(t, 2)
		kit.Advance(lease)
		kit.RunUntilIdle()
		runs.want(t, 4)
		killed.want(t, 2)
		for _, id := range ids {
			kit.AssertState(id, chicory.StateSuccess)
		}
	})
}

// TestNothingStartsInADeadWorker, not even what was on its way to its handler.
func TestNothingStartsInADeadWorker(t *testing.T) {
	t.Parallel()
	o := chicorytest.Options{Config: chicory.Config{Backend: chicory.BackendNone}}
	o.Worker = worker.Options{Concurrency: 2, Middleware: []worker.Middleware{func(next worker.Handler) worker.Handler {
		return func(ctx context.Context) error {
			if info, _ := chicory.TaskFrom(ctx); info.Name == "bystander" {
				time.Sleep(time.Second)
			}
			return next(ctx)
		}
	}}}
	bubble(t, o, func(t *testing.T, kit *chicorytest.Kit) {
		var runs, killed counter
		send(t, counting(kit, "killer", &killed), 1)
		send(t, counting(kit, "bystander", &runs), 2)
		kit.Crash(chicorytest.InHandler, "killer")
		kit.Advance(time.Minute)
		killed.want(t, 1)
		runs.want(t, 0)
		kit.Advance(lease)
		killed.want(t, 2)
		runs.want(t, 1)
	})
}

// TestGivingBackIsNoVerdict: of two suspects one is given back, while the other
// runs; the crash waits for its verdict.
func TestGivingBackIsNoVerdict(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{Worker: worker.Options{Concurrency: 2}}, func(t *testing.T, kit *chicorytest.Kit) {
		var runs counter
		task := chicory.Register(kit.App, "t", chicory.NoResult(func(context.Context, int) error {
			runs.add()
			time.Sleep(time.Millisecond)
			return nil
		}))
		one, two := send(t, task, 1), send(t, task, 2)
		for range 2 {
			kit.Crash(chicorytest.InHandler)
		}
		kit.Advance(2*lease - 1)
		runs.want(t, 4)
		kit.Crash(chicorytest.BeforeSettle)
		kit.Advance(2 * time.Millisecond)
		kit.AssertState(one, chicory.StateSuccess)
		kit.AssertState(two, chicory.StateStarted)
		kit.Advance(lease)
		kit.AssertState(two, chicory.StateSuccess)
		runs.want(t, 6)
	})
}

// TestPoison: a task whose workers die five times is dead-lettered.
func TestPoison(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		var runs counter
		id := send(t, counting(kit, "t", &runs), 1)
		for range 5 {
			kit.Crash(chicorytest.InHandler)
		}
		kit.Advance(10 * lease)
		kit.AssertDeadLetter(id, "poison")
		runs.want(t, 5)
	})
}

// TestCrashOfManyTasks: whatever crashes, each task succeeds, and none is left.
func TestCrashOfManyTasks(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{Worker: worker.Options{Concurrency: 4}}, func(t *testing.T, kit *chicorytest.Kit) {
		var runs counter
		task := counting(kit, "t", &runs)
		var ids []string
		for i := range 100 {
			ids = append(ids, send(t, task, i, chicory.After(time.Duration(i)*time.Second)))
		}
		for p := chicorytest.BeforeStart; p <= chicorytest.BeforeSettle; p++ {
			kit.Crash(p)
			kit.Crash(p, "t")
		}
		kit.Advance(2 * lease)
		for _, id := range ids {
			kit.AssertState(id, chicory.StateSuccess)
		}
	})
}
