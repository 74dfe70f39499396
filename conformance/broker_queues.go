package conformance

import (
	"fmt"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var queueCases = []Case{
	{Name: "Queues/Isolation", Contract: "a subscription sees the messages of its queues only", run: queuesIsolation},
	{Name: "Queues/Weights", Contract: "queues are served by weight under one credit, and none starves", run: queuesWeights},
	{Name: "Queues/Strict", Contract: "in strict order an earlier queue is served first, as long as it has anything", run: queuesStrict},
	{Name: "Queues/Pause", Contract: "a queue taken out by SetQueues brings nothing more, and one put back does, waking a waiting Receive", run: queuesPause},
	{Name: "Queues/PauseGivesBack", Contract: "what was prefetched of a paused queue and not received goes back, uncounted", run: queuesPauseGivesBack},
	{Name: "Queues/PauseAll", Contract: "a subscription without queues waits, and what it holds can be settled", run: queuesPauseAll},
	{Name: "Queues/Refused", Contract: "a subscription without queues, prefetch or lease, or with a queue twice, is refused", run: queuesRefused},
}

func queuesIsolation(c *C) {
	b := c.broker()
	ms := c.messages(20)
	for i, m := range ms {
		m.Queue = fmt.Sprint("queue-", i%4)
	}
	c.publish(b, ms...)
	s := c.worker("queue-1", "queue-3")
	ds := c.receive(s, 10)
	for _, d := range ds {
		c.expect(d.Queue == "queue-1" || d.Queue == "queue-3", "%s is of %s", d.ID, d.Queue)
	}
	c.none(s, c.lease/4, "the other queues are not its own")
}

// served counts how many of n deliveries, taken one by one, come from each queue. A task
// takes its time.
func (c *C) served(s driver.Subscription, n int, takes time.Duration) map[string]int {
	c.TB.Helper()
	by := map[string]int{}
	for range n {
		d := c.one(s)
		by[d.Queue]++
		c.sleep(takes)
		c.ack(s, d)
	}
	return by
}

func (c *C) fill(b driver.Broker, n int, queues ...string) {
	c.TB.Helper()
	for _, name := range queues {
		ms := c.messages(n)
		for _, m := range ms {
			m.Queue = name
		}
		c.publish(b, ms...)
	}
}

func queuesWeights(c *C) {
	b := c.broker()
	c.fill(b, 120, "heavy", "light", "even")
	o := c.options("heavy", "light", "even")
	o.Queues[0].Weight = 6
	o.Prefetch, o.Slots = 1, 1
	s := c.subscribeAs(b, o)
	by := c.served(s, 80, 0) // 6:1:1
	c.expect(by["heavy"] >= 45 && by["heavy"] <= 70, "weights 6:1:1 over 80 tasks: got %v", by)
	c.expect(by["light"] >= 4 && by["even"] >= 4, "no queue starves: got %v", by)
	by = c.served(s, 32, c.lease/40)
	c.expect(by["heavy"] >= 18 && by["heavy"] <= 28, "weights 6:1:1 over 32 tasks that take their time: got %v", by)
	c.expect(by["light"] >= 2 && by["even"] >= 2, "no queue starves behind tasks that take their time: got %v", by)
	c.fill(b, 80, "one", "two")
	o = c.options("one", "two")
	o.Queues[0].Weight = 6
	o.Prefetch, o.Slots = 1, 1
	s = c.subscribeAs(b, o)
	c.must(s.SetQueues(c.Context(), []driver.QueueSpec{{Name: "one"}, {Name: "two", Weight: 6}}), "set queues")
	by = c.served(s, 70, 0) // 1:6
	c.expect(by["two"] >= 45 && by["two"] <= 66, "weights 1:6 that were set over 70 tasks: got %v", by)
}

func queuesStrict(c *C) {
	b := c.broker()
	c.fill(b, 10, "last", "first")
	o := c.options("first", "last")
	o.Strict, o.Prefetch, o.Slots = true, 1, 1
	o.Queues[1].Weight = 9
	s := c.subscribeAs(b, o)
	by := c.served(s, 10, 0)
	c.expect(by["first"] == 10, "the first queue is served first: got %v", by)
	by = c.served(s, 5, 0)
	c.expect(by["last"] == 5, "then the last: got %v", by)
	c.fill(b, 1, "first")
	c.sleep(c.slack)
	d := c.one(s) // a broker that pushes may hold one of the last already
	if d.Queue != "first" {
		c.ack(s, d)
		d = c.one(s)
	}
	c.expect(d.Queue == "first", "what comes to the first queue overtakes the last")
}

func queuesPause(c *C) {
	b := c.broker()
	s := c.worker("open", "closed")
	c.must(s.SetQueues(c.Context(), []driver.QueueSpec{{Name: "open"}}), "set queues")
	c.fill(b, 3, "open", "closed")
	c.ack(s, c.receive(s, 3)...)
	c.none(s, c.lease/2, "a paused queue brings nothing")
	resumed := make(chan time.Time, 1)
	go func() {
		c.sleep(c.lease / 4)
		if err := s.SetQueues(c.Context(), []driver.QueueSpec{{Name: "open"}, {Name: "closed"}, {Name: "new"}}); err != nil {
			c.Errorf("set queues: %v", err)
		}
		resumed <- time.Now() // it may take its time to make a queue
	}()
	ds := c.receive(s, 1)
	c.expect(time.Since(<-resumed) <= c.slack, "resuming wakes a waiting Receive")
	ds = append(ds, c.receive(s, 2)...)
	for _, d := range ds {
		c.expect(d.Queue == "closed" && d.Count == 1, "got %s of %s, count %d", d.ID, d.Queue, d.Count)
	}
	c.fill(b, 1, "new")
	c.expect(c.one(s).Queue == "new", "a queue can be added")
}

func queuesPauseGivesBack(c *C) {
	b := c.broker()
	c.fill(b, 10, "x", "y")
	o := c.options("x", "y")
	o.Prefetch = 20
	s := c.subscribeAs(b, o)
	first := c.one(s) // a broker that pushes holds the others now
	c.must(s.SetQueues(c.Context(), []driver.QueueSpec{{Name: "y"}}), "set queues")
	want, other := 10, c.worker("x")
	if first.Queue == "x" {
		want = 9
	}
	begin := time.Now()
	ds := c.receive(other, want)
	c.expect(time.Since(begin) < c.lease/2, "the messages of a paused queue came to another worker after %v", time.Since(begin))
	for _, d := range ds {
		c.expect(d.Count == 1, "giving back does not count: %s has count %d", d.ID, d.Count)
	}
	c.ack(s, first)
}

func queuesPauseAll(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(2)...)
	d := c.one(s)
	c.must(s.SetQueues(c.Context(), nil), "set no queues")
	c.none(s, c.lease/2, "a subscription without queues waits")
	c.ack(s, d)
	c.must(s.SetQueues(c.Context(), []driver.QueueSpec{{Name: q}}), "set queues")
	d = c.one(s)
	c.expect(d.Count == 1, "count is %d", d.Count)
	c.ack(s, d)
}

