package conformance

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var leaseCases = []Case{
	{Name: "Lease/Crash", Contract: "a dead worker's messages come back within its lease and 5 s, all of them, not earlier, and count the death", run: leaseCrash},
	{Name: "Lease/Extend", Contract: "an extended delivery belongs to its worker for as long as it is extended", run: leaseExtend},
	{Name: "Lease/ExtendMany", Contract: "extending is a batch: every delivery of it is extended, with errors per item", run: leaseExtendMany},
	{Name: "Lease/ExtendFull", Contract: "an extension gives a full lease from now, neither more nor less", run: leaseExtendFull},
	{Name: "Lease/StaleAck", Contract: "a stale ack gets ErrLeaseLost and changes nothing: the new holder keeps the message", run: leaseStaleAck},
	{Name: "Lease/StaleRelease", Contract: "a stale release gets ErrLeaseLost and changes nothing", run: leaseStaleRelease},
	{Name: "Lease/StaleExtend", Contract: "a stale extension gets ErrLeaseLost and does not prolong the holder's lease", run: leaseStaleExtend},
	{Name: "Lease/StaleThen", Contract: "what a stale settlement would publish is not published", run: leaseStaleThen},
	{Name: "Lease/Foreign", Contract: "a delivery can be settled and extended through its own subscription only", run: leaseForeign},
	{Name: "Lease/SettleTwice", Contract: "settling a settled delivery again is ErrLeaseLost and touches no other message", run: leaseSettleTwice},
	{Name: "Lease/Count", Contract: "Count is 1 + Deliveries + the deaths of this stored message; Copy survives deaths and give-backs", run: leaseCount},
	{Name: "Lease/GiveBack", Contract: "giving back never counts, however often", run: leaseGiveBack},
	{Name: "Lease/Close", Contract: "closing a subscription or a broker brings its deliveries back as after a crash", run: leaseClose},
	{Name: "Lease/Mismatch", Contract: "the lease is a stored setting of the queue: a different one is ErrLeaseMismatch",
		Denied: "a lease that is a session is not stored", run: leaseMismatch},
	{Name: "Lease/Lost", Contract: "Lost, where a delivery has it, is closed when the delivery is lost and not before", run: leaseLost},
	{Name: "Lease/OneHolder", Contract: "under crashes and expiries a message never has two live leases", run: leaseOneHolder},
	{Name: "Lease/Handle", Contract: "a delivery without a handle, or with one of another driver, is ErrLeaseLost", run: leaseHandle},
}

var deathPatience = 5 * time.Second

// reclaimed waits for what the dead leave, and checks that it comes neither
// early nor late: the last lease began at or after begin.
func (c *C) reclaimed(b driver.Broker, s driver.Subscription, n int, begin time.Time) []*driver.Delivery {
	c.TB.Helper()
	died := time.Now()
	ds := c.receiveWithin(s, n, c.lease+deathPatience+c.slack)
	if len(ds) < n {
		c.Fatalf("%d of %d messages of a dead worker came back within its lease and 5 s", len(ds), n)
	}
	if b.Info().Lease == driver.LeaseTimed {
		c.expect(time.Since(begin) >= c.lease-time.Millisecond, "the lease is %v, and messages came back after %v", c.lease, time.Since(begin))
	}
	c.expect(time.Since(died) <= c.lease+deathPatience+c.slack, "messages came back %v after the death", time.Since(died))
	return ds
}

func leaseCrash(c *C) {
	const n = 100
	dying, b := c.broker(), c.broker()
	ms := c.messages(n)
	c.publish(b, ms...)
	begin := time.Now()
	held := c.receive(c.subscribe(dying), n)
	s := c.subscribe(b)
	c.none(s, c.lease/3, "what is held is not handed out")
	c.kill(dying)
	ds := c.reclaimed(b, s, n, begin)
	c.same(deliveredIDs(ds), messageIDs(ms), "all come back")
	for i, d := range ds {
		c.expect(d.Count == 2, "%s met one death: count %d", d.ID, d.Count)
		c.expect(i > 3 || d.Copy == held[slices.Index(deliveredIDs(held), d.ID)].Copy, "a redelivery is of the same copy")
	}
	c.ack(s, ds...)
	c.empty(b, "each came back once")
}

