package store

import (
	"cmp"
	"slices"

	"github.com/chicory-go/chicory/driver"
)

// A deadLetter is a stored dead letter.
type deadLetter struct {
	id      string
	version driver.Version
	died    int64           // DeadInfo.LastAt
	msg     *driver.Message // never changed; nil if only the journal has it

	queue *queue
	seq   uint64      // its number in the journal
	twin  *deadLetter // the next of this ID, guarded by shard.mu
	rank  deadRank
}

// newDeadLetter returns m as a dead letter that nobody has seen yet.
func newDeadLetter(q *queue, m *driver.Message, seq uint64) *deadLetter {
	return &deadLetter{id: m.ID, version: m.Version(), died: m.Dead.LastAt, msg: m, queue: q, seq: seq}
}

// key returns the key of d.
func (d *deadLetter) key() driver.DeadKey { return driver.DeadKey{ID: d.id, Epoch: d.version.Epoch} }

// message returns a copy of the message, nil if it is not there any more.
func (d *deadLetter) message() *driver.Message {
	if d.msg != nil {
		return d.msg.Clone()
	}
	sp := d.queue.space
	return sp.store.options.Journal.Dead(sp.name, d.seq)
}

// A deadRank orders dead letters by death, equal ones by arrival.
type deadRank struct {
	at    int64 // DeadInfo.LastAt
	order uint64
}

func (a deadRank) compare(b deadRank) int {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.order, b.order))
}

// A deadIndex holds the dead letters of a queue in order. Removed ones leave
// holes, which are closed when they are the greater part.
type deadIndex struct {
	slots []deadSlot
	first int // no slot before it is taken
	n     int
	order uint64
}

type deadSlot struct {
	rank deadRank
	dead *deadLetter // nil: a hole
}

// find returns the first slot that is not before r.
func (x *deadIndex) find(r deadRank) int {
	i, _ := slices.BinarySearchFunc(x.slots, r, func(s deadSlot, r deadRank) int { return s.rank.compare(r) })
	return i
}

func (x *deadIndex) add(d *deadLetter) {
	x.order++
	d.rank = deadRank{d.died, x.order}
	i := x.find(d.rank)
	if i == len(x.slots) {
		x.slots = append(x.slots, deadSlot{d.rank, d})
	} else {
		x.slots = slices.Insert(x.slots, i, deadSlot{d.rank, d})
	}
	x.first = min(x.first, i)
	x.n++
}

func (x *deadIndex) remove(d *deadLetter) {
	i := x.find(d.rank)
	x.slots[i].dead = nil
	x.n--
	if i == x.first {
		x.first++
	}
	if len(x.slots) > 64 && x.n < len(x.slots)/2 {
		x.slots = slices.Clone(slices.DeleteFunc(x.slots, func(s deadSlot) bool { return s.dead == nil }))
		x.first = 0
	}
}

// after returns up to limit dead letters after rank r, and whether there are
// more.
func (x *deadIndex) after(r deadRank, limit int) (ds []*deadLetter, more bool) {
	i := x.find(r)
	if i < len(x.slots) && x.slots[i].rank == r {
		i++
	}
	for i = max(i, x.first); i < len(x.slots); i++ {
		d := x.slots[i].dead
		if d == nil {
			continue
		}
		if len(ds) == limit {
			return ds, true
		}
		ds = append(ds, d)
	}
	return ds, false
}

// before returns the dead letters that died before the Unix millisecond t.
func (x *deadIndex) before(t int64) (ds []*deadLetter) {
	for _, s := range x.slots[x.first:] {
		if s.rank.at >= t {
			break
		}
		if s.dead != nil {
			ds = append(ds, s.dead)
		}
	}
	return ds
}

// bury decides that c stores the dead letter of p, once per ID and epoch.
func (k key) bury(c *change, p *posting, now instant) error {
	d, sh := p.dead, k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.entry(now.at)
	if !c.mayHold(e) {
		return errHeld
	}
	for o := e.dead; o != nil; o = o.twin {
		if o.version.Epoch == d.version.Epoch {
			return nil
		}
	}
	c.hold(sh, e)
	if u := p.msg.Record; u != nil && sh.space.covering.Load() {
		sh.apply(c, e, u, now)
	}
	d.twin, e.dead = e.dead, d
	c.enter(p, now)
	return nil
}

// unbury takes d out of its entry.
func (sh *shard) unbury(d *deadLetter, e *entry) {
	for at := &e.dead; *at != nil; at = &(*at).twin {
		if *at == d {
			*at = d.twin
			break
		}
	}
	d.twin = nil
	sh.tidy(e)
}

// letters returns the dead letters of e, in a change those before it.
func (e *entry) letters() (ds []*deadLetter) {
	if e.held != nil {
		return e.held.dead
	}
	for d := e.dead; d != nil; d = d.twin {
		ds = append(ds, d)
	}
	return ds
}

// letter returns the dead letter of e in q with that epoch, nil if there is
// none. e may be nil.
func (e *entry) letter(q *queue, epoch uint32) *deadLetter {
	if e == nil {
		return nil
	}
	d := e.dead
	for d != nil && (d.queue != q || d.version.Epoch != epoch) {
		d = d.twin
	}
	return d
}
