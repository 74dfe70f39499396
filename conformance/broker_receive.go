package conformance

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var receiveCases = []Case{
	{Name: "Receive/Notified", Contract: "idle pickup is notified: a waiting Receive returns when a message is published, not at the next poll", run: receiveNotified},
	{Name: "Receive/WakeRace", Contract: "no wake-up is missed, however a publish and the wait for it race", run: receiveWakeRace},
	{Name: "Receive/WokenBy", Contract: "a waiting Receive is woken by a release, by a Then, by a replay and by the end of another's lease", run: receiveWokenBy},
	{Name: "Receive/NoWait", Contract: "Receive waits for the first delivery and never for more", run: receiveNoWait},
	{Name: "Receive/Max", Contract: "Receive returns at most max deliveries, and at least one", run: receiveMax},
	{Name: "Receive/Credit", Contract: "a subscription holds at most Prefetch unsettled deliveries over all its queues", run: receiveCredit},
	{Name: "Receive/CreditBack", Contract: "settling a delivery, or learning that it was lost, makes room for another", run: receiveCreditBack},
	{Name: "Receive/Cancelled", Contract: "Receive obeys its context before and during the wait, and loses nothing by it", run: receiveCancelled},
	{Name: "Receive/ClaimBeatsCancel", Contract: "a claimed delivery beats cancellation: it is returned or given back at once, uncounted", run: receiveClaimBeatsCancel},
	{Name: "Receive/Share", Contract: "workers share a queue: no message is held by two of them, and none is left behind", run: receiveShare},
	{Name: "Receive/FIFO", Contract: "within a queue and priority, messages come in the order they were published",
		Denied: "all of them come", run: receiveFIFO},
	{Name: "Receive/Priority", Contract: "priorities map monotonically onto Info().Priorities levels, and a higher one comes first", run: receivePriority},
	{Name: "Receive/AllWake", Contract: "every waiting worker is woken when there is enough for all", run: receiveAllWake},
	{Name: "Receive/Empty", Contract: "an idle Receive returns nothing before its context ends", run: receiveEmpty},
}

func receiveNotified(c *C) {
	b := c.broker()
	s := c.worker()
	var waits []time.Duration
	for range 10 {
		m := c.message()
		var published time.Time
		var wg sync.WaitGroup
		wg.Go(func() {
			c.sleep(c.lease / 7)
			published = time.Now()
			if err := b.Publish(c.Context(), []*driver.Message{m}); err != nil {
				c.Errorf("publish: %v", err)
			}
		})
		d := c.one(s)
		came := time.Now()
		wg.Wait() // a confirmation may come after the delivery
		waits = append(waits, came.Sub(published))
		c.expect(d.ID == m.ID, "got %s, want %s", d.ID, m.ID)
		c.ack(s, d)
	}
	slices.Sort(waits)
	c.expect(waits[9] <= c.slack, "a waiting Receive took %v to notice a message", waits[9])
	// A poll may be faster than the slack of a slow machine; it is not always.
	c.expect(waits[4] <= c.lease/20, "half of the time a waiting Receive took %v or more to notice a message: it polls", waits[4])
}

func receiveWakeRace(c *C) {
	b := c.broker()
	s, t := c.worker("ping"), c.worker("pong")
	send := func(queue string, m *driver.Message) {
		next := m.Clone()
		next.Queue = queue
		c.publish(b, next)
	}
	pass := func(from driver.Subscription, to string, rounds int) {
		for i := range rounds {
			ds := c.receiveWithin(from, 1, c.lease/2)
			if len(ds) == 0 {
				c.Errorf("a message is there, and Receive was not woken")
				return
			}
			c.ack(from, ds...)
			if to != "" {
				c.sleep(time.Duration(i % 5)) // to hit any gap between looking and waiting
				send(to, &ds[0].Message)
			}
		}
	}
	const rounds = 300
	send("ping", c.message())
	var wg sync.WaitGroup
	wg.Go(func() { pass(s, "pong", rounds) })
	wg.Go(func() { pass(t, "ping", rounds) })
	wg.Wait()
	pass(s, "", 1)
}

