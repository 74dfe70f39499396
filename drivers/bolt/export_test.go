package bolt

import (
	"bytes"
	"log/slog"
	"os"
	"testing"

	"go.etcd.io/bbolt"
)

// opened returns what is open of path, nil if nothing is.
func opened(path string, found func(*shared)) *shared {
	path, _ = canonical(path)
	files.mu.Lock()
	defer files.mu.Unlock()
	for _, s := range files.all {
		if s.path == path {
			found(s)
			return s
		}
	}
	return nil
}

// Abandon closes the file of path as the death of its process would. Clients
// that are open are of no use any more.
func Abandon(path string) {
	found := opened(path, func(s *shared) { s.leaving = true })
	if found == nil {
		return
	}
	found.file.abandon()
	files.remove(found)
	close(found.closed)
}

// Break makes every commit to the file of path fail from now on, in a way that
// says nothing about its outcome.
func Break(path string) {
	opened(path, func(s *shared) {
		w := s.file.writer
		st := w.Begin("broken").(*step)
		st.put(tasks, nil, []byte("a value without a key"))
		w.mu.Lock()
		w.queue = append(w.queue, st) // it goes with the next
		w.mu.Unlock()
	})
}

// Size returns how much the file of path keeps, in RAM and on the disk.
func Size(tb testing.TB, path string) (n int) {
	opened(path, func(s *shared) {
		n = s.file.core.Size()
		err := s.file.db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				n += b.Stats().KeyN
				return nil
			})
		})
		if err != nil {
			tb.Error(err)
		}
	})
	return n
}

// Used returns how many bytes of a file are in use.
func Used(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	m, err := newestMeta(f)
	return int64(m.pages) * int64(m.pageSize), err
}

// Root returns the number of the root page of a file, and the size of a page.
func Root(tb testing.TB, path string) (page, size int64) {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	m, err := newestMeta(f)
	if err != nil {
		tb.Fatal(err)
	}
	return int64(m.root), int64(m.pageSize)
}

// Transaction returns the number of the last transaction of a file, which b is.
func Transaction(b []byte) uint64 {
	m, _ := newestMeta(bytes.NewReader(b))
	return m.tx
}

// Create makes an empty file.
func Create(path string) error { return (&file{path: path}).create() }

// A Raw is a file without a store. Its methods wait for what they write.
type Raw struct {
	tb   testing.TB
	file *file
	w    *writer
}

func NewRaw(tb testing.TB, path string) *Raw {
	tb.Helper()
	f := &file{path: path, log: slog.New(slog.DiscardHandler)}
	if err := f.connect(); err != nil {
		tb.Fatal(err)
	}
	w := newWriter(f)
	go w.run()
	return &Raw{tb, f, w}
}

func (r *Raw) Close() {
	r.w.stop()
	r.file.db.Close()
}

// Put writes a value.
func (r *Raw) Put(seq uint64, value []byte) {
	r.commit(func(s *step) { s.put(tasks, seqKey(seq), value) })
}

// Publish writes what a task with a record writes when it is published.
func (r *Raw) Publish(seq uint64, id string, task, record []byte) {
	r.commit(func(s *step) {
		s.put(tasks, seqKey(seq), task)
		s.put(records, []byte(id), record)
	})
}

// Settle writes what it writes when it is settled.
func (r *Raw) Settle(seq uint64, id string, record []byte) {
	r.commit(func(s *step) {
		s.DropTask(seq)
		s.put(records, []byte(id), record)
	})
}

func (r *Raw) commit(write func(s *step)) {
	ended := make(chan error, 1)
	s := r.w.Begin("raw").(*step)
	write(s)
	s.Commit(false, func(err error) { ended <- err })
	if err := <-ended; err != nil {
		r.tb.Error(err)
	}
}

// Uncached is like the zero Options, but no record stays in RAM that the file
// has.
var Uncached = &Options{cached: -1}

// IsFull is what makes an error one of a full file.
var IsFull = isFull
