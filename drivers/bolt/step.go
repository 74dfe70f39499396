package bolt

import (
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/store"
	bbolt "go.etcd.io/bbolt"
)

// A kind of bucket; every namespace has one of each that it needs.
type kind byte

// The kinds of buckets, by what they hold.
const (
	tasks   kind = 't' // seq → message that lives
	deaths  kind = 'm' // seq → deliveries that died, of those that differ from 0
	letters kind = 'd' // seq → dead letter
	records kind = 'r' // id → record
	leases  kind = 'q' // queue → lease
	keys    kind = 'k' // control key → value
)

// A step is a [store.Step]: writes that are encoded, waiting for their commit.
type step struct {
	writer    *writer
	namespace string
	writes    []write
	size      int
	largest   int // size of the largest value
	refusable bool
	done      func(error)
}

// A write puts a value, or deletes if that is nil.
type write struct {
	kind  kind
	key   []byte
	value []byte
}

// Begin implements [store.Journal].
func (w *writer) Begin(namespace string) store.Step {
	return &step{writer: w, namespace: namespace}
}

func (s *step) put(k kind, key, value []byte) {
	s.writes = append(s.writes, write{k, key, value})
	s.size += len(key) + len(value)
	s.largest = max(s.largest, len(value))
}

// PutTask implements [store.Step], as do the others.
func (s *step) PutTask(t *store.Task) { s.put(tasks, seqKey(t.Seq), encodeTask(t)) }

func (s *step) DropTask(seq uint64) {
	key := seqKey(seq)
	s.put(tasks, key, nil)
	s.put(deaths, key, nil)
}

func (s *step) PutDeaths(seq uint64, n int) {
	if n == 0 {
		s.put(deaths, seqKey(seq), nil)
		return
	}
	s.put(deaths, seqKey(seq), encodeStamped(nil, int64(n)))
}

func (s *step) PutRecord(r *driver.Record, expires int64) {
	s.put(records, []byte(r.ID), encodeRecord(r, expires))
}

func (s *step) DropRecord(id string) { s.put(records, []byte(id), nil) }

func (s *step) PutDead(seq uint64, m *driver.Message) { s.put(letters, seqKey(seq), encodeDead(m)) }

func (s *step) DropDead(seq uint64) { s.put(letters, seqKey(seq), nil) }

func (s *step) PutLease(queue string, lease time.Duration) {
	s.put(leases, []byte(queue), encodeStamped(nil, int64(lease)))
}

func (s *step) PutKey(key string, value []byte, expires int64) {
	s.put(keys, []byte(key), encodeStamped(value, expires))
}

func (s *step) DropKey(key string) { s.put(keys, []byte(key), nil) }

// Commit implements [store.Step].
func (s *step) Commit(refusable bool, done func(error)) {
	s.refusable, s.done = refusable, done
	s.writer.submit(s)
}

// end says how the step has ended.
func (s *step) end(err error) {
	if s.done != nil {
		s.done(err)
	}
}

// apply does the writes of s in tx.
func (s *step) apply(tx *bbolt.Tx) error {
	for i := range s.writes {
		w := &s.writes[i]
		name := w.kind.name(s.namespace)
		b := tx.Bucket(name)
		if b == nil {
			if w.value == nil {
				continue
			}
			var err error
			if b, err = tx.CreateBucket(name); err != nil {
				return err
			}
		}
		b.FillPercent = fillPercent
		if w.value == nil {
			if err := b.Delete(w.key); err != nil {
				return err
			}
		} else if err := b.Put(w.key, w.value); err != nil {
			return err
		}
	}
	return nil
}