func receiveWokenBy(c *C) {
	b := c.broker()
	zombie := c.broker()
	s, t, z := c.subscribe(b), c.worker("other"), c.subscribe(zombie, "zombie")
	woken := func(by, queue string, d time.Duration, do func()) {
		c.TB.Helper()
		w := c.worker(queue)
		got := make(chan *driver.Delivery, 1)
		go func() {
			for _, d := range c.receiveWithin(w, 1, c.patience()) {
				got <- d
			}
		}()
		c.sleep(c.lease / 10)
		begin := time.Now()
		do()
		select {
		case d := <-got:
			late := c.slack
			if d.Count > 1 {
				late += c.lease + deathPatience
			}
			c.expect(time.Since(begin) <= late, "%s woke Receive after %v", by, time.Since(begin))
			c.ack(w, d)
		case <-time.After(d + c.patience()):
			c.Fatalf("%s does not wake Receive", by)
		}
		c.must(w.Close(c.Context()), "close")
	}
	c.publish(b, c.messages(1)...)
	d := c.one(s)
	woken("a release", q, 0, func() { c.release(s, d) })
	far := c.message()
	far.Queue = "other"
	c.publish(b, far)
	d = c.one(t)
	next := d.Clone()
	next.Seq, next.Queue = 1, "next"
	woken("a Then", "next", 0, func() {
		c.must(c.settleOne(t, driver.Settlement{Delivery: d, Then: []*driver.Message{next}}), "settle")
	})
	buried := dead(c.message(), 1)
	c.publish(b, buried)
	woken("a replay", q, 0, func() {
		if _, err := b.DeadLetters(q).Replay(c.Context(), []driver.DeadKey{buried.Key()}); err != nil {
			c.Errorf("replay: %v", err)
		}
	})
	held := c.message()
	held.Queue = "zombie"
	c.publish(b, held)
	c.one(z)
	woken("the end of a lease", "zombie", c.lease, func() { c.kill(zombie) })
}

func receiveNoWait(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(2)...)
	c.sleep(c.slack / 2) // a broker that pushes may bring them one by one
	begin, got := time.Now(), 0
	for got < 2 {
		ds, err := s.Receive(c.Context(), 10)
		c.must(err, "receive")
		c.expect(len(ds) > 0, "Receive returned neither deliveries nor an error")
		got += len(ds)
	}
	c.expect(time.Since(begin) <= c.slack, "two of ten were there, and Receive took %v", time.Since(begin))
}

func receiveMax(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(20)...)
	total := 0
	for _, limit := range []int{1, 3, 5, 11} {
		ds, err := s.Receive(c.Context(), limit)
		c.must(err, "receive")
		c.expect(len(ds) >= 1 && len(ds) <= limit, "asked for %d, got %d", limit, len(ds))
		total += len(ds)
		c.ack(s, ds...)
	}
	c.ack(s, c.receive(s, 20-total)...)
	if _, err := s.Receive(c.Context(), 0); err == nil {
		c.Errorf("Receive of none is an error")
	}
}

func receiveCredit(c *C) {
	b := c.broker()
	ms := c.messages(30)
	for i, m := range ms {
		m.Queue = []string{"a", "b", "c"}[i%3]
	}
	c.publish(b, ms...)
	o := c.options("a", "b", "c")
	o.Prefetch, o.Slots = 4, 2
	s := c.subscribeAs(b, o)
	ds := c.receive(s, 4)
	c.none(s, c.lease/4, "all credit is used")
	rest := c.worker("a", "b", "c") // another worker gets what is left, at once
	c.must(s.Extend(c.Context(), ds), "extend")
	others := c.receive(rest, 26)
	c.same(append(deliveredIDs(ds), deliveredIDs(others)...), messageIDs(ms), "both workers together have all")
}

