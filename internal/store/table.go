package store

// A table finds entries by id. It is an open hash table of its own, rather
// than a map: the hashes lie in the slots, so that a new id, the common case,
// touches no other entry, and it gives memory back.
type table struct {
	slots []slot // their number is a power of two, or zero; a quarter is free
	n     int
}

// A slot is free if entry is nil.
type slot struct {
	hash  uint64
	entry *entry
}

const minSlots = 8

// home returns where the search for h begins. The lowest bits of h chose the
// shard.
func (t *table) home(h uint64) int { return int(h/shards) & (len(t.slots) - 1) }

func (t *table) after(i int) int { return (i + 1) & (len(t.slots) - 1) }

func (t *table) find(h uint64, id string) *entry {
	if t.n == 0 {
		return nil
	}
	for i := t.home(h); ; i = t.after(i) {
		s := &t.slots[i]
		if s.entry == nil || s.hash == h && s.entry.id == id {
			return s.entry
		}
	}
}

// add adds e, whose id is not there.
func (t *table) add(e *entry) {
	if 4*(t.n+1) > 3*len(t.slots) {
		t.resize(max(minSlots, 2*len(t.slots)))
	}
	t.place(slot{e.hash, e})
	t.n++
}

func (t *table) place(s slot) {
	i := t.home(s.hash)
	for t.slots[i].entry != nil {
		i = t.after(i)
	}
	t.slots[i] = s
}

// remove removes e, which is there.
func (t *table) remove(e *entry) {
	hole := t.home(e.hash)
	for t.slots[hole].entry != e {
		hole = t.after(hole)
	}
	// What was pushed past the hole moves back: no search meets a gap.
	for i := t.after(hole); t.slots[i].entry != nil; i = t.after(i) {
		mask := len(t.slots) - 1
		if far := (i - t.home(t.slots[i].hash)) & mask; far >= (i-hole)&mask {
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = slot{}
	t.n--
}

// each calls f for every entry, for some of them twice if f removes entries.
func (t *table) each(f func(*entry)) {
	for i := 0; i < len(t.slots); {
		e := t.slots[i].entry
		if e != nil {
			f(e)
		}
		if t.slots[i].entry == e { // else another one has moved here
			i++
		}
	}
}

// shrink gives the memory of a past peak back.
func (t *table) shrink() {
	size := len(t.slots)
	for size > minSlots && t.n < size/4 {
		size /= 2
	}
	if size < len(t.slots) {
		t.resize(size)
	}
}

func (t *table) resize(size int) {
	old := t.slots
	t.slots = make([]slot, size)
	for _, s := range old {
		if s.entry != nil {
			t.place(s)
		}
	}
}
