package amqp

import (
	"fmt"
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
	sources [levels]*source
}

// A source is the queue of one priority.
type source struct {
	name      string
	buffer    []parked
	consumers []*consumer // that may bring more
	expects   time.Time   // until then the server probably sends more
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
		l.sources[level] = &source{name: n.task(queue, level)}
	}
	return l
}

// clear forgets what came from a feed that has ended.
func (l *lane) clear() {
	for _, src := range l.sources {
		for _, c := range src.consumers {
			c.live = false
		}
		src.buffer, src.consumers, src.expects = nil, nil, time.Time{}
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
func (c *consumer) free(now time.Time) {
	if c.live && c.used == c.window {
		c.src.expects = now.Add(soon)
	}
	c.used--
}

// front is the source of the highest priority that has or expects something.
func (l *lane) front(now time.Time) *source {
	for level := levels - 1; level >= 0; level-- {
		if src := l.sources[level]; len(src.buffer) > 0 || now.Before(src.expects) {
			return src
		}
	}
	return nil
}

// take takes up to n deliveries, in the order of queues or by their weights. Where the
// next one is on its way, it stops, and says from where.
func (s *subscription) take(n int, now time.Time) (ds []*driver.Delivery, until *source) {
	for len(ds) < n {
		src := s.pick(now)
		if src == nil {
			return ds, nil
		}
		if len(src.buffer) == 0 {
			return ds, src
		}
		h := src.buffer[0].h
		src.buffer[0] = parked{}
		src.buffer = src.buffer[1:]
		h.state = received
		s.held++
		ds = append(ds, h.d)
		h.d = nil
	}
	return ds, nil
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
	f, expects := s.feed, src.expects
	s.mu.Unlock()
	messages := 0
	if f != nil && time.Now().Before(expects) {
		if q, err := f.ch.QueueDeclarePassive(src.name, true, false, false, false, nil); err == nil {
			messages = q.Messages
			f.barrier() // what was sent before that answer is read before this one
		}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks = false
	if src.expects == expects && now.Before(expects) {
		if src.expects = now.Add(arriving); messages > 0 {
			src.expects = now.Add(soon)
		}
	}
	s.signal()
}

// What the server was not asked for.
const (
	lacksNone = iota
	lacksSome // it was asked for less than is wanted
	lacksAll  // of some queue it was asked for nothing
)

// lack compares what the server may send with n.
func (s *subscription) lack(n int) (lack int) {
	for _, l := range s.lanes {
		for _, src := range l.sources {
			if len(src.consumers) == 0 {
				return lacksAll
			}
			if src.room() < n {
				lack = lacksSome
			}
		}
	}
	return lack
}

// maxConsumers is how many a source has before they are made one.
const maxConsumers = 8

// grow asks the server for n messages of each source.
func (s *subscription) grow(n int) {
	s.control.Lock()
	defer s.control.Unlock()
	s.mu.Lock()
	f, lanes := s.feed, s.lanes
	s.mu.Unlock()
	var err error
	if f != nil {
		if err = s.declare(s.ctx, lanes); err == nil {
			err = s.growLanes(f, lanes, n)
		}
	}
	s.mu.Lock()
	s.growing = false
	s.mu.Unlock()
	if err != nil && s.ctx.Err() == nil {
		s.b.log.Warn("amqp: cannot receive", "error", err)
		var gone []string
		for _, l := range lanes {
			for _, src := range l.sources {
				gone = append(gone, src.name)
			}
		}
		s.b.topology.forget(gone...)
		pause(s.ctx, firstPause)
	}
	s.signal()
}

func (s *subscription) growLanes(f *feed, lanes []*lane, n int) error {
	for _, l := range lanes {
		for level := levels - 1; level >= 0; level-- {
			if err := s.growSource(f, l.sources[level], n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *subscription) growSource(f *feed, src *source, n int) error {
	s.mu.Lock()
	first, want := len(src.consumers) == 0, n-src.room()
	if first && !s.careful && !s.narrow {
		want = s.prefetch - s.held
	}
	many := len(src.consumers) >= maxConsumers
	if many {
		want = 0
		for _, c := range src.consumers {
			want += c.window
		}
		want = min(want+n, s.prefetch)
		if s.narrow {
			want = n
		}
	}
	off := s.stopped || s.closed || want <= 0
	s.mu.Unlock()
	if off {
		return nil
	}
	if many {
		s.silence(f, src)
	}
	if first {
		q, err := f.ch.QueueDeclarePassive(src.name, true, false, false, false, nil)
		if err != nil {
			return fmt.Errorf("look at %s: %w", src.name, err)
		}
		if q.Messages > 0 {
			s.mu.Lock()
			src.expects = time.Now().Add(soon)
			s.mu.Unlock()
		}
	}
	return s.consume(f, src, want)
}

// consume adds a consumer.
func (s *subscription) consume(f *feed, src *source, want int) error {
	c := &consumer{src: src, tag: s.b.copyName(), window: min(want, 1<<16-1), live: true, done: make(chan struct{})}
	if err := f.ch.Qos(c.window, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	s.mu.Lock()
	if f.ended {
		s.mu.Unlock()
		return nil
	}
	src.consumers = append(src.consumers, c)
	s.mu.Unlock()
	in, err := f.ch.Consume(src.name, c.tag, false, false, false, false, nil)
	if err != nil {
		s.mu.Lock()
		src.remove(c)
		s.mu.Unlock()
		close(c.done)
		return fmt.Errorf("consume %s: %w", src.name, err)
	}
	s.spawn(func() {
		defer close(c.done)
		for d := range in {
			s.arrive(f, c, &d)
		}
		s.mu.Lock()
		cancelled := c.live && !f.ended // by the server: its queue is gone
		src.remove(c)
		s.mu.Unlock()
		if cancelled {
			s.renew(f, src)
		}
	})
	return nil
}

func (src *source) remove(c *consumer) {
	c.live = false
	for i, other := range src.consumers {
		if other == c {
			src.consumers = append(src.consumers[:i:i], src.consumers[i+1:]...)
			return
		}
	}
}

// silence cancels the consumers of src, and waits until they bring nothing more.
func (s *subscription) silence(f *feed, src *source) {
	s.mu.Lock()
	cs := src.consumers
	src.consumers, src.expects = nil, time.Time{}
	for _, c := range cs {
		c.live = false
	}
	s.mu.Unlock()
	for _, c := range cs {
		if err := f.ch.Cancel(c.tag, false); err != nil {
			return // the channel has ended, and what it brought with it
		}
	}
	for _, c := range cs {
		<-c.done
	}
}

// probe makes sure that the server knows the consumers: it does not tell those of a
// quorum queue that was deleted.
func (s *subscription) probe() {
	s.control.Lock()
	defer s.control.Unlock()
	s.mu.Lock()
	f, lanes := s.feed, s.lanes
	s.mu.Unlock()
	if f == nil {
		return
	}
	for _, l := range lanes {
		for _, src := range l.sources {
			if s.isGone(f, src) {
				s.renew(f, src)
				return
			}
		}
	}
}

// deleted begins again if s has consumers of queues.
func (s *subscription) deleted(queues []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		for _, src := range l.sources {
			if len(src.consumers) > 0 && slices.Contains(queues, src.name) {
				s.renew(s.feed, src)
				return
			}
		}
	}
}

// renew ends f, because a queue was deleted: a server's channel that knew it drops what a
// new queue of that name sends.
func (s *subscription) renew(f *feed, src *source) {
	s.b.topology.forget(src.name)
	s.b.log.Warn("amqp: a queue was deleted, and its subscription begins again", "queue", src.name)
	go f.ch.Close()
}

// isGone reports whether src should have consumers and has none, or is not there. It
// asks on a channel of its own, which the answer may close.
func (s *subscription) isGone(f *feed, src *source) bool {
	s.mu.Lock()
	consumers := len(src.consumers)
	s.mu.Unlock()
	if consumers == 0 {
		return false
	}
	ch, err := f.s.channel(s.ctx)
	if err != nil {
		return false
	}
	defer ch.Close()
	q, err := call(s.ctx, func() (amqp.Queue, error) { return ch.QueueDeclarePassive(src.name, true, false, false, false, nil) }, nil)
	return code(err) == amqp.NotFound || err == nil && q.Consumers == 0
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
	s.narrow = err == nil && h.count >= suspect || s.narrow && s.held > 0
	switch {
	case err != nil:
		s.spawnLocked(func() { s.bury(h, d, err) })
		return
	case due > now.UnixMilli():
		s.spawnLocked(func() { s.wait(h, due-now.UnixMilli()) })
		return
	}
	c.src.buffer, c.src.expects = append(c.src.buffer, parked{h, now}), time.Time{}
	if !s.timed && !s.stopped {
		s.timed = true
		time.AfterFunc(unasked, s.lookForUnasked)
	}
	s.signal()
}
