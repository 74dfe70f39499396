package store

import (
	"sync"

	"github.com/chicory-go/chicory/driver"
)

// A scratch is the working memory of one Publish or Settle, used again by
// others: batches allocate little besides what the store keeps.
type scratch struct {
	postings []posting
	names    []string
	ends     []int
	text     []byte
	settling []settling
	updates  []driver.Update
	queues   lockSet
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxScratch is the largest batch whose memory is kept.
const maxScratch = 1024

func getScratch() *scratch { return scratches.Get().(*scratch) }

// free gives s back, without what it points to.
func (s *scratch) free() {
	if max(cap(s.postings), cap(s.settling), cap(s.names)) > maxScratch {
		return
	}
	s.postings, s.names, s.ends = cleared(s.postings), cleared(s.names), s.ends[:0]
	s.settling, s.updates, s.queues = cleared(s.settling), cleared(s.updates), cleared(s.queues)
	scratches.Put(s)
}

func cleared[T any](s []T) []T {
	clear(s)
	return s[:0]
}

// sized returns s with length n. Its elements are zero, as free leaves them.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// itemErrors are the errors of a batch of n items. As long as there are none
// it allocates nothing.
type itemErrors struct {
	n    int
	errs []error
}

// at returns the error of item i.
func (e *itemErrors) at(i int) error {
	if e.errs == nil {
		return nil
	}
	return e.errs[i]
}

// setOnce sets the error of item i, unless it has one.
func (e *itemErrors) setOnce(i int, err error) {
	if e.at(i) == nil {
		e.set(i, err)
	}
}

func (e *itemErrors) set(i int, err error) {
	if err == nil {
		return
	}
	if e.errs == nil {
		e.errs = make([]error, e.n)
	}
	e.errs[i] = err
}

// batch returns what the call returns.
func (e *itemErrors) batch() error { return driver.Batch(e.errs) }
