package conformance

import (
	"errors"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var storeCases = []Case{
	{Name: "Store/Outage", Contract: "an outage of the store, however long, consumes no lease: who lives keeps what it holds, and what a dead worker held comes back",
		Denied: "a store in the process has no outages of its own; a session ends with its store", restarts: true, run: storeOutage},
	{Name: "Store/Leftovers", Contract: "tasks that have passed through leave nothing behind",
		Denied: "the harness cannot tell how much is kept", run: storeLeftovers},
}

func storeOutage(c *C) {
	b := c.broker()
	if !c.h.Server || b.Info().Lease != driver.LeaseTimed {
		return
	}
	if c.h.Outage == nil {
		c.Fatal("the store is a server: the harness must be able to make an Outage")
	}
	c.publish(b, c.messages(2)...)
	s, dying := c.subscribe(b), c.broker()
	held, orphan := c.one(s), c.one(c.subscribe(dying))
	c.kill(dying)
	c.h.Outage(c.TB, 3*c.lease/2)
	other := c.worker()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { c.heartbeats(s, held, stop) })
	func() {
		defer wg.Wait()
		defer close(stop)
		got := c.receiveWithin(other, 1, c.lease+5*time.Second)
		c.same(deliveredIDs(got), []string{orphan.ID}, "a dead worker's message comes back after the outage, a living one's does not")
		c.ack(other, got...)
		c.none(other, 2*c.lease, "the holder keeps its message")
	}()
	c.ack(s, held)
	c.empty(b, "all is settled")
}

// heartbeats extends d until stop, as a worker does: an outage is no verdict.
func (c *C) heartbeats(s driver.Subscription, d *driver.Delivery, stop <-chan struct{}) {
	c.TB.Helper()
	for {
		err := driver.ItemError(s.Extend(c.Context(), []*driver.Delivery{d}), 0, 1)
		if errors.Is(err, driver.ErrLeaseLost) {
			c.Errorf("the outage consumed the lease of a worker that lives")
			return
		}
		pause := c.lease / 3
		if err != nil {
			pause = c.lease / 20
		}
		t := time.NewTimer(pause)
		select {
		case <-stop:
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func storeLeftovers(c *C) {
	if c.h.Size == nil {
		return
	}
	b := c.broker()
	s := c.worker()
	pass := func() {
		ms := c.messages(40)
		for i, m := range ms {
			m.Priority, m.Once, m.NoRecord = uint8(i%10), i%4 == 1, i%3 == 2
			if i%8 == 0 {
				m.Delay = c.lease / 20
			}
		}
		c.publish(b, ms...)
		ds := c.receive(s, len(ms))
		next := ds[0].Clone()
		next.Seq++
		c.must(c.settleOne(s, driver.Settlement{Delivery: ds[0], Then: []*driver.Message{next}}), "retry")
		c.must(c.settleOne(s, driver.Settlement{Delivery: ds[1], Then: []*driver.Message{dead(ds[1].Clone(), 1)}}), "bury")
		c.must(c.settleOne(s, driver.Settlement{Delivery: ds[2], Then: []*driver.Message{dead(ds[2].Clone(), 1)}}), "bury")
		c.release(s, ds[3])
		c.ack(s, ds[4:]...)
		letters := b.DeadLetters(q)
		_, err := letters.Replay(c.Context(), []driver.DeadKey{ds[1].Key()})
		c.must(err, "replay")
		_, err = letters.Delete(c.Context(), []driver.DeadKey{ds[2].Key()})
		c.must(err, "delete")
		c.ack(s, c.receive(s, 3)...)
	}
	pass()
	before := c.h.Size(c.TB)
	for range 3 {
		pass()
	}
	after := 0
	for end := time.Now().Add(c.patience()); time.Now().Before(end); c.sleep(c.lease / 10) {
		if after = c.h.Size(c.TB); after <= before {
			return
		}
	}
	c.Errorf("after 40 tasks the store kept %d, after 160 it keeps %d", before, after)
}
