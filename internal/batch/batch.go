// Package batch gathers single operations into batches without timers: items
// pile up while the last batch is in flight, so an idle system adds no latency
// and a busy one fills its batches.
package batch

import (
	"context"
	"runtime"
	"sync"

	"github.com/chicory-go/chicory/driver"
)

// A Flush performs a batch. Its error is nil, one for all items, or a
// *driver.BatchError with one per item. It must not keep items.
type Flush[T any] func(ctx context.Context, items []T) error

// A Batcher runs one flush at a time. It is safe for concurrent use.
type Batcher[T any] struct {
	flush Flush[T]
	max   int
	ctx   context.Context
	// waiters holds channels, so it belongs to one batcher: channels must not
	// leave the synctest bubble they were made in.
	waiters sync.Pool

	mu     sync.Mutex
	queue  []entry[T]
	busy   bool
	closed bool
	idle   sync.Cond
}

type entry[T any] struct {
	item T
	done func(error)
}

// New returns a batcher of batches of up to max items. Flushes that gather the
// items of several callers run under ctx; a caller of Do that finds the batcher
// idle flushes its own item itself, under its own context.
func New[T any](ctx context.Context, max int, flush Flush[T]) *Batcher[T] {
	b := &Batcher[T]{flush: flush, max: max, ctx: ctx}
	b.idle.L = &b.mu
	b.waiters.New = func() any {
		answer := make(chan error, 1)
		return &waiter{answer, func(err error) { answer <- err }}
	}
	return b
}

// Do performs item and waits for its answer. If ctx ends before, it returns
// the cause, and the outcome is unknown. After Close it returns
// driver.ErrClosed.
func (b *Batcher[T]) Do(ctx context.Context, item T) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return driver.ErrClosed
	}
	if !b.busy {
		b.busy = true
		b.mu.Unlock()
		return b.alone(ctx, item)
	}
	w := b.waiters.Get().(*waiter)
	b.queue = append(b.queue, entry[T]{item, w.wake})
	b.mu.Unlock()
	select {
	case err := <-w.answer:
		b.waiters.Put(w)
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A waiter is one caller of Do that found the batcher busy. It is used again
// only once its answer was read.
type waiter struct {
	answer chan error
	wake   func(error)
}

// alone flushes one item for a caller that found the batcher idle, and leaves
// what piled up meanwhile to a goroutine.
func (b *Batcher[T]) alone(ctx context.Context, item T) error {
	err := driver.ItemError(b.flush(ctx, []T{item}), 0, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 {
		go b.drain()
	} else {
		b.rest()
	}
	return err
}

// Go performs item and calls done with its answer from another goroutine. It
// never blocks.
func (b *Batcher[T]) Go(item T, done func(error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		go done(driver.ErrClosed)
		return
	}
	b.queue = append(b.queue, entry[T]{item, done})
	if !b.busy {
		b.busy = true
		go b.drain()
	}
}

// drain flushes until nothing is left.
func (b *Batcher[T]) drain() {
	var items []T
	for {
		// Let the callers that the last batch woke queue up again: fuller
		// batches, and no time lost on an idle system.
		runtime.Gosched()
		runtime.Gosched()
		taken := b.take()
		if taken == nil {
			return
		}
		items = items[:0]
		for i := range taken {
			items = append(items, taken[i].item)
		}
		err := b.flush(b.ctx, items)
		for i := range taken {
			taken[i].done(driver.ItemError(err, i, len(taken)))
		}
	}
}

// take returns the next batch, or nil and rests.
func (b *Batcher[T]) take() []entry[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.queue), b.max)
	if n == 0 {
		b.rest()
		return nil
	}
	taken := b.queue[:n:n]
	if b.queue = b.queue[n:]; len(b.queue) == 0 {
		b.queue = nil
	}
	return taken
}

// rest marks the batcher idle; b.mu is held.
func (b *Batcher[T]) rest() {
	b.busy = false
	b.idle.Broadcast()
}

// Close refuses further items and waits for those in progress.
func (b *Batcher[T]) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for b.busy {
		b.idle.Wait()
	}
}
