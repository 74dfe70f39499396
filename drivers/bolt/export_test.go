package bolt

import (
	"log/slog"
	"os"
	"testing"
)

// Abandon closes the file of path as the death of its process would. Clients
// that are open are of no use any more.
func Abandon(path string) {
	files.mu.Lock()
	var found *shared
	for _, s := range files.all {
		if s.path == path {
			found, s.leaving = s, true
		}
	}
	files.mu.Unlock()
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
	files.mu.Lock()
	defer files.mu.Unlock()
	for _, s := range files.all {
		if s.path == path {
			s.file.db.Close()
		}
	}
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

// Raw opens a file without a store. Put writes a value and waits for it.
func Raw(tb testing.TB, path string) (put func(seq uint64, value []byte), end func()) {
	tb.Helper()
	f := &file{path: path, log: slog.New(slog.DiscardHandler)}
	if err := f.connect(); err != nil {
		tb.Fatal(err)
	}
	w := newWriter(f)
	go w.run()
	put = func(seq uint64, value []byte) {
		ended := make(chan error, 1)
		s := w.Begin("raw").(*step)
		s.put(tasks, seqKey(seq), value)
		s.Commit(false, func(err error) { ended <- err })
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	}
	return put, func() {
		w.stop()
		f.db.Close()
	}
}

// Uncached is like the zero Options, but no record stays in RAM that the file
// has.
var Uncached = &Options{cached: -1}
