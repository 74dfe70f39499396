package store

import "cmp"

// A dueHeap orders delayed tasks by due time, equal ones by age. It has four
// children per node, which halves the levels of a push.
type dueHeap []dueTask

type dueTask struct {
	due   int64
	order uint64
	task  *task
}

func (a dueTask) before(b dueTask) bool {
	return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.order, b.order)) < 0
}

func (h *dueHeap) push(d dueTask) {
	*h = append(*h, d)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !d.before(s[up]) {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = d
}

// pop removes the task that is due first; there must be one.
func (h *dueHeap) pop() *task {
	s := *h
	top, last := s[0].task, s[len(s)-1]
	s[len(s)-1] = dueTask{}
	s = s[:len(s)-1]
	*h = s
	if len(s) > 0 {
		s.sink(last)
	}
	return top
}

// sink puts d into the hole at the root.
func (h dueHeap) sink(d dueTask) {
	i := 0
	for {
		first := 4*i + 1
		if first >= len(h) {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, len(h)); c++ {
			if h[c].before(h[least]) {
				least = c
			}
		}
		if !h[least].before(d) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = d
}
