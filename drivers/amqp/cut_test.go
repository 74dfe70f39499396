package amqp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
)

// A proxy stands between a client and a server, and cuts one connection when a method
// passes: before it does, or after.
type proxy struct {
	addr, server string
	work         sync.WaitGroup

	mu    sync.Mutex
	mark  []byte
	skip  int // methods to let pass first
	after bool
	deaf  bool // do not cut, but let nothing pass any more
	cuts  int
	met   chan struct{} // closed at the first of them
}

// openThrough opens a broker on the shared server through a proxy.
func openThrough(t *testing.T) (*proxy, *amqp.Broker) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	p := &proxy{addr: l.Addr().String(), server: sharedServer(t).addr, met: make(chan struct{})}
	p.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.work.Wait()
	})
	return p, open(t, "amqp://guest:guest@"+p.addr+"/", nil)
}

// method is how a method begins in a frame: class and method.
func method(class, id byte) []byte { return []byte{0, class, 0, id} }

// cut has the proxy cut at a method, after skip others of it, once.
func (p *proxy) cut(mark []byte, skip int, after bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark, p.skip, p.after = mark, skip, after
}

// deafen has the proxy let nothing pass from a method on, which it swallows.
func (p *proxy) deafen(mark []byte, skip int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark, p.skip, p.deaf = mark, skip, true
}

func (p *proxy) cutsMade() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// meets reports whether what passes ends the connection, and whether it passes.
func (p *proxy) meets(some []byte) (ends, passes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deaf && p.cuts > 0 {
		return false, false
	}
	if p.mark == nil || !bytes.Contains(some, p.mark) {
		return false, true
	}
	if p.skip--; p.skip >= 0 {
		return false, true
	}
	p.mark = nil
	if p.cuts++; p.cuts == 1 {
		close(p.met)
	}
	return !p.deaf, p.after
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.Close()
		return
	}
	var both sync.WaitGroup
	pipe := func(from, to net.Conn) {
		defer client.Close()
		defer server.Close()
		for buf := make([]byte, 1<<16); ; {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			ends, passes := p.meets(buf[:n])
			if passes {
				to.Write(buf[:n])
			}
			if ends {
				return
			}
		}
	}
	both.Go(func() { pipe(client, server) })
	pipe(server, client)
	both.Wait()
}

// TestCutAnywhere cuts the connection in every phase of a task's way: nothing that was
// confirmed is lost, and all goes on by itself.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	for name, mark := range map[string][]byte{
		"channel.open": method(20, 10), "queue.declare": method(50, 10), "queue.declare-ok": method(50, 11),
		"exchange.declare": method(40, 10), "queue.bind": method(50, 20), "exchange.bind": method(40, 30),
		"confirm.select": method(85, 10), "confirm.select-ok": method(85, 11),
		"basic.qos": method(60, 10), "basic.consume": method(60, 20), "basic.consume-ok": method(60, 21),
		"basic.publish": method(60, 40), "basic.deliver": method(60, 60), "basic.ack": method(60, 80),
		"basic.cancel": method(60, 30),
	} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/after=%v", name, after), func(t *testing.T) {
				t.Parallel()
				skip := 1
				if mark[1] == 85 { // there is one only
					skip = 0
				}
				cutAt(t, mark, skip, after)
			})
		}
	}
}

func cutAt(t *testing.T, mark []byte, skip int, after bool) {
	p, b := openThrough(t)
	p.cut(mark, skip, after)
	ctx, cancel := context.WithTimeout(background, 2*patience)
	defer cancel()
	var sub driver.Subscription
	for err := error(nil); sub == nil; {
		if sub, err = b.Subscribe(ctx, &driver.SubscribeOptions{Prefetch: 5, Lease: time.Second,
			Queues: []driver.QueueSpec{{Name: "q"}}}); err != nil && ctx.Err() != nil {
			t.Fatalf("subscribe: %v", err)
		}
	}
	ms := messages(60, "q")
	for i, m := range ms {
		if i%3 == 0 {
			m.Delay = 100 * time.Millisecond
		}
	}
	confirmed := make(chan string, len(ms))
	got := map[string]bool{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < len(ms); i += 6 {
			publishAll(t, b, ms[i:i+6], confirmed)
		}
	})
	for released := false; len(got) < len(ms); {
		ds, err := sub.Receive(ctx, 3)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d came", len(got), len(ms))
		}
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		for _, d := range ds {
			st := driver.Settlement{Delivery: d}
			if len(got) == 30 && !released { // leave the others at hand for long enough to go back
				released = true
				st.Action = driver.Release
			}
			if sub.Settle(ctx, []driver.Settlement{st}) == nil && st.Action == driver.Ack {
				got[d.ID] = true
			}
		}
	}
	wg.Wait()
	if err := sub.Stop(ctx); err != nil { // cancels consumers
		t.Errorf("stop: %v", err)
	}
	if n := p.cutsMade(); n != 1 {
		t.Errorf("the connection was cut %d times, want once", n)
	}
}

// TestDeclareCut ends the connection on which a queue is declared, as a server does that
// cannot make it: what a worker holds stays its own.
func TestDeclareCut(t *testing.T) {
	t.Parallel()
	p, b := openThrough(t)
	sub := subscribe(t, b, 10, "q")
	ms := messages(2, "q")
	if err := b.Publish(background, ms[:1]); err != nil {
		t.Fatal(err)
	}
	held := receive(t, sub, 1)
	p.cut(method(50, 10), 0, false)
	ms[1].Delay = 10 * time.Millisecond
	if err := driver.ItemError(b.Publish(background, ms[1:]), 0, 1); !errors.Is(err, driver.ErrTransient) {
		t.Errorf("got %v, want a transient error", err)
	}
	if p.cutsMade() != 1 {
		t.Errorf("%d connections were cut, want 1", p.cutsMade())
	}
	ack(t, sub, held...)
	if err := b.Publish(background, ms[1:]); err != nil {
		t.Fatal(err)
	}
	ack(t, sub, receive(t, sub, 1)...)
}
