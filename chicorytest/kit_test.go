package chicorytest_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/chicorytest"
	"github.com/chicory-go/chicory/codec/cbor"
	"github.com/chicory-go/chicory/worker"
)

// TestRunUntilIdle: what is due runs, and what handlers send, and no more.
func TestRunUntilIdle(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		var runs counter
		last := counting(kit, "last", &runs)
		chain := chicory.Register(kit.App, "chain", func(ctx context.Context, n int) (int, error) {
			_, err := last.Send(ctx, n)
			return n, err
		})
		first, later := send(t, chain, 1), send(t, last, 2, chicory.After(time.Second))
		kit.AssertState(first, chicory.StatePending)
		runs.want(t, 0)
		kit.RunUntilIdle()
		kit.AssertState(first, chicory.StateSuccess)
		kit.AssertState(later, chicory.StatePending)
		chicorytest.AssertSent(kit, last, 2, 1)
		runs.want(t, 1)
		kit.RunUntilIdle() // nothing is due
		runs.want(t, 1)
		kit.Advance(time.Second)
		kit.AssertState(later, chicory.StateSuccess)
		runs.want(t, 2)
	})
}

// TestRunUntilIdleWaitsForHandlers: for as long as they take, to the moment, and
// without a limit.
func TestRunUntilIdleWaitsForHandlers(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		slow := chicory.Register(kit.App, "slow", chicory.NoResult(func(_ context.Context, d time.Duration) error {
			time.Sleep(d)
			return nil
		}), chicory.Timeout(chicory.NoTimeout))
		one, two := send(t, slow, time.Hour), send(t, slow, 2*time.Hour)
		began := time.Now()
		kit.RunUntilIdle()
		if took := time.Since(began); took != 3*time.Hour {
			t.Errorf("took %v, want 3h, one after the other", took)
		}
		kit.AssertState(one, chicory.StateSuccess)
		kit.AssertState(two, chicory.StateSuccess)
	})
}

// TestRunUntilIdleGivesUpHungHandlers: they are not waited for.
func TestRunUntilIdleGivesUpHungHandlers(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		hang := chicory.Register(kit.App, "hang", chicory.NoResult(func(context.Context, int) error {
			time.Sleep(time.Hour) // does not look at its context
			return nil
		}), chicory.Timeout(time.Minute), chicory.MaxRetries(0))
		id := send(t, hang, 1)
		began := time.Now()
		kit.RunUntilIdle()
		if took := time.Since(began); took != time.Minute+5*time.Second {
			t.Errorf("took %v, want 1m5s", took)
		}
		kit.AssertDeadLetter(id, "failed")
		time.Sleep(time.Hour) // until it returns: the bubble waits for its goroutines
	})
}

// TestAdvance: time passes to the moment, and a handler that runs at its end is
// not waited for.
func TestAdvance(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		slow := chicory.Register(kit.App, "slow", chicory.NoResult(func(context.Context, int) error {
			time.Sleep(time.Minute)
			return nil
		}))
		const day = 24 * time.Hour
		id, began := send(t, slow, 1, chicory.After(day)), time.Now()
		kit.Advance(day - 1)
		kit.AssertState(id, chicory.StatePending)
		kit.Advance(1)
		if passed := time.Since(began); passed != day {
			t.Errorf("%v have passed, want %v", passed, day)
		}
		kit.AssertState(id, chicory.StateStarted)
		kit.RunUntilIdle()
		kit.AssertState(id, chicory.StateSuccess)
		if passed := time.Since(began); passed != day+time.Minute {
			t.Errorf("%v have passed, want a day and a minute", passed)
		}
	})
}

// TestRetries: RunUntilIdle makes one attempt, time brings the others.
func TestRetries(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		fail := chicory.Register(kit.App, "fail", chicory.NoResult(func(context.Context, int) error { return errors.New("no") }),
			chicory.MaxRetries(2), chicory.Fixed(time.Minute), chicory.Queue("mail"))
		id := send(t, fail, 1)
		kit.RunUntilIdle()
		kit.Advance(2*time.Minute - 1)
		kit.AssertState(id, chicory.StateRetry)
		kit.Advance(1)
		kit.AssertDeadLetter(id, "failed")
		if n, err := kit.App.DeadLetters("mail").Replay(t.Context(), id); n != 1 || err != nil {
			t.Errorf("replayed %d, %v", n, err)
		}
		kit.Advance(2 * time.Minute)
		kit.AssertDeadLetter(id, "failed")
		if sent := chicorytest.Sent(kit, fail); len(sent) != 1 {
			t.Errorf("%d sendings, want 1: retries and replays are none", len(sent))
		}
	})
}

