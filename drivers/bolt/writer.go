package bolt

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chicory-go/chicory/driver"
	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	fillPercent = 0.9     // keys rise, mostly
	maxSteps    = 4096    // of a commit
	maxBytes    = 8 << 20 // of a commit
	linger      = 150 * time.Microsecond
	maxPause    = 16          // commits
	fullFor     = time.Second // a full file refuses new messages without trying
)

// A writer is the one goroutine that writes a file. It is its store's journal:
// what is submitted while a commit is in progress is the next commit.
type writer struct {
	db    *bbolt.DB
	path  string
	log   *slog.Logger
	sweep func() // called when the file is full
	ended chan struct{}
	wake  chan struct{} // capacity 1: look again

	mu      sync.Mutex
	queue   []*step
	stopped bool  // no more steps come
	broken  error // nothing is written any more
	want    int   // how many steps wake a writer that lingers

	// These are the goroutine's:
	full     time.Time // until when new messages are refused
	timer    *time.Timer
	last     int // steps of the last commit
	late     int // commits without waiting when they last did not come
	pause    int // commits until the next time
	largest  int // bytes of the largest value
	reserved int // bytes that are kept for when the file is full
}

// newWriter returns the writer of f. Run it.
func newWriter(f *file) *writer {
	return &writer{db: f.db, path: f.path, log: f.log, sweep: func() { f.core.Sweep() }, ended: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// errStopped is what steps get that come after the file was closed.
var errStopped = errors.New("bolt: the file is closed")

func (w *writer) submit(s *step) {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		go s.end(driver.Transient(errStopped)) // not here: locks may be held
		return
	}
	w.queue = append(w.queue, s)
	due := len(w.queue) >= w.want
	w.mu.Unlock()
	if due {
		w.signal()
	}
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// stop ends the writer once all that was submitted is written.
func (w *writer) stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.signal()
	<-w.ended
}

// abandon ends the writer as the death of its process would.
func (w *writer) abandon() {
	w.mu.Lock()
	w.broken = errStopped
	w.mu.Unlock()
	w.stop()
}

func (w *writer) run() {
	defer close(w.ended)
	w.timer = time.NewTimer(linger)
	w.timer.Stop()
	debug.SetPanicOnFault(true) // a fault in the mapped file must not kill the process
	for range w.wake {
		for {
			batch, stopped := w.take()
			if len(batch) == 0 {
				if stopped {
					return
				}
				w.last = 0 // nobody has come again
				break
			}
			w.write(batch)
		}
	}
}

// take returns the steps of the next commit, and whether the writer is stopped.
func (w *writer) take() ([]*step, bool) {
	w.linger()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want = 0
	n, size := 0, 0
	for n < len(w.queue) && n < maxSteps && (n == 0 || size < maxBytes) {
		size += w.queue[n].size
		n++
	}
	batch := w.queue[:n:n]
	if w.queue = w.queue[n:]; len(w.queue) == 0 {
		w.queue = nil
	}
	return batch, w.stopped
}

// linger waits, for a moment, for the callers of the last commit to come again,
// if there are others waiting already or there were several. Without it, those
// that wait for a commit fall into two halves, which take turns. Who is alone
// never waits. It leaves the processor to those it waits for; where they do not
// come it is not tried again for some commits, and for more each time.
func (w *writer) linger() {
	if w.pause > 0 {
		w.pause--
		return
	}
	if !w.expect() {
		return
	}
	w.timer.Reset(linger)
	defer w.timer.Stop()
	for again := true; ; again = false {
		n := w.queued()
		select {
		case <-w.wake:
			w.late = 0
			return
		case <-w.timer.C:
		}
		if again && w.queued() > n {
			w.timer.Reset(linger) // they are coming
			continue
		}
		w.late = min(max(1, 2*w.late), maxPause)
		w.pause = w.late
		return
	}
}

// expect sets how many steps are waited for, and reports whether there are
// fewer.
func (w *writer) expect() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.queue)
	want := w.last + n
	if n == 0 || want <= 1 {
		want = w.last
	}
	if want <= 1 || n >= want || w.stopped {
		return false
	}
	w.want = want
	select {
	case <-w.wake: // of those that are here
	default:
	}
	return true
}

func (w *writer) queued() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue)
}

