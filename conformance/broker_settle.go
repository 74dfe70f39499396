package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var settleCases = []Case{
	{Name: "Settle/Ack", Contract: "an acknowledged message never comes back", run: settleAck},
	{Name: "Settle/Release", Contract: "a released message is there for any worker at once, unchanged and uncounted", run: settleRelease},
	{Name: "Settle/ReleaseDelay", Contract: "a release with a delay holds the message back for that long", run: settleReleaseDelay},
	{Name: "Settle/Then", Contract: "Then is published with the settlement, to any queue, every field kept", run: settleThen},
	{Name: "Settle/ThenSelf", Contract: "a message of Then is never a duplicate of the message settled", run: settleThenSelf},
	{Name: "Settle/ThenDead", Contract: "a dead letter in Then is stored among the dead letters of its queue", run: settleThenDead},
	{Name: "Settle/ThenAlive", Contract: "a message of Then whose version is alive already is not stored twice",
		Denied: "without dedup the second copy is visible", run: settleThenAlive},
	{Name: "Settle/ThenInvalid", Contract: "an invalid message in Then fails its settlement, which changes nothing", run: settleThenInvalid},
	{Name: "Settle/Batch", Contract: "a batch of settlements of any size is carried out, with errors per item", run: settleBatch},
	{Name: "Settle/Kill", Contract: "a settlement cut off by a crash loses nothing: ack and Then are one step where Info says so",
		Denied: "Then is published before the ack", run: settleKill},
	{Name: "Settle/Concurrent", Contract: "concurrent settlements and extensions of one subscription do not disturb each other", run: settleConcurrent},
	{Name: "Settle/Rivals", Contract: "of two settlements of one delivery at once, one is carried out, with its Then, and the other is ErrLeaseLost", run: settleRivals},
	{Name: "Settle/AfterStop", Contract: "after Stop, Settle and Extend go on working", run: settleAfterStop},
	{Name: "Settle/Cancelled", Contract: "a settlement whose context has ended before returns the context's error and changes nothing", run: settleCancelled},
}

func settleAck(c *C) {
	b := c.broker()
	s := c.worker()
	ms := c.messages(3)
	ms[1].Priority = 9
	c.publish(b, ms...)
	c.ack(s, c.receive(s, 3)...)
	c.none(s, 3*c.lease+c.slack, "an acknowledged message comes back")
}

func settleRelease(c *C) {
	b := c.broker()
	m := c.full()
	m.Deliveries = 0
	c.publish(b, m)
	s, t := c.worker(), c.broker()
	d := c.one(s)
	other := c.subscribe(t)
	begin := time.Now()
	c.release(s, d)
	ds := c.receiveWithin(s, 1, c.slack)
	if len(ds) == 0 {
		ds = c.receive(other, 1)
	}
	c.expect(time.Since(begin) <= 3*c.slack, "a released message was there after %v", time.Since(begin))
	c.expect(ds[0].Count == 1 && ds[0].Copy == d.Copy, "count %d, copy %q; want 1, %q", ds[0].Count, ds[0].Copy, d.Copy)
	c.sameMessage(&ds[0].Message, m)
	c.expect(ds[0].Handle != nil, "a redelivery has a handle")
}

func settleReleaseDelay(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(2)...)
	ds := c.receive(s, 2)
	c.ack(s, ds[1])
	begin := time.Now()
	c.must(c.settleOne(s, driver.Settlement{Delivery: ds[0], Action: driver.Release, Delay: 2 * c.lease}), "release")
	released := time.Since(begin)
	d := c.one(s)
	took := time.Since(begin)
	c.expect(took >= 2*c.lease && took <= released+2*c.lease+c.slack, "held back for %v, came after %v", 2*c.lease, took)
	c.expect(d.Count == 1 && d.ID == ds[0].ID, "got %s with count %d", d.ID, d.Count)
	c.ack(s, d)
}

func settleThen(c *C) {
	b := c.broker()
	c.publish(b, c.messages(2)...)
	s := c.worker()
	ds := c.receive(s, 2)
	next, far := c.full(), c.message()
	far.Queue = "far"
	late := c.message()
	late.Delay = c.lease / 2
	begin := time.Now()
	c.must(c.settleOne(s, driver.Settlement{Delivery: ds[0], Then: []*driver.Message{next, far, late}}), "settle")
	d := c.one(s)
	c.sameMessage(&d.Message, next)
	c.expect(d.Count == 5, "Count starts from Deliveries: got %d", d.Count)
	c.ack(s, d)
	t := c.worker("far")
	c.ack(t, c.one(t))
	d = c.one(s)
	c.expect(d.ID == late.ID && time.Since(begin) >= late.Delay, "a delay in Then counts: %s came after %v", d.ID, time.Since(begin))
	c.ack(s, d)
	more := c.message()
	c.must(c.settleOne(s, driver.Settlement{Delivery: ds[1], Action: driver.Release, Then: []*driver.Message{more}}), "release with Then")
	got := c.receive(s, 2)
	c.same(deliveredIDs(got), []string{ds[1].ID, more.ID}, "given back, and followed")
	c.ack(s, got...)
	c.empty(b, "everything was settled")
}

