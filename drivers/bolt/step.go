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
	room      [4]write // of writes, as long as there are few
}

// A write puts a value, or deletes if that is nil.
type write struct {
	kind  kind
	key   []byte
	value []byte
}

// Begin implements [store.Journal].
func (w *writer) Begin(namespace string) store.Step {
	s := &step{writer: w, namespace: namespace}
	s.writes = s.room[:0]
	return s
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

// A batch applies steps in a transaction. It finds each bucket once.
type batch struct {
	tx      *bbolt.Tx
	buckets map[bucketName]*bbolt.Bucket // nil is none
}

type bucketName struct {
	namespace string
	kind      kind
}

func newBatch(tx *bbolt.Tx) *batch {
	return &batch{tx, make(map[bucketName]*bbolt.Bucket)}
}

// bucket returns a bucket, nil if there is none and it is not made.
func (b *batch) bucket(namespace string, k kind, make bool) (*bbolt.Bucket, error) {
	name := bucketName{namespace, k}
	found, ok := b.buckets[name]
	if !ok {
		found = b.tx.Bucket(k.name(namespace))
	}
	if found == nil && make {
		var err error
		if found, err = b.tx.CreateBucket(k.name(namespace)); err != nil {
			return nil, err
		}
	}
	if found != nil {
		found.FillPercent = fillPercent
	}
	b.buckets[name] = found
	return found, nil
}

// apply does the writes of s.
func (b *batch) apply(s *step) error {
	for i := range s.writes {
		w := &s.writes[i]
		to, err := b.bucket(s.namespace, w.kind, w.value != nil)
		switch {
		case err != nil:
		case w.value != nil:
			err = to.Put(w.key, w.value)
		case to != nil:
			err = to.Delete(w.key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
