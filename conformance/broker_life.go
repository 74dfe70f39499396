package conformance

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var lifeCases = []Case{
	{Name: "Life/Info", Contract: "Info is constant, names the driver and the contract it was written for, and claims what is possible", run: lifeInfo},
	{Name: "Life/Closed", Contract: "after Close every call returns ErrClosed", run: lifeClosed},
	{Name: "Life/CloseEndsReceive", Contract: "Close and Stop end a Receive in progress with ErrClosed", run: lifeCloseEndsReceive},
	{Name: "Life/CloseTwice", Contract: "Close and Stop may be called again", run: lifeCloseTwice},
	{Name: "Life/Others", Contract: "closing one client leaves the others alone", run: lifeOthers},
	{Name: "Life/Stop", Contract: "Stop gives back at once, uncounted, what was prefetched and not received", run: lifeStop},
	{Name: "Life/StopRace", Contract: "stopping while messages arrive loses none", run: lifeStopRace},
	{Name: "Life/Contexts", Contract: "a subscription does not end with the context it was opened under", run: lifeContexts},
	{Name: "Life/Everything", Contract: "all methods may be called at once", run: lifeEverything},
	{Name: "Life/Restart", Contract: "what was acknowledged as published survives a restart of the store, delayed and dead included; what was settled does not come back",
		Denied: "a store that is not durable says so", restarts: true, run: lifeRestart},
	{Name: "Life/RestartData", Contract: "what survives a restart is as it was: every field, the moment it is due, its place in line, and what is dead",
		Denied: "a store that is not durable says so", restarts: true, run: lifeRestartData},
	{Name: "Life/Reconnect", Contract: "clients go on after a restart of their server: Receive waits or returns a retryable error, publishing works again",
		Denied: "a store in the process restarts with its process", restarts: true, run: lifeReconnect},
}

// restart stops the store as a crash would and starts it again.
func (c *C) restart() {
	c.TB.Helper()
	if !Restarts(c.TB) {
		c.Fatal("the table of cases does not say that this one restarts its store")
	}
	c.h.Restart(c.TB)
}

// durable reports whether the store claims to be, and demands a way to restart
// one that does.
func (c *C) durable(b driver.Broker) bool {
	c.TB.Helper()
	if b.Info().Durable && c.h.Restart == nil {
		c.Fatal("Info says durable: the harness must be able to Restart")
	}
	return b.Info().Durable
}

func lifeInfo(c *C) {
	b := c.broker()
	i := b.Info()
	c.expect(i == b.Info() && i == c.broker().Info(), "Info is constant")
	c.expect(i.Name != "", "a driver has a name")
	c.expect(i.Contract >= 1 && i.Contract <= driver.Contract, "written for contract %d, this is %d", i.Contract, driver.Contract)
	c.expect(i.Priorities >= 3 && i.Priorities <= 10, "%d priority levels, want 3 to 10", i.Priorities)
	c.expect(i.MaxLease >= 0 && i.MaxMessage >= 0, "limits are not negative: %+v", i)
	c.expect(i.MaxMessage == 0 || i.MaxMessage >= 1<<20, "a payload may have one mebibyte, MaxMessage is %d", i.MaxMessage)
	c.expect(i.Settle == driver.SettleAtomic || i.Settle == driver.SettlePublishFirst, "settle mode %d", i.Settle)
	c.expect(i.Lease == driver.LeaseTimed || i.Lease == driver.LeaseSession, "lease mode %d", i.Lease)
}

