package bolt

import (
	"bytes"
	"fmt"
	"runtime/debug"

	"github.com/chicory-go/chicory/driver"
	bbolt "go.etcd.io/bbolt"
)

// readAtOnce is how many records are read in one transaction: as long as it is
// open, no page of the file is used again.
const readAtOnce = 1000

// view reads the file. It is broken if that panics.
func (w *writer) view(read func(tx *bbolt.Tx) error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			w.fail(fmt.Errorf("bolt: %s: it is damaged: %v", w.path, p))
		}
	}()
	w.db.View(read)
}

// get calls decode with a value, if there is one. The value is the file's.
func (w *writer) get(namespace string, k kind, key []byte, decode func(value []byte) error) {
	w.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(k.name(namespace))
		if b == nil {
			return nil
		}
		value := b.Get(key)
		if value == nil {
			return nil
		}
		if err := decode(value); err != nil {
			w.log.Error("bolt: damaged, as good as not there", "file", w.path, "kind", string(k), "key", fmt.Sprintf("%q", key), "error", err)
		}
		return nil
	})
}

// Record implements [store.Journal]. What is damaged is not there.
func (w *writer) Record(namespace, id string) (r *driver.Record, expires int64) {
	w.get(namespace, records, []byte(id), func(value []byte) error {
		got, at, err := decodeRecord(value)
		if err == nil {
			r, expires = got, at
		}
		return err
	})
	return r, expires
}

// Envelope implements [store.Journal].
func (w *writer) Envelope(namespace string, seq uint64) (envelope []byte) {
	w.get(namespace, tasks, seqKey(seq), func(value []byte) error {
		t, err := decodeTask(seq, value)
		if err == nil {
			envelope = t.Message.Envelope
		}
		return err
	})
	return envelope
}

// Dead implements [store.Journal].
func (w *writer) Dead(namespace string, seq uint64) (m *driver.Message) {
	w.get(namespace, letters, seqKey(seq), func(value []byte) error {
		got, err := decodeDead(value)
		if err == nil {
			m = got
		}
		return err
	})
	return m
}

// Expired implements [store.Journal].
func (w *writer) Expired(namespace string, t int64, f func(id string)) {
	for from := []byte{}; from != nil; {
		var ids []string
		ids, from = w.expired(namespace, t, from)
		for _, id := range ids {
			f(id)
		}
	}
}

// expired looks at some records from a key on, and returns the key that comes
// after them, nil at the end.
func (w *writer) expired(namespace string, t int64, from []byte) (ids []string, next []byte) {
	w.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(records.name(namespace))
		if b == nil {
			return nil
		}
		c := b.Cursor()
		key, value := c.Seek(from)
		for range readAtOnce {
			if key == nil {
				return nil
			}
			if expires := recordExpires(value); expires != 0 && expires < t {
				ids = append(ids, string(key))
			}
			key, value = c.Next()
		}
		next = bytes.Clone(key)
		return nil
	})
	return ids, next
}
