package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A Restorer fills a new store with what its journal has kept, but for records,
// which are read when they are looked for. It is used by one goroutine, before
// the store has clients.
type Restorer struct {
	store *Store
	now   instant
	tasks []restored
}

type restored struct {
	task  *task
	at    int64 // Unix milliseconds since when it was ready, or will be
	delay int64 // milliseconds that it was delayed by; zero is none
}

// A Past is what a restored store must know of the time before.
type Past struct {
	Last     uint64 // highest number of a message or dead letter
	Suspects uint64 // messages up to it may have killed the process
	Run      uint64 // runs that are granted are above
}

// Restore begins to fill s. The hand-outs of suspects are kept by the journal
// before they take place.
func (s *Store) Restore(p Past) *Restorer {
	s.copies.Store(p.Last)
	s.suspects, s.runs = p.Suspects, p.Run
	return &Restorer{store: s, now: s.now()}
}

// Task restores a message that lives, of which deaths deliveries have died.
func (r *Restorer) Task(namespace string, s *Task, deaths int) {
	sp := r.store.space(namespace)
	k := sp.key(s.Message.ID)
	t := &task{msg: *s.Message, copy: r.store.copyName(s.Seq), seq: s.Seq, size: len(s.Message.Envelope),
		queue: sp.queue(s.Message.Queue), shard: k.shard, deaths: deaths}
	k.rested().link(t)
	t.settleDown()
	r.tasks = append(r.tasks, restored{t, max(s.Since, s.Due), max(0, s.Due-s.Since)})
}

// Dead restores a dead letter.
func (r *Restorer) Dead(namespace string, seq uint64, m *driver.Message) {
	sp := r.store.space(namespace)
	d := newDeadLetter(sp.queue(m.Queue), m, seq)
	d.msg = nil
	e := sp.key(m.ID).rested()
	d.twin, e.dead = e.dead, d
	d.queue.dead.add(d)
}

// Records says that there may be records of IDs up to last.
func (r *Restorer) Records(namespace, last string) {
	shards := &r.store.space(namespace).shards
	for i := range shards {
		shards[i].highest = last
	}
}

// Lease restores the lease of a queue.
func (r *Restorer) Lease(namespace, queue string, lease time.Duration) {
	r.store.space(namespace).queue(queue).lease = lease
}

// Key restores a control key.
func (r *Restorer) Key(namespace, key string, value []byte, expires int64) {
	e := controlEntry{value: value, expires: r.now.moment(expires)}
	r.store.space(namespace).control.put(key, e, r.now.at)
}

// Done ends the restoring, and returns how many messages there are. They are in line as they were: by the time
// since when they were ready, equal ones by their number.
func (r *Restorer) Done() int {
	slices.SortFunc(r.tasks, func(a, b restored) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.task.seq, b.task.seq))
	})
	for _, s := range r.tasks {
		t, q := s.task, s.task.queue
		q.orders++
		t.order = q.orders
		// A clock that went back makes nothing wait for longer than it was to.
		at := min(r.now.moment(s.at), r.now.at+s.delay*int64(time.Millisecond))
		if at > r.now.at {
			q.hold(t, at)
		} else {
			q.enqueue(t, at)
		}
	}
	r.store.pending.Store(int64(len(r.tasks)))
	return len(r.tasks)
}