func lifeClosed(c *C) {
	b, other := c.broker(), c.broker()
	c.publish(other, c.messages(2)...)
	s := c.subscribe(b)
	held := c.receive(s, 1)
	t := c.subscribe(b)
	c.must(t.Close(c.Context()), "close a subscription")
	ctx := c.Context()
	_, err := t.Receive(ctx, 1)
	c.closed("Receive of a closed subscription", err)
	c.must(b.Close(ctx), "close")
	c.closed("Publish", b.Publish(ctx, c.messages(1)))
	_, err = b.Subscribe(ctx, c.options())
	c.closed("Subscribe", err)
	_, err = s.Receive(ctx, 1)
	c.closed("Receive", err)
	c.closed("Settle", s.Settle(ctx, settlements(held, driver.Ack)))
	c.closed("Extend", s.Extend(ctx, held))
	c.closed("SetQueues", s.SetQueues(ctx, nil))
	l := b.DeadLetters(q)
	_, _, err = l.List(ctx, "", 10)
	c.closed("List", err)
	_, err = l.Get(ctx, "x")
	c.closed("Get", err)
	_, err = l.Replay(ctx, []driver.DeadKey{{ID: "x"}})
	c.closed("Replay", err)
	_, err = l.Delete(ctx, []driver.DeadKey{{ID: "x"}})
	c.closed("Delete", err)
	_, err = l.Purge(ctx, time.Time{})
	c.closed("Purge", err)
	_, err = l.Len(ctx)
	c.closed("Len", err)
	if i, ok := driver.As[driver.Inspector](b); ok {
		_, err = i.Inspect(ctx, []string{q})
		c.closed("Inspect", err)
		_, err = i.Queues(ctx)
		c.closed("Queues", err)
	}
	if p, ok := driver.As[driver.Purger](b); ok {
		_, err = p.PurgeQueue(ctx, q)
		c.closed("PurgeQueue", err)
	}
	if k, ok := driver.As[driver.Control](b); ok {
		c.controlClosed(k)
	}
}

func (c *C) controlClosed(k driver.Control) {
	c.TB.Helper()
	ctx := c.Context()
	c.closed("Put", k.Put(ctx, "key", nil, 0))
	c.closed("Remove", k.Remove(ctx, "key"))
	_, _, err := k.Entries(ctx, "")
	c.closed("Entries", err)
	c.closed("Await", k.Await(ctx, "", 1<<40))
}

func (c *C) closed(what string, err error) {
	c.TB.Helper()
	c.expect(isClosed(err), "%s after Close: got %v, want ErrClosed", what, err)
}

func lifeCloseEndsReceive(c *C) {
	for _, what := range []string{"Stop", "Close", "Broker.Close"} {
		b := c.broker()
		s := c.subscribe(b)
		ended := make(chan error, 1)
		go func() {
			_, err := s.Receive(c.Context(), 1)
			ended <- err
		}()
		c.sleep(c.lease / 8)
		begin := time.Now()
		var err error
		switch what {
		case "Stop":
			err = s.Stop(c.Context())
		case "Close":
			err = s.Close(c.Context())
		default:
			err = b.Close(c.Context())
		}
		c.must(err, "%s", what)
		select {
		case err := <-ended:
			c.closed("Receive during "+what, err)
			c.expect(time.Since(begin) <= c.slack+time.Second, "%s took %v to end Receive", what, time.Since(begin))
		case <-time.After(c.patience()):
			c.Fatalf("%s does not end Receive", what)
		}
		_, err = s.Receive(c.Context(), 1)
		c.closed("Receive after "+what, err)
	}
}

func lifeCloseTwice(c *C) {
	b := c.broker()
	s := c.subscribe(b)
	for range 2 {
		c.must(s.Stop(c.Context()), "stop")
	}
	for range 2 {
		c.must(s.Close(c.Context()), "close the subscription")
	}
	for range 2 {
		c.must(b.Close(c.Context()), "close the broker")
	}
}

func lifeOthers(c *C) {
	b, leaving := c.broker(), c.broker()
	s := c.subscribe(b)
	t := c.subscribe(leaving)
	u := c.subscribe(leaving, "other")
	c.publish(b, c.messages(1)...)
	d := c.steal(t, s)
	c.must(t.Close(c.Context()), "close one subscription")
	o := c.message()
	o.Queue = "other"
	c.publish(leaving, o)
	c.ack(u, c.one(u)) // its sister lives
	c.must(leaving.Close(c.Context()), "close one broker")
	m := c.message()
	c.publish(b, m)
	got := c.one(s)
	c.expect(got.ID == m.ID || got.ID == d.ID, "the other client works")
	c.ack(s, got)
}

func lifeStop(c *C) {
	b := c.broker()
	c.publish(b, c.messages(12)...)
	s := c.subscribe(b)
	held := c.receive(s, 2) // a broker that pushes holds the others now
	c.must(s.Stop(c.Context()), "stop")
	t := c.worker()
	begin := time.Now()
	ds := c.receive(t, 10)
	c.expect(time.Since(begin) <= c.lease/2+c.slack, "what was prefetched came back after %v", time.Since(begin))
	for _, d := range ds {
		c.expect(d.Count == 1, "giving back does not count: %s has count %d", d.ID, d.Count)
	}
	c.ack(t, ds...)
	c.ack(s, held...)
	c.empty(b, "all were acknowledged")
}

