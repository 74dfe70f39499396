package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

// A proxy stands between clients and a server, and can lose replies.
type proxy struct {
	addr, server string
	clients      sync.WaitGroup

	mu    sync.Mutex
	marks []byte // what the calls have in them that are looked for
	calls int    // how many there were
	loses bool   // their replies are lost
	held  []byte // a request that has this in it waits
	holds bool   // one does
	free  chan struct{}
}

// newProxy starts a proxy to s, which has all scripts.
func newProxy(t *testing.T, s *server) *proxy {
	t.Helper()
	c := goredis.NewClient(client(s))
	defer c.Close()
	for _, script := range redis.Scripts {
		must(c.ScriptLoad(t.Context(), script.Text()).Result())(t)
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	p := &proxy{addr: l.Addr().String(), server: s.addr}
	p.clients.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.clients.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.clients.Wait()
	})
	return p
}

// count has the proxy count the calls of a script, until the returned function is
// called, which tells how many there were.
func (p *proxy) count(script string) (calls func() int) { return p.look(script, false) }

// lose has the proxy cut the connection of every call of a script, once the server
// has replied, until the returned function is called. That tells how many there were.
func (p *proxy) lose(script string) (calls func() int) { return p.look(script, true) }

func (p *proxy) look(script string, loses bool) (calls func() int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marks, p.calls, p.loses = []byte(redis.Scripts[script].Digest()), 0, loses
	return func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.marks = nil
		return p.calls
	}
}

// hold has the proxy keep requests with text in them back, until the returned
// function is called.
func (p *proxy) hold(text string) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := make(chan struct{})
	p.held, p.holds, p.free = []byte(text), false, free
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held = nil
		close(free)
	})
}

// wait keeps a request back.
func (p *proxy) wait(request []byte) {
	p.mu.Lock()
	held, free := p.held != nil && bytes.Contains(request, p.held), p.free
	p.holds = p.holds || held
	p.mu.Unlock()
	if held {
		<-free
	}
}

// keeps reports whether a request is kept back.
func (p *proxy) keeps() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holds
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	var cut atomic.Bool // the next reply is lost
	p.clients.Go(func() {
		defer client.Close()
		for buf := make([]byte, 1<<16); ; {
			n, err := server.Read(buf)
			if err != nil || cut.Load() {
				return
			}
			client.Write(buf[:n])
		}
	})
	var seen []byte
	for buf := make([]byte, 1<<16); ; {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		seen = append(seen, buf[:n]...)
		p.wait(seen)
		if marked, loses := p.meets(seen); marked {
			cut.Store(loses)
			seen = nil
		}
		seen = seen[max(0, len(seen)-100):]
		server.Write(buf[:n])
	}
}

// meets reports whether a request is one that is looked for, and whether its reply
// is to be lost.
func (p *proxy) meets(request []byte) (marked, loses bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.marks == nil || !bytes.Contains(request, p.marks) {
		return false, false
	}
	p.calls++
	return true, p.loses
}

// TestLostReplies loses replies to calls that the server has carried out. No client
// carries them out again by itself, and callers can.
func TestLostReplies(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	for name, retries := range map[string]int{"a client of the driver's": -1, "a client that retries": 3} {
		for call, lost := range map[string]func(*lossy){"publish": (*lossy).publishing, "claim": (*lossy).claiming,
			"settle": (*lossy).settling, "apply": (*lossy).applying} {
			t.Run(name+"/"+call, func(t *testing.T) {
				t.Parallel()
				l := newLossy(t, s, retries)
				lost(l)
				checkInvariants(t, s, l.prefix)
			})
		}
	}
}

// A lossy is a pair behind a proxy.
type lossy struct {
	*pair
	proxy *proxy
}

func newLossy(t *testing.T, s *server, retries int) *lossy {
	t.Helper()
	proxy := newProxy(t, s)
	ro := client(s)
	ro.Addr, ro.MaxRetries = proxy.addr, retries
	c := goredis.NewClient(ro)
	o := &redis.Options{Prefix: fmt.Sprint("test", prefixes.Add(1))}
	p := &pair{t: t, server: s, prefix: o.Prefix}
	p.broker = must(redis.NewBroker(t.Context(), c, "ns", o))(t)
	p.backend = must(redis.NewBackend(t.Context(), c, "ns", o))(t)
	t.Cleanup(func() {
		p.broker.Close(context.Background())
		p.backend.Close(context.Background())
		c.Close()
	})
	p.broker.Covers(p.backend)
	p.sub = must(p.broker.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: 10, Slots: 10, Lease: time.Second,
		Queues: []driver.QueueSpec{{Name: "q"}}}))(t)
	return &lossy{p, proxy}
}

// lose has f make one call of a script, whose reply is lost. That is not a transient
// error, after which nothing was done.
func (l *lossy) lose(script string, f func() error) {
	l.t.Helper()
	calls := l.proxy.lose(script)
	err := f()
	if n := calls(); n != 1 {
		l.t.Errorf("%s was sent %d times, want once", script, n)
	}
	if err == nil || errors.Is(err, driver.ErrTransient) {
		l.t.Errorf("a %s without a reply: got %v, want an error that is not transient", script, err)
	}
}

