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

// Record implements [store.Journal]. A damaged one is none.
func (w *writer) Record(namespace, id string) (r *driver.Record, expires int64) {
	w.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(records.name(namespace))
		if b == nil {
			return nil
		}
		value := b.Get([]byte(id))
		if value == nil {
			return nil
		}
		var err error
		if r, expires, err = decodeRecord(value); err != nil {
			w.log.Error("bolt: a record is damaged, and none from now on", "file", w.path, "id", id, "error", err)
			r = nil
		}
		return nil
	})
	return r, expires
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
