package store

import (
	"context"
	"errors"
	"sync"

	"github.com/chicory-go/chicory/driver"
)

// A change is what one call decides about messages and records. It is decided
// in the store's memory, kept by the journal, and then applied or, if the
// journal refused it, undone.
//
// In between, the entries it has changed are held: whoever would decide about
// one waits for the change to end, and whoever reads one sees what was before.
// So nothing is seen, handed out or built upon that could be taken back. A
// call never waits while it holds; it ends its change first. Without a journal
// nothing is held.
type change struct {
	space     *space
	refusable bool
	step      Step // nil as long as there is nothing to keep
	holds     []*hold
	blocked   *change       // another one that holds what this one looked for
	ended     chan struct{} // nil without a journal
	err       error         // how it has ended

	in      []posting     // what queues get
	out     []departure   // what they had
	dug     []*deadLetter // dead letters they had
	queues  lockSet       // where all that happens
	pending int           // messages added that were not reserved, less those removed
	taken   int           // of the reserved
	sub     *subscription // whose deliveries are settled
	credits int           // how many

	first *hold // room for one, if there is a journal
}

// A journaled is a change with room for what it needs if it is of one message.
type journaled struct {
	change
	in     [1]posting
	out    [1]departure
	queues [1]*queue
	holds  [1]*hold
	hold   hold
	tasks  [1]*task
}

func newJournaled(sp *space) *change {
	j := &journaled{change: change{space: sp, ended: make(chan struct{})}}
	c := &j.change
	c.in, c.out, c.queues, c.holds = j.in[:0], j.out[:0], j.queues[:0], j.holds[:0]
	c.first = &j.hold
	c.first.tasks = j.tasks[:0]
	return c
}

// errHeld is what a decision says that must be made again: see change.blocked.
var errHeld = errors.New("store: the id is held")

var changes = sync.Pool{New: func() any { return new(change) }}

func (sp *space) begin() *change {
	if sp.store.options.Journal != nil {
		return newJournaled(sp)
	}
	c := changes.Get().(*change)
	c.space = sp
	return c
}

// free gives c back to those to come, unless the journal knows it.
func (c *change) free() {
	if c.ended != nil || max(cap(c.in), cap(c.out)) > maxScratch {
		return
	}
	*c = change{in: cleared(c.in), out: cleared(c.out), dug: cleared(c.dug), queues: cleared(c.queues)}
	changes.Put(c)
}

// log returns the step of c, nil without a journal.
func (c *change) log() Step {
	if c.step == nil {
		c.step = c.space.note()
	}
	return c.step
}

// A hold is an entry in a change, and what it was before.
type hold struct {
	change   *change
	shard    *shard
	entry    *entry
	recorded bool
	record   driver.Record
	expires  int64
	tasks    []*task
	dead     []*deadLetter
	kept     bool
	announce bool    // the record became terminal
	logged   bool    // the journal gets it
	waiting  []*task // would have been handed out
}

// mayHold reports whether c may change e. If not, c is blocked.
func (c *change) mayHold(e *entry) bool {
	if e == nil || e.held == nil || e.held.change == c {
		return true
	}
	c.blocked = e.held.change
	return false
}

// hold remembers what e is, before c changes it. The shard is locked.
func (c *change) hold(sh *shard, e *entry) {
	if c.ended == nil || e.held != nil {
		return
	}
	sh.read(e)
	h := c.first
	if h == nil {
		h = new(hold)
	}
	c.first = nil
	*h = hold{change: c, shard: sh, entry: e, expires: e.expires, kept: e.kept, tasks: h.tasks}
	if e.record != nil {
		h.recorded, h.record = true, *e.record
	}
	for t := e.tasks; t != nil; t = t.twin {
		h.tasks = append(h.tasks, t)
	}
	for d := e.dead; d != nil; d = d.twin {
		h.dead = append(h.dead, d)
	}
	e.held = h
	c.holds = append(c.holds, h)
}

// enter notes that the queue of p gets p, which was admitted.
func (c *change) enter(p *posting, now instant) {
	c.in = append(c.in, *p)
	c.queues.add(p.queue())
	step := c.log()
	if step == nil {
		return
	}
	if d := p.dead; d != nil {
		step.PutDead(d.seq, d.msg)
		d.msg = nil // the journal has it
		return
	}
	step.PutTask(p.task.stored(p.task.msg.Delay, now))
	p.task.settleDown()
}

// commit has the journal keep c, and waits until it is applied or undone.
// Without anything to keep c is applied at once; locked, if not empty, are the
// queues that are locked already, all of c's among them. They are unlocked.
func (c *change) commit(ctx context.Context, locked lockSet, now instant) error {
	if c.step == nil {
		if len(locked) == 0 {
			now = c.queues.lock(c.space.store)
			locked = c.queues
		}
		c.finish(true, locked, now)
		return nil
	}
	locked.unlock(now)
	c.step.Commit(c.refusable, c.end)
	if ctx.Done() == nil {
		<-c.ended
		return c.err
	}
	select {
	case <-c.ended:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end applies or undoes c, as the journal says.
func (c *change) end(err error) {
	store := c.space.store
	store.check(err)
	c.err = err
	c.finish(err == nil, c.queues, c.queues.lock(store))
}

// finish applies or undoes c and lets go of the entries. The queues, which are
// locked, are unlocked, but not before: who takes a task would find it held.
func (c *change) finish(applied bool, locked lockSet, now instant) {
	if applied {
		c.apply(now)
	} else {
		c.undo(now)
	}
	for _, h := range c.holds {
		h.release(applied)
	}
	locked.unlock(now)
	for _, h := range c.holds {
		for _, t := range h.waiting {
			t.queue.resume(t)
		}
	}
	if c.ended != nil {
		close(c.ended)
	}
}

// apply does to the queues, which are locked, what was decided.
func (c *change) apply(now instant) {
	for _, d := range c.dug {
		d.queue.dead.remove(d)
	}
	for i := range c.out {
		c.out[i].leave(now)
	}
	for i := range c.in {
		c.in[i].queue().store(&c.in[i], now)
	}
	if c.pending != 0 {
		c.space.store.pending.Add(int64(c.pending))
	}
	if c.credits > 0 {
		c.sub.credit(c.credits)
	}
}

// undo makes of the queues, which are locked, what they were.
func (c *change) undo(now instant) {
	for i := range c.out {
		c.out[i].stay(now)
	}
	for i := range c.in {
		if t := c.in[i].task; t != nil {
			t.leave()
		}
	}
	if c.taken != 0 {
		c.space.store.pending.Add(int64(-c.taken))
	}
}

// release lets go of the entry, as it is now or as it was.
func (h *hold) release(applied bool) {
	h.shard.mu.Lock()
	e, sh := h.entry, h.shard
	e.held = nil
	switch {
	case !applied:
		h.restore()
	case h.logged:
		e.kept = true
	}
	if applied && h.announce {
		sh.space.announce(e)
	}
	sh.tidy(e)
	sh.mu.Unlock()
}

// restore makes of the entry what it was.
func (h *hold) restore() {
	e := h.entry
	e.record, e.expires, e.kept = nil, h.expires, h.kept
	if h.recorded {
		*e.room, e.record = h.record, e.room
	}
	for t := e.tasks; t != nil; t = t.twin {
		t.entry = nil
	}
	e.tasks, e.dead = nil, nil
	for _, t := range h.tasks {
		e.link(t)
	}
	for _, d := range h.dead {
		d.twin, e.dead = e.dead, d
	}
}
