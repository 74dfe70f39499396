package store

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

// priorities is the number of levels, 0 to 9.
const priorities = 10

// A queue holds the living messages and the dead letters of one name.
//
// Locks are taken in this order: subscription, queue (several: by rank),
// shard, and then those that guard a leaf (sweeper, notifications).
type queue struct {
	space *space
	name  string
	rank  int

	mu      sync.Mutex
	lease   time.Duration // zero until the first subscription sets it
	orders  uint64        // last order given out
	rings   [priorities]ring
	mask    uint16 // bit p is set if rings[p] has tasks
	ready   int
	aside   int // tasks that wait for the end of a change
	delayed dueHeap
	// leased is sorted by expiry without effort: all leases of a queue are
	// equally long, and a renewed one goes to the end.
	leased  list[*task]
	leases  int
	waiting list[*source]
	dead    deadIndex

	timer   *time.Timer
	timerAt int64 // when timer fires, zero if it is not armed
}

// add enters a task that nobody has seen yet. q.mu is held.
func (q *queue) add(t *task, now instant) {
	q.orders++
	t.order = q.orders
	if t.msg.Delay > 0 {
		q.hold(t, now.after(t.msg.Delay))
		return
	}
	q.enqueue(t, now.at)
}

// hold keeps t back until due.
func (q *queue) hold(t *task, due int64) {
	t.place, t.at = delayed, due
	q.delayed.push(dueTask{due, t.order, t})
}

// enqueue makes t the last ready task of its priority.
func (q *queue) enqueue(t *task, now int64) {
	p := t.msg.Priority
	t.place, t.at = ready, now
	q.rings[p].push(t)
	q.mask |= 1 << p
	q.ready++
}

// putBack makes t ready again at the place it had.
func (q *queue) putBack(t *task, now int64) {
	p := t.msg.Priority
	t.place, t.at = ready, now
	q.rings[p].insert(t)
	q.mask |= 1 << p
	q.ready++
}

// pop takes the first ready task of the highest priority; there must be one.
func (q *queue) pop() *task {
	p := bits.Len16(q.mask) - 1
	t := q.rings[p].pop()
	if q.rings[p].n == 0 {
		q.mask &^= 1 << p
	}
	q.ready--
	return t
}

// peek returns how many tasks are ready.
func (q *queue) peek() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tick(q.space.store.now().at)
	return q.ready
}

// grant leases t to s.
func (q *queue) grant(t *task, s *subscription, now int64) {
	t.place, t.at, t.holder = leased, now+int64(q.lease), s
	t.token++
	t.returned = false
	t.lease.value = t
	q.leased.pushBack(&t.lease)
	q.leases++
}

// ungrant ends the lease of t.
func (q *queue) ungrant(t *task) {
	q.leased.remove(&t.lease)
	q.leases--
	t.place, t.holder, t.marked = gone, nil, false
}

// wait sets t aside until the change that holds its entry has ended. The shard
// is locked as well.
func (q *queue) wait(t *task) {
	t.place = waiting
	q.aside++
	h := t.entry.held
	h.waiting = append(h.waiting, t)
}

// resume makes a task ready again that waits for the end of a change.
func (q *queue) resume(t *task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.place == waiting {
		q.aside--
		q.putBack(t, q.space.store.now().at)
		q.wake()
	}
}

// renew gives t a full lease from now.
func (q *queue) renew(t *task, now int64) {
	q.leased.remove(&t.lease)
	t.at = now + int64(q.lease)
	q.leased.pushBack(&t.lease)
}

// tick does what has come due: leases that ran out, delays that are over.
// Every call that looks at the queue's tasks begins with it.
func (q *queue) tick(now int64) {
	if h := q.leased.head; h != nil && h.value.at <= now {
		q.expire(now)
	}
	for len(q.delayed) > 0 && q.delayed[0].due <= now {
		t := q.delayed.pop()
		if t.returned {
			q.putBack(t, now)
			continue
		}
		q.orders++ // a delayed task queues up when it is due
		t.order = q.orders
		q.enqueue(t, t.at)
	}
}

// expire takes tasks back whose lease ran out, and counts their deaths.
func (q *queue) expire(now int64) {
	var died []*task
	for h := q.leased.head; h != nil && h.value.at <= now; h = q.leased.head {
		t := h.value
		died = append(died, t)
		t.holder.credit(1)
		t.deaths++
		q.ungrant(t)
	}
	for _, t := range slices.Backward(died) { // the last goes in first: nothing moves
		q.putBack(t, now)
	}
	if step := q.space.note(); step != nil {
		for _, t := range died {
			step.PutDeaths(t.seq, t.deaths)
		}
		step.Commit(false, nil)
	}
}

// wake signals as many parked receivers as the ready tasks can serve.
func (q *queue) wake() {
	for n := q.ready; n > 0 && q.waiting.head != nil; {
		src := q.waiting.head.value
		q.waiting.remove(&src.parked)
		n -= src.want
		signal(src.sub.wake)
	}
}

// arm makes sure that a timer fires when the next lease or delay ends.
func (q *queue) arm(now int64) {
	var next int64
	if h := q.leased.head; h != nil {
		next = h.value.at
	}
	if len(q.delayed) > 0 && (next == 0 || q.delayed[0].due < next) {
		next = q.delayed[0].due
	}
	if next == 0 || q.timerAt != 0 && q.timerAt <= next || q.space.store.clients.Load() == 0 {
		return
	}
	q.timerAt = next
	if d := time.Duration(next - now); q.timer == nil {
		q.timer = time.AfterFunc(d, q.fire)
	} else {
		q.timer.Reset(d)
	}
}

func (q *queue) fire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.space.store.now().at
	q.timerAt = 0
	q.tick(now)
	q.wake()
	q.arm(now)
}

// disarm stops the timer. q.mu is held.
func (q *queue) disarm() {
	if q.timer != nil {
		q.timer.Stop()
	}
	q.timer, q.timerAt = nil, 0
}
