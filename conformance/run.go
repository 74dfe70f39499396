package conformance

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// RunBroker proves the contract of a broker, each case as a subtest.
func RunBroker(t *testing.T, newHarness NewHarness) { runAll(t, brokerCases(), newHarness) }

// RunBackend proves the contract of a backend, each case as a subtest.
func RunBackend(t *testing.T, newHarness NewHarness) { runAll(t, backendCases(), newHarness) }

// RunApp proves core and worker on a broker and a backend, each case as a
// subtest: delivery modes, states, retries, dead letters, and that nothing is
// lost whatever call fails. Broker and backend may share a store or not.
func RunApp(t *testing.T, newHarness NewHarness) { runAll(t, appCases(), newHarness) }

const (
	virtualLimit = 4 * time.Hour   // of a case, unless it says otherwise
	realLimit    = 2 * time.Minute // of any case, on the wall clock
)

func runAll(t *testing.T, cases []Case, newHarness NewHarness) {
	t.Helper()
	h := newHarness(t)
	bubble, known := h.Bubble, h.Known
	slots := make(chan struct{}, cmp.Or(h.Parallel, 32))
	for i := range cases {
		c := &cases[i]
		t.Run(c.FullName(), func(t *testing.T) {
			results := make(chan result, 1)
			if bubble {
				t.Parallel()
				results <- execute(t, c, newHarness, nil)
			} else {
				// In real time cases wait more than they work: start now, and
				// let the subtest report once its turn comes.
				go func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					begin := time.Now()
					r := execute(t, c, newHarness, slots)
					r.lines = append(r.lines, fmt.Sprintf("took %v", time.Since(begin).Round(time.Millisecond)))
					results <- r
				}()
				t.Parallel()
			}
			report(t, c, <-results, known[c.FullName()])
		})
	}
}

func report(t *testing.T, c *Case, r result, known string) {
	t.Helper()
	for _, line := range r.lines {
		t.Log(line)
	}
	switch {
	case !r.failed && known != "":
		t.Errorf("passes, but is said to be known to fail: %s", known)
	case r.failed && known != "":
		t.Logf("KNOWN FAILURE of the contract: %s (%s)", c.Contract, known)
	case r.failed:
		t.Errorf("contract: %s", c.Contract)
	}
}

// A result is how a case ended.
type result struct {
	failed bool
	lines  []string
}

func failure(format string, args ...any) result {
	return result{true, []string{fmt.Sprintf(format, args...)}}
}

var lastRun atomic.Int64

// execute runs c on a harness of its own: in a bubble or, with slots, in real
// time. It returns in bounded time whatever the driver does.
func execute(parent testing.TB, c *Case, newHarness NewHarness, slots chan struct{}) result {
	bubble := slots == nil
	if c.explore != nil {
		return explore(parent, c, newHarness, slots)
	}
	results := make(chan result, 2)
	go func() {
		if !bubble {
			results <- c.perform(newRecorder(parent), newHarness)
			return
		}
		defer func() {
			if p := recover(); p != nil {
				results <- failure("the bubble cannot end: %v", p)
			}
		}()
		synctest.Test(parent.(*testing.T), func(*testing.T) {
			results <- c.perform(newRecorder(parent), newHarness)
		})
	}()
	limit := time.NewTimer(realLimit)
	defer limit.Stop()
	select {
	case r := <-results:
		return r
	case <-limit.C:
		return failure("still running after %v", realLimit)
	}
}

// explore runs the schedules of c.
func explore(parent testing.TB, c *Case, newHarness NewHarness, slots chan struct{}) result {
	e := &exploration{parent: parent, newHarness: newHarness, bubble: slots == nil, slots: slots, offset: int(lastRun.Add(1))}
	c.explore(e)
	if !e.out.failed {
		e.out.lines = append(e.out.lines, fmt.Sprintf("%d schedules", e.runs))
	}
	return e.out
}

// perform runs c, within its limit, and looks for what it left behind.
func (c *Case) perform(rec *recorder, newHarness NewHarness) result {
	// Goroutines inherit labels: one that is left afterwards has leaked.
	label := strconv.FormatInt(lastRun.Add(1), 10)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(labelKey, label)))
		rec.run(func() {
			h := newHarness(rec)
			c.run(newC(rec, h))
		})
	}()
	limit := c.limit
	if limit == 0 {
		limit = virtualLimit
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
		rec.Errorf("still running after %v; goroutines:\n%s", limit, strings.Join(left(label), "\n\n"))
		return result{true, rec.output()}
	}
	if c.quick {
		return result{rec.Failed(), rec.output()}
	}
	if gs := await(label); len(gs) > 0 {
		rec.Errorf("goroutines are left after everything was closed:\n%s", strings.Join(gs, "\n\n"))
	}
	return result{rec.Failed(), rec.output()}
}

const labelKey = "conformance"

// await waits for the goroutines of a case to end and returns those that do
// not.
func await(label string) (gs []string) {
	for range 60 {
		if gs = left(label); len(gs) == 0 {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return gs
}

var stackHead = regexp.MustCompile(`(?m)^(\d+) @ .*$`)

// left returns the stacks of the goroutines with label.
func left(label string) (gs []string) {
	var b bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	mark := fmt.Sprintf("%q:%q", labelKey, label)
	for stack := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(stack, mark) {
			gs = append(gs, stackHead.ReplaceAllString(stack, "$1 goroutine(s):"))
		}
	}
	return gs
}
