package store

import (
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// worthShrinking is the size of a record from which on a journal gets the
// skeleton, in bytes. It need not: it keeps when the record expires.
const worthShrinking = 512

// age does to the record what time has done since the last look.
func (sh *shard) age(e *entry, now int64) {
	sh.read(e)
	for e.held == nil && e.record != nil && e.expires != 0 && now >= e.expires {
		switch r := e.record; {
		case !r.Skeleton && r.State.Terminal() && !r.Held:
			large := sizeOf(r) >= worthShrinking
			*e.record = *driver.SkeletonOf(r)
			e.expires += int64(driver.SkeletonAge)
			if step := sh.space.note(); step != nil && large {
				step.PutRecord(e.record, sh.space.store.now().unixMilli(e.expires))
				step.Commit(false, nil)
			}
		case !r.Skeleton && e.tasks != nil: // lives as long as its task
			e.expires += int64(driver.SafetyAge)
		default:
			*e.room, e.record, e.expires = driver.Record{}, nil, 0
			if step := sh.space.note(); step != nil {
				step.DropRecord(e.id)
				step.Commit(false, nil)
			}
		}
	}
}

// put makes r the record of e, in c, and tells those who wait for it. What is
// put outside of a change is not kept by the journal.
func (sh *shard) put(c *change, e *entry, r *driver.Record, now instant) {
	sh.keep(e, r, expiry(r, now))
	sh.log(c, e, now)
	if !r.State.Terminal() {
		return
	}
	if e.held != nil {
		e.held.announce = true
		return
	}
	sh.space.announce(e)
}

// log has the journal keep the record of e in c.
func (sh *shard) log(c *change, e *entry, now instant) {
	if c == nil {
		return
	}
	if step := c.log(); step != nil {
		step.PutRecord(e.record, now.unixMilli(e.expires))
		e.held.logged = true
	}
}

// keep stores a copy of r until expires. It overwrites the record before: the
// three records of a task take one allocation.
func (sh *shard) keep(e *entry, r *driver.Record, expires int64) {
	if e.room == nil {
		e.room = new(driver.Record)
	}
	*e.room, e.record, e.expires, e.kept = *r, e.room, expires, false
	if expires != 0 && (sh.next == 0 || expires < sh.next) {
		sh.next = expires
		sh.space.sweeper.by(expires)
	}
}

// expiry returns when a record that was written now expires.
func expiry(r *driver.Record, now instant) int64 {
	switch {
	case r.Provisional:
		return now.at + int64(driver.ProvisionalAge)
	case r.State.Terminal() && !r.Held:
		if r.TTL <= 0 {
			return 0
		}
		return now.after(r.TTL)
	}
	due := min(max(0, r.Due-now.ms()), int64(driver.SafetyAge/time.Millisecond)*1000)
	return now.at + due*int64(time.Millisecond) + int64(driver.SafetyAge)
}

// meet tells a cancellation from outside that its message, or somebody with a
// verdict about it, came by: its time to live begins. Nobody waits for the
// journal to know.
func (sh *shard) meet(e *entry, now instant) {
	if e.record == nil || !e.record.Held {
		return
	}
	r := *e.record
	r.Held = false
	sh.keep(e, &r, expiry(&r, now))
	if step := sh.space.note(); step != nil {
		step.PutRecord(e.record, now.unixMilli(e.expires))
		step.Commit(false, nil)
	}
}

// alive reports whether a message or a dead letter of e, except one message,
// is as new as v.
func (e *entry) alive(v driver.Version, except *task) bool {
	for t := e.tasks; t != nil; t = t.twin {
		if t != except && t.msg.Version().Compare(v) >= 0 {
			return true
		}
	}
	for d := e.dead; d != nil; d = d.twin {
		if d.version.Compare(v) >= 0 {
			return true
		}
	}
	return false
}

// link adds t to the living messages of e.
func (e *entry) link(t *task) {
	t.entry, t.twin = e, e.tasks
	e.tasks = t
}

// unlink takes t out of the living messages of its entry.
func (sh *shard) unlink(t *task) {
	e := t.entry
	for at := &e.tasks; *at != nil; at = &(*at).twin {
		if *at == t {
			*at = t.twin
			break
		}
	}
	t.entry, t.twin = nil, nil
	sh.tidy(e)
}

// unwatch takes n out of those that wait for e.
func (sh *shard) unwatch(e *entry, n *notifications) {
	if i := slices.Index(e.watch, n); i >= 0 {
		e.watch = slices.Delete(e.watch, i, i+1)
		sh.tidy(e)
	}
}