// TestGetBeforeAWorkerRuns has nobody to wait for, which the bubble tells: nothing
// makes time pass for ever.
func TestGetBeforeAWorkerRuns(t *testing.T) {
	t.Parallel()
	if os.Getenv("CHICORYTEST_DEADLOCK") == "" {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestGetBeforeAWorkerRuns$", "-test.timeout=30s")
		child.Env = append(os.Environ(), "CHICORYTEST_DEADLOCK=1")
		if out, err := child.CombinedOutput(); err == nil || !strings.Contains(string(out), "deadlock") {
			t.Errorf("%v, want a deadlock:\n%s", err, out)
		}
		return
	}
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		task := counting(kit, "t", &counter{})
		task.Result(send(t, task, 1)).Get(t.Context())
	})
}

// TestTimePassesWithoutAWorker until the kit is told to run one.
func TestTimePassesWithoutAWorker(t *testing.T) {
	t.Parallel()
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		var runs counter
		id := send(t, counting(kit, "t", &runs), 1, chicory.ExpiresIn(time.Hour))
		time.Sleep(time.Hour + time.Millisecond)
		kit.AssertState(id, chicory.StatePending)
		kit.RunUntilIdle()
		kit.AssertState(id, chicory.StateExpired)
		runs.want(t, 0)
	})
}

// TestOptions reach app and worker.
func TestOptions(t *testing.T) {
	t.Parallel()
	var settled []worker.Outcome
	wrapped := false
	o := chicorytest.Options{
		Config: chicory.Config{Backend: chicory.BackendNone, Queue: "mine", Codec: cbor.Codec, MaxRetries: chicory.NoRetries},
		Worker: worker.Options{
			Name:       "me",
			Lease:      time.Minute,
			OnSettled:  func(o worker.Outcome) { settled = append(settled, o) },
			Middleware: []worker.Middleware{func(next worker.Handler) worker.Handler { wrapped = true; return next }},
		},
	}
	bubble(t, o, func(t *testing.T, kit *chicorytest.Kit) {
		var runs counter
		fail := chicory.Register(kit.App, "fail", chicory.NoResult(func(context.Context, int) error {
			runs.add()
			return errors.New("no")
		}))
		id := send(t, fail, 7)
		kit.Crash(chicorytest.BeforeVerdict)
		kit.Advance(time.Minute - 1)
		runs.want(t, 1)
		kit.Advance(1)
		runs.want(t, 2)
		chicorytest.AssertSent(kit, fail, 7)
		kit.AssertDeadLetter(id, "failed")
		d, err := kit.App.DeadLetters("mine").Get(t.Context(), id)
		if err != nil || d.Worker != "me" || d.ContentType != cbor.Codec.ContentType() || !wrapped || len(settled) != 1 {
			t.Errorf("got %+v, %v; wrapped %v, settled %+v", d, err, wrapped, settled)
		}
	})
}

// TestEnvironmentStaysOutside the kit: a test says all that counts.
func TestEnvironmentStaysOutside(t *testing.T) {
	for _, key := range []string{"URL", "BROKER", "BROKER_URL", "BACKEND", "BACKEND_URL", "QUEUE", "NAMESPACE"} {
		t.Setenv("CHICORY_"+key, "none") // which is no URL, and a backend of its own kind
	}
	bubble(t, chicorytest.Options{}, func(t *testing.T, kit *chicorytest.Kit) {
		var runs counter
		task := counting(kit, "t", &runs)
		id := send(t, task, 1)
		if q := chicorytest.Sent(kit, task)[0].Queue; q != "default" {
			t.Errorf("queue is %s", q)
		}
		kit.RunUntilIdle()
		kit.AssertState(id, chicory.StateSuccess)
	})
}

// TestFilesStayOutside the kit too, though they are not there.
func TestFilesStayOutside(t *testing.T) {
	for _, name := range []string{"CHICORY_CONFIG", "CHICORY_URL_FILE", "CHICORY_BACKEND_URL_FILE"} {
		t.Setenv(name, "none/such")
	}
	bubble(t, chicorytest.Options{}, func(*testing.T, *chicorytest.Kit) {})
}

