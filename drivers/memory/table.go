package memory

// A table finds entries by id. It is a chained hash table of its own because
// an entry that a task points to is removed, and one that was missed is added,
// without hashing or probing again, and because it gives memory back.
type table struct {
	buckets []*entry // their number is a power of two, or zero
	n       int
}

const minBuckets = 8

// slot returns the head of the chain that h belongs to. The lowest bits chose
// the shard.
func (t *table) slot(h uint64) **entry { return &t.buckets[h/shards&uint64(len(t.buckets)-1)] }

func (t *table) find(h uint64, id string) *entry {
	if t.n == 0 {
		return nil
	}
	e := *t.slot(h)
	for e != nil && (e.hash != h || e.id != id) {
		e = e.chain
	}
	return e
}

// add adds e, whose id is not there.
func (t *table) add(e *entry) {
	if t.n >= len(t.buckets) {
		t.resize(max(minBuckets, 2*len(t.buckets)))
	}
	s := t.slot(e.hash)
	e.chain, *s = *s, e
	t.n++
}

// remove removes e, which is there.
func (t *table) remove(e *entry) {
	s := t.slot(e.hash)
	for *s != e {
		s = &(*s).chain
	}
	*s, e.chain = e.chain, nil
	t.n--
}

// each calls f for every entry. f may remove it.
func (t *table) each(f func(*entry)) {
	for _, e := range t.buckets {
		for e != nil {
			next := e.chain
			f(e)
			e = next
		}
	}
}

// shrink gives the memory of a past peak back.
func (t *table) shrink() {
	size := len(t.buckets)
	for size > minBuckets && t.n < size/4 {
		size /= 2
	}
	if size < len(t.buckets) {
		t.resize(size)
	}
}

func (t *table) resize(size int) {
	old := t.buckets
	t.buckets = make([]*entry, size)
	for _, e := range old {
		for e != nil {
			next, s := e.chain, t.slot(e.hash)
			e.chain, *s = *s, e
			e = next
		}
	}
}
