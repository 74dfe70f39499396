package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var publishCases = []Case{
	{Name: "Publish/RoundTrip", Contract: "every field of a message arrives as it was published", run: publishRoundTrip},
	{Name: "Publish/Batch", Contract: "a batch of any size is stored whole, each message once", run: publishBatch},
	{Name: "Publish/Queues", Contract: "each message of a batch goes to its own queue", run: publishQueues},
	{Name: "Publish/PerItem", Contract: "errors are per item: a refused message leaves its batch-mates stored", run: publishPerItem},
	{Name: "Publish/Oversize", Contract: "a message up to MaxMessage is stored, a larger one is ErrTooLarge and leaves its batch-mates stored",
		Denied: "without a limit, four mebibytes are stored", run: publishOversize},
	{Name: "Publish/Duplicate", Contract: "an id that is alive (ready, leased, delayed or dead) is refused with ErrDuplicate, and what lives is unharmed",
		Denied: "without dedup a second copy is visible: both are handed out, under different Copy", run: publishDuplicate},
	{Name: "Publish/Repeat", Contract: "repeating a publish of unknown outcome makes no second message and is no error",
		Denied: "without dedup it is no error", run: publishRepeat},
	{Name: "Publish/Again", Contract: "an id is free again once its message was acknowledged", run: publishAgain},
	{Name: "Publish/Newer", Contract: "a newer version of an id that is alive is no duplicate", run: publishNewer},
	{Name: "Publish/Retention", Contract: "a driver copies what it keeps: the caller may reuse its memory after the call", run: publishRetention},
	{Name: "Publish/Cancelled", Contract: "a publish whose context has ended returns the context's error and stores nothing", run: publishCancelled},
	{Name: "Publish/Concurrent", Contract: "concurrent publishes lose and double nothing", run: publishConcurrent},
	{Name: "Publish/Invalid", Contract: "an invalid id or queue name is an error of that item, and its batch-mates are stored", run: publishInvalid},
}

// full is a message with every field set.
func (c *C) full() *driver.Message {
	now := time.Now().UnixMilli()
	m := c.message()
	m.Epoch, m.Seq, m.Attempt, m.Deliveries = 2, 7, 3, 4
	m.Deadline, m.ParkedSince = now+int64(time.Hour/time.Millisecond), now-1000
	m.Priority, m.Once, m.NoRecord = 6, true, true
	m.ReplyTo = "reply:to/äöü"
	m.Envelope = []byte{0, 1, 2, 0xff, 0xfe, '\n', 0, 'x'}
	return m
}

// sameMessage compares all fields of a message that a store keeps.
func (c *C) sameMessage(got, want *driver.Message) {
	c.TB.Helper()
	g, w := fields(got), fields(want)
	for i := range g {
		c.expect(g[i] == w[i], "a field changed: got %s, want %s", g[i], w[i])
	}
}

func fields(m *driver.Message) []string {
	return []string{
		"ID " + m.ID, "Queue " + m.Queue, fmt.Sprint("Epoch ", m.Epoch), fmt.Sprint("Seq ", m.Seq),
		fmt.Sprint("Attempt ", m.Attempt), fmt.Sprint("Deliveries ", m.Deliveries), fmt.Sprint("Deadline ", m.Deadline),
		fmt.Sprint("ParkedSince ", m.ParkedSince), fmt.Sprint("Priority ", m.Priority), fmt.Sprint("Once ", m.Once),
		fmt.Sprint("NoRecord ", m.NoRecord), "ReplyTo " + m.ReplyTo, fmt.Sprintf("Envelope %q", m.Envelope),
	}
}

func publishRoundTrip(c *C) {
	b := c.broker()
	m := c.full()
	c.publish(b, m)
	s := c.worker()
	d := c.one(s)
	c.sameMessage(&d.Message, m)
	c.expect(d.Count == 5, "Count is 1 + Deliveries: got %d, want 5", d.Count)
	c.expect(d.Copy != "", "a delivery names its stored copy")
	c.expect(d.Dead == nil && d.Record == nil && !d.Repeat, "Dead, Record and Repeat are not of a delivered message: got %+v", d.Message)
	c.ack(s, d)
	c.empty(b, "an acknowledged message is gone")
}

