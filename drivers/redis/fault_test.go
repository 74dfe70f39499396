package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

func init() { goredis.SetLogger(quiet{}) }

// quiet drops what the client says of connections that tests cut.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// A pair is a broker that covers its backend, with a subscription to q.
type pair struct {
	t       testing.TB
	server  *server
	prefix  string
	broker  *redis.Broker
	backend *redis.Backend
	sub     driver.Subscription
}

// newPair opens a pair on s under a prefix of its own.
func newPair(t testing.TB, s *server) *pair {
	t.Helper()
	o := &redis.Options{Prefix: fmt.Sprint("test", prefixes.Add(1))}
	b, err := redis.OpenBroker(t.Context(), client(s), "ns", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(context.Background()) })
	be, err := redis.OpenBackend(t.Context(), client(s), "ns", o, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { be.Close(context.Background()) })
	if !b.Covers(be) {
		t.Fatal("the broker does not cover the backend")
	}
	p := &pair{t: t, server: s, prefix: o.Prefix, broker: b, backend: be}
	p.subscribe()
	return p
}

func (p *pair) subscribe() {
	p.t.Helper()
	p.sub = must(p.broker.Subscribe(p.t.Context(), &driver.SubscribeOptions{Prefetch: 1000, Slots: 1000, Lease: 30 * time.Second,
		Queues: []driver.QueueSpec{{Name: "q"}}}))(p.t)
}

func message(id string) *driver.Message {
	return &driver.Message{ID: id, Queue: "q", Attempt: 1, Envelope: []byte("envelope of " + id),
		Record: &driver.Update{ID: id, Attempt: 1, State: driver.Pending}}
}

func (p *pair) publish(msgs ...*driver.Message) {
	p.t.Helper()
	if err := p.broker.Publish(p.t.Context(), msgs); err != nil {
		p.t.Fatalf("Publish: %v", err)
	}
}

// one receives a message and acknowledges it with its SUCCESS.
func (p *pair) one() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	ds, err := p.sub.Receive(ctx, 1)
	if err != nil {
		p.t.Fatalf("Receive: %v", err)
	}
	d := ds[0]
	err = p.sub.Settle(ctx, []driver.Settlement{{Delivery: d, Record: &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq,
		Attempt: d.Attempt, State: driver.Success, TTL: time.Hour, Body: []byte("done")}}})
	if err != nil {
		p.t.Fatalf("Settle: %v", err)
	}
	return d.ID
}

// TestFull reaches maxmemory: publishes are refused, what is there is worked off,
// and then there is room again.
func TestFull(t *testing.T) {
	t.Parallel()
	sharedServer(t) // or there is none
	s := newServer(t, "--maxmemory", "12mb", "--maxmemory-policy", "noeviction")
	p := newPair(t, s)
	n := 0
	for ; ; n++ {
		m := message(fmt.Sprint("full-", n))
		m.Envelope = make([]byte, 16<<10)
		err := driver.ItemError(p.broker.Publish(t.Context(), []*driver.Message{m}), 0, 1)
		if err == nil {
			continue
		}
		if !errors.Is(err, driver.ErrFull) || !errors.Is(err, driver.ErrTransient) {
			t.Fatalf("Publish: got %v, want %v", err, driver.ErrFull)
		}
		break
	}
	if n < 100 {
		t.Fatalf("only %d messages fit", n)
	}
	for i := range n {
		if got, want := p.one(), fmt.Sprint("full-", i); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	p.publish(message("again"))
	if got := p.one(); got != "again" {
		t.Errorf("got %s, want again", got)
	}
	checkInvariants(t, s, p.prefix)
}

// TestFlushed goes on after somebody has removed everything, scripts too.
func TestFlushed(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	s := newServer(t)
	p := newPair(t, s)
	p.publish(message("a"))
	p.one()
	c := goredis.NewClient(client(s))
	defer c.Close()
	if err := errors.Join(c.FlushAll(t.Context()).Err(), c.ScriptFlush(t.Context()).Err()); err != nil {
		t.Fatal(err)
	}
	p.publish(message("b"))
	if got := p.one(); got != "b" {
		t.Errorf("got %s, want b", got)
	}
	checkInvariants(t, s, p.prefix)
}

// TestSpared takes nothing back from who lives and could not extend for a lease, though
// the server that answers now is up for longer.
func TestSpared(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	for name, move := range map[string]func(t *testing.T, s *server) *server{
		"restarted": func(t *testing.T, s *server) *server {
			s.kill()
			if err := s.start(); err != nil {
				t.Fatal(err)
			}
			return s
		},
		"failed over": func(t *testing.T, s *server) *server {
			host, port, _ := net.SplitHostPort(s.addr)
			other := newServer(t, "--replicaof", host+" "+port)
			patient := client(s)
			patient.ReadTimeout = time.Minute
			c, replica := goredis.NewClient(patient), goredis.NewClient(client(other))
			defer c.Close()
			defer replica.Close()
			if n := must(c.Do(t.Context(), "WAIT", 1, 30000).Int())(t); n != 1 {
				t.Fatal("the replica does not follow")
			}
			s.kill()
			must(replica.ReplicaOf(t.Context(), "NO", "ONE").Result())(t)
			return other
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, prefix := newServer(t), fmt.Sprint("test", prefixes.Add(1))
			b, sub := openSpared(t, s, prefix)
			ok(t, b.Publish(t.Context(), []*driver.Message{message("held")}))
			must(sub.Receive(t.Context(), 1))(t)
			s = move(t, s)
			time.Sleep(suiteLease + 2*time.Second) // nobody can extend, and nobody looks
			_, sub = openSpared(t, s, prefix)
			nothing(t, sub, suiteLease/2)
			if ds := must(sub.Receive(t.Context(), 1))(t); ds[0].ID != "held" || ds[0].Count != 2 {
				t.Errorf("got %s, count %d, want held a second time", ds[0].ID, ds[0].Count)
			}
		})
	}
}

