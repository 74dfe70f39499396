package store

import (
	"sync"
	"sync/atomic"
	"time"
)

// sweepEvery is the least time between two sweeps. Whoever looks at a record
// sees it expire to the moment; sweeps only free memory.
const sweepEvery = time.Minute

// sweepJournalEvery is the time between two sweeps of what rests in the
// journal.
const sweepJournalEvery = time.Hour

// A sweeper drops records that nobody looks at any more. It needs no
// goroutine: a timer is armed while there is a record that will expire.
type sweeper struct {
	space   *space
	at      atomic.Int64 // when the timer fires, zero if it is not armed
	journal atomic.Int64 // when the journal is next swept

	mu    sync.Mutex
	timer *time.Timer
}

// by makes sure of a sweep soon after the moment at.
func (w *sweeper) by(at int64) {
	if armed := w.at.Load(); armed == 0 || at+int64(sweepEvery) < armed {
		w.arm(at)
	}
}

func (w *sweeper) arm(at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	store := w.space.store
	if store.clients.Load() == 0 {
		return
	}
	now := store.now().at
	at = max(at, now+int64(sweepEvery))
	if armed := w.at.Load(); armed != 0 && armed <= at {
		return
	}
	w.at.Store(at)
	if w.timer == nil {
		w.timer = time.AfterFunc(time.Duration(at-now), w.sweep)
	} else {
		w.timer.Reset(time.Duration(at - now))
	}
}

// Sweep has a journal that is full drop what has expired, in a moment.
func (s *Store) Sweep() {
	for _, sp := range s.allSpaces() {
		sp.sweeper.journal.Store(s.now().at)
		sp.sweeper.by(s.now().at)
	}
}

func (w *sweeper) sweep() {
	w.at.Store(0)
	now, due := w.space.store.now(), w.journal.Load()
	if w.space.durable() && now.at >= due && w.journal.CompareAndSwap(due, now.at+int64(sweepJournalEvery)) {
		w.space.sweepJournal(now)
	}
	w.start()
}

// start drops what has expired and arms the timer for the rest.
func (w *sweeper) start() {
	now := w.space.store.now().at
	var next int64
	for i := range w.space.shards {
		if n := w.space.shards[i].sweep(now); n != 0 && (next == 0 || n < next) {
			next = n
		}
	}
	if w.space.durable() {
		w.journal.CompareAndSwap(0, now+int64(sweepEvery)) // what expired while nobody had it open
		w.arm(w.journal.Load())
	}
	if next != 0 {
		w.arm(next)
	}
}

func (w *sweeper) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = nil
	w.at.Store(0)
}

// sweep drops what has expired and returns when the next record will.
func (sh *shard) sweep(now int64) int64 {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.next == 0 || now < sh.next {
		return sh.next
	}
	sh.next = 0
	sh.entries.each(func(e *entry) {
		if e.resting {
			return
		}
		sh.age(e, now)
		sh.drop(e)
		if e.expires != 0 && (sh.next == 0 || e.expires < sh.next) {
			sh.next = e.expires
		}
	})
	sh.entries.shrink()
	return sh.next
}
