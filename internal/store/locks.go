package store

import (
	"cmp"
	"slices"
)

// A lockSet is a set of queues that are locked together, in one order for all.
type lockSet []*queue

// add adds q and reports whether it is new.
func (l *lockSet) add(q *queue) bool {
	if slices.Contains(*l, q) {
		return false
	}
	*l = append(*l, q)
	return true
}

// lock locks the queues and brings them up to date.
func (l lockSet) lock(s *Store) instant {
	if len(l) > 1 {
		slices.SortFunc(l, func(a, b *queue) int { return cmp.Compare(a.rank, b.rank) })
	}
	for _, q := range l {
		q.mu.Lock()
	}
	now := s.now()
	for _, q := range l {
		q.tick(now.at)
	}
	return now
}

// unlock wakes receivers, arms timers and unlocks the queues.
func (l lockSet) unlock(now instant) {
	for _, q := range l {
		q.wake()
		q.arm(now.at)
		q.mu.Unlock()
	}
}
