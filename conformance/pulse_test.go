package conformance

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPulse(t *testing.T) {
	t.Parallel()
	start := time.Now()
	p := &pulse{beat: start}
	for _, at := range []time.Duration{beat, 2 * beat, 300 * time.Millisecond, 300*time.Millisecond + beat} {
		p.note(start.Add(at))
	}
	if got, want := p.longest(start), 300*time.Millisecond-3*beat; got != want {
		t.Errorf("the longest stall: got %v, want %v", got, want)
	}
	if got := p.longest(start.Add(time.Second)); got != 0 {
		t.Errorf("since the stall ended: got %v, want 0", got)
	}
}

func TestRunsAgainOnlyAfterStall(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		stands       func(run int) bool
		fails        func(run int) bool
		runs         int
		failed, said bool
	}{
		{"passes beside a stall", every(true), every(false), 1, false, false},
		{"fails without a stall", every(false), every(true), 1, true, false},
		{"fails beside a stall, then passes", first, first, 2, false, true},
		{"fails beside a stall, then without one", first, every(true), 2, true, true},
		{"fails beside stalls for ever", every(true), every(true), mostRuns, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pulse{beat: time.Now()}
				s := &stage{parent: t, slots: make(chan struct{}, 1), pulse: p, tolerance: beat,
					newHarness: func(testing.TB) *Harness { return &Harness{} }}
				runs := 0
				r := s.steadily(&Case{quick: true, run: func(c *C) {
					if runs++; test.stands(runs) {
						time.Sleep(20 * beat)
					} else {
						p.note(time.Now())
					}
					c.expect(!test.fails(runs), "fails")
				}})
				said := strings.Contains(strings.Join(r.lines, "\n"), "proved nothing")
				if runs != test.runs || r.failed != test.failed || said != test.said {
					t.Errorf("got %d runs, failed %v, said %v, want %d, %v, %v: %q", runs, r.failed, said, test.runs, test.failed, test.said, r.lines)
				}
			})
		})
	}
}

func first(run int) bool { return run == 1 }

func every(b bool) func(int) bool { return func(int) bool { return b } }