func lifeStopRace(c *C) {
	b := c.broker()
	const rounds = 40
	var got []string
	var mu sync.Mutex
	for i := range rounds {
		s := c.subscribe(b)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				ds, err := s.Receive(c.Context(), 2)
				if err != nil {
					return
				}
				c.ack(s, ds...)
				mu.Lock()
				got = append(got, deliveredIDs(ds)...)
				mu.Unlock()
			}
		})
		for range 3 {
			mu.Lock()
			m := c.message()
			mu.Unlock()
			wg.Go(func() { c.publish(b, m) })
		}
		if i%2 == 0 {
			c.sleep(time.Duration(i) * 20 * time.Microsecond)
		}
		c.must(s.Stop(c.Context()), "stop")
		wg.Wait()
		c.must(s.Close(c.Context()), "close")
	}
	s := c.worker()
	for len(got) < 3*rounds {
		ds := c.receiveWithin(s, 3*rounds-len(got), c.lease/2)
		if len(ds) == 0 {
			break
		}
		for _, d := range ds {
			c.expect(d.Count == 1 || b.Info().Acks == driver.AcksUnconfirmed, "%s has count %d", d.ID, d.Count)
		}
		c.ack(s, ds...)
		got = append(got, deliveredIDs(ds)...)
	}
	var want []string
	for i := range 3 * rounds {
		want = append(want, fmt.Sprintf("task-%d", i+1))
	}
	c.same(got, want, "each message once, and at once")
}

func lifeContexts(c *C) {
	b := c.broker()
	ctx, cancel := contextOf(c)
	s, err := b.Subscribe(ctx, c.options())
	c.must(err, "subscribe")
	defer s.Close(c.Context())
	cancel()
	c.sleep(c.slack)
	c.publish(b, c.messages(1)...)
	d := c.one(s)
	c.sleep(c.lease / 2)
	c.must(s.Extend(c.Context(), []*driver.Delivery{d}), "extend")
	c.ack(s, d)
	cancelled, cancel := contextOf(c)
	cancel()
	if s, err := b.Subscribe(cancelled, c.options()); err == nil {
		s.Close(c.Context())
		c.Errorf("Subscribe under an ended context is an error")
	}
}

func lifeEverything(c *C) {
	b := c.broker()
	s := c.subscribe(b)
	const n = 60
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := func() *driver.Message { mu.Lock(); defer mu.Unlock(); return c.message() }
	for range 4 {
		wg.Go(func() {
			for i := range n / 4 {
				m := next()
				if i%5 == 0 {
					m = dead(m, 1)
				}
				c.publish(b, m)
			}
		})
	}
	wg.Go(func() {
		for range n - n/5 {
			d := c.one(s)
			wg.Go(func() {
				s.Extend(c.Context(), []*driver.Delivery{d})
				c.ack(s, d)
			})
		}
	})
	wg.Go(func() {
		for i := range 12 {
			qs := []driver.QueueSpec{{Name: q}, {Name: fmt.Sprint("extra-", i)}}
			c.must(s.SetQueues(c.Context(), qs), "set queues")
			t := c.subscribe(b, fmt.Sprint("extra-", i))
			c.must(t.Stop(c.Context()), "stop")
			c.must(t.Close(c.Context()), "close")
		}
	})
	wg.Go(func() {
		for range 12 {
			l := b.DeadLetters(q)
			ms, _, err := l.List(c.Context(), "", 3)
			c.must(err, "list")
			_, err = l.Get(c.Context(), "task-1")
			c.must(err, "get")
			_, err = l.Len(c.Context())
			c.must(err, "len")
			_, err = l.Delete(c.Context(), keys(ms))
			c.must(err, "delete")
			b.Info()
		}
	})
	wg.Wait()
}

