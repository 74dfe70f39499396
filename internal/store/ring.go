package store

import "sort"

// A ring is a deque of the ready tasks of one priority, sorted by task.order.
type ring struct {
	buf  []*task // its length is a power of two, or zero
	head int
	n    int
}

// minRing is the capacity of a ring that was used once.
const minRing = 16

func (r *ring) at(i int) *task     { return r.buf[(r.head+i)&(len(r.buf)-1)] }
func (r *ring) set(i int, t *task) { r.buf[(r.head+i)&(len(r.buf)-1)] = t }

// push adds t at the end; its order must be the highest.
func (r *ring) push(t *task) {
	r.grow()
	r.set(r.n, t)
	r.n++
}

// pop removes the first task; there must be one.
func (r *ring) pop() *task {
	t := r.at(0)
	r.set(0, nil)
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	if r.n == 0 && len(r.buf) > 1024 {
		*r = ring{} // give the memory of a past peak back
	}
	return t
}

// insert puts t, which was taken out before, back to its place. What is taken
// comes from the front, so few tasks have to move.
func (r *ring) insert(t *task) {
	r.grow()
	i := 0
	if r.n > 0 && r.at(0).order < t.order {
		i = sort.Search(r.n, func(i int) bool { return r.at(i).order > t.order })
	}
	r.head = (r.head - 1) & (len(r.buf) - 1)
	r.n++
	for j := range i {
		r.set(j, r.at(j+1))
	}
	r.set(i, t)
}

func (r *ring) grow() {
	if r.n < len(r.buf) {
		return
	}
	buf := make([]*task, max(minRing, 2*len(r.buf)))
	for i := range r.n {
		buf[i] = r.at(i)
	}
	r.buf, r.head = buf, 0
}
