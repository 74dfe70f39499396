package conformance

import (
	"cmp"
	"context"
	"fmt"
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
	s := &stage{parent: t, newHarness: newHarness, stride: max(1, h.PairStride) * raceStride}
	if *allFlag {
		s.stride = 1
	}
	if !h.Bubble {
		s.slots = make(chan struct{}, cmp.Or(h.Parallel, 32))
		s.pulse, s.tolerance = newPulse(), min(h.slack(), h.lease())/8
		t.Cleanup(s.pulse.stop)
	}
	for i := range cases {
		c := &cases[i]
		t.Run(c.FullName(), func(t *testing.T) {
			s := s.of(t)
			results := make(chan result, 1)
			if s.bubble() {
				t.Parallel()
				results <- s.execute(c)
			} else {
				// In real time cases wait more than they work: start now, and
				// let the subtest report once its turn comes.
				go func() {
					s.slots <- struct{}{}
					defer func() { <-s.slots }()
					begin := time.Now()
					r := s.execute(c)
					r.lines = append(r.lines, fmt.Sprintf("took %v", time.Since(begin).Round(time.Millisecond)))
					results <- r
				}()
				t.Parallel()
			}
			report(t, c, <-results, h.Known[c.FullName()])
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

// A stage is where cases run: in bubbles or, with slots, in real time.
type stage struct {
	parent     testing.TB
	newHarness NewHarness
	stride     int           // which of the pairs of faults are tried: one in so many
	slots      chan struct{} // nil: in bubbles
	pulse      *pulse
	tolerance  time.Duration // of how long the process may stand still
}

func (s *stage) bubble() bool { return s.slots == nil }

// of returns the stage for one subtest.
func (s *stage) of(t *testing.T) *stage {
	own := *s
	own.parent = t
	return &own
}

// execute runs c. It returns in bounded time whatever the driver does.
func (s *stage) execute(c *Case) result {
	if c.explore != nil {
		return s.explore(c)
	}
	if s.bubble() {
		return s.once(c)
	}
	return s.steadily(c)
}

// once runs c on a harness of its own.
func (s *stage) once(c *Case) result {
	results := make(chan result, 1)
	go func() {
		rec := newRecorder(s.parent, c)
		if s.bubble() {
			results <- inBubble(s.parent.(*testing.T), func() result { return c.perform(rec, s.newHarness) })
		} else {
			results <- c.perform(rec, s.newHarness)
		}
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

// inBubble runs f in a bubble, and returns once that has ended.
func inBubble(t *testing.T, f func() result) (r result) {
	defer func() {
		if p := recover(); p != nil && !r.failed {
			r = failure("the bubble cannot end: %v", p)
		}
	}()
	synctest.Test(t, func(*testing.T) { r = f() })
	return r
}

// explore runs the schedules of c.
func (s *stage) explore(c *Case) result {
	e := &exploration{stage: s, offset: int(lastRun.Add(1))}
	c.explore(e)
	if !e.out.failed {
		e.out.lines = append(e.out.lines, fmt.Sprintf("%d schedules, %d faults", e.runs, e.met))
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
			c.run(newC(rec, h, newHarness))
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
