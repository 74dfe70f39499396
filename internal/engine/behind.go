package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// behind holds PENDING records that the backend would not take yet. Late is
// harmless: PENDING ranks lowest.
type behind struct {
	mu      sync.Mutex
	updates map[string]driver.Update
	running bool
}

const (
	behindFirst = 100 * time.Millisecond
	behindMax   = 5 * time.Second
	behindLimit = 100_000 // records; beyond, the start of the task writes them
	pendingWait = 2 * time.Second
)

func (b *behind) has(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.updates[id]
	return ok
}

// WritePending applies PENDING records, behind if the backend does not answer
// soon.
func (e *Engine) WritePending(ctx context.Context, us []driver.Update) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pendingWait)
	defer cancel()
	err := e.Backend.Apply(ctx, us)
	if err == nil {
		return
	}
	var late []driver.Update
	for i := range us {
		if accident(driver.ItemError(err, i, len(us))) {
			late = append(late, us[i])
		}
	}
	if len(late) > 0 {
		e.Log.Warn("chicory: PENDING records not written, trying on behind", "records", len(late), "error", err)
		e.writeBehind(late)
	}
}

// accident reports whether err is a failure of the store rather than its
// verdict.
func accident(err error) bool {
	return err != nil && !errors.Is(err, driver.ErrStale) && !errors.Is(err, driver.ErrStarted) &&
		!errors.Is(err, driver.ErrClosed)
}

func (e *Engine) writeBehind(us []driver.Update) {
	b := &e.behind
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.updates == nil {
		b.updates = map[string]driver.Update{}
	}
	for _, u := range us {
		if len(b.updates) < behindLimit {
			b.updates[u.ID] = u
		}
	}
	if !b.running && e.ctx.Err() == nil {
		b.running = true
		e.done.Go(e.retryBehind)
	}
}

// retryBehind applies what is behind until nothing is, or the engine closes.
func (e *Engine) retryBehind() {
	b := &e.behind
	for wait := behindFirst; Sleep(e.ctx, wait); wait = min(2*wait, behindMax) {
		us := b.some(publishBatch)
		if us == nil {
			return
		}
		ctx, cancel := context.WithTimeout(e.ctx, pendingWait)
		err := e.Backend.Apply(ctx, us)
		cancel()
		b.settle(us, err)
		if err == nil {
			wait = behindFirst / 2
		}
	}
}

// some returns up to n updates; nil marks the end of the loop.
func (b *behind) some(n int) []driver.Update {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.updates) == 0 {
		b.running = false
		return nil
	}
	us := make([]driver.Update, 0, min(n, len(b.updates)))
	for _, u := range b.updates {
		if us = append(us, u); len(us) == n {
			break
		}
	}
	return us
}

func (b *behind) settle(us []driver.Update, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range us {
		if !accident(driver.ItemError(err, i, len(us))) {
			delete(b.updates, us[i].ID)
		}
	}
}
