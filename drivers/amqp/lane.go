package amqp

import (
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
	amqp "github.com/rabbitmq/amqp091-go"
)

// A lane is a queue of a subscription. Everything in it is under the subscription's mu.
type lane struct {
	queue   string
	weight  int
	owed    int // by its weight
	share   int // for how many the server is asked when its turn comes
	sources [levels]*source
}

// A source is the queue of one priority.
type source struct {
	lane      *lane
	level     int
	name      string // on the server
	buffer    []parked
	consumers []*consumer // that may bring more
	expected  *expectation
	rest      time.Duration
	rests     time.Time // until then it is not asked for more, while the worker is busy
}

// An expectation is that the server sends more of a source. It ends with what comes, or
// with an answer of the server, not with time: a machine may stand still.
type expectation struct {
	asked time.Time // when the server first said that it has more; zero before
	until time.Time // from when it is over, as the server said that it has none; zero before
}

// A parked delivery waits to be received.
type parked struct {
	h  *hold
	at time.Time
}

// A consumer is one on the server. Of its window it leaves room for what is not settled.
type consumer struct {
	src    *source
	tag    string
	window int
	used   int
	live   bool
	done   chan struct{} // closed when it brings nothing more
}

func newLane(n names, queue string) *lane {
	l := &lane{queue: queue}
	for level := range levels {
		l.sources[level] = &source{lane: l, level: level, name: n.task(queue, level)}
	}
	return l
}

// sourcesOf returns the sources of lanes, the preferred first.
func sourcesOf(lanes ...*lane) (srcs []*source) {
	for _, l := range lanes {
		for level := levels - 1; level >= 0; level-- {
			srcs = append(srcs, l.sources[level])
		}
	}
	return srcs
}

// clear forgets what came from a feed that has ended.
func (l *lane) clear() {
	for _, src := range l.sources {
		for _, c := range src.consumers {
			c.live = false
		}
		src.buffer, src.consumers, src.expected = nil, nil, nil
	}
}

// room is how many messages the server may send by itself.
func (src *source) room() (n int) {
	for _, c := range src.consumers {
		n += c.window - c.used
	}
	return n
}

// free takes a delivery off the window. If that was full, the server knows of more.
func (c *consumer) free() {
	if c.live && c.used == c.window {
		c.src.expected = new(expectation)
	}
	c.used--
}

// expects reports whether more is expected of src.
func (src *source) expects(now time.Time) bool {
	if e := src.expected; e != nil && !e.until.IsZero() && !now.Before(e.until) {
		src.expected = nil
	}
	return src.expected != nil
}

// front is the source of the highest priority that has or expects something, or may have
// something that the server was not asked for.
func (l *lane) front(now time.Time) *source {
	for level := levels - 1; level >= 0; level-- {
		if src := l.sources[level]; len(src.buffer) > 0 || src.expects(now) || src.room() <= 0 {
			return src
		}
	}
	return nil
}

// take takes up to n deliveries, in the order of queues or by their weights. Where the
// next one is on its way, or the server must be asked for it, it stops, and says from where.
func (s *subscription) take(n int, now time.Time) (ds []*driver.Delivery, until *source) {
	for len(ds) < n {
		src := s.pick(now)
		if src == nil {
			return ds, nil
		}
		switch {
		case len(src.buffer) > 0:
		case s.buffers():
			return ds, src
		default: // nothing waits for it
			return ds, nil
		}
		h := src.buffer[0].h
		src.buffer[0] = parked{}
		src.buffer = src.buffer[1:]
		h.state = received
		s.held++
		s.taken, src.rest = src, 0
		ds = append(ds, h.d)
		h.d = nil
	}
	return ds, nil
}

// buffers reports whether anything is there.
func (s *subscription) buffers() bool {
	return slices.ContainsFunc(sourcesOf(s.lanes...), func(src *source) bool { return len(src.buffer) > 0 })
}

// pick chooses the source of the next delivery. A queue that is chosen and has nothing
// yet is not charged for it.
func (s *subscription) pick(now time.Time) *source {
	var best *lane
	var src *source
	total := 0
	for _, l := range s.lanes {
		front := l.front(now)
		if front == nil {
			continue
		}
		if s.strict {
			return front
		}
		total += l.weight
		if best == nil || l.owed+l.weight > best.owed+best.weight {
			best, src = l, front
		}
	}
	if best == nil || len(src.buffer) == 0 {
		return src
	}
	for _, l := range s.lanes {
		if l.front(now) != nil {
			l.owed += l.weight
		}
	}
	best.owed -= total
	return src
}

// ask asks the server whether src has more, where the others wait for it.
func (s *subscription) ask(src *source) {
	pause(s.ctx, asking)
	s.control.Lock()
	defer s.control.Unlock()
	s.mu.Lock()
	f, e := s.feed, src.expected
	s.mu.Unlock()
	messages := 0
	if f != nil && e != nil {
		if q, err := f.ch.QueueDeclarePassive(src.name, true, false, false, false, nil); err == nil {
			messages = q.Messages
			f.barrier() // what was sent before that answer is read before this one
		}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks = false
	if e != nil && src.expected == e {
		e.answer(messages, now)
	}
	s.signal()
}

// answer takes the server's answer of how many messages it has.
func (e *expectation) answer(messages int, now time.Time) {
	switch {
	case messages == 0:
		e.until = now.Add(arriving)
	case e.asked.IsZero():
		e.asked = now
	case now.Sub(e.asked) > soon: // it has them and does not send them
		e.until = now
	}
}

// arrive parks what the server has sent.
func (s *subscription) arrive(f *feed, c *consumer, d *amqp.Delivery) {
	h := &hold{s: s, f: f, c: c, tag: d.DeliveryTag, body: d.Body}
	m, copyName, due, err := decode(d.Body)
	if err == nil {
		m.Dead = nil
		h.count = 1 + int(m.Deliveries) + deaths(d)
		h.copy = copyName
		h.d = &driver.Delivery{Message: *m, Count: h.count, Copy: copyName, Lost: f.lost, Handle: h}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.ended {
		return
	}
	c.used++
	switch {
	case err != nil:
		s.spawnLocked(func() { s.bury(h, d, err) })
		return
	case due > now.UnixMilli():
		s.spawnLocked(func() { s.wait(h, due-now.UnixMilli()) })
		return
	case s.b.opts.Classic && d.Redelivered && s.b.publishing.takes(): // a classic queue does not count further
		s.spawnLocked(func() { s.wait(h, 0) })
		return
	case h.count >= suspect:
		h.suspect = true
		s.suspects++
		s.suspected = now
	}
	c.src.expected = nil
	s.putLocked(parked{h, now})
}