func publishBatch(c *C) {
	b := c.broker()
	s := c.worker()
	for _, n := range []int{1, 100, 101, 1000} {
		ms := c.messages(n)
		c.publish(b, ms...)
		var got []string
		for len(got) < n {
			ds := c.receive(s, min(n-len(got), 50))
			got = append(got, deliveredIDs(ds)...)
			c.ack(s, ds...)
		}
		c.same(got, messageIDs(ms), fmt.Sprintf("a batch of %d arrives whole", n))
	}
	c.must(b.Publish(c.Context(), nil), "an empty batch")
	c.none(s, c.lease/4, "everything was received once")
}

func publishQueues(c *C) {
	b := c.broker()
	queues := []string{"a", "b", "c"}
	want := map[string][]string{}
	ms := c.messages(120)
	for i, m := range ms {
		m.Queue = queues[i%len(queues)]
		want[m.Queue] = append(want[m.Queue], m.ID)
	}
	c.publish(b, ms...)
	for _, name := range queues {
		s := c.worker(name)
		ds := c.receive(s, 40)
		for _, d := range ds {
			c.expect(d.Queue == name, "%s was published to %s and says it is of %s", d.ID, name, d.Queue)
		}
		c.same(deliveredIDs(ds), want[name], "the messages of queue "+name)
		c.none(s, c.lease/4, "nothing of another queue is in "+name)
	}
}

// refusable returns a message that b refuses, and the error it refuses it with.
func (c *C) refusable(b driver.Broker) (*driver.Message, error) {
	info := b.Info()
	m := c.message()
	switch {
	case info.MaxMessage > 0:
		m.Envelope = make([]byte, info.MaxMessage+1)
		return m, driver.ErrTooLarge
	case info.Dedup:
		c.publish(b, m)
		return m.Clone(), driver.ErrDuplicate
	}
	m.ID = ""
	return m, nil
}

func publishPerItem(c *C) {
	b := c.broker()
	bad, want := c.refusable(b)
	alive := errors.Is(want, driver.ErrDuplicate)
	ms := c.messages(150)
	ms[120] = bad
	err := b.Publish(c.Context(), ms)
	var be *driver.BatchError
	if !errors.As(err, &be) || len(be.Errs) != len(ms) {
		c.Fatalf("one refused message of %d: got %v, want a *BatchError with %d errors", len(ms), err, len(ms))
	}
	for i, err := range be.Errs {
		if i == 120 {
			c.expect(err != nil && (want == nil || errors.Is(err, want)), "item %d: got %v, want %v", i, err, want)
		} else {
			c.expect(err == nil, "item %d is stored: got %v", i, err)
		}
	}
	stored := messageIDs(append(ms[:120:120], ms[121:]...))
	if alive {
		stored = append(stored, bad.ID) // what lives already
	}
	s := c.worker()
	var got []string
	for len(got) < len(stored) {
		ds := c.receive(s, min(50, len(stored)-len(got)))
		got = append(got, deliveredIDs(ds)...)
		c.ack(s, ds...)
	}
	c.same(got, stored, "the others are stored")
	c.none(s, c.lease/4, "what was refused is not stored")
}

func publishOversize(c *C) {
	b := c.broker()
	limit := b.Info().MaxMessage
	s := c.worker()
	size := limit
	if limit == 0 {
		size = 4 << 20
	}
	largest := c.message()
	largest.Envelope = []byte(strings.Repeat("x", size))
	c.publish(b, largest)
	d := c.one(s)
	c.expect(len(d.Envelope) == size && string(d.Envelope) == string(largest.Envelope), "%d bytes arrive as %d", size, len(d.Envelope))
	c.ack(s, d)
	if limit == 0 {
		return
	}
	ms := c.messages(3)
	ms[1].Envelope = make([]byte, limit+1)
	err := b.Publish(c.Context(), ms)
	c.expect(errors.Is(driver.ItemError(err, 1, 3), driver.ErrTooLarge), "%d bytes: got %v, want ErrTooLarge", limit+1, err)
	c.expect(driver.ItemError(err, 0, 3) == nil && driver.ItemError(err, 2, 3) == nil, "its batch-mates are stored: got %v", err)
	c.same(deliveredIDs(c.receive(s, 2)), []string{ms[0].ID, ms[2].ID}, "its batch-mates")
}