// write commits batch, without the new messages if the file is full, and tells
// each step how it has ended.
func (w *writer) write(batch []*step) {
	w.last = len(batch)
	if time.Now().Before(w.full) {
		batch = refuse(batch, fmt.Errorf("bolt: %s: %w", w.path, driver.ErrFull))
	}
	err := w.commit(batch)
	if !isFull(err) {
		end(batch, err)
		return
	}
	w.full = time.Now().Add(fullFor)
	w.sweep()
	w.squeeze(refuse(batch, w.fullError(err)))
}

// squeeze commits batch to a file that is full: in the room that is reserved
// for it, and in parts if all at once is too much. What does not fit by itself
// is refused, and with the third of those the rest: each failure is dear, as
// bbolt looks at all pages.
func (w *writer) squeeze(batch []*step) {
	size, refused := len(batch), 0
	for len(batch) > 0 {
		part := batch[:min(size, len(batch))]
		err := w.commit(part)
		if isFull(err) && w.reserved > 0 {
			if err = w.update(release); err == nil {
				w.reserved, err = 0, w.commit(part)
			}
		}
		if isFull(err) {
			if size > 1 {
				size = (size + 3) / 4
				continue
			}
			if refused++; refused == 3 {
				part = batch
			}
			err = driver.Transient(w.fullError(err))
		}
		end(part, err)
		batch = batch[len(part):]
	}
}

func (w *writer) fullError(err error) error {
	return fmt.Errorf("bolt: %s: %w: %w", w.path, driver.ErrFull, err)
}

// refuse ends the steps of batch that only add, and returns the others.
func refuse(batch []*step, err error) (rest []*step) {
	for _, s := range batch {
		if s.refusable {
			s.end(driver.Transient(err))
		} else {
			rest = append(rest, s)
		}
	}
	return rest
}

func end(batch []*step, err error) {
	for _, s := range batch {
		s.end(err)
	}
}

// commit writes steps in one transaction. New messages come with the room that
// the others will need when the file is full.
func (w *writer) commit(steps []*step) error {
	if len(steps) == 0 {
		return nil
	}
	reserved, largest, adds := w.reserved, w.largest, false
	for _, s := range steps {
		largest = max(largest, s.largest)
		adds = adds || s.refusable
	}
	err := w.update(func(tx *bbolt.Tx) (err error) {
		b := newBatch(tx)
		for _, s := range steps {
			if err := b.apply(s); err != nil {
				return err
			}
		}
		if adds {
			reserved, err = reserve(tx, reserved, largest)
		}
		return err
	})
	if err == nil {
		w.reserved, w.largest = reserved, largest
	}
	return err
}

// update does f in one transaction. An error is transient or isFull if
// certainly nothing was written; otherwise nothing is written ever after.
func (w *writer) update(f func(tx *bbolt.Tx) error) error {
	if err := w.failure(); err != nil {
		return driver.Transient(err)
	}
	id, err := update(w.db, f)
	if err == nil {
		return nil
	}
	if isFull(err) && w.before(id) {
		return err
	}
	err = fmt.Errorf("bolt: %s: a commit failed and its outcome is unknown; "+
		"close the application and open the file again: %v", w.path, err)
	w.fail(err)
	return err
}

// failure returns why nothing is written any more, nil if it is.
func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// fail has nothing more be written.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.broken = err
		w.log.Error(err.Error())
	}
}

// update commits what f does, in transaction id. Unless the commit itself
// returned the error, the file must be discarded then: where f fails, or bbolt
// panics, nothing is rolled back. To do so bbolt would look at all pages, in a
// goroutine of its own, and if it panicked again the process would die.
func update(db *bbolt.DB, f func(tx *bbolt.Tx) error) (id int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	tx, err := db.Begin(true)
	if err != nil {
		return 0, err
	}
	if err := f(tx); err != nil {
		return tx.ID(), err
	}
	id = tx.ID()
	return id, tx.Commit()
}

// before reports whether the file is certainly as it was before transaction id.
func (w *writer) before(id int) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	w.db.View(func(tx *bbolt.Tx) error {
		ok = tx.ID() < id
		return nil
	})
	return ok
}

// isFull reports whether err says that there is no more room. Of a file that
// cannot grow bbolt only tells the text.
func isFull(err error) bool {
	if err != nil && strings.HasSuffix(err.Error(), syscall.ENOSPC.Error()) {
		return true
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) || errors.Is(err, berrors.ErrMaxSizeReached)
}
