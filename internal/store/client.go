package store

import (
	"context"
	"sync/atomic"

	"github.com/chicory-go/chicory/driver"
)

// A client is what Broker and Backend have in common: a view of one namespace
// of a store that can be closed.
type client struct {
	space  *space
	closed atomic.Bool
	done   chan struct{} // closed with the client
}

func newClient(s *Store, namespace string) client {
	s.attach()
	return client{space: s.space(namespace), done: make(chan struct{})}
}

// check says why a call must not begin.
func (c *client) check(ctx context.Context) error {
	if c.closed.Load() {
		return driver.ErrClosed
	}
	if err := c.space.store.failure(); err != nil {
		return err
	}
	if err := c.space.invalid; err != nil {
		return err
	}
	return live(ctx)
}

// live returns the error of a context that is done. Nothing was applied yet.
func live(ctx context.Context) error {
	return driver.Transient(ctx.Err())
}

// close marks c closed and reports whether it was the first to do so.
func (c *client) close() bool {
	if !c.closed.CompareAndSwap(false, true) {
		return false
	}
	close(c.done)
	return true
}

// Namespace returns the namespace that c sees.
func (c *client) Namespace() string { return c.space.name }

// signal wakes whoever waits on a channel of capacity one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