func receiveCreditBack(c *C) {
	b := c.broker()
	c.publish(b, c.messages(6)...)
	o := c.options()
	o.Prefetch = 1
	s := c.subscribeAs(b, o)
	d := c.one(s)
	c.ack(s, d)
	d = c.one(s)
	c.must(c.settleOne(s, driver.Settlement{Delivery: d, Action: driver.Release, Delay: c.lease}), "release")
	d = c.one(s)
	next := d.Clone()
	next.Seq++
	c.must(c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{next}}), "ack with Then")
	d = c.one(s)
	c.lose(b)
	thief := c.worker()
	taken := c.receive(thief, 2)
	err := c.settleOne(s, driver.Settlement{Delivery: d})
	c.expect(errors.Is(err, driver.ErrLeaseLost), "a lost delivery: got %v, want ErrLeaseLost", err)
	c.ack(thief, taken...)
	c.publish(b, c.messages(4)...)
	c.within(c.patience(), "Receive after a lost delivery", func() { c.one(s) })
}

func receiveCancelled(c *C) {
	b := c.broker()
	s := c.worker()
	ctx, cancel := context.WithCancel(c.Context())
	go func() { c.sleep(c.lease / 4); cancel() }()
	c.within(c.patience(), "Receive with an ended context", func() {
		begin := time.Now()
		ds, err := s.Receive(ctx, 1)
		c.expect(len(ds) == 0 && errors.Is(err, context.Canceled), "got %d deliveries and %v, want context.Canceled", len(ds), err)
		c.expect(time.Since(begin) <= c.lease/4+c.slack, "the end of the context took %v to be noticed", time.Since(begin)-c.lease/4)
	})
	m := c.message()
	c.publish(b, m)
	ds, err := s.Receive(ctx, 1) // ended before: nothing, or the delivery
	c.expect(len(ds) == 1 || errors.Is(err, context.Canceled), "got %d deliveries and %v", len(ds), err)
	if len(ds) == 0 {
		d := c.one(s)
		c.expect(d.ID == m.ID && d.Count == 1, "the message is there, uncounted: got %s, count %d", d.ID, d.Count)
	}
}

func receiveClaimBeatsCancel(c *C) {
	b := c.broker()
	s, t := c.worker(), c.worker()
	for i := range 60 {
		m := c.message()
		ctx, cancel := context.WithCancel(c.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			c.publish(b, m)
			if i%3 == 1 {
				cancel()
			}
		})
		wg.Go(func() {
			if i%3 == 1 {
				return
			}
			if i%3 == 0 {
				c.sleep(time.Duration(i) * 10 * time.Microsecond)
			}
			cancel()
		})
		ds, err := s.Receive(ctx, 1)
		wg.Wait()
		from := s
		if len(ds) == 0 {
			c.expect(err != nil, "neither a delivery nor an error")
			if ds = c.receiveWithin(t, 1, c.lease/2); len(ds) == 0 {
				c.Fatalf("round %d: the message of a cancelled Receive does not come back at once", i)
			}
			from = t
		}
		c.expect(ds[0].ID == m.ID && ds[0].Count == 1, "got %s, count %d; want %s, count 1", ds[0].ID, ds[0].Count, m.ID)
		c.ack(from, ds...)
	}
}

func receiveShare(c *C) {
	b := c.broker()
	const workers, n = 16, 1500
	var mu sync.Mutex
	var got []string
	held := map[string]bool{}
	all := make(chan struct{})
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	for range workers {
		s := c.subscribe(c.broker())
		wg.Go(func() {
			for {
				ds, err := s.Receive(ctx, 7)
				if err != nil {
					return
				}
				mu.Lock()
				for _, d := range ds {
					c.expect(!held[d.ID], "%s is held by two workers", d.ID)
					c.expect(d.Count == 1, "%s has count %d, nobody died", d.ID, d.Count)
					held[d.ID] = true
				}
				mu.Unlock()
				c.ack(s, ds...)
				mu.Lock()
				for _, d := range ds {
					delete(held, d.ID)
				}
				if got = append(got, deliveredIDs(ds)...); len(got) == n {
					close(all)
				}
				mu.Unlock()
			}
		})
	}
	ms := c.messages(n)
	for i := 0; i < n; i += 50 {
		c.publish(b, ms[i:i+50]...)
	}
	select {
	case <-all:
	case <-time.After(c.patience()):
		c.Errorf("not everything came within %v", c.patience())
	}
	cancel()
	wg.Wait()
	c.same(got, messageIDs(ms), "every message once")
}

