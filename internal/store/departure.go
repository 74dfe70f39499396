package store

// A departure is a task that leaves its lease or, purged, its queue.
type departure struct {
	task  *task
	from  place
	stays bool  // it is given back
	due   int64 // when it is, zero is at once
}

// leave ends the departure: the task is gone, or ready again. Its queue is
// locked.
func (d *departure) leave(now instant) {
	t, q := d.task, d.task.queue
	t.change = nil
	if d.from == leased {
		q.leases--
		t.holder, t.marked = nil, false
	}
	switch {
	case !d.stays:
		t.place = gone
		t.leave()
	case d.due > now.at:
		t.returned = true
		q.hold(t, d.due)
	default:
		q.putBack(t, now.at)
	}
}

// stay takes the departure back. A lease starts anew. The task's queue is
// locked.
func (d *departure) stay(now instant) {
	t, q := d.task, d.task.queue
	t.change = nil
	switch d.from {
	case leased:
		t.place, t.at = leased, now.at+int64(q.lease)
		q.leased.pushBack(&t.lease)
	case delayed:
		q.hold(t, d.due)
	default:
		q.putBack(t, now.at)
	}
}
