package conformance

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// A pulse notices when the process stands still: while the machine is busy
// with something else, leases run out and what is due comes late, which says
// nothing about a driver.
type pulse struct {
	done chan struct{}

	mu     sync.Mutex
	beat   time.Time
	stalls []stall
}

type stall struct {
	end  time.Time
	took time.Duration
}

// A beat, and how late one is worth remembering.
const beat, noise = 10 * time.Millisecond, 10 * time.Millisecond

func newPulse() *pulse {
	p := &pulse{done: make(chan struct{}), beat: time.Now()}
	go p.run()
	return p
}

func (p *pulse) stop() { close(p.done) }

func (p *pulse) run() {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-t.C:
			p.note(time.Now())
		}
	}
}

// note remembers how much later than it should be the beat at now is.
func (p *pulse) note(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if late := now.Sub(p.beat) - beat; late > noise {
		p.stalls = append(p.stalls, stall{now, late})
	}
	p.beat = now
}

// longest returns for how long the process stood still, at most, since begin.
func (p *pulse) longest(begin time.Time) time.Duration {
	p.note(time.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	var most time.Duration
	for i := len(p.stalls) - 1; i >= 0 && p.stalls[i].end.After(begin); i-- {
		most = max(most, p.stalls[i].took)
	}
	return most
}

const mostRuns = 5

// steadily runs c in real time, and runs it again if it failed while the
// process stood still for longer than its tolerance. The last failure counts.
func (s *stage) steadily(c *Case) result {
	var again []string
	for n := 1; ; n++ {
		begin := time.Now()
		r := s.once(c)
		stood := s.pulse.longest(begin).Round(time.Millisecond)
		if !r.failed || stood <= s.tolerance || n == mostRuns {
			r.lines = append(again, r.lines...)
			return r
		}
		again = append(again, fmt.Sprintf("run %d proved nothing, as the process stood still for %v: %s", n, stood, strings.Join(r.lines[:min(1, len(r.lines))], "")))
	}
}
