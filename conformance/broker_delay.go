package conformance

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var delayCases = []Case{
	{Name: "Delay/OnTime", Contract: "a delayed message comes never early, and soon after it is due", run: delayOnTime},
	{Name: "Delay/NoBlocking", Contract: "a long delay never blocks a shorter one", run: delayNoBlocking},
	{Name: "Delay/Wakes", Contract: "a message that becomes due wakes a waiting Receive", run: delayWakes},
	{Name: "Delay/Many", Contract: "many delays, of many lengths, all come, each on its time", run: delayMany},
	{Name: "Delay/Virgin", Contract: "a delayed message to a queue that nobody used before arrives", run: delayVirgin},
	{Name: "Delay/Long", Contract: "there is no limit to delays below one year", limit: 400 * 24 * time.Hour, run: delayLong},
	{Name: "Delay/Longest", Contract: "a delay of centuries is not none: in a publish, a Then and a release", run: delayLongest},
	{Name: "Delay/Herd", Contract: "many messages due at one moment all come", run: delayHerd},
}

func delayOnTime(c *C) {
	b := c.broker()
	s := c.worker()
	for _, d := range []time.Duration{time.Millisecond, 2 * time.Millisecond, 37 * time.Millisecond, c.lease / 4, c.lease - time.Millisecond, 3 * c.lease / 2} {
		m := c.message()
		m.Delay = d.Truncate(time.Millisecond)
		begin := time.Now()
		c.publish(b, m)
		stored := time.Since(begin)
		got := c.one(s)
		took := time.Since(begin)
		c.expect(got.ID == m.ID && took >= m.Delay, "delayed by %v, came after %v", m.Delay, took)
		c.expect(took-stored <= m.Delay+c.slack, "delayed by %v, came after %v", m.Delay, took)
		c.ack(s, got)
	}
	m := c.message()
	m.Delay = c.lease / 4
	c.publish(b, m)
	c.none(s, c.lease/4-c.slack/2, "a delayed message is not there before")
	c.ack(s, c.one(s))
}

func delayNoBlocking(c *C) {
	b := c.broker()
	s := c.worker()
	long, short, now := c.message(), c.message(), c.message()
	long.Delay, short.Delay = 2*c.lease, c.lease/2
	begin := time.Now()
	c.publish(b, long)
	c.publish(b, short)
	c.publish(b, now)
	stored := time.Since(begin)
	d := c.one(s)
	c.expect(d.ID == now.ID, "what is not delayed comes first")
	c.ack(s, d)
	d = c.one(s)
	c.expect(d.ID == short.ID && time.Since(begin) <= stored+short.Delay+c.slack, "the short delay, %v, came after %v (%s)", short.Delay, time.Since(begin), d.ID)
	c.ack(s, d)
	d = c.one(s)
	c.expect(d.ID == long.ID && time.Since(begin) >= long.Delay, "the long delay, %v, came after %v", long.Delay, time.Since(begin))
}

func delayWakes(c *C) {
	b := c.broker()
	m := c.message()
	m.Delay = c.lease
	begin := time.Now()
	c.publish(b, m)
	s := c.worker() // waits when it becomes due, and nothing else happens
	ready := time.Since(begin)
	c.one(s)
	c.expect(time.Since(begin) <= ready+m.Delay+c.slack, "due after %v, came after %v", m.Delay, time.Since(begin))
}

func delayMany(c *C) {
	b := c.broker()
	s := c.worker()
	r := rand.New(rand.NewPCG(1, 2))
	ms := c.messages(150)
	delays := map[string]time.Duration{}
	for _, m := range ms {
		m.Delay = time.Duration(r.Int64N(int64(2 * c.lease))).Truncate(time.Millisecond)
		delays[m.ID] = m.Delay
	}
	begin := time.Now()
	c.publish(b, ms...)
	stored := time.Since(begin)
	var got []string
	for len(got) < len(ms) { // together, as they come: it is not how fast they are settled that is looked at
		ctx, cancel := context.WithTimeout(c.Context(), c.patience())
		ds, err := s.Receive(ctx, len(ms)-len(got))
		cancel()
		c.must(err, "receive")
		took := time.Since(begin)
		for _, d := range ds {
			c.expect(took >= delays[d.ID] && took-stored <= delays[d.ID]+c.slack, "%s is due after %v, came after %v", d.ID, delays[d.ID], took)
		}
		got = append(got, deliveredIDs(ds)...)
		c.ack(s, ds...)
	}
	c.same(got, messageIDs(ms), "all")
}

func delayVirgin(c *C) {
	b := c.broker()
	m := c.message()
	m.Queue, m.Delay = "virgin", c.lease/4
	c.publish(b, m)
	c.sleep(c.lease / 2)
	c.expect(c.one(c.worker("virgin")).ID == m.ID, "it waits for its first worker")
}

func delayLong(c *C) {
	b := c.broker()
	s := c.worker()
	m := c.message()
	m.Delay = 364 * 24 * time.Hour
	begin := time.Now()
	c.publish(b, m)
	c.none(s, 2*c.lease, "a delay of a year")
	if !c.h.Bubble {
		return
	}
	c.none(s, m.Delay-time.Since(begin)-time.Millisecond, "a delay of a year")
	d := c.one(s)
	c.expect(d.ID == m.ID && time.Since(begin) <= m.Delay+c.slack, "due after a year, came after %v", time.Since(begin))
}

func delayLongest(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(2)...)
	ds := c.receive(s, 2)
	longest := func() *driver.Message {
		m := c.message()
		m.Delay = math.MaxInt64
		return m
	}
	c.publish(b, longest())
	c.must(c.settleOne(s, driver.Settlement{Delivery: ds[0], Then: []*driver.Message{longest()}}), "settle")
	c.must(c.settleOne(s, driver.Settlement{Delivery: ds[1], Action: driver.Release, Delay: math.MaxInt64}), "release")
	c.none(s, 3*c.lease, "a delay of centuries")
}

func delayHerd(c *C) {
	b := c.broker()
	const n = 600
	ms := c.messages(n)
	for _, m := range ms {
		m.Delay = c.lease / 2
	}
	c.publish(b, ms...)
	s := c.worker()
	var got []string
	for len(got) < n {
		ds := c.receive(s, min(60, n-len(got)))
		got = append(got, deliveredIDs(ds)...)
		c.ack(s, ds...)
	}
	c.same(got, messageIDs(ms), "all come")
	c.none(s, c.lease/4, "once")
}
