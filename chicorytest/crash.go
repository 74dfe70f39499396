package chicorytest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// ErrCrashed is the cause of the context of a handler whose worker has crashed.
var ErrCrashed = errors.New("chicorytest: the worker has crashed")

// A Point is a moment in the life of a task at which its worker may crash.
type Point int

// The points, in their order. A task whose worker crashed comes back when its
// lease has run out; see [Kit.Lease]. Then:
const (
	// BeforeStart: the worker has received the task, its handler has not
	// started. It runs, in both delivery modes.
	BeforeStart Point = iota + 1
	// InHandler: the handler runs. The worker crashes when the handler first
	// waits for anything, be it time, a channel or its context; a handler that
	// waits for nothing has all its effects. An at-least-once task runs again,
	// an at-most-once task is dead-lettered as "lost", unrun.
	InHandler
	// BeforeVerdict: the handler has returned, its verdict is not recorded. It
	// goes on as from InHandler.
	BeforeVerdict
	// BeforeSettle: the verdict is recorded, the task is not settled. Nothing
	// runs again: the verdict is carried out. A task without a record, whose
	// verdict is how it is settled, goes on as from InHandler.
	BeforeSettle
)

var pointNames = [...]string{BeforeStart: "BeforeStart", InHandler: "InHandler", BeforeVerdict: "BeforeVerdict", BeforeSettle: "BeforeSettle"}

// String returns the name of the constant.
func (p Point) String() string {
	if p < BeforeStart || p > BeforeSettle {
		return fmt.Sprintf("Point(%d)", int(p))
	}
	return pointNames[p]
}

// A crash is still to come.
type crash struct {
	at    Point
	names []string // of the tasks that may meet it; none: any
}

func (c crash) String() string {
	if len(c.names) == 0 {
		return c.at.String()
	}
	return fmt.Sprintf("%s of %s", c.at, strings.Join(c.names, " or "))
}

// Crash makes the worker crash when next one of the named tasks, or any task if
// none is named, gets to p: as by kill -9, nothing that it does later has an
// effect. The contexts of its handlers are cancelled with the cause ErrCrashed;
// one that ignores that cannot be stopped, but its verdict does not count. Another
// worker takes its place at once. Each call is one crash; several add up. A crash
// that no task has met when the test ends fails it.
func (k *Kit) Crash(p Point, names ...string) {
	k.t.Helper()
	if p < BeforeStart || p > BeforeSettle {
		k.t.Fatalf("chicorytest: Crash(%s): want BeforeStart, InHandler, BeforeVerdict or BeforeSettle", p)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.crashes = append(k.crashes, crash{p, slices.Clone(names)})
}

// CrashNow crashes the worker now, as Crash does. With the context of a handler it
// crashes the worker of that handler and does not return, so that nothing after it
// is done: call it from a fake that the handler uses, to crash between two effects.
// It ends its goroutine, so deferred calls do run. With any other context it
// crashes the worker that runs, and fails the test if there is none.
func (k *Kit) CrashNow(ctx context.Context) {
	k.t.Helper()
	if p, ok := ctx.Value(processKey{}).(*process); ok {
		p.crash()
		runtime.Goexit()
	}
	k.mu.Lock()
	p := k.current
	k.mu.Unlock()
	if p == nil {
		k.t.Fatalf("chicorytest: CrashNow: no worker runs")
	}
	p.crash()
}

// meets reports whether a crash at this point waits for one of the tasks, and takes
// it: p is to crash. It can do so once.
func (p *process) meets(at Point, names []string) bool {
	k := p.kit
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.doomed {
		return false
	}
	i := slices.IndexFunc(k.crashes, func(c crash) bool {
		fits := func(name string) bool { return len(c.names) == 0 || slices.Contains(c.names, name) }
		return c.at == at && slices.ContainsFunc(names, fits)
	})
	if i < 0 {
		return false
	}
	k.crashes = slices.Delete(k.crashes, i, i+1)
	p.doomed = true
	return true
}