// beat extends ds for d, three times a lease.
func (c *C) beat(s driver.Subscription, d time.Duration, ds ...*driver.Delivery) {
	c.TB.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		c.sleep(c.lease / 3)
		c.must(s.Extend(c.Context(), ds), "extend")
	}
}

func leaseExtend(c *C) {
	b := c.broker()
	c.publish(b, c.messages(1)...)
	s, other := c.worker(), c.worker()
	d := c.one(s)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { c.beat(s, 4*c.lease, d); close(stop) })
	c.none(other, 4*c.lease, "an extended delivery is not handed out")
	<-stop
	wg.Wait()
	c.ack(s, d)
	c.empty(b, "it is acknowledged")
}

func leaseExtendMany(c *C) {
	b := c.broker()
	const n = 130
	c.publish(b, c.messages(n+1)...)
	o := c.options()
	o.Prefetch = 2 * n
	s := c.subscribeAs(b, o)
	ds := c.receive(s, n+1)
	done := ds[50]
	c.ack(s, done)
	for range 6 {
		c.sleep(c.lease / 3)
		err := s.Extend(c.Context(), ds)
		for i := range ds {
			err := driver.ItemError(err, i, len(ds))
			if ds[i] == done {
				c.expect(errors.Is(err, driver.ErrLeaseLost), "a settled delivery: got %v, want ErrLeaseLost", err)
			} else {
				c.expect(err == nil, "item %d: got %v", i, err)
			}
		}
	}
	c.ack(s, slices.Delete(ds, 50, 51)...)
	c.empty(b, "all were extended and acknowledged")
}

func leaseExtendFull(c *C) {
	dying, b := c.broker(), c.broker()
	c.publish(b, c.messages(1)...)
	s := c.subscribe(dying)
	d := c.one(s)
	c.sleep(c.lease * 3 / 4)
	c.must(s.Extend(c.Context(), []*driver.Delivery{d}), "extend")
	c.sleep(c.lease / 8)
	begin := time.Now()
	c.must(s.Extend(c.Context(), []*driver.Delivery{d}), "extend again")
	c.kill(dying)
	c.reclaimed(b, c.subscribe(b), 1, begin)
}

// stale returns a delivery that was lost, its subscription, and the delivery
// that holds the message now.
func (c *C) stale(b driver.Broker) (s driver.Subscription, old *driver.Delivery, t driver.Subscription, now *driver.Delivery) {
	c.TB.Helper()
	zombie := c.broker()
	c.publish(b, c.messages(1)...)
	s, t = c.subscribe(zombie), c.subscribe(b)
	if old = c.steal(s, t); old == nil {
		c.Fatal("the zombie received nothing")
	}
	c.lose(zombie)
	return s, old, t, c.one(t)
}

// steal receives through s what t, which must not hold it, could have too.
func (c *C) steal(s, t driver.Subscription) *driver.Delivery {
	c.TB.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), c.patience())
	defer cancel()
	for ctx.Err() == nil {
		if ds, _ := s.Receive(ctx, 1); len(ds) > 0 {
			return ds[0]
		}
	}
	return nil
}

// holds proves that now is the one live delivery of its message: it can be
// extended, nobody else gets it, and its ack is the end.
func (c *C) holds(b driver.Broker, s driver.Subscription, now *driver.Delivery) {
	c.TB.Helper()
	c.must(s.Extend(c.Context(), []*driver.Delivery{now}), "the holder extends")
	c.none(c.worker(), c.lease/2, "the holder's message is nobody else's")
	c.ack(s, now)
	c.empty(b, "the holder acknowledged")
}

func leaseStaleAck(c *C) {
	b := c.broker()
	s, old, t, now := c.stale(b)
	err := c.settleOne(s, driver.Settlement{Delivery: old})
	c.expect(errors.Is(err, driver.ErrLeaseLost), "a stale ack: got %v, want ErrLeaseLost", err)
	c.expect(now.Count == 2, "count is %d", now.Count)
	c.release(t, now) // still there
	c.holds(b, t, c.one(t))
}

func leaseStaleRelease(c *C) {
	b := c.broker()
	s, old, t, now := c.stale(b)
	for _, delay := range []time.Duration{0, c.lease / 4} {
		err := c.settleOne(s, driver.Settlement{Delivery: old, Action: driver.Release, Delay: delay})
		c.expect(errors.Is(err, driver.ErrLeaseLost), "a stale release: got %v, want ErrLeaseLost", err)
	}
	c.holds(b, t, now)
}