// stored counts the messages of q.
func (l *lossy) stored() int {
	l.t.Helper()
	stats := must(l.broker.Inspect(l.t.Context(), []string{"q"}))(l.t)[0]
	return stats.Ready + stats.Leased + stats.Delayed
}

// receive receives one message.
func (l *lossy) receive() *driver.Delivery {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	return must(l.sub.Receive(ctx, 1))(l.t)[0]
}

func (l *lossy) publishing() {
	untracked, tracked := message("untracked"), message("tracked")
	untracked.NoRecord, untracked.Record = true, nil
	for _, m := range []*driver.Message{untracked, tracked} {
		l.lose("publish", func() error { return l.broker.Publish(l.t.Context(), []*driver.Message{m}) })
	}
	if n := l.stored(); n != 2 {
		l.t.Errorf("%d messages are stored, want 2", n)
	}
	if err := driver.ItemError(l.broker.Publish(l.t.Context(), []*driver.Message{tracked}), 0, 1); !errors.Is(err, driver.ErrDuplicate) {
		l.t.Errorf("publish again: got %v, want %v", err, driver.ErrDuplicate)
	}
	tracked.Repeat = true
	l.publish(tracked)
	if n := l.stored(); n != 2 {
		l.t.Errorf("%d messages are stored after publishing again, want 2", n)
	}
}

func (l *lossy) claiming() {
	l.publish(message("a"))
	begin := time.Now()
	l.lose("claim", func() error {
		_, err := l.sub.Receive(l.t.Context(), 1)
		return err
	})
	if d := l.receive(); d.ID != "a" || d.Count != 2 {
		l.t.Errorf("got %s with count %d, want a with 2", d.ID, d.Count)
	}
	if took := time.Since(begin); took < time.Second {
		l.t.Errorf("it came back after %v, and had a lease of 1s", took)
	}
}

func (l *lossy) settling() {
	l.publish(message("a"))
	d := l.receive()
	settle := func() error {
		return driver.ItemError(l.sub.Settle(l.t.Context(), []driver.Settlement{{Delivery: d,
			Record: &driver.Update{ID: "a", State: driver.Success, TTL: time.Hour}, Then: []*driver.Message{next("b")}}}), 0, 1)
	}
	l.lose("settle", settle)
	if err := settle(); err != nil && !errors.Is(err, driver.ErrLeaseLost) {
		l.t.Errorf("settle again: got %v, want nil or %v", err, driver.ErrLeaseLost)
	}
	l.settled("a")
	if d := l.receive(); d.ID != "b" || l.stored() != 1 {
		l.t.Errorf("got %s of %d messages, want b, once", d.ID, l.stored())
	}
}

// next is a message that follows on a settlement.
func next(id string) *driver.Message {
	m := message(id)
	m.NoRecord, m.Record = true, nil
	return m
}

func (l *lossy) applying() {
	apply := func() error {
		return driver.ItemError(l.backend.Apply(l.t.Context(), []driver.Update{{ID: "a", State: driver.Success, TTL: time.Hour}}), 0, 1)
	}
	l.lose("apply", apply)
	if err := apply(); err != nil && !errors.Is(err, driver.ErrStale) {
		l.t.Errorf("apply again: got %v, want nil or %v", err, driver.ErrStale)
	}
	l.settled("a")
}

// settled wants the record of id to be a success.
func (l *lossy) settled(id string) {
	l.t.Helper()
	if rs, err := l.backend.Get(l.t.Context(), []string{id}); err != nil || rs[0] == nil || rs[0].State != driver.Success {
		l.t.Errorf("the record of %s: got %v, %v, want a success", id, rs, err)
	}
}

// TestRing refuses a client that spreads keys over servers.
func TestRing(t *testing.T) {
	t.Parallel()
	ring := goredis.NewRing(&goredis.RingOptions{Addrs: map[string]string{"a": sharedServer(t).addr}})
	defer ring.Close()
	if _, err := redis.NewBroker(t.Context(), ring, "ns", nil); err == nil {
		t.Error("a ring was not refused")
	}
}

