package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A proxy passes connections on to a server and delays all they carry by the same
// time. It keeps the order and holds any number of bytes, so it limits no throughput.
type proxy struct {
	listener net.Listener
	target   string
	delay    atomic.Int64  // ns
	late     chan struct{} // closed when nothing is delayed any more
	delayed  queueOf[parcel]

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	active sync.WaitGroup
}

// A parcel is what one read brought, on its way to the writer of its direction.
type parcel struct {
	due  time.Time
	to   *queueOf[[]byte]
	data []byte // nil is the end of the stream
}

func startProxy(target string, delay time.Duration) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, late: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.delay.Store(int64(delay))
	p.delayed.init()
	p.active.Add(1)
	go p.accept()
	go p.deliver()
	return p, nil
}

// calibrate takes off what a sleep and the way through the proxy add, so that a round
// trip takes twice the delay longer than without the proxy.
func (p *proxy) calibrate(ctx context.Context) error {
	direct, err := latency(ctx, p.target)
	if err != nil {
		return err
	}
	delayed, err := latency(ctx, p.addr())
	over := (delayed - direct) - 2*time.Duration(p.delay.Load())
	p.delay.Add(-int64(over / 2))
	return err
}

func (p *proxy) due() time.Time { return time.Now().Add(time.Duration(p.delay.Load())) }

func (p *proxy) addr() string { return p.listener.Addr().String() }

// stop ends all connections, and returns when nothing of the proxy is left.
func (p *proxy) stop() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.active.Wait()
	p.delayed.push(parcel{})
	<-p.late
}

func (p *proxy) accept() {
	defer p.active.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			log.Print("proxy: ", err)
			client.Close()
			continue
		}
		if !p.keep(client, server) {
			return
		}
		p.pass(client, server)
		p.pass(server, client)
	}
}

// keep notes connections for stop. It reports false if that came before.
func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.closed {
			c.Close()
			continue
		}
		p.conns[c] = struct{}{}
	}
	return !p.closed
}

// pass carries one direction of a connection.
func (p *proxy) pass(from, to net.Conn) {
	var due queueOf[[]byte]
	due.init()
	p.active.Add(2)
	go func() {
		defer p.active.Done()
		p.read(from, &due)
	}()
	go func() {
		defer p.active.Done()
		p.write(to, &due)
	}()
}

func (p *proxy) read(from net.Conn, to *queueOf[[]byte]) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.delayed.push(parcel{p.due(), to, append([]byte(nil), buf[:n]...)})
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
				log.Print("proxy: ", err)
			}
			p.delayed.push(parcel{p.due(), to, nil})
			return
		}
	}
}

func (p *proxy) write(to net.Conn, due *queueOf[[]byte]) {
	for {
		data := due.pop()
		if data == nil {
			break
		}
		// A peer that is gone is told to the reader of the other direction.
		if _, err := to.Write(data); err != nil {
			break
		}
	}
	to.Close()
	p.mu.Lock()
	delete(p.conns, to)
	p.mu.Unlock()
}

// deliver hands parcels to their writers when they are due. As all are delayed by
// the same time, they are due in the order in which they came, of whatever direction.
func (p *proxy) deliver() {
	// A thread of its own: a timer of the runtime is late by up to a millisecond.
	runtime.LockOSThread()
	defer close(p.late)
	for {
		next := p.delayed.pop()
		if next.to == nil {
			return
		}
		if wait := time.Until(next.due); wait > 0 {
			t := syscall.NsecToTimespec(wait.Nanoseconds())
			syscall.Nanosleep(&t, nil)
		}
		next.to.push(next.data)
	}
}

// A queueOf is a queue without a bound.
type queueOf[T any] struct {
	mu    sync.Mutex
	some  sync.Cond
	items []T
}

func (q *queueOf[T]) init() { q.some.L = &q.mu }

func (q *queueOf[T]) push(v T) {
	q.mu.Lock()
	q.items = append(q.items, v)
	q.mu.Unlock()
	q.some.Signal()
}

// pop waits for an item.
func (q *queueOf[T]) pop() T {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 {
		q.some.Wait()
	}
	v := q.items[0]
	q.items = q.items[1:]
	return v
}
