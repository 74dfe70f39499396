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
	done  func(T, error)
	max   int
	ctx   context.Context
	// waiters holds channels, so it belongs to one batcher: channels must not
	// leave the synctest bubble they were made in.
	waiters sync.Pool

	mu     sync.Mutex
	queue  []entry[T]
	spare  []entry[T] // the last batch, to be used again
	items  []T        // of the flush in progress
	busy   bool
	closed bool
	idle   sync.Cond
}

// An entry is an item in the queue; answer is nil for those of Go.
type entry[T any] struct {
	item   T
	answer chan error
}

// New returns a batcher of batches of up to max items. Flushes that gather the
// items of several callers run under ctx; a caller of Do that finds the batcher
// idle flushes its own item itself, under its own context. Done is called with
// the answers to items of Go; it must not block.
func New[T any](ctx context.Context, max int, flush Flush[T], done func(T, error)) *Batcher[T] {
	b := &Batcher[T]{flush: flush, done: done, max: max, ctx: ctx}
	b.idle.L = &b.mu
	b.waiters.New = func() any { return make(chan error, 1) }
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
	answer := b.waiters.Get().(chan error)
	b.queue = append(b.queue, entry[T]{item, answer})
	b.mu.Unlock()
	if ctx.Done() == nil {
		err := <-answer
		b.waiters.Put(answer)
		return err
	}
	select {
	case err := <-answer:
		b.waiters.Put(answer) // only once it is empty again
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// alone flushes one item for a caller that found the batcher idle, and leaves
// what piled up meanwhile to a goroutine.
func (b *Batcher[T]) alone(ctx context.Context, item T) error {
	b.items = append(b.items[:0], item)
	err := driver.ItemError(b.flush(ctx, b.items), 0, 1)
	clear(b.items)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 {
		go b.drain()
	} else {
		b.rest()
	}
	return err
}

// Go performs item behind; its answer goes to done, from another goroutine. It
// never blocks.
func (b *Batcher[T]) Go(item T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		go b.done(item, driver.ErrClosed)
		return
	}
	b.queue = append(b.queue, entry[T]{item: item})
	if !b.busy {
		b.busy = true
		go b.drain()
	}
}

// drain flushes until nothing is left.
func (b *Batcher[T]) drain() {
	for {
		// Let the callers that the last batch woke queue up again: fuller
		// batches, and no time lost on an idle system.
		runtime.Gosched()
		runtime.Gosched()
		taken := b.take()
		if taken == nil {
			return
		}
		b.items = b.items[:0]
		for i := range taken {
			b.items = append(b.items, taken[i].item)
		}
		err := b.flush(b.ctx, b.items)
		clear(b.items)
		for i := range taken {
			b.answer(&taken[i], driver.ItemError(err, i, len(taken)))
		}
	}
}

func (b *Batcher[T]) answer(e *entry[T], err error) {
	if e.answer != nil {
		e.answer <- err
	} else {
		b.done(e.item, err)
	}
}

// take returns the next batch, or nil and rests. The batch before is used again.
func (b *Batcher[T]) take() []entry[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.queue), b.max)
	if n == 0 {
		b.rest()
		return nil
	}
	clear(b.spare)
	if n == len(b.queue) {
		taken := b.queue
		b.queue, b.spare = b.spare[:0], taken
		return taken
	}
	b.spare = append(b.spare[:0], b.queue[:n]...)
	left := copy(b.queue, b.queue[n:])
	clear(b.queue[left:])
	b.queue = b.queue[:left]
	return b.spare
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