func publishDuplicate(c *C) {
	b := c.broker()
	s := c.worker()
	if !b.Info().Dedup {
		m := c.message()
		c.publish(b, m)
		c.publish(b, m.Clone())
		ds := c.receive(s, 2)
		c.expect(ds[0].ID == m.ID && ds[1].ID == m.ID && ds[0].Copy != ds[1].Copy, "two publishes are two copies: got %q and %q", ds[0].Copy, ds[1].Copy)
		return
	}
	refused := func(m *driver.Message, where string) {
		c.TB.Helper()
		again := m.Clone()
		again.Envelope, again.Dead, again.Delay = []byte("another"), nil, 0
		err := driver.ItemError(b.Publish(c.Context(), []*driver.Message{again}), 0, 1)
		c.expect(errors.Is(err, driver.ErrDuplicate), "an id that is %s: got %v, want ErrDuplicate", where, err)
	}
	ready, leased, delayed, twins := c.message(), c.message(), c.message(), c.message()
	c.publish(b, leased)
	d := c.one(s)
	c.publish(b, ready)
	delayed.Delay = c.lease / 2
	c.publish(b, delayed)
	buried := dead(c.message(), time.Now().UnixMilli())
	c.publish(b, buried)
	refused(ready, "ready")
	refused(leased, "leased")
	refused(delayed, "delayed")
	refused(buried, "dead")
	err := b.Publish(c.Context(), []*driver.Message{twins, twins.Clone()})
	c.expect(driver.ItemError(err, 0, 2) == nil && errors.Is(driver.ItemError(err, 1, 2), driver.ErrDuplicate), "one id twice in a batch: got %v, want ErrDuplicate for the second", err)
	c.ack(s, d)
	ds := c.receive(s, 3)
	c.same(deliveredIDs(ds), []string{ready.ID, delayed.ID, twins.ID}, "what lived is unharmed")
	for _, d := range ds {
		c.expect(string(d.Envelope) == "envelope of "+d.ID, "what lived is unharmed: %s holds %q", d.ID, d.Envelope)
	}
	c.ack(s, ds...)
	c.none(s, c.lease, "a refused message is not stored")
}

func publishRepeat(c *C) {
	b := c.broker()
	m := c.message()
	c.publish(b, m)
	again := m.Clone()
	again.Repeat = true
	err := driver.ItemError(b.Publish(c.Context(), []*driver.Message{again}), 0, 1)
	c.expect(err == nil, "a repeat is no error: got %v", err)
	s := c.worker()
	d := c.one(s)
	if !b.Info().Dedup {
		return
	}
	err = driver.ItemError(b.Publish(c.Context(), []*driver.Message{again}), 0, 1)
	c.expect(err == nil, "nor while it is leased: got %v", err)
	c.none(s, c.lease/2, "a repeat makes no second message")
	c.ack(s, d)
	fresh := c.message()
	fresh.Repeat = true
	c.publish(b, fresh)
	d = c.one(s)
	c.expect(d.ID == fresh.ID && !d.Repeat, "a repeat of what was not stored stores it: got %+v", d.Message)
}

func publishAgain(c *C) {
	b := c.broker()
	s := c.worker()
	m := c.message()
	var copies []string
	for range 3 {
		c.publish(b, m)
		d := c.one(s)
		copies = append(copies, d.Copy)
		c.ack(s, d)
	}
	c.expect(copies[0] != copies[1] && copies[1] != copies[2], "each publish is a copy of its own: got %q", copies)
}

func publishNewer(c *C) {
	b := c.broker()
	s := c.worker()
	old := c.message()
	c.publish(b, old)
	d := c.one(s)
	next := old.Clone()
	next.Seq++
	c.publish(b, next)
	epoch := old.Clone()
	epoch.Epoch++
	c.publish(b, epoch)
	ds := c.receive(s, 2)
	got := []string{fmt.Sprint(ds[0].Version()), fmt.Sprint(ds[1].Version())}
	c.same(got, []string{fmt.Sprint(next.Version()), fmt.Sprint(epoch.Version())}, "the newer versions arrive")
	c.ack(s, append(ds, d)...)
	c.empty(b, "each is acknowledged by itself")
}

