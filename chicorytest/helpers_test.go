package chicorytest_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/chicorytest"
)

// bubble runs f in a bubble, with a kit.
func bubble(t *testing.T, o chicorytest.Options, f func(t *testing.T, kit *chicorytest.Kit)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, chicorytest.New(t, o)) })
}

// send enqueues a task and returns its id.
func send[In, Out any](t *testing.T, task *chicory.Task[In, Out], in In, o ...chicory.CallOption) string {
	t.Helper()
	id, err := task.Send(t.Context(), in, o...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// counting registers a task that counts its runs.
func counting(kit *chicorytest.Kit, name string, runs *counter, o ...chicory.TaskOption) *chicory.Task[int, int] {
	return chicory.Register(kit.App, name, func(_ context.Context, n int) (int, error) {
		runs.add()
		return n, nil
	}, o...)
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *counter) want(t *testing.T, n int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n != n {
		t.Errorf("%d runs, want %d", c.n, n)
	}
}

// A failing is a test that is expected to fail: it keeps what it is told.
type failing struct {
	testing.TB
	said     []string
	cleanups []func()
}

func (f *failing) Helper()           {}
func (f *failing) Cleanup(do func()) { f.cleanups = append(f.cleanups, do) }

func (f *failing) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func (f *failing) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic(f)
}

// run runs do, which may end in Fatalf, and then the cleanups.
func (f *failing) run(do func()) {
	for _, do := range []func(){do, f.clean} {
		func() {
			defer func() {
				if p := recover(); p != nil && p != f {
					panic(p)
				}
			}()
			do()
		}()
	}
}

func (f *failing) clean() {
	for i := len(f.cleanups) - 1; i >= 0; i-- {
		f.cleanups[i]()
	}
}

// fails wants do to fail its test once, with these words.
func fails(t *testing.T, do func(f *failing), words ...string) {
	t.Helper()
	f := &failing{TB: t}
	f.run(func() { do(f) })
	if len(f.said) != 1 {
		t.Errorf("failed %d times, want once: %q", len(f.said), f.said)
		return
	}
	for _, w := range words {
		if !strings.Contains(f.said[0], w) {
			t.Errorf("failed with %q, want %q in it", f.said[0], w)
		}
	}
}