func leaseStaleExtend(c *C) {
	b := c.broker()
	s, old, t, now := c.stale(b)
	err := driver.ItemError(s.Extend(c.Context(), []*driver.Delivery{old}), 0, 1)
	c.expect(errors.Is(err, driver.ErrLeaseLost), "a stale extension: got %v, want ErrLeaseLost", err)
	c.holds(b, t, now)
}

func leaseStaleThen(c *C) {
	b := c.broker()
	s, old, t, now := c.stale(b)
	next := old.Clone()
	next.Seq++
	other := c.message()
	other.Queue = "other"
	err := c.settleOne(s, driver.Settlement{Delivery: old, Then: []*driver.Message{next, other, dead(old.Clone(), 1)}})
	c.expect(errors.Is(err, driver.ErrLeaseLost), "a stale settlement: got %v, want ErrLeaseLost", err)
	c.holds(b, t, now)
	if b.Info().Settle == driver.SettleAtomic {
		c.empty(b, "what a stale settlement would publish", "other")
		c.expect(len(c.deadOf(b, q)) == 0, "a stale settlement dead-letters nothing")
	}
}

func leaseForeign(c *C) {
	b := c.broker()
	c.publish(b, c.messages(2)...)
	s := c.worker()
	ds := c.receive(s, 2)
	for _, t := range []driver.Subscription{c.subscribe(b), c.worker()} {
		for _, a := range []driver.Action{driver.Ack, driver.Release} {
			err := c.settleOne(t, driver.Settlement{Delivery: ds[0], Action: a})
			c.expect(errors.Is(err, driver.ErrLeaseLost), "another subscription's delivery: got %v, want ErrLeaseLost", err)
		}
		err := driver.ItemError(t.Extend(c.Context(), ds[:1]), 0, 1)
		c.expect(errors.Is(err, driver.ErrLeaseLost), "extending another's delivery: got %v, want ErrLeaseLost", err)
	}
	c.ack(s, ds...)
	c.empty(b, "both were acknowledged by their holder")
}

func leaseSettleTwice(c *C) {
	b := c.broker()
	c.publish(b, c.messages(3)...)
	s := c.worker()
	ds := c.receive(s, 3)
	c.ack(s, ds[0])
	c.release(s, ds[1])
	again := c.one(s)
	c.expect(again.ID == ds[1].ID, "what was given back comes again")
	for _, d := range ds[:2] {
		for _, a := range []driver.Action{driver.Ack, driver.Release} {
			err := c.settleOne(s, driver.Settlement{Delivery: d, Action: a})
			c.expect(errors.Is(err, driver.ErrLeaseLost), "a settled delivery: got %v, want ErrLeaseLost", err)
		}
	}
	c.must(s.Extend(c.Context(), []*driver.Delivery{ds[2], again}), "the others are held")
	c.ack(s, ds[2], again)
	c.empty(b, "all were acknowledged")
}

func leaseCount(c *C) {
	b := c.broker()
	m := c.message()
	m.Deliveries = 2
	c.publish(b, m)
	first := ""
	for deaths := range 3 {
		dying := c.broker()
		d := c.receiveCounted(c.subscribe(dying), 3+deaths)
		if first == "" {
			first = d.Copy
		}
		c.expect(d.Copy == first, "Copy changed from %q to %q", first, d.Copy)
		c.kill(dying)
	}
	s := c.subscribe(b)
	d := c.receiveCounted(s, 6)
	c.expect(d.Deliveries == 2 || b.Info().Settle == driver.SettlePublishFirst, "Deliveries is core's: got %d", d.Deliveries)
	c.release(s, d)
	d = c.receiveCounted(s, 6)
	c.expect(d.Copy == first, "a give-back keeps Copy: %q became %q", first, d.Copy)
	next := d.Clone()
	next.Seq, next.Deliveries = 1, uint32(d.Count-1)
	c.must(c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{next}}), "republish")
	d = c.receiveCounted(s, 6)
	c.expect(d.Copy != first, "a republish is another copy")
}

// receiveCounted receives one delivery, with count.
func (c *C) receiveCounted(s driver.Subscription, count int) *driver.Delivery {
	c.TB.Helper()
	d := c.one(s)
	c.expect(d.Count == count, "count is %d, want %d", d.Count, count)
	return d
}

