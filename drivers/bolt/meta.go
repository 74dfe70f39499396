package bolt

import (
	"fmt"

	"github.com/chicory-go/chicory/internal/store"
	bbolt "go.etcd.io/bbolt"
)

// layoutVersion is the version of the buckets and keys of a file.
const layoutVersion = 1

// metaBucket holds what concerns the file as a whole. No namespace has its
// name, which lacks a slash.
var metaBucket = []byte("chicory")

// The keys of metaBucket.
var (
	keyVersion  = []byte("version")
	keyNonce    = []byte("nonce")
	keyOpened   = []byte("opened")   // how often the file was opened
	keySeq      = []byte("seq")      // highest number given out, of the last clean close
	keyOpen     = []byte("open")     // is there while the file is open
	keySuspects = []byte("suspects") // messages up to this number may have killed a process
)

// A meta is what a file says of itself.
type meta struct {
	nonce    string
	opened   uint64
	seq      uint64
	suspects uint64
	unclean  bool // it was not closed
}

// readMeta reads the meta of a file that may be new.
func readMeta(tx *bbolt.Tx) (m meta, err error) {
	b := tx.Bucket(metaBucket)
	if b == nil {
		if k, _ := tx.Cursor().First(); k != nil {
			return m, fmt.Errorf("it is a bbolt file, but not one of Chicory: it has a bucket %q", k)
		}
		m.nonce = store.NewNonce()
		return m, nil
	}
	if v := getNumber(b, keyVersion); v > layoutVersion {
		return m, fmt.Errorf("it was written by a newer version of Chicory: layout %d, known is %d", v, layoutVersion)
	}
	m.nonce = string(b.Get(keyNonce))
	m.opened = getNumber(b, keyOpened)
	m.seq = getNumber(b, keySeq)
	m.suspects = getNumber(b, keySuspects)
	m.unclean = b.Get(keyOpen) != nil
	return m, nil
}

// begin notes that the file is open.
func (m *meta) begin(tx *bbolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	m.opened++
	return putAll(b, map[string][]byte{
		string(keyVersion):  seqKey(layoutVersion),
		string(keyNonce):    []byte(m.nonce),
		string(keyOpened):   seqKey(m.opened),
		string(keySeq):      seqKey(m.seq),
		string(keyOpen):     {1},
		string(keySuspects): seqKey(m.suspects),
	})
}

// end notes that the file is closed. Numbers go on after seq.
func (m *meta) end(tx *bbolt.Tx, seq uint64) error {
	b := tx.Bucket(metaBucket)
	if err := b.Delete(keyOpen); err != nil {
		return err
	}
	return putAll(b, map[string][]byte{
		string(keySeq):      seqKey(seq),
		string(keySuspects): seqKey(0),
	})
}

func putAll(b *bbolt.Bucket, values map[string][]byte) error {
	for key, value := range values {
		if err := b.Put([]byte(key), value); err != nil {
			return err
		}
	}
	return nil
}

func getNumber(b *bbolt.Bucket, key []byte) uint64 {
	n, _ := seqOf(b.Get(key))
	return n
}
