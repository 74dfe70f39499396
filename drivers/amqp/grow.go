package amqp

import (
	"fmt"
	"time"
)

// What the server was not asked for.
const (
	lacksNone = iota
	lacksSome // it was asked for less than is wanted
	lacksAll  // of some queue it was asked for nothing
)

// lack compares what the server may send with n. While a queue rests no other begins,
// which it may be preferred to.
func (s *subscription) lack(n int, now time.Time) int {
	var none, rests, some bool
	for _, src := range sourcesOf(s.lanes...) {
		switch {
		case len(src.consumers) == 0 && now.Before(src.rests):
			rests = true
		case len(src.consumers) == 0:
			none = true
		case src.room() < n:
			some = true
		}
	}
	switch {
	case none && !rests:
		return lacksAll
	case none || rests || some:
		return lacksSome
	}
	return lacksNone
}

// maxConsumers is how many a source has before they are made one.
const maxConsumers = 64

// growFor asks the server, under mu, for n messages of a queue whose turn it is. By weights
// it is asked for few, as many as were asked for in time the last times: the rest would go
// back.
func (s *subscription) growFor(l *lane, n int) {
	if s.growing {
		return
	}
	if s.careful && !s.strict {
		n = min(n, max(1, l.share))
		l.share = 2 * n
	}
	s.startGrowing(sourcesOf(l), n)
}

// startGrowing asks the server, under mu, for n messages of each of srcs.
func (s *subscription) startGrowing(srcs []*source, n int) {
	if !s.growing {
		s.growing = true
		s.spawnLocked(func() { s.grow(srcs, n) })
	}
}

// grow asks the server for n messages of each of srcs.
func (s *subscription) grow(srcs []*source, n int) {
	s.control.Lock()
	defer s.control.Unlock()
	s.mu.Lock()
	f := s.feed
	s.mu.Unlock()
	var err error
	if f != nil {
		if err = s.declare(s.ctx, srcs); err == nil {
			err = s.growAll(f, srcs, n)
		}
	}
	s.mu.Lock()
	s.growing = false
	s.mu.Unlock()
	if err != nil && s.ctx.Err() == nil {
		s.b.log.Warn("amqp: cannot receive", "error", err)
		s.b.topology.forgetAll()
		pause(s.ctx, firstPause)
	}
	s.signal()
}

func (s *subscription) growAll(f *feed, srcs []*source, n int) error {
	for _, src := range srcs {
		if err := s.growSource(f, src, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *subscription) growSource(f *feed, src *source, n int) error {
	s.mu.Lock()
	room := src.room()
	first, want := len(src.consumers) == 0, n-room
	if first && !s.careful && !s.narrow() {
		want = s.prefetch - s.held
	}
	many := len(src.consumers) >= maxConsumers
	if many {
		want = 0
		for _, c := range src.consumers {
			want += c.window
		}
		want = min(want+n, s.prefetch)
		if s.narrow() {
			want = n
		}
	}
	off := s.stopped || s.closed || want <= 0
	s.mu.Unlock()
	if off {
		return nil
	}
	if many && !s.silence(f, src) {
		return nil
	}
	if room <= 0 {
		q, err := f.ch.QueueDeclarePassive(src.name, true, false, false, false, nil)
		if err != nil {
			return fmt.Errorf("look at %s: %w", src.name, err)
		}
		if q.Messages > 0 {
			s.mu.Lock()
			src.expected = new(expectation)
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
	if !s.spawn(func() {
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
	}) {
		close(c.done)
	}
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

// silence cancels the consumers of src, and waits until they bring nothing more. It reports
// false if the channel has ended, and what it brought with it.
func (s *subscription) silence(f *feed, src *source) bool {
	s.mu.Lock()
	cs := src.consumers
	src.consumers, src.expected = nil, nil
	for _, c := range cs {
		c.live = false
	}
	s.mu.Unlock()
	for _, c := range cs {
		if err := f.ch.Cancel(c.tag, false); err != nil {
			return false
		}
	}
	for _, c := range cs {
		<-c.done
	}
	return !f.ch.IsClosed()
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
	c := counter{s: f.s}
	defer c.close()
	for _, src := range sourcesOf(lanes...) {
		if s.isGone(&c, src) {
			s.renew(f, src)
			return
		}
	}
}

// deleted begins again if s has consumers of a queue.
func (s *subscription) deleted(queue string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range sourcesOf(s.lanes...) {
		if len(src.consumers) > 0 && src.name == queue {
			s.renew(s.feed, src)
			return
		}
	}
}

// renew ends f, because a queue was deleted: a server's channel that knew it drops what a
// new queue of that name sends.
func (s *subscription) renew(f *feed, src *source) {
	s.b.topology.forgetAll()
	s.b.log.Warn("amqp: a queue was deleted, and its subscription begins again", "queue", src.name)
	go func() {
		s.control.Lock()
		defer s.control.Unlock()
		f.ch.Close()
	}()
}

// isGone reports whether src should have consumers and has none, or is not there.
func (s *subscription) isGone(c *counter, src *source) bool {
	s.mu.Lock()
	consumers := len(src.consumers)
	s.mu.Unlock()
	if consumers == 0 {
		return false
	}
	q, there, err := c.look(s.ctx, src.name)
	return err == nil && (!there || q.Consumers == 0)
}
