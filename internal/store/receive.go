package store

import (
	"context"
	"fmt"

	"github.com/chicory-go/chicory/driver"
)

// Receive implements [driver.Subscription].
//
// A waiting receiver stands in line at each of its queues. Who makes tasks
// ready takes receivers out of the line and signals them; they claim for
// themselves, so a delivery is never on its way to somebody who has left. In
// return, whoever was taken out of a line makes sure, when leaving, that what
// is ready there wakes the next (see unpark).
func (s *subscription) Receive(ctx context.Context, limit int) ([]*driver.Delivery, error) {
	if limit < 1 {
		return nil, s.broker.space.store.wrap("receive", fmt.Errorf("max is %d, want at least 1", limit))
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	for {
		ds, wait, err := s.try(limit)
		if err != nil || len(ds) > 0 {
			return ds, err
		}
		if !wait {
			continue
		}
		select {
		case <-s.wake:
		case <-s.broker.space.store.down:
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.unpark()
			return nil, live(ctx)
		}
	}
}

// try claims what is ready. If there is nothing and wait is true, wake will be
// signalled when there may be.
func (s *subscription) try(limit int) (ds []*driver.Delivery, wait bool, err error) {
	s.mu.Lock()
	if err := s.over(); err != nil {
		s.mu.Unlock()
		return nil, false, err
	}
	n := min(limit, s.prefetch-int(s.held.Load()))
	if n <= 0 {
		defer s.mu.Unlock()
		s.unpark()
		s.starved.Store(true)
		return nil, int(s.held.Load()) >= s.prefetch, nil
	}
	cs := s.claimAll(n)
	marks := s.marks
	s.marks = nil
	s.unpark()
	if len(cs) == 0 {
		defer s.mu.Unlock()
		return nil, s.park(n), nil
	}
	if marks != nil {
		s.claims = nil // cs is in use while others may claim
		s.mu.Unlock()
		if err := s.keepMarks(marks, cs); err != nil {
			return nil, false, err
		}
		return deliveries(cs), false, nil
	}
	ds = deliveries(cs)
	clear(cs)
	s.claims = cs[:0]
	s.mu.Unlock()
	return ds, false, nil
}

// over returns why there is nothing more to receive, nil if there may be.
// s.mu is held.
func (s *subscription) over() error {
	if s.stopped || s.closed.Load() {
		return driver.ErrClosed
	}
	return s.broker.space.store.failure()
}

// claimAll claims up to n tasks. s.mu is held.
func (s *subscription) claimAll(n int) []claim {
	cs := s.claims[:0]
	if s.strict || len(s.sources) == 1 {
		for _, src := range s.sources {
			if len(cs) < n {
				cs = s.claim(src, n-len(cs), cs)
			}
		}
		return cs
	}
	for len(cs) < n && s.plan(n-len(cs)) {
		for _, src := range s.sources {
			if src.share > 0 {
				cs = s.claim(src, src.share, cs)
			}
		}
	}
	return cs
}

// claim claims up to n tasks of src. The credit is taken beforehand: a lease
// could run out, and return it, before Receive does.
func (s *subscription) claim(src *source, n int, cs []claim) []claim {
	before := len(cs)
	s.held.Add(int64(n))
	cs = src.queue.claim(s, n, cs)
	if unused := n - (len(cs) - before); unused > 0 {
		s.held.Add(int64(-unused))
	}
	return cs
}

// plan shares up to n out among the sources that have ready tasks, by smooth
// weighted round robin: over time each gets its weight, and none waits for
// long. It reports whether there is anything to take.
func (s *subscription) plan(n int) bool {
	total := 0
	for _, src := range s.sources {
		src.share, src.ready = 0, src.queue.peek()
		total += src.ready
	}
	for range min(n, total) {
		weights := 0
		var best *source
		for _, src := range s.sources {
			if src.ready == 0 {
				continue
			}
			weights += src.weight
			if src.turn += src.weight; best == nil || src.turn > best.turn {
				best = src
			}
		}
		best.turn -= weights
		best.share++
		best.ready--
	}
	return total > 0
}

// park gets in line at every queue. It reports false, and is in no line, if a
// queue has ready tasks after all. s.mu is held.
func (s *subscription) park(n int) bool {
	s.parked = true
	for _, src := range s.sources {
		q := src.queue
		q.mu.Lock()
		found := q.ready > 0
		if !found {
			src.want = n
			q.waiting.pushBack(&src.parked)
		}
		q.mu.Unlock()
		if found {
			s.unpark()
			return false
		}
	}
	return true
}

// unpark gets out of every line. Where it had been called out already, the
// next one is called in its place if there is still something to take. s.mu
// is held.
func (s *subscription) unpark() {
	if !s.parked {
		return
	}
	s.parked = false
	for _, src := range s.sources {
		q := src.queue
		q.mu.Lock()
		if !q.waiting.remove(&src.parked) {
			q.wake()
		}
		q.mu.Unlock()
	}
}

// credit counts n deliveries as no longer held.
func (s *subscription) credit(n int) {
	s.held.Add(int64(-n))
	if s.starved.Load() && s.starved.CompareAndSwap(true, false) {
		signal(s.wake)
	}
}
