package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

const readBatch = 500

// heartbeat extends all leases in one batch and looks for cancelled tasks, at a
// third of the lease.
func (s *session) heartbeat(ctx context.Context) {
	beat := s.opts.Lease / 3
	for engine.Sleep(ctx, beat) {
		s.extend(ctx, beat)
		s.findCancelled(ctx, beat)
	}
}

func (s *session) extend(ctx context.Context, beat time.Duration) {
	js := s.jobs.all()
	if len(js) == 0 {
		return
	}
	ds := make([]*driver.Delivery, len(js))
	for i, j := range js {
		ds[i] = j.d
	}
	ctx, cancel := context.WithTimeout(ctx, beat)
	defer cancel()
	err := s.sub.Extend(ctx, ds)
	if err == nil {
		return
	}
	lost := 0
	for i, j := range js {
		if errors.Is(driver.ItemError(err, i, len(js)), driver.ErrLeaseLost) {
			lost++
			if !j.isDecided() { // its settling will tell
				s.log.Warn("chicory: lease lost", j.logAttrs()...)
				j.lose()
			}
		}
	}
	if lost == 0 && ctx.Err() == nil {
		s.log.Warn("chicory: leases not extended", "count", len(js), "error", err)
	}
}

// findCancelled interrupts running tasks whose record says CANCELLED.
func (s *session) findCancelled(ctx context.Context, beat time.Duration) {
	if s.eng.Backend == nil {
		return
	}
	var js []*job
	var ids []string
	for _, j := range s.jobs.all() {
		if !j.d.NoRecord && !j.isDecided() {
			js, ids = append(js, j), append(ids, j.d.ID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, beat)
	defer cancel()
	for len(ids) > 0 {
		n := min(len(ids), readBatch)
		rs, err := s.eng.Backend.Get(ctx, ids[:n])
		if err != nil {
			s.log.Warn("chicory: looking for cancelled tasks", "error", err)
			return
		}
		for i, r := range rs {
			if r != nil && r.State == driver.Cancelled && r.Epoch == js[i].d.Epoch {
				js[i].interrupt(engine.ErrCancelled)
			}
		}
		js, ids = js[n:], ids[n:]
	}
}

// lostWatch waits for sessions of the broker to end, one goroutine for each.
type lostWatch struct {
	mu      sync.Mutex
	watched map[<-chan struct{}]context.CancelFunc
	done    sync.WaitGroup
}

// watch makes the end of the session that lost belongs to cancel its jobs.
func (l *lostWatch) watch(s *session, lost <-chan struct{}) {
	if lost == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.watched[lost]; ok {
		return
	}
	if l.watched == nil {
		l.watched = map[<-chan struct{}]context.CancelFunc{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.watched[lost] = cancel
	l.done.Go(func() {
		select {
		case <-lost:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		delete(l.watched, lost)
		l.mu.Unlock()
		for _, j := range s.jobs.all() {
			if j.d.Lost == lost {
				j.lose()
			}
		}
	})
}

// wait ends all watches.
func (l *lostWatch) wait() {
	l.mu.Lock()
	for _, cancel := range l.watched {
		cancel()
	}
	l.mu.Unlock()
	l.done.Wait()
}
