package bolt

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	bbolt "go.etcd.io/bbolt"
)

// bbolt trusts its pages: a file that is cut off or damaged makes it panic, and
// where the list of free pages was not written, in a goroutine of its own, so
// that the process dies. So a file is looked at before it is opened.

// Where a bbolt file says what, after the 16 bytes of a page's header.
const (
	pageHeader   = 16
	metaSize     = 64
	boltMagic    = 0xED0CDAED
	noFreelist   = ^uint64(0) // the list of free pages was not written
	smallestPage = 1 << 9
	largestPage  = 1 << 16
)

var errNoBolt = errors.New("it is not a bbolt file")

// A boltMeta is what one of the two meta pages says.
type boltMeta struct {
	pageSize int
	root     uint64
	freelist uint64
	pages    uint64 // in use
	tx       uint64
}

// preflight looks at the file of path, which exists and is not empty.
func preflight(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is no regular file: %v", info.Mode())
	}
	m, err := newestMeta(f)
	if err != nil {
		return err
	}
	if info, err = f.Stat(); err != nil { // not before: it may be growing
		return err
	}
	if want := int64(m.pages) * int64(m.pageSize); info.Size() < want {
		return fmt.Errorf("it is cut off: %d bytes, should be at least %d", info.Size(), want)
	}
	if m.freelist == noFreelist {
		return walk(path)
	}
	return nil
}

// newestMeta returns the valid meta of the highest transaction. The second page
// is looked for at every size that a page may have.
func newestMeta(f io.ReaderAt) (best boltMeta, err error) {
	found := false
	consider := func(at int64) {
		if m, ok := metaAt(f, at); ok && (!found || m.tx > best.tx) {
			best, found = m, true
		}
	}
	consider(0)
	for size := int64(smallestPage); size <= largestPage; size *= 2 {
		consider(size)
	}
	if !found {
		return best, errNoBolt
	}
	return best, nil
}

func metaAt(f io.ReaderAt, at int64) (m boltMeta, ok bool) {
	var b [pageHeader + metaSize]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return m, false
	}
	v := b[pageHeader:]
	h := fnv.New64a()
	h.Write(v[:56])
	if order.Uint32(v) != boltMagic || order.Uint64(v[56:]) != h.Sum64() {
		return m, false
	}
	m = boltMeta{int(order.Uint32(v[8:])), order.Uint64(v[16:]), order.Uint64(v[32:]), order.Uint64(v[40:]), order.Uint64(v[48:])}
	return m, m.pageSize >= smallestPage && m.pageSize <= largestPage
}

// walk looks at all pages of a file, which nobody writes meanwhile.
func walk(path string) error {
	var f *os.File
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout,
		OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			f, err = os.OpenFile(name, flag, mode)
			return f, err
		}})
	if err != nil {
		return err
	}
	defer db.Close()
	m, err := newestMeta(f) // it may have been written until it was locked
	if err != nil {
		return err
	}
	w := pageWalk{file: f, meta: m, seen: map[uint64]bool{}}
	return w.tree(m.root, nil, nil)
}
