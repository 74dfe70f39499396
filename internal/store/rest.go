package store

import (
	"cmp"

	"github.com/chicory-go/chicory/driver"
)

// What the journal has need not be in RAM: records are most of what there is,
// and few of them are looked at again. So of those that are kept only some stay,
// the last ones of each shard; the others rest, and are read when they are
// looked for.

// The most that stays, in all shards of a namespace.
const (
	maxCached      = 1 << 16
	maxCachedBytes = 64 << 20
	maxEnvelopes   = 64 << 20 // bytes, in all namespaces
)

// A cached is an entry whose record may rest.
type cached struct {
	entry *entry
	bytes int
}

// durable reports whether the space has a journal.
func (sp *space) durable() bool { return sp.store.options.Journal != nil }

// cache has the record of e stay, as the last, and the first ones rest.
func (sh *shard) cache(e *entry) {
	e.queued = true
	size := sizeOf(e.record)
	sh.cached = append(sh.cached, cached{e, size})
	sh.bytes += size
	limit := cmp.Or(sh.space.store.options.Cached, maxCached) / shards
	for len(sh.cached) > max(0, limit) || sh.bytes > maxCachedBytes/shards {
		first := sh.cached[0]
		sh.cached[0] = cached{}
		sh.cached = sh.cached[1:]
		sh.bytes -= first.bytes
		sh.rest(first.entry)
	}
}

func sizeOf(r *driver.Record) int {
	size := len(r.Body)
	if r.Next != nil {
		size += len(r.Next.Envelope)
	}
	return size
}

// rest lets go of the record of e, if the journal has it.
func (sh *shard) rest(e *entry) {
	e.queued = false
	if e.record == nil || !e.kept || e.held != nil {
		return
	}
	e.record, e.room, e.expires, e.resting = nil, nil, 0, true
	sh.drop(e)
}

// read brings the record of e back, if it rests.
func (sh *shard) read(e *entry) {
	if !e.resting {
		return
	}
	e.resting = false
	sp := sh.space
	if r, expires := sp.store.options.Journal.Record(sp.name, e.id); r != nil {
		sh.keep(e, r, sp.store.now().moment(expires))
		e.kept = true
	}
}

// sweepJournal has the journal drop what has expired and rests.
func (sp *space) sweepJournal(now instant) {
	sp.store.options.Journal.Expired(sp.name, now.ms(), func(id string) {
		k := sp.key(id)
		k.shard.mu.Lock()
		defer k.shard.mu.Unlock()
		e := k.rested() // the journal has it, even if it was to drop it
		k.shard.age(e, sp.store.now().at)
		k.shard.tidy(e)
	})
}

// settleDown lets the envelope of t, which the journal will have and nobody has
// seen yet, rest if there are many already.
func (t *task) settleDown() {
	store := t.queue.space.store
	limit := int64(maxEnvelopes)
	if store.options.Cached < 0 {
		limit = 0
	}
	if store.envelopes.Add(int64(t.size)) <= limit {
		return
	}
	store.envelopes.Add(int64(-t.size))
	t.resting, t.msg.Envelope = true, nil
}

// leave takes the envelope of a task that is gone, or has never come, out of
// what is in RAM.
func (t *task) leave() {
	if store := t.queue.space.store; store.options.Journal != nil && !t.resting {
		store.envelopes.Add(int64(-t.size))
	}
}

// envelope returns the envelope of a task whose envelope rests, nil if it is
// there no more: then the task is not, either.
func (t *task) envelope() []byte {
	sp := t.queue.space
	return sp.store.options.Journal.Envelope(sp.name, t.seq)
}