// TestFailedWatch undoes what the call that failed has asked for, and nothing else.
func TestFailedWatch(t *testing.T) {
	t.Parallel()
	l := newLossy(t, sharedServer(t), -1)
	one, other := must(l.backend.Notify(t.Context()))(t), must(l.backend.Notify(t.Context()))(t)
	defer one.Close()
	defer other.Close()
	if err := one.Watch(t.Context(), []string{"before"}); err != nil {
		t.Fatal(err)
	}
	release := l.proxy.hold(":n:a")
	defer release()
	watch := func(ctx context.Context, n driver.Notifications, calls int) <-chan error {
		failed := make(chan error, 1)
		go func() { failed <- n.Watch(ctx, []string{"a", "before"}) }()
		l.eventually("the id is watched", func() bool { return redis.Watches(n, "a") == calls })
		return failed
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := watch(ctx, one, 1)
	l.eventually("the subscription is sent", l.proxy.keeps)
	again, elsewhere := watch(t.Context(), one, 2), watch(t.Context(), other, 1)
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	release()
	for _, watched := range []<-chan error{again, elsewhere} {
		if err := l.soon(watched); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, id := range []string{"a", "before"} {
		if err := l.backend.Apply(ctx, []driver.Update{{ID: id, State: driver.Success, TTL: time.Hour}}); err != nil {
			t.Fatal(err)
		}
		for _, n := range []driver.Notifications{one, other} {
			if rs, err := n.Next(ctx); err != nil || len(rs) != 1 || rs[0].ID != id {
				t.Fatalf("got %v, %v, want the record of %s", rs, err, id)
			}
		}
	}
}

// soon waits for an error.
func (l *lossy) soon(failed <-chan error) error {
	l.t.Helper()
	select {
	case err := <-failed:
		return err
	case <-time.After(30 * time.Second):
		l.t.Fatal("nothing happens")
		return nil
	}
}

// TestLeave stops, or turns to other queues, while a claim is under way that finds
// nothing. The server does not let the subscription wait for ever then.
func TestLeave(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	stop := func(l *lossy, _ func()) error { return l.sub.Stop(context.Background()) }
	turn := func(l *lossy, _ func()) error {
		return l.sub.SetQueues(context.Background(), []driver.QueueSpec{{Name: "other"}})
	}
	cancelled := func(l *lossy, cancel func()) error {
		cancel()
		return nil
	}
	for name, leave := range map[string][]func(*lossy, func()) error{
		"Stop": {stop}, "SetQueues": {turn}, "cancel": {cancelled}, "cancel and Stop": {cancelled, stop},
		"cancel and SetQueues": {cancelled, turn},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLossy(t, s, -1)
			release := l.proxy.hold(redis.Scripts["claim"].Digest())
			defer release()
			ctx, cancel := context.WithCancel(t.Context())
			received := make(chan struct{})
			go func() {
				l.sub.Receive(ctx, 1)
				close(received)
			}()
			l.eventually("a claim is under way", l.proxy.keeps)
			left := make(chan error, len(leave))
			for _, f := range leave {
				go func() { left <- f(l, cancel) }()
			}
			l.eventually("the subscription was told", func() bool { return redis.Leaves(l.sub) >= 1 || ctx.Err() != nil })
			release()
			for range leave {
				if err := l.soon(left); err != nil {
					t.Fatal(err)
				}
			}
			l.eventually("nobody waits for q", func() bool { return len(l.waiting()) == 0 })
			cancel()
			<-received
			if err := l.sub.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if names := l.waiting(); len(names) > 0 {
				t.Errorf("%v wait for q", names)
			}
		})
	}
}

// TestAwait is not woken by changes under other prefixes than its own.
func TestAwait(t *testing.T) {
	t.Parallel()
	l := newLossy(t, sharedServer(t), -1)
	other := must(redis.OpenBroker(t.Context(), client(l.server), "ns", &redis.Options{Prefix: l.prefix}))(t)
	defer other.Close(context.Background())
	_, rev, err := other.Entries(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	calls := l.proxy.count("control")
	awaited := make(chan error, 1)
	go func() { awaited <- l.broker.Await(t.Context(), "pause/", rev) }()
	l.eventually("Await waits", func() bool { return redis.Awaits(l.broker) == 1 })
	for i := range 50 {
		key := fmt.Sprint("workers/", i)
		if i == 49 {
			key = "pause/q"
		}
		if err := other.Put(t.Context(), key, []byte("v"), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.soon(awaited); err != nil {
		t.Fatal(err)
	}
	if n := calls(); n > 2 {
		t.Errorf("Await has asked %d times, want twice", n)
	}
	if n := redis.Awaits(l.broker); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

// TestWaitsQuietly waits without asking the server again and again, whatever the credit.
func TestWaitsQuietly(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	for _, prefetch := range []int{1, 2, 8} {
		rdb := goredis.NewClient(&goredis.Options{Addr: s.addr, ContextTimeoutEnabled: true})
		defer rdb.Close()
		var claims atomic.Int64
		rdb.AddHook(tap(func(cmd goredis.Cmder, next func() error) error {
			if runs(cmd, "claim") {
				claims.Add(1)
			}
			return next()
		}))
		b := must(redis.NewBroker(t.Context(), rdb, "ns", &redis.Options{Prefix: fmt.Sprint("test", prefixes.Add(1))}))(t)
		defer b.Close(context.Background())
		sub := must(b.Subscribe(t.Context(), &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: "q"}}, Prefetch: prefetch, Slots: 1, Lease: 30 * time.Second}))(t)
		defer sub.Close(context.Background())
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if _, err := sub.Receive(ctx, 1); ctx.Err() == nil {
			t.Fatalf("Receive: %v", err)
		}
		if n := claims.Load(); n < 1 || n > 5 {
			t.Errorf("with a prefetch of %d: %d claims in 1.5 s, want one a second", prefetch, n)
		}
	}
}
