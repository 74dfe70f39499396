package amqp

import (
	"net"
	"runtime"
	"sync"
)

// spare is up to how many bytes the room of what was written is kept for the next.
const spare = 1 << 20

// A conn is written to without waiting: what is written while the network takes what was
// before goes out at once with it. The client library writes every frame by itself, and
// has everybody wait meanwhile. What may be pending is bounded by what publishers have on
// their way.
type conn struct {
	net.Conn
	wake chan struct{} // capacity 1: something is pending
	done chan struct{} // closed with the connection

	mu      sync.Mutex
	pending []byte
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
		c.mu.Unlock()
		if _, err := c.Conn.Write(out); err != nil {
			c.Close()
			return
		}
		if cap(out) > spare {
			out = nil
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
