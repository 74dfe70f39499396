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
	next    int64 // no record expires before, zero if none does at all

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
	if e != nil {
		k.shard.age(e, now)
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
	e := k.find(now)
	if e == nil {
		r := &recorded{entry: entry{id: k.id, hash: k.hash}}
		e = &r.entry
		e.room = &r.record
		k.shard.entries.add(e)
	}
	return e
}

// tidy drops e if there is nothing left in it.
func (sh *shard) tidy(e *entry) {
	if e.held == nil && e.record == nil && e.tasks == nil && e.dead == nil && len(e.watch) == 0 {
		sh.entries.remove(e)
	}
}
