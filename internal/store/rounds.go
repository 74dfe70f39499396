package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/chicory-go/chicory/driver"
)

// rounds decide about the items of a batch, in as few changes as can be. An
// item whose id another change holds waits for it and is decided in the next
// round; so are, one after the other, two items of a batch that need it.
type rounds struct {
	space     *space
	n         int
	refusable bool    // see Step.Commit
	queues    lockSet // locked while items are decided
	errs      itemErrors
	// decide returns the error of item i, or errHeld.
	decide func(c *change, i int, now instant) error
}

// errors are those of the batch's items.
func (r *rounds) errors() *itemErrors {
	r.errs.n = r.n
	return &r.errs
}

// run returns the error of the batch.
func (r *rounds) run(ctx context.Context) error {
	again, blocked := r.round(ctx, nil, r.n)
	for len(again) > 0 {
		if !await(ctx, blocked) {
			r.fail(again, len(again), nil, driver.Transient(ctx.Err()))
			break
		}
		again, blocked = r.round(ctx, again, len(again))
	}
	return r.errors().batch()
}

// round decides about n items, those of todo or, if that is nil, the first n,
// and carries out what was decided. It returns those that have to wait, and for
// what.
func (r *rounds) round(ctx context.Context, todo []int, n int) (again []int, blocked *change) {
	c := r.space.begin()
	defer c.free()
	c.refusable = r.refusable
	now := r.lock()
	for j := range n {
		i := item(todo, j)
		if r.errors().at(i) != nil {
			continue // known beforehand
		}
		if err := r.decide(c, i, now); err == errHeld {
			again = append(again, i)
		} else {
			r.errs.set(i, err)
		}
	}
	blocked = c.blocked
	if err := c.commit(ctx, r.queues, now); err != nil {
		r.fail(todo, n, again, err)
	}
	return again, blocked
}

// item returns the j-th item of todo, of all if that is nil.
func item(todo []int, j int) int {
	if todo == nil {
		return j
	}
	return todo[j]
}

func (r *rounds) lock() instant {
	if len(r.queues) == 0 {
		return r.space.store.now()
	}
	return r.queues.lock(r.space.store)
}

// fail sets the error of a round's items, except of those that have one or
// wait for the next.
func (r *rounds) fail(todo []int, n int, again []int, err error) {
	waits := make(map[int]bool, len(again))
	for _, i := range again {
		waits[i] = true
	}
	for j := range n {
		if i := item(todo, j); !waits[i] {
			r.errs.setOnce(i, err)
		}
	}
}

// whole returns the error of a call that has no errors of its items. It is
// transient only if nothing was applied to any.
func (r *rounds) whole() error {
	var first error
	good, transient := false, true
	for i := range r.n {
		err := r.errs.at(i)
		if err == nil {
			good = true
			continue
		}
		if first == nil {
			first = err
		}
		transient = transient && errors.Is(err, driver.ErrTransient)
	}
	if first != nil && transient && good {
		return fmt.Errorf("%v (of a part of the batch)", first)
	}
	return first
}

// await waits for the change c to end and reports whether it did before ctx.
func await(ctx context.Context, c *change) bool {
	if c == nil {
		return true
	}
	select {
	case <-c.ended:
		return true
	case <-ctx.Done():
		return false
	}
}