func lifeRestart(c *C) {
	b := c.broker()
	if !c.durable(b) {
		return
	}
	ms := c.messages(120)
	ms[1].Delay = c.lease / 2
	c.publish(b, ms...)
	c.bury(b, 3)
	s := c.subscribe(b)
	ds := c.receive(s, 20)
	c.ack(s, ds[:10]...)
	settled := deliveredIDs(ds[:10])
	if b.Info().Acks == driver.AcksUnconfirmed {
		c.sleep(c.slack) // they are on their way
	}
	c.restart()
	again := c.broker()
	t := c.subscribe(again)
	var got []string
	for len(got) < 110 {
		ds := c.receive(t, 1)
		got = append(got, deliveredIDs(ds)...)
		c.ack(t, ds...)
	}
	c.same(append(got, settled...), messageIDs(ms), "settled once, or there again")
	c.none(t, c.lease/2, "and no more")
	c.expect(len(c.deadOf(again, q)) == 3, "dead letters survive")
}

func lifeRestartData(c *C) {
	b := c.broker()
	if !c.durable(b) {
		return
	}
	full := c.full() // of a higher priority than the others
	late := c.messages(2)
	late[0].Delay, late[1].Delay = 2*c.lease, time.Hour
	begin := time.Now()
	c.publish(b, late...)
	line := c.messages(40)
	c.publish(b, append(line, full)...)
	c.bury(b, 3)
	before := c.deadOf(b, q)
	c.restart()
	b = c.broker()
	s := c.subscribe(b)
	d := c.one(s)
	c.sameMessage(&d.Message, full)
	c.expect(d.Count == 5, "Count is 1 + Deliveries: got %d, want 5", d.Count)
	c.ack(s, d)
	var got []string
	due := func(d *driver.Delivery) {
		waited := time.Since(begin)
		c.expect(d.ID == late[0].ID && waited >= 2*c.lease, "%s came after %v, want %s after %v", d.ID, waited, late[0].ID, 2*c.lease)
	}
	early := false // of the line, if the restart took longer than the delay
	for len(got) < len(line) {
		d := c.one(s)
		if early = early || d.ID == late[0].ID; d.ID == late[0].ID && !b.Info().FIFO {
			due(d)
		} else {
			got = append(got, d.ID)
		}
		c.ack(s, d)
	}
	if b.Info().FIFO {
		c.expect(slices.Equal(got, messageIDs(line)), "order: got %v", got)
	}
	c.same(got, messageIDs(line), "all that was ready")
	if !early {
		d = c.one(s)
		due(d)
		c.ack(s, d)
	}
	after := c.deadOf(b, q)
	c.expect(len(after) == len(before), "%d dead letters, want %d", len(after), len(before))
	for i, m := range after {
		c.sameMessage(m, before[i])
		c.expect(reflect.DeepEqual(m.Dead, before[i].Dead), "a dead letter: got %+v, want %+v", m.Dead, before[i].Dead)
	}
	if b.Info().Dedup {
		for where, id := range map[string]string{"delayed": late[1].ID, "dead": before[0].ID} {
			m := c.message()
			m.ID = id
			err := driver.ItemError(b.Publish(c.Context(), []*driver.Message{m}), 0, 1)
			c.expect(errors.Is(err, driver.ErrDuplicate), "an id that is %s: got %v, want ErrDuplicate", where, err)
		}
	}
}

func lifeReconnect(c *C) {
	b := c.broker()
	if !b.Info().Durable || !c.h.Server {
		return
	}
	s := c.subscribe(b)
	got := make(chan string, 100)
	ctx, cancel := contextOf(c)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			ds, err := s.Receive(ctx, 5)
			if isClosed(err) {
				c.Errorf("only Close ends a subscription: got %v", err)
				return
			}
			if err != nil {
				c.sleep(c.slack / 10)
			}
			for _, d := range ds {
				if c.settleOne(s, driver.Settlement{Delivery: d}) == nil {
					got <- d.ID
				}
			}
		}
	})
	c.publish(b, c.messages(1)...)
	first := <-got
	c.restart()
	m := c.message()
	for end := time.Now().Add(c.patience()); ; c.sleep(c.slack / 10) {
		m.Repeat = true
		if err := driver.ItemError(b.Publish(c.Context(), []*driver.Message{m}), 0, 1); err == nil {
			break
		} else if time.Now().After(end) {
			c.Fatalf("publishing does not work again: %v", err)
		}
	}
	select {
	case id := <-got:
		c.expect(id == m.ID || id == first, "got %s", id)
	case <-time.After(c.patience()):
		c.Errorf("receiving does not work again")
	}
	cancel()
	wg.Wait()
}
