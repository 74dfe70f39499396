package store

import (
	"hash/maphash"
	"sync"

	"github.com/chicory-go/chicory/driver"
)

// shards is the number of parts of a namespace's map of ids.
const shards = 64

// A shard is one part of the map of ids.
type shard struct {
	space *space

	mu      sync.Mutex
	entries table
	next    int64 // no record in RAM expires before, zero if none does at all
	cached  []cached
	bytes   int    // of the bodies of cached
	highest string // no id above it rests

	_ [64]byte // keeps the locks of two shards off one cache line
}

// An entry is all that the store knows of one id. It is guarded by the shard.
type entry struct {
	id   string
	hash uint64

	record  *driver.Record // room or nil; overwritten by keep: copy it before unlocking
	room    *driver.Record
	expires int64       // when the record does; zero is never
	tasks   *task       // living messages
	dead    *deadLetter // dead letters, in any queue
	watch   []*notifications
	held    *hold // by a change that the journal does not have yet
	kept    bool  // the journal has the record as it is, or as it will age
	resting bool  // the journal has it, if there is one; RAM does not
	queued  bool  // it is among the shard's cached
}

// A recorded is an entry with room for its record, in one allocation.
type recorded struct {
	entry
	record driver.Record
}

// A key is an id with its hash and shard.
type key struct {
	id    string
	hash  uint64
	shard *shard
}

func (sp *space) key(id string) key {
	h := maphash.String(sp.store.seed, id)
	return key{id, h, &sp.shards[h%shards]}
}

// find returns the entry of k or nil, its record brought up to date. The shard
// is locked.
func (k key) find(now int64) *entry {
	e := k.shard.entries.find(k.hash, k.id)
	if e == nil && k.id > k.shard.highest {
		return nil
	}
	if e == nil {
		e = k.rested()
		k.shard.read(e)
		if e.record == nil {
			k.shard.entries.remove(e)
			return nil
		}
	}
	k.shard.age(e, now)
	return e
}

// rested is entry without a look at the record, which the journal may have.
func (k key) rested() *entry {
	e := k.shard.entries.find(k.hash, k.id)
	if e == nil {
		e = &entry{id: k.id, hash: k.hash, resting: true}
		k.shard.entries.add(e)
	}
	return e
}

// entry is find, but creates what is not there.
func (k key) entry(now int64) *entry {
	e := k.find(now)
	if e == nil {
		e = &entry{id: k.id, hash: k.hash}
		k.shard.entries.add(e)
	}
	return e
}

// recorded is entry for those that will write a record.
func (k key) recorded(now int64) *entry {
	if k.shard.space.durable() {
		return k.entry(now) // the record may rest while the entry stays
	}
	e := k.find(now)
	if e == nil {
		r := &recorded{entry: entry{id: k.id, hash: k.hash}}
		e = &r.entry
		e.room = &r.record
		k.shard.entries.add(e)
	}
	return e
}

// tidy drops e if there is nothing left in it that must be in RAM. A record
// that the journal has stays for a while.
func (sh *shard) tidy(e *entry) {
	if !sh.drop(e) && e.record != nil && e.kept && !e.queued {
		sh.cache(e)
	}
}

// drop drops e if there is nothing in it, and reports whether it did.
func (sh *shard) drop(e *entry) bool {
	empty := e.held == nil && e.record == nil && e.tasks == nil && e.dead == nil && len(e.watch) == 0
	if empty {
		if e.resting {
			sh.highest = max(sh.highest, e.id)
		}
		sh.entries.remove(e)
	}
	return empty
}