// openSpared opens a broker, with a subscription to q.
func openSpared(t *testing.T, s *server, prefix string) (*redis.Broker, driver.Subscription) {
	t.Helper()
	b := must(redis.OpenBroker(t.Context(), client(s), "ns", &redis.Options{Prefix: prefix}))(t)
	t.Cleanup(func() { b.Close(context.Background()) })
	return b, must(b.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: 10, Slots: 10, Lease: suiteLease,
		Queues: []driver.QueueSpec{{Name: "q"}}}))(t)
}

// nothing wants sub to receive nothing for a while.
func nothing(t *testing.T, sub driver.Subscription, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if ds, err := sub.Receive(ctx, 1); len(ds) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %d, %v, want none yet", len(ds), err)
	}
}

// extending extends ds at once and then as a worker does, until stop is called.
func extending(t *testing.T, sub driver.Subscription, ds []*driver.Delivery) (stop func()) {
	t.Helper()
	ok(t, sub.Extend(t.Context(), ds))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ticker := time.NewTicker(suiteLease / 3); ; {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				ticker.Stop()
				return
			}
			if err := sub.Extend(ctx, ds); err != nil && ctx.Err() == nil {
				t.Errorf("Extend: %v", err)
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// TestQueuesListed lists queues that settlements publish to, and lists queues again
// after somebody has removed everything, also behind the back of the connection.
func TestQueuesListed(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	s := newServer(t)
	p := newPair(t, s)
	lists := func(name string) bool {
		return slices.Contains(must(p.broker.Queues(t.Context()))(t), name)
	}
	p.publish(message("a"))
	d := must(p.sub.Receive(t.Context(), 1))(t)[0]
	then := message("b")
	then.Queue, then.Record = "then", nil
	if err := p.sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Then: []*driver.Message{then}}}); err != nil {
		t.Fatal(err)
	}
	if !lists("then") {
		t.Error("the queue of what follows on a settlement is not listed")
	}
	c := goredis.NewClient(client(s))
	defer c.Close()
	for i, notice := range []func() error{
		func() error { return c.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err() },
		func() error {
			redis.Relist(p.broker)
			return p.broker.Put(t.Context(), "any", nil, time.Minute) // which the connection hears of
		},
	} {
		if err := errors.Join(c.FlushAll(t.Context()).Err(), notice()); err != nil {
			t.Fatal(err)
		}
		p.eventually("q is listed again", func() bool {
			p.publish(message(fmt.Sprint("again-", i, "-", time.Now().UnixNano())))
			return lists("q")
		})
	}
}

// TestWrongType names a key that somebody else has put where ours belongs.
func TestWrongType(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	c := goredis.NewClient(client(s))
	defer c.Close()
	prefix := fmt.Sprint("test", prefixes.Add(1))
	if err := c.Set(t.Context(), prefix+":ns:{q}:s0", "text", 0).Err(); err != nil {
		t.Fatal(err)
	}
	b, err := redis.OpenBroker(t.Context(), client(s), "ns", &redis.Options{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	err = b.Publish(t.Context(), []*driver.Message{message("a")})
	if err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("got %v, want that the type is wrong", err)
	}
}

// TestCannotOpen says what is wrong with a server.
func TestCannotOpen(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	locked := newServer(t, "--requirepass", "secret")
	limited := newServer(t, "--user", "limited", "on", ">pw", "~*", "+@all", "resetchannels")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	}()
	for url, want := range map[string]string{
		"redis://" + locked.addr:                "NOAUTH",
		"redis://:wrong@" + locked.addr:         "WRONGPASS",
		"redis://limited:pw@" + limited.addr:    "NOPERM",
		"redis://" + l.Addr().String():          "redis: ",
		"redis://127.0.0.1:1":                   "refused",
		"unix:///nowhere/redis.sock":            "no such file",
		"rediss://" + locked.addr + "?db=0":     "",
		"redis://someone:secret@" + locked.addr: "WRONGPASS",
	} {
		cfg, d := config(t, url)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		b, err := d.OpenBroker(ctx, cfg)
		cancel()
		if err == nil {
			b.Close(context.Background())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", url, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "wrong@")) {
			t.Errorf("%s: the error tells the password: %v", url, err)
		}
	}
}