func publishRetention(c *C) {
	b := c.broker()
	s := c.subscribe(b)
	m := c.message()
	want := string(m.Envelope)
	c.publish(b, m)
	for i := range m.Envelope {
		m.Envelope[i] = '!'
	}
	m.ReplyTo = "changed"
	d := c.one(s)
	c.expect(string(d.Envelope) == want && d.ReplyTo == "", "the caller's memory reached the store: got %q, want %q", d.Envelope, want)
	for i := range d.Envelope {
		d.Envelope[i] = '?'
	}
	d.Message.ReplyTo = "changed"
	c.lose(b)
	d = c.one(s)
	c.expect(string(d.Envelope) == want && d.ReplyTo == "", "a receiver's memory reached the store: got %q, want %q", d.Envelope, want)
	next := c.message()
	want = string(next.Envelope)
	c.must(c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{next}}), "settle")
	next.Envelope[0], next.ReplyTo = '!', "changed"
	d = c.one(s)
	c.expect(string(d.Envelope) == want && d.ReplyTo == "", "the memory of Then reached the store: got %q, want %q", d.Envelope, want)
	c.ack(s, d)
	buried := dead(c.message(), 1000)
	c.publish(b, buried)
	buried.Dead.Message, buried.Envelope[0] = "changed", '!'
	read := c.deadOf(b, q)
	read[0].Dead.Message, read[0].Envelope[0] = "changed by a reader", '?'
	kept := c.deadOf(b, q)[0]
	c.expect(kept.Dead.Message == "fails" && kept.Envelope[0] == 'e', "nobody's memory reaches a dead letter: got %q, %q", kept.Dead.Message, kept.Envelope)
}

func publishCancelled(c *C) {
	b := c.broker()
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	err := b.Publish(ctx, c.messages(1))
	c.expect(errors.Is(err, context.Canceled), "got %v, want context.Canceled", err)
	c.empty(b, "nothing was stored")
	later, cancel := context.WithCancel(c.Context())
	m := c.message()
	c.must(b.Publish(later, []*driver.Message{m}), "publish")
	cancel() // after the call it means nothing
	c.sleep(c.slack)
	c.expect(c.one(c.worker()).ID == m.ID, "the message is there")
}

func publishConcurrent(c *C) {
	b, other := c.broker(), c.broker()
	const publishers, each = 16, 20
	var mu sync.Mutex
	var want []string
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				ms := []*driver.Message{
					{ID: fmt.Sprintf("p%d-%d-a", p, i), Queue: q, Attempt: 1, Envelope: []byte("x")},
					{ID: fmt.Sprintf("p%d-%d-b", p, i), Queue: q, Attempt: 1, Envelope: []byte("y")},
				}
				to := b
				if p%2 == 1 {
					to = other
				}
				if err := to.Publish(c.Context(), ms); err != nil {
					c.Errorf("publish: %v", err)
				}
				mu.Lock()
				want = append(want, messageIDs(ms)...)
				mu.Unlock()
			}
		})
	}
	s := c.worker()
	var got []string
	for len(got) < 2*publishers*each {
		ds := c.receive(s, 1)
		got = append(got, deliveredIDs(ds)...)
		c.ack(s, ds...)
	}
	wg.Wait()
	c.same(got, want, "every message arrives once")
	c.none(s, c.lease/4, "every message arrives once")
}

func publishInvalid(c *C) {
	b := c.broker()
	ms := c.messages(5)
	ms[0].ID, ms[1].ID, ms[2].Queue, ms[3].Queue = "", "sp ace", "", strings.Repeat("q", 201)
	err := b.Publish(c.Context(), ms)
	for i, what := range []string{"an empty id", "an id with a space", "an empty queue name", "a queue name of 201 bytes"} {
		err := driver.ItemError(err, i, 5)
		c.expect(err != nil, "%s is refused", what)
		c.expect(!errors.Is(err, driver.ErrDuplicate) && !errors.Is(err, driver.ErrClosed), "%s is refused as what it is: got %v", what, err)
	}
	c.expect(driver.ItemError(err, 4, 5) == nil, "the valid message is stored: got %v", err)
	c.expect(c.one(c.worker()).ID == ms[4].ID, "the valid message arrives")
}