func settleThenSelf(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(1)...)
	d := c.one(s)
	for seq := range uint32(5) {
		next := d.Clone()
		next.Seq = seq + 1
		c.must(c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{next}}), "republish")
		got := c.one(s)
		c.expect(got.Seq == seq+1 && got.ID == d.ID && got.Count == 1, "got %s, seq %d, count %d; want seq %d", got.ID, got.Seq, got.Count, seq+1)
		d = got
	}
	c.ack(s, d)
	c.empty(b, "one message at a time")
}

func settleThenDead(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(1)...)
	d := c.one(s)
	buried := c.buried(d.Clone())
	c.must(c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{buried}}), "settle")
	letters := c.deadOf(b, q)
	if len(letters) != 1 {
		c.Fatalf("%d dead letters, want 1", len(letters))
	}
	c.sameDead(letters[0], buried)
	c.empty(b, "a dead letter is not handed out")
}

func settleThenAlive(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(1)...)
	d := c.one(s)
	next := d.Clone()
	next.Seq++
	c.publish(b, next) // another worker has finished the verdict
	err := c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{next}})
	c.must(err, "settle")
	want := 1
	if !b.Info().Dedup {
		want = 2
	}
	ds := c.receive(s, want)
	c.none(s, c.lease/2, "no more copies")
	c.ack(s, ds...)
}

func settleThenInvalid(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(2)...)
	ds := c.receive(s, 2)
	bad := []*driver.Message{c.message(), {ID: "", Queue: q, Attempt: 1}}
	worse := []*driver.Message{{ID: "ok", Queue: "", Attempt: 1}}
	err := c.settle(s, driver.Settlement{Delivery: ds[0], Then: bad}, driver.Settlement{Delivery: ds[1]})
	c.expect(driver.ItemError(err, 0, 2) != nil && !errors.Is(driver.ItemError(err, 0, 2), driver.ErrLeaseLost), "an invalid Then: got %v", err)
	c.expect(driver.ItemError(err, 1, 2) == nil, "the others of the batch are settled: got %v", err)
	err = c.settleOne(s, driver.Settlement{Delivery: ds[0], Then: worse})
	c.expect(err != nil, "an invalid queue in Then")
	if limit := b.Info().MaxMessage; limit > 0 {
		big := c.message()
		big.Envelope = make([]byte, limit+1)
		err = c.settleOne(s, driver.Settlement{Delivery: ds[0], Then: []*driver.Message{big}})
		c.expect(errors.Is(err, driver.ErrTooLarge), "an oversized Then: got %v, want ErrTooLarge", err)
	}
	c.must(s.Extend(c.Context(), ds[:1]), "the delivery is still held")
	c.ack(s, ds[0])
	c.empty(b, "nothing was published by a failed settlement")
}

func settleBatch(c *C) {
	b := c.broker()
	const n = 240
	c.publish(b, c.messages(n)...)
	o := c.options()
	o.Prefetch = n
	s := c.subscribeAs(b, o)
	ds := c.receive(s, n)
	c.ack(s, ds[130])
	ss := make([]driver.Settlement, n)
	var back []string
	for i, d := range ds {
		ss[i] = driver.Settlement{Delivery: d}
		switch {
		case i == 130:
		case i%4 == 1:
			ss[i].Action = driver.Release
			back = append(back, d.ID)
		case i%4 == 2:
			next := d.Clone()
			next.Seq, next.Envelope = 1, []byte(fmt.Sprint("next of ", d.ID))
			ss[i].Then = []*driver.Message{next}
			back = append(back, d.ID)
		}
	}
	err := c.settle(s, ss...)
	for i := range ss {
		err := driver.ItemError(err, i, n)
		if i == 130 {
			c.expect(errors.Is(err, driver.ErrLeaseLost), "item %d: got %v, want ErrLeaseLost", i, err)
		} else {
			c.expect(err == nil, "item %d: got %v", i, err)
		}
	}
	again := c.receive(s, len(back))
	c.same(deliveredIDs(again), back, "what was given back or followed")
	for _, d := range again {
		c.expect(d.Seq == 0 || string(d.Envelope) == "next of "+d.ID, "%s holds %q", d.ID, d.Envelope)
	}
	c.ack(s, again...)
	c.empty(b, "everything was settled")
}

func settleKill(c *C) {
	b := c.broker()
	c.settleKilled(b, 30, func(<-chan struct{}) { c.sleep(500 * time.Nanosecond) })
	c.settleKilled(b, 30, func(ended <-chan struct{}) {
		for range 10 {
			<-ended
		}
	})
}