// TestWatchAgain watches an id again that was just given up.
func TestWatchAgain(t *testing.T) {
	t.Parallel()
	p := newPair(t, sharedServer(t))
	n, err := p.backend.Notify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 100 {
		id := fmt.Sprint("watched-", i)
		for range 3 {
			if err := n.Watch(ctx, []string{id}); err != nil {
				t.Fatal(err)
			}
			n.Unwatch([]string{id})
		}
		if err := n.Watch(ctx, []string{id}); err != nil {
			t.Fatal(err)
		}
		if err := p.backend.Apply(ctx, []driver.Update{{ID: id, State: driver.Success, TTL: time.Hour}}); err != nil {
			t.Fatal(err)
		}
		rs, err := n.Next(ctx)
		if err != nil || len(rs) != 1 || rs[0].ID != id {
			t.Fatalf("got %v, %v, want the record of %s", rs, err, id)
		}
		n.Unwatch([]string{id})
	}
}

// TestDamaged has messages of a batch damaged, and their records: the others are
// received and settled.
func TestDamaged(t *testing.T) {
	t.Parallel()
	p := newPair(t, sharedServer(t))
	c := goredis.NewClient(client(p.server))
	defer c.Close()
	key := func(id string) string { return p.prefix + ":ns:r:{" + id + "}" }
	p.publish(message("a"), message("b"))
	c.XAdd(t.Context(), &goredis.XAddArgs{Stream: p.prefix + ":ns:{q}:s0", Values: []string{"m", "?"}})
	c.XAdd(t.Context(), &goredis.XAddArgs{Stream: p.prefix + ":ns:{q}:s0", Values: []string{"m", strings.Repeat("\x00", 17)}})
	p.publish(message("c"), message("d"))
	c.Del(t.Context(), key("b"))
	c.LPush(t.Context(), key("b"), "of another type")
	ds, err := p.sub.Receive(t.Context(), 10)
	if err != nil || len(ds) != 3 || ds[0].ID != "a" || ds[1].ID != "c" || ds[2].ID != "d" {
		t.Fatalf("received %v, %v, want a, c and d", ds, err)
	}
	c.Set(t.Context(), key("c"), "no record", 0)
	ss := make([]driver.Settlement, len(ds))
	for i, d := range ds {
		ss[i] = driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, Attempt: 1, State: driver.Success, TTL: time.Hour}}
	}
	err = p.sub.Settle(t.Context(), ss)
	if driver.ItemError(err, 0, 3) != nil || driver.ItemError(err, 1, 3) == nil || driver.ItemError(err, 2, 3) != nil {
		t.Errorf("settled: %v, want an error of the second", err)
	}
	stats, err := p.broker.Inspect(t.Context(), []string{"q"})
	if err != nil || stats[0].Ready != 0 || stats[0].Leased != 4 {
		t.Errorf("%+v, %v, want the four damaged ones leased", stats, err)
	}
}

// TestDamagedMeets has what a settlement would change damaged: nothing is changed.
func TestDamagedMeets(t *testing.T) {
	t.Parallel()
	p := newPair(t, sharedServer(t))
	c := goredis.NewClient(client(p.server))
	defer c.Close()
	p.publish(message("a"))
	ds, err := p.sub.Receive(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	c.Set(t.Context(), p.prefix+":ns:r:{b}", "no record", 0)
	s := driver.Settlement{Delivery: ds[0], Then: []*driver.Message{message("b")},
		Record: &driver.Update{ID: "a", Attempt: 1, State: driver.Success, TTL: time.Hour}}
	if err := p.sub.Settle(t.Context(), []driver.Settlement{s}); err == nil {
		t.Error("settled, though what follows is damaged")
	}
	stats, err := p.broker.Inspect(t.Context(), []string{"q"})
	if err != nil || stats[0].Leased != 1 {
		t.Errorf("%+v, %v, want it leased still", stats, err)
	}
	r, err := p.backend.Get(t.Context(), []string{"a"})
	if err != nil || r[0].State != driver.Started {
		t.Errorf("record is %+v, %v, want STARTED", r[0], err)
	}
}

// TestStartedInPlace wants nothing left in a record of what it was before it started.
func TestStartedInPlace(t *testing.T) {
	t.Parallel()
	p := newPair(t, sharedServer(t))
	m := message("a")
	m.Record.Due, m.Record.TTL = time.Now().Add(time.Minute).UnixMilli(), time.Hour
	m.Record.ContentType, m.Record.Body = "text/plain", []byte("body")
	p.publish(m)
	if _, err := p.sub.Receive(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r, err := p.backend.Get(t.Context(), []string{"a"})
	if err != nil || r[0].State != driver.Started || r[0].Due != 0 || r[0].TTL != 0 || r[0].ContentType != "" || r[0].Body != nil {
		t.Errorf("record is %+v, %v", r[0], err)
	}
}
