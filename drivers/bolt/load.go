package bolt

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/chicory-go/chicory/internal/store"
	"github.com/chicory-go/chicory/internal/wire"
	bbolt "go.etcd.io/bbolt"
)

// A loader reads a file into a store, but for records. What is damaged it sets aside and counts.
type loader struct {
	tx      *bbolt.Tx
	to      *store.Restorer
	log     *slog.Logger
	damaged int
}

// highest returns the highest number of a message or dead letter in the file.
func highest(tx *bbolt.Tx, m *meta) uint64 {
	seq := m.seq
	tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if _, k, ok := split(name); ok && (k == tasks || k == letters) {
			if last, ok := seqOf(lastKey(b)); ok {
				seq = max(seq, last)
			}
		}
		return nil
	})
	return seq
}

func lastKey(b *bbolt.Bucket) []byte {
	key, _ := b.Cursor().Last()
	return key
}

// load reads all namespaces.
func (l *loader) load() error {
	return l.tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		namespace, k, ok := split(name)
		switch {
		case !ok || k == deaths:
			return nil // read with their messages
		case k == records:
			l.to.Records(namespace, string(lastKey(b)))
			return nil
		}
		err := b.ForEach(func(key, value []byte) error {
			err := l.item(namespace, k, key, value)
			if errors.Is(err, wire.ErrDamaged) {
				l.damaged++
				l.log.Error("bolt: damaged, left in the file and passed over", "bucket", string(name), "key", fmt.Sprintf("%x", key))
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
		return nil
	})
}

func (l *loader) item(namespace string, k kind, key, value []byte) error {
	switch k {
	case tasks:
		return l.task(namespace, key, value)
	case letters:
		seq, ok := seqOf(key)
		m, err := decodeDead(value)
		if err != nil || !ok {
			return errors.Join(err, damagedUnless(ok))
		}
		l.to.Dead(namespace, seq, m)
	case leases:
		_, lease, err := decodeStamped(value)
		if err != nil {
			return err
		}
		l.to.Lease(namespace, string(key), time.Duration(lease))
	case keys:
		v, expires, err := decodeStamped(value)
		if err != nil {
			return err
		}
		l.to.Key(namespace, string(key), v, expires)
	}
	return nil
}

func (l *loader) task(namespace string, key, value []byte) error {
	seq, ok := seqOf(key)
	t, err := decodeTask(seq, value)
	if err != nil || !ok {
		return errors.Join(err, damagedUnless(ok))
	}
	died := 0
	if marks := l.tx.Bucket(deaths.name(namespace)); marks != nil {
		if v := marks.Get(key); v != nil {
			_, n, err := decodeStamped(v)
			if err != nil {
				return err
			}
			died = int(n)
		}
	}
	l.to.Task(namespace, t, died)
	return nil
}

func damagedUnless(ok bool) error {
	if ok {
		return nil
	}
	return wire.ErrDamaged
}