func receiveFIFO(c *C) {
	b := c.broker()
	ms := c.messages(120)
	for i := 0; i < len(ms); i += 30 {
		c.publish(b, ms[i:i+30]...)
	}
	s := c.worker()
	var got []string
	for len(got) < len(ms) {
		ds := c.receive(s, 8)
		got = append(got, deliveredIDs(ds)...)
		c.ack(s, ds...)
	}
	if b.Info().FIFO {
		c.expect(slices.Equal(got, messageIDs(ms)), "order: got %v", short(got))
	} else {
		c.same(got, messageIDs(ms), "all")
	}
}

func receivePriority(c *C) {
	b := c.broker()
	info := b.Info()
	c.expect(info.Priorities >= 3, "at least three levels: got %d", info.Priorities)
	var ms []*driver.Message
	given := map[string]int{}
	for p := range 10 {
		for range 2 {
			m := c.message()
			m.Priority = uint8(p)
			ms, given[m.ID] = append(ms, m), p
		}
	}
	c.publish(b, ms...)
	o := c.options()
	o.Prefetch = 1
	s := c.subscribeAs(b, o)
	var got []int
	for range ms {
		d := c.one(s)
		got = append(got, given[d.ID])
		c.ack(s, d)
	}
	if info.FIFO {
		// Levels are runs: within one, priorities rise as they were published.
		levels, low := 1, got[0]
		for i := 1; i < len(got); i++ {
			if got[i] < got[i-1] {
				levels++
				c.expect(got[i] < low, "priority %d came after %d: order %v", got[i-1], low, got)
				low = got[i]
			}
		}
		c.expect(levels == info.Priorities, "%d levels: order %v, want %d", levels, got, info.Priorities)
	} else {
		// Without order within a level, all of one still come before any of the next.
		levels := 1
		for i := 1; i < len(got); i++ {
			if slices.Min(got[:i]) > slices.Max(got[i:]) {
				levels++
			}
		}
		c.expect(levels >= info.Priorities, "%d levels: order %v, want %d", levels, got, info.Priorities)
	}
	c.expect(got[0] >= 7 && got[len(got)-1] <= 2, "the highest first, the lowest last: order %v", got)
}

func receiveAllWake(c *C) {
	b := c.broker()
	const workers = 8
	got := make(chan *driver.Delivery, workers)
	for range workers {
		o := c.options()
		o.Prefetch = 1
		s := c.subscribeAs(c.broker(), o)
		go func() {
			for _, d := range c.receiveWithin(s, 1, c.patience()) {
				got <- d
			}
		}()
	}
	c.sleep(c.lease / 4)
	c.publish(b, c.messages(workers)...)
	var begin = time.Now()
	seen := map[string]bool{}
	for range workers {
		select {
		case d := <-got:
			seen[d.ID] = true
		case <-time.After(c.lease / 2):
			c.Fatalf("%d of %d waiting workers were woken", len(seen), workers)
		}
	}
	c.expect(len(seen) == workers, "each has a message of its own: %d", len(seen))
	c.expect(time.Since(begin) <= c.slack, "waking %d workers took %v", workers, time.Since(begin))
}

func receiveEmpty(c *C) {
	s := c.worker()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(c.Context(), 3*c.lease/2)
	defer cancel()
	ds, err := s.Receive(ctx, 5)
	c.expect(len(ds) == 0 && errors.Is(err, context.DeadlineExceeded), "an empty queue: got %d deliveries and %v, want context.DeadlineExceeded", len(ds), err)
	c.expect(time.Since(begin) >= 3*c.lease/2, "Receive of an empty queue returned after %v", time.Since(begin))
}