func leaseGiveBack(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(1)...)
	for range 12 {
		c.release(s, c.receiveCounted(s, 1))
	}
	d := c.one(s)
	c.must(c.settleOne(s, driver.Settlement{Delivery: d, Action: driver.Release, Delay: c.lease / 8}), "release with a delay")
	c.ack(s, c.receiveCounted(s, 1))
}

func leaseClose(c *C) {
	b := c.broker()
	c.publish(b, c.messages(2)...)
	one, two := c.options(), c.options()
	one.Prefetch, two.Prefetch = 1, 1
	s := c.subscribeAs(b, one)
	leaving := c.broker()
	t := c.subscribeAs(leaving, two)
	begin := time.Now()
	held := []string{c.one(s).ID, c.one(t).ID}
	c.must(s.Close(c.Context()), "close the subscription")
	c.must(leaving.Close(c.Context()), "close the broker")
	ds := c.reclaimed(b, c.subscribe(b), 2, begin)
	c.same(deliveredIDs(ds), held, "both come back")
	for _, d := range ds {
		c.expect(d.Count == 2, "as after a crash: count is %d, want 2", d.Count)
	}
}

func leaseMismatch(c *C) {
	b := c.broker()
	c.subscribe(b)
	o := c.options("fresh", q)
	o.Lease = 2 * c.lease
	s, err := c.broker().Subscribe(c.Context(), o)
	if b.Info().Lease == driver.LeaseSession {
		c.must(err, "subscribe with another lease")
		c.must(s.Close(c.Context()), "close")
		return
	}
	c.expect(errors.Is(err, driver.ErrLeaseMismatch), "another lease: got %v, want ErrLeaseMismatch", err)
	if err == nil {
		s.Close(c.Context())
	}
	c.subscribe(b, "fresh") // nothing was changed by the refusal
	c.subscribe(c.broker(), q)
}

func leaseLost(c *C) {
	b := c.broker()
	c.publish(b, c.messages(2)...)
	s := c.subscribe(b)
	ds := c.receive(s, 2)
	for _, d := range ds {
		select {
		case <-d.Lost:
			c.Fatalf("a delivery that is held says it is lost")
		default:
		}
	}
	if b.Info().Lease == driver.LeaseSession {
		c.expect(ds[0].Lost != nil, "where the lease is a session, the session tells")
	}
	c.lose(b)
	for _, d := range ds {
		if d.Lost == nil {
			continue
		}
		select {
		case <-d.Lost:
		case <-time.After(deathPatience + c.slack):
			c.Errorf("a lost delivery does not say so")
		}
	}
}

func leaseOneHolder(c *C) {
	b := c.broker()
	const n = 20
	ms := c.messages(n)
	c.publish(b, ms...)
	done := map[string]int{}
	for round := 0; len(done) < n && round < 12; round++ {
		dying := c.broker()
		o := c.options()
		o.Prefetch = 7
		s := c.subscribeAs(dying, o)
		ds := c.receiveWithin(s, 7, c.lease/4)
		for i, d := range ds {
			if i%2 == 0 {
				c.ack(s, d)
				done[d.ID]++
			}
		}
		other := c.receiveWithin(c.worker(), n, c.lease/4)
		for _, d := range other {
			c.expect(!slices.Contains(deliveredIDs(ds), d.ID), "%s is held, or done, and is handed out", d.ID)
		}
		c.kill(dying)
		c.sleep(c.lease) // so that the next worker finds some
	}
	c.expect(len(done) > 0, "somebody got something")
	for id, n := range done {
		c.expect(n == 1, "%s was done %d times", id, n)
	}
}

func leaseHandle(c *C) {
	b := c.broker()
	c.publish(b, c.messages(1)...)
	s := c.worker()
	d := c.one(s)
	for _, h := range []any{nil, "another driver's", 42} {
		forged := *d
		forged.Handle = h
		err := c.settleOne(s, driver.Settlement{Delivery: &forged})
		c.expect(errors.Is(err, driver.ErrLeaseLost), "handle %v: got %v, want ErrLeaseLost", h, err)
		err = driver.ItemError(s.Extend(c.Context(), []*driver.Delivery{&forged}), 0, 1)
		c.expect(errors.Is(err, driver.ErrLeaseLost), "handle %v: got %v, want ErrLeaseLost", h, err)
	}
	c.ack(s, d)
}
