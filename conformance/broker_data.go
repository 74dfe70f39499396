package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/chicory-go/chicory/driver"
)

var dataCases = []Case{
	{Name: "Data/Envelope", Contract: "an envelope arrives byte by byte: empty, binary, one mebibyte", run: dataEnvelope},
	{Name: "Data/IDs", Contract: "ids are 1 to 128 bytes of [A-Za-z0-9._:-], and differ in every byte", run: dataIDs},
	{Name: "Data/Numbers", Contract: "numbers keep their whole range", run: dataNumbers},
}

var nameCases = []Case{
	{Name: "Names/Hostile", Contract: "any UTF-8 queue name of 1 to 200 bytes works, and no two share messages", run: namesHostile},
	{Name: "Names/Invalid", Contract: "a queue name that is empty, longer than 200 bytes or not UTF-8 is refused by Subscribe", run: namesInvalid},
	{Name: "Names/Namespaces", Contract: "two namespaces never see each other's messages, dead letters or ids", run: namesNamespaces},
}

func dataEnvelope(c *C) {
	b := c.broker()
	s := c.worker()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	size := 1 << 20
	if limit := b.Info().MaxMessage; limit > 0 {
		size = min(size, limit)
	}
	for _, want := range [][]byte{{}, {0}, all, []byte("\r\n$5\r\n\x00\xff"), bytes.Repeat(all, size/256)} {
		m := c.message()
		m.Envelope = want
		c.publish(b, m)
		d := c.one(s)
		c.expect(bytes.Equal(d.Envelope, want), "%d bytes changed on the way: %d arrived", len(want), len(d.Envelope))
		c.release(s, d)
		d = c.one(s)
		c.expect(bytes.Equal(d.Envelope, want), "%d bytes changed when given back: %d arrived", len(want), len(d.Envelope))
		c.ack(s, d)
	}
}

func dataIDs(c *C) {
	b := c.broker()
	want := []string{
		"a", "A", "a.b", "a:b", "a-b", "a_b", ":", ".", "..", "-", "0", "00", strings.Repeat("x", 128), strings.Repeat("x", 127) + "y",
		"018f2b1e-7c3a-7d40-8c1e-2f6f2a7b9c01", "ab", "a:b:c", "dead", "nil",
	}
	var ms []*driver.Message
	for _, id := range want {
		m := c.message()
		m.ID = id
		ms = append(ms, m)
	}
	c.publish(b, ms...)
	s := c.worker()
	ds := c.receive(s, len(want))
	c.same(deliveredIDs(ds), want, "ids")
	c.ack(s, ds...)
}

func dataNumbers(c *C) {
	b := c.broker()
	m := c.message()
	const most = 1<<32 - 1
	m.Epoch, m.Seq, m.Attempt, m.Deliveries = most, most, most, 1<<31-2
	m.Deadline, m.ParkedSince = 1<<62, 1<<62
	c.publish(b, m)
	d := c.one(c.worker())
	c.sameMessage(&d.Message, m)
	c.expect(d.Count == 1<<31-1, "Count is 1 + Deliveries: got %d", d.Count)
}

func namesHostile(c *C) {
	b := c.broker()
	names := []string{
		"q", "Q", "q ", "q:dead", "q.dlq", "q:delayed", "q%3A", "%", "#", "*", "a.#", "a.b", "amq.q", "amq.", "}", "{", "{q}", "}{q", ":", "::", "/", "../q", "\\",
		"\"", "'", "q\x00", "\x00", "\n", "日本語", "日本", "🐇", "é", "e\u0301", "null", "_", "-", strings.Repeat("n", 200), strings.Repeat("n", 199), strings.Repeat("é", 100),
	}
	var ms []*driver.Message
	for _, name := range names {
		m := c.message()
		m.Queue = name
		m.Envelope = []byte(name)
		ms = append(ms, m)
		ms = append(ms, dead(&driver.Message{ID: c.id(), Queue: name, Attempt: 1, Envelope: []byte(name)}, 1))
	}
	c.publish(b, ms...)
	for _, name := range names {
		s := c.subscribe(b, name)
		d := c.one(s)
		c.expect(string(d.Envelope) == name && d.Queue == name, "queue %q got the message of %q", name, d.Envelope)
		c.ack(s, d)
		c.none(s, c.slack/4, fmt.Sprintf("queue %q has one message", name))
		c.must(s.Close(c.Context()), "close")
		letters := c.deadOf(b, name)
		c.expect(len(letters) == 1 && string(letters[0].Envelope) == name && letters[0].Queue == name, "queue %q has its own dead letter: got %v", name, ids(letters))
	}
}

func namesInvalid(c *C) {
	b := c.broker()
	for _, name := range []string{"", strings.Repeat("n", 201), "\xff", "a\xc3"} {
		s, err := b.Subscribe(c.Context(), c.options(name))
		c.expect(err != nil, "queue name %q is refused", name)
		c.expect(!errors.Is(err, driver.ErrClosed), "queue name %q is refused as what it is: got %v", name, err)
		if err == nil {
			s.Close(c.Context())
		}
	}
}

func namesNamespaces(c *C) {
	here, there := c.brokerIn("one"), c.brokerIn("two")
	m := c.message()
	c.publish(here, m, dead(c.message(), 1))
	other := m.Clone()
	other.Envelope = []byte("other")
	c.publish(there, other) // the same id: no duplicate
	s, t := c.subscribe(here), c.subscribe(there)
	d, e := c.one(s), c.one(t)
	c.expect(string(d.Envelope) == string(m.Envelope) && string(e.Envelope) == "other", "each namespace has its own: got %q and %q", d.Envelope, e.Envelope)
	err := c.settleOne(t, driver.Settlement{Delivery: d})
	c.expect(err != nil, "a delivery of one namespace cannot be settled in the other")
	c.ack(s, d)
	c.ack(t, e)
	c.none(t, c.lease/2, "nothing crosses")
	c.expect(len(c.deadOf(there, q)) == 0 && len(c.deadOf(here, q)) == 1, "dead letters do not cross")
}
