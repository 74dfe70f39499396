package amqp

import (
	"context"
	"net"
	"runtime"
	"sync"
)

// backlog is how many bytes may wait to be written before publishers do.
const backlog = 1 << 20

// A conn is written to without waiting: what is written while the network takes what was
// before goes out at once with it. The client library writes every frame by itself, and
// has everybody wait meanwhile.
type conn struct {
	net.Conn
	wake chan struct{} // capacity 1: something is pending
	done chan struct{} // closed with the connection

	mu      sync.Mutex
	pending []byte
	taken   chan struct{} // closed when what is pending is written next; nil if nobody waits
	closed  bool
}

func newConn(c net.Conn) *conn {
	w := &conn{Conn: c, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write implements [net.Conn]. What cannot be written closes the connection.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	c.pending = append(c.pending, p...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

// run writes what is pending.
func (c *conn) run() {
	for out := []byte(nil); ; {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		runtime.Gosched() // who is about to write does so
		c.mu.Lock()
		c.pending, out = out[:0], c.pending
		if c.taken != nil {
			close(c.taken)
			c.taken = nil
		}
		c.mu.Unlock()
		if _, err := c.Conn.Write(out); err != nil {
			c.Close()
			return
		}
		if cap(out) > backlog {
			out = nil
		}
	}
}

// room waits until not much is pending.
func (c *conn) room(ctx context.Context) error {
	for {
		c.mu.Lock()
		if c.closed || len(c.pending) <= backlog {
			c.mu.Unlock()
			return nil
		}
		if c.taken == nil {
			c.taken = make(chan struct{})
		}
		taken := c.taken
		c.mu.Unlock()
		select {
		case <-taken:
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close implements [net.Conn]. What is pending is dropped.
func (c *conn) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	close(c.done)
	return c.Conn.Close()
}