func queuesRefused(c *C) {
	b := c.broker()
	for what, change := range map[string]func(*driver.SubscribeOptions){
		"no queues":             func(o *driver.SubscribeOptions) { o.Queues = nil },
		"no prefetch":           func(o *driver.SubscribeOptions) { o.Prefetch = 0 },
		"no lease":              func(o *driver.SubscribeOptions) { o.Lease = 0 },
		"a lease below zero":    func(o *driver.SubscribeOptions) { o.Lease = -c.lease },
		"a lease beyond most":   func(o *driver.SubscribeOptions) { o.Lease = driver.MaxLease + time.Second },
		"part of a ms":          func(o *driver.SubscribeOptions) { o.Lease += time.Microsecond },
		"a queue twice":         func(o *driver.SubscribeOptions) { o.Queues = append(o.Queues, o.Queues[0]) },
		"a weight below zero":   func(o *driver.SubscribeOptions) { o.Queues[0].Weight = -1 },
		"an invalid queue name": func(o *driver.SubscribeOptions) { o.Queues[0].Name = "" },
	} {
		o := c.options()
		change(o)
		s, err := b.Subscribe(c.Context(), o)
		c.expect(err != nil, "%s is refused", what)
		if err == nil {
			s.Close(c.Context())
		}
	}
	s := c.subscribe(b)
	for what, queues := range map[string][]driver.QueueSpec{
		"a queue twice":         {{Name: q}, {Name: q}},
		"a weight below zero":   {{Name: q, Weight: -1}},
		"an invalid queue name": {{Name: q}, {Name: ""}},
	} {
		c.expect(s.SetQueues(c.Context(), queues) != nil, "SetQueues: %s is refused", what)
	}
	c.publish(b, c.messages(1)...)
	c.ack(s, c.one(s)) // the queues are as they were
}