func TestSent(t *testing.T) {
	t.Parallel()
	type args struct{ X, y int }
	// No bubble; and no backend, so that it is the broker that refuses a duplicate.
	kit := chicorytest.New(t, chicorytest.Options{Config: chicory.Config{Backend: chicory.BackendNone}})
	def := chicory.Define[args, int]("t", chicory.Queue("q"), chicory.AtMostOnce())
	task, other := def.On(kit.App), chicory.Define[int, int]("other").On(kit.App)
	chicorytest.AssertSent(kit, task)
	chicorytest.AssertSent(kit, task, []args{}...)
	until := time.UnixMilli(time.Now().UnixMilli()).Add(time.Hour)
	id := send(t, task, args{1, 2}, chicory.After(time.Minute), chicory.ExpiresAt(until), chicory.Priority(3), chicory.Header("k", "v"))
	send(t, other, 5)
	if _, err := task.Send(t.Context(), args{}, chicory.ID(id)); !errors.Is(err, chicory.ErrDuplicate) {
		t.Fatalf("got %v", err)
	}
	got := chicorytest.Sent(kit, task)
	want := []chicorytest.Message[args]{{ID: id, Queue: "q", Args: args{X: 1}, Headers: map[string]string{"k": "v"},
		Priority: 3, Delay: time.Minute, Expires: until, AtMostOnce: true}}
	if len(got) != 1 || time.Since(got[0].At) > time.Minute {
		t.Fatalf("got %+v", got)
	}
	got[0].At = time.Time{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestMisuse fails the test, with words that help.
func TestMisuse(t *testing.T) {
	t.Parallel()
	quiet := chicorytest.Options{Config: chicory.Config{Logger: slog.New(slog.DiscardHandler)}}
	in := func(do func(t *testing.T, kit *chicorytest.Kit)) func(*testing.T, *failing) {
		return func(t *testing.T, f *failing) { do(t, chicorytest.New(f, quiet)) }
	}
	for _, test := range []struct {
		name   string
		bubble bool
		do     func(*testing.T, *failing)
		want   string
	}{
		{"RunUntilIdle without a bubble", false, in(func(_ *testing.T, kit *chicorytest.Kit) { kit.RunUntilIdle() }), "RunUntilIdle needs fake time: call it and New inside synctest.Test"},
		{"Advance without a bubble", false, in(func(_ *testing.T, kit *chicorytest.Kit) { kit.Advance(time.Hour) }), "Advance needs fake time"},
		{"no handlers", true, in(func(_ *testing.T, kit *chicorytest.Kit) { kit.RunUntilIdle() }), "no task has a handler"},
		{"two handlers", true, in(func(_ *testing.T, kit *chicorytest.Kit) {
			counting(kit, "t", &counter{})
			counting(kit, "t", &counter{})
			kit.RunUntilIdle()
		}), `"t" is registered twice`},
		{"bad options", true, func(_ *testing.T, f *failing) {
			chicorytest.New(f, chicorytest.Options{Config: chicory.Config{Namespace: "UPPER"}})
		}, "UPPER"},
		{"bad options of the worker", true, func(t *testing.T, f *failing) {
			kit := chicorytest.New(f, chicorytest.Options{Config: quiet.Config, Worker: worker.Options{Lease: time.Hour}})
			counting(kit, "t", &counter{})
			kit.Advance(1)
		}, "Lease 1h"},
		{"no such point", false, in(func(_ *testing.T, kit *chicorytest.Kit) { kit.Crash(0) }), "Point(0)"},
		{"no worker to crash", true, in(func(t *testing.T, kit *chicorytest.Kit) { kit.CrashNow(t.Context()) }), "no worker runs"},
		{"a crash that never came", true, in(func(t *testing.T, kit *chicorytest.Kit) {
			kit.Crash(chicorytest.InHandler, "other", "another")
			send(t, counting(kit, "t", &counter{}), 1)
			kit.RunUntilIdle()
		}), "InHandler of other or another"},
		{"a crash that comes too late", true, in(func(t *testing.T, kit *chicorytest.Kit) {
			kit.Crash(chicorytest.BeforeVerdict)
			send(t, chicory.Register(kit.App, "t", chicory.NoResult(func(context.Context, int) error {
				time.Sleep(time.Second)
				return nil
			})), 1)
			kit.Advance(time.Millisecond)
		}), "at BeforeVerdict, because"},
		{"AssertSent: other arguments", false, in(func(t *testing.T, kit *chicorytest.Kit) {
			task := counting(kit, "t", &counter{})
			send(t, task, 1)
			chicorytest.AssertSent(kit, task, 1, 2)
		}), "t was sent with\n[1], want\n[1 2]"},
		{"AssertSent: sent", false, in(func(t *testing.T, kit *chicorytest.Kit) {
			task := counting(kit, "t", &counter{})
			send(t, task, 1)
			chicorytest.AssertSent(kit, task)
		}), "[1], want\n[]"},
		{"AssertState", false, in(func(t *testing.T, kit *chicorytest.Kit) {
			kit.AssertState(send(t, counting(kit, "t", &counter{}), 1), chicory.StateSuccess)
		}), "is PENDING, want SUCCESS"},
		{"AssertState: why", true, in(func(t *testing.T, kit *chicorytest.Kit) {
			fail := chicory.Register(kit.App, "t", chicory.NoResult(func(context.Context, int) error { return errors.New("burnt") }))
			id := send(t, fail, 1)
			kit.RunUntilIdle()
			kit.AssertState(id, chicory.StateSuccess)
		}), "is RETRY after attempt 1 (failed: burnt), want SUCCESS"},
		{"AssertState: no record", false, in(func(_ *testing.T, kit *chicorytest.Kit) { kit.AssertState("nobody", chicory.StateSuccess) }), "nobody has no record"},
		{"AssertDeadLetter: none", false, in(func(_ *testing.T, kit *chicorytest.Kit) { kit.AssertDeadLetter("nobody", "lost") }), "nobody"},
		{"AssertDeadLetter: reason", true, in(func(t *testing.T, kit *chicorytest.Kit) {
			fail := chicory.Register(kit.App, "t", chicory.NoResult(func(context.Context, int) error { return errors.New("burnt") }), chicory.MaxRetries(0))
			id := send(t, fail, 1)
			kit.RunUntilIdle()
			kit.AssertDeadLetter(id, "lost")
		}), "reason is failed (burnt), want lost"},
		{"Sent: another type", false, in(func(t *testing.T, kit *chicorytest.Kit) {
			send(t, counting(kit, "t", &counter{}), 1)
			chicorytest.Sent(kit, chicory.Define[string, int]("t").On(kit.App))
		}), "argument of t"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			do := func(t *testing.T) { fails(t, func(f *failing) { test.do(t, f) }, test.want) }
			if test.bubble {
				synctest.Test(t, do)
			} else {
				do(t)
			}
		})
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ give, want chicory.TaskInfo }{
		{chicory.TaskInfo{}, chicory.TaskInfo{ID: "test", Name: "test", Queue: "default", Attempt: 1, MaxAttempts: 4, Deliveries: 1}},
		{chicory.TaskInfo{Attempt: 2, IsLast: true}, chicory.TaskInfo{ID: "test", Name: "test", Queue: "default", Attempt: 2, MaxAttempts: 2, IsLast: true, Deliveries: 1}},
		{chicory.TaskInfo{ID: "i", Name: "n", Queue: "q", Attempt: 3, MaxAttempts: 3, Deliveries: 2, Epoch: 1, Headers: map[string]string{"k": "v"}},
			chicory.TaskInfo{ID: "i", Name: "n", Queue: "q", Attempt: 3, MaxAttempts: 3, IsLast: true, Deliveries: 2, Epoch: 1, Headers: map[string]string{"k": "v"}}},
	} {
		ctx := chicorytest.Context(t.Context(), test.give)
		if got, ok := chicory.TaskFrom(ctx); !ok || !reflect.DeepEqual(got, test.want) {
			t.Errorf("got  %+v\nwant %+v", got, test.want)
		}
	}
	kit := chicorytest.New(t, chicorytest.Options{})
	task := counting(kit, "t", &counter{})
	res := task.Result(send(t, task, 1))
	if _, err := res.Get(chicorytest.Context(t.Context(), chicory.TaskInfo{})); !errors.Is(err, chicory.ErrWaitInTask) {
		t.Errorf("Get in a handler: %v", err)
	}
	parent, cancel := context.WithCancelCause(t.Context())
	ctx := chicorytest.Context(parent, chicory.TaskInfo{})
	cancel(chicory.ErrTimeout)
	if err := context.Cause(ctx); !errors.Is(err, chicory.ErrTimeout) {
		t.Errorf("it ended with %v", err)
	}
}

// TestLogger: what the worker tells goes to the logger of the options, and a dead
// one tells nothing.
func TestLogger(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		var log strings.Builder
		logger := slog.New(slog.NewTextHandler(&log, nil))
		o := chicorytest.Options{Config: chicory.Config{Logger: logger}}
		if own {
			o = chicorytest.Options{Worker: worker.Options{Logger: logger}}
		}
		bubble(t, o, func(t *testing.T, kit *chicorytest.Kit) {
			fail := chicory.Register(kit.App, "t", chicory.NoResult(func(ctx context.Context, text string) error {
				if text == "crash" {
					kit.CrashNow(ctx)
				}
				return errors.New(text)
			}), chicory.MaxRetries(0), chicory.AtMostOnce())
			send(t, fail, "burnt")
			kit.RunUntilIdle()
			if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "burnt") {
				t.Errorf("the log has %d lines, want 2:\n%s", n, log.String())
			}
			before := log.Len()
			send(t, fail, "crash")
			kit.RunUntilIdle()
			if said := log.String()[before:]; strings.Count(said, "\n") != 1 || !strings.Contains(said, "worker=worker-2") {
				t.Errorf("after a crash the log says\n%s\nwant the start of the next worker", said)
			}
		})
	}
}