// settleKilled kills a client that makes n settlements, once until returns: some
// have ended by then, others are under way or have not begun.
func (c *C) settleKilled(b driver.Broker, n int, until func(ended <-chan struct{})) {
	c.TB.Helper()
	ms := c.messages(n)
	c.publish(b, ms...)
	dying := c.broker()
	s := c.subscribe(dying)
	ds := c.receive(s, n)
	var wg sync.WaitGroup
	ended := make(chan struct{}, n)
	for _, d := range ds {
		next := d.Clone()
		next.Seq = 1
		wg.Go(func() {
			s.Settle(context.Background(), []driver.Settlement{{Delivery: d, Then: []*driver.Message{next}}})
			ended <- struct{}{}
		})
	}
	until(ended)
	c.kill(dying)
	wg.Wait()
	alive := map[string][]uint32{}
	t := c.subscribe(b)
	for end := time.Now().Add(2*c.lease + c.slack); time.Now().Before(end); {
		for _, d := range c.receiveWithin(t, 1, c.lease/4) {
			alive[d.ID] = append(alive[d.ID], d.Seq)
			c.ack(t, d)
		}
	}
	for _, m := range ms {
		seqs := alive[m.ID]
		c.expect(len(seqs) > 0, "%s was lost: neither it nor what follows is there", m.ID)
		if b.Info().Settle == driver.SettleAtomic {
			c.expect(len(seqs) <= 1, "%s and what follows are both there, although one step replaces it", m.ID)
		}
	}
}

func settleConcurrent(c *C) {
	b := c.broker()
	const n = 96
	c.publish(b, c.messages(n)...)
	s := c.worker()
	var wg sync.WaitGroup
	for range n {
		d := c.one(s)
		wg.Go(func() {
			c.must(s.Extend(c.Context(), []*driver.Delivery{d}), "extend")
			next := d.Clone()
			next.Seq, next.Queue = 1, "next"
			c.must(c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{next}}), "settle")
		})
	}
	wg.Wait()
	t := c.worker("next")
	c.ack(t, c.receive(t, n)...)
	c.empty(b, "everything was settled", q, "next")
}

func settleRivals(c *C) {
	b := c.broker()
	const n = 64
	c.publish(b, c.messages(n)...)
	s := c.worker()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var won []string
	for _, d := range c.receive(s, n) {
		for _, rival := range []string{"one-", "two-"} {
			wg.Go(func() {
				next := d.Clone()
				next.ID, next.Queue = rival+d.ID, "next"
				switch err := c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{next}}); {
				case err == nil:
					mu.Lock()
					won = append(won, next.ID)
					mu.Unlock()
				default:
					c.expect(errors.Is(err, driver.ErrLeaseLost), "the other settlement: got %v, want ErrLeaseLost", err)
				}
			})
		}
		wg.Go(func() {
			err := driver.ItemError(s.Extend(c.Context(), []*driver.Delivery{d}), 0, 1)
			c.expect(err == nil || errors.Is(err, driver.ErrLeaseLost), "extend meanwhile: got %v", err)
		})
	}
	wg.Wait()
	c.expect(len(won) == n, "%d of %d deliveries were settled", len(won), n)
	t := c.worker("next")
	got := c.receive(t, n)
	c.same(deliveredIDs(got), won, "what followed the settlements that were carried out")
	c.ack(t, got...)
	c.empty(b, "everything was settled", q, "next")
}

func settleAfterStop(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(3)...)
	ds := c.receive(s, 3)
	c.must(s.Stop(c.Context()), "stop")
	c.sleep(c.lease * 2 / 3)
	c.must(s.Extend(c.Context(), ds), "extend after Stop")
	c.sleep(c.lease * 2 / 3)
	next := ds[1].Clone()
	next.Seq++
	c.must(c.settle(s, driver.Settlement{Delivery: ds[0]}, driver.Settlement{Delivery: ds[1], Then: []*driver.Message{next}},
		driver.Settlement{Delivery: ds[2], Action: driver.Release}), "settle after Stop")
	t := c.worker()
	got := c.receive(t, 2)
	c.same(deliveredIDs(got), []string{ds[1].ID, ds[2].ID}, "what was settled after Stop")
	c.ack(t, got...)
}

func settleCancelled(c *C) {
	b := c.broker()
	s := c.worker()
	c.publish(b, c.messages(1)...)
	d := c.one(s)
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	err := s.Settle(ctx, []driver.Settlement{{Delivery: d}})
	c.expect(errors.Is(err, context.Canceled), "settle: got %v, want context.Canceled", err)
	err = s.Extend(ctx, []*driver.Delivery{d})
	c.expect(errors.Is(err, context.Canceled), "extend: got %v, want context.Canceled", err)
	c.ack(s, d)
	c.empty(b, "acknowledged in the end")
}
