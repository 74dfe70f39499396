package conformance

import (
	"github.com/chicory-go/chicory/driver"
)

var onceCases = []Case{
	{Name: "Once/Counted", Contract: "for an at-most-once message without a record the hand-out counts as the start: a redelivery says so by its Count", run: onceCounted},
	{Name: "Once/GivenBack", Contract: "a give-back undoes the hand-out, whether by release, by Stop or by pausing", run: onceGivenBack},
	{Name: "Once/Restart", Contract: "that hand-out is stored as durably as a publish before Receive returns it",
		Denied: "a store that is not durable forgets the message as well", restarts: true, run: onceRestart},
}

func (c *C) atMostOnce() *driver.Message {
	m := c.message()
	m.Once, m.NoRecord = true, true
	return m
}

func onceCounted(c *C) {
	b := c.broker()
	ms := c.messages(20)
	for _, m := range ms {
		m.Once, m.NoRecord = true, true
	}
	c.publish(b, ms...)
	dying := c.broker()
	for _, d := range c.receive(c.subscribe(dying), 20) {
		c.expect(d.Count == 1 && d.Once && d.NoRecord, "the first delivery: count %d, %+v", d.Count, d.Message)
	}
	c.kill(dying)
	s := c.subscribe(b)
	ds := c.receive(s, 20)
	for _, d := range ds {
		c.expect(d.Count == 2 && d.Once && d.NoRecord, "a redelivery says that it may have started: count %d, %+v", d.Count, d.Message)
	}
	c.ack(s, ds...)
}

func onceGivenBack(c *C) {
	b := c.broker()
	c.publish(b, c.atMostOnce(), c.atMostOnce())
	s := c.subscribe(b)
	ds := c.receive(s, 2)
	c.release(s, ds[0])
	c.must(c.settleOne(s, driver.Settlement{Delivery: ds[1], Action: driver.Release, Delay: c.lease / 8}), "release with a delay")
	c.sleep(c.lease / 4)
	c.must(s.SetQueues(c.Context(), nil), "pause")
	c.must(s.Stop(c.Context()), "stop")
	t := c.worker()
	for _, d := range c.receive(t, 2) {
		c.expect(d.Count == 1, "nothing was started: %s has count %d", d.ID, d.Count)
		c.ack(t, d)
	}
}

func onceRestart(c *C) {
	b := c.broker()
	if !c.durable(b) {
		return
	}
	c.publish(b, c.atMostOnce(), c.atMostOnce(), c.atMostOnce())
	s := c.subscribe(b)
	ds := c.receive(s, 3)
	c.release(s, ds[0])
	c.ack(s, ds[1])
	if b.Info().Acks == driver.AcksUnconfirmed {
		c.sleep(c.slack) // it is on its way
	}
	c.restart()
	t := c.subscribe(c.broker())
	want := map[string]int{ds[0].ID: 1, ds[2].ID: 2}
	for range 2 { // a server's lease may have to run out first
		d := c.one(t)
		c.expect(d.Count == want[d.ID], "%s: count %d, want %d", d.ID, d.Count, want[d.ID])
		c.ack(t, d)
	}
}
