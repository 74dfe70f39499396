package store

// A link is a place in a list. The zero value is in no list.
type link[T any] struct {
	prev, next *link[T]
	in         bool
	value      T
}

// A list is an intrusive doubly linked list: adding and removing allocate
// nothing and take constant time.
type list[T any] struct{ head, tail *link[T] }

func (l *list[T]) pushBack(n *link[T]) {
	n.prev, n.next, n.in = l.tail, nil, true
	if l.tail == nil {
		l.head = n
	} else {
		l.tail.next = n
	}
	l.tail = n
}

// remove takes n out of l and reports whether it was in.
func (l *list[T]) remove(n *link[T]) bool {
	if !n.in {
		return false
	}
	if n.prev == nil {
		l.head = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		l.tail = n.prev
	} else {
		n.next.prev = n.prev
	}
	n.prev, n.next, n.in = nil, nil, false
	return true
}
