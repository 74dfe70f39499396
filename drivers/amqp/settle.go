package amqp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
	amqp "github.com/rabbitmq/amqp091-go"
)

// A hold is the handle of a delivery: it belongs to the feed that brought it.
type hold struct {
	s     *subscription
	f     *feed
	c     *consumer
	tag   uint64
	body  []byte // as it is stored
	copy  string
	count int
	d     *driver.Delivery // until it is received

	state   holdState // under the subscription's mu
	suspect bool
}

type holdState int

const (
	waiting  holdState = iota // in a buffer
	received                  // a worker's
	settling
	settled
)

var errNotAcked = errors.New("amqp: published, not acknowledged: the connection was lost")

// holdOf returns the handle of d, nil if it has none of s.
func (s *subscription) holdOf(d *driver.Delivery) *hold {
	if d == nil {
		return nil
	}
	if h, ok := d.Handle.(*hold); ok && h != nil && h.s == s {
		return h
	}
	return nil
}

// claim reserves a delivery for one settlement.
func (s *subscription) claim(h *hold) error {
	if h == nil {
		return driver.ErrLeaseLost
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.f.ended || h.state != received {
		return driver.ErrLeaseLost
	}
	h.state = settling
	return nil
}

func (s *subscription) unclaim(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.state = received
}

// ack acknowledges messages of a feed that are not settled, and reports whether it did.
func (s *subscription) ack(f *feed, holds ...*hold) bool {
	err := f.ack(holds)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.ended {
		return false
	}
	for _, h := range holds {
		if h.state == settling {
			s.held--
		}
		if h.suspect {
			s.suspects--
		}
		h.state = settled
		h.c.free()
	}
	s.signal()
	return err == nil
}

// ack acknowledges holds: with one word those before which all is acknowledged.
func (f *feed) ack(holds []*hold) error {
	f.acking.Lock()
	defer f.acking.Unlock()
	for _, h := range holds {
		f.acked.add(h.tag)
	}
	var errs []error
	last := uint64(0) // the server must not know it as acknowledged yet
	for _, h := range holds {
		if h.tag <= f.acked.upTo() {
			last = max(last, h.tag)
		} else {
			errs = append(errs, f.ch.Ack(h.tag, false))
		}
	}
	if last > 0 {
		errs = append(errs, f.ch.Ack(last, true))
	}
	f.last = time.Now()
	return errors.Join(errs...)
}

// back returns the item that gives h back after ms.
func (h *hold) back(ms int64) (item, error) {
	m, _, _, err := decode(h.body)
	if err != nil {
		return item{}, fmt.Errorf("amqp: %w", err)
	}
	m.Dead, m.Deliveries = nil, uint32(h.count-1)
	return item{m, h.copy, ms, true}, nil
}

// Settle implements [driver.Subscription]. What follows on a settlement, and a message
// that is given back, is published and confirmed before the ack.
func (s *subscription) Settle(ctx context.Context, ss []driver.Settlement) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	errs := make([]error, len(ss))
	holds := make([]*hold, len(ss))
	var items []item
	ends := make([]int, len(ss)) // of each settlement's items
	for i := range ss {
		var own []item
		holds[i] = s.holdOf(ss[i].Delivery)
		if errs[i] = s.claim(holds[i]); errs[i] == nil {
			if own, errs[i] = s.follows(&ss[i], holds[i]); errs[i] != nil {
				s.unclaim(holds[i])
			}
		}
		items = append(items, own...)
		ends[i] = len(items)
	}
	sent := s.b.send(ctx, items)
	var acks []*hold
	from := 0
	for i := range ss {
		own := sent[from:ends[i]]
		from = ends[i]
		if errs[i] != nil {
			continue
		}
		if errs[i] = together(own); errs[i] != nil {
			s.unclaim(holds[i])
			errs[i] = s.b.over(errs[i])
			continue
		}
		acks = append(acks, holds[i])
	}
	if len(acks) == 0 {
		return driver.Batch(errs)
	}
	f := acks[len(acks)-1].f // those of another have ended with it
	acks = slices.DeleteFunc(acks, func(h *hold) bool { return h.f != f })
	acked := s.ack(f, acks...)
	from = 0
	for i := range ss {
		follows := ends[i] > from
		from = ends[i]
		switch {
		case errs[i] != nil || acked && holds[i].f == f:
		case s.isClosed():
			errs[i] = driver.ErrClosed
		case follows:
			errs[i] = errNotAcked
		default:
			errs[i] = driver.ErrLeaseLost
		}
	}
	return driver.Batch(errs)
}

func (s *subscription) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// follows returns what is published before the ack of st.
func (s *subscription) follows(st *driver.Settlement, h *hold) (items []item, err error) {
	for _, m := range st.Then {
		if err := checkMessage(m); err != nil {
			return nil, err
		}
		items = append(items, item{m: m, copy: s.b.copyName(), ms: millis(m.Delay)})
	}
	if st.Action == driver.Release {
		i, err := h.back(millis(st.Delay))
		if err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, nil
}

// together is the error of items that belong together: transient only if none of them
// was stored.
func together(errs []error) error {
	var first error
	stored := false
	for _, err := range errs {
		switch {
		case err == nil:
			stored = true
		case first == nil || !errors.Is(err, driver.ErrTransient):
			first = err
		}
	}
	if first != nil && stored && errors.Is(first, driver.ErrTransient) {
		return fmt.Errorf("amqp: published in part: %v", first)
	}
	return first
}

// Extend implements [driver.Subscription]: a delivery is held as long as its connection
// lives, and the server's consumer_timeout lets it.
func (s *subscription) Extend(ctx context.Context, ds []*driver.Delivery) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	errs := make([]error, len(ds))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range ds {
		if h := s.holdOf(d); h == nil || h.f.ended || h.state != received && h.state != settling {
			errs[i] = driver.ErrLeaseLost
		}
	}
	return driver.Batch(errs)
}

// lookForUnasked gives back what nobody asked for.
func (s *subscription) lookForUnasked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timed = false
	left := unaskedFor
	for _, src := range sourcesOf(s.known()...) {
		if len(src.buffer) > 0 {
			s.timed = true
			left = min(left, unaskedFor-time.Since(src.buffer[0].at))
		}
	}
	switch {
	case s.stopped || s.closed || !s.timed:
		s.timed = false
	case left > 0:
		time.AfterFunc(left, s.lookForUnasked)
	case !s.b.publishing.takes(): // it stays at hand meanwhile
		time.AfterFunc(unaskedFor, s.lookForUnasked)
	default:
		s.spawnLocked(func() {
			s.goBack(s.unasked)
			time.AfterFunc(unaskedFor, s.lookForUnasked)
		})
	}
}

// unasked returns the sources that nobody asks for, which rest if others are served. With
// one go those that it is preferred to: they must not be all that is left.
func (s *subscription) unasked() (srcs []*source) {
	now := time.Now()
	goes := false
	for _, l := range s.known() {
		goes = goes && s.strict
		for _, src := range sourcesOf(l) {
			if len(src.buffer) == 0 || !goes && now.Sub(src.buffer[0].at) < unaskedFor {
				continue
			}
			goes = true
			l.share /= 2
			if srcs = append(srcs, src); s.taken != nil && s.taken != src {
				src.rest = min(max(2*src.rest, restMin), restMax)
				src.rests = now.Add(src.rest)
			}
		}
	}
	return srcs
}

// giveAllBack gives back what was not received, and asks the server for no more.
func (s *subscription) giveAllBack() {
	s.goBack(func() []*source { return sourcesOf(s.known()...) })
}

// goBack gives back what was not received of sources that choose, under mu, returns.
func (s *subscription) goBack(choose func() []*source) {
	s.control.Lock()
	defer s.control.Unlock()
	s.mu.Lock()
	f, srcs, stopped := s.feed, choose(), s.stopped
	s.careful, s.giving = true, true
	s.mu.Unlock()
	if f != nil {
		s.giveBack(f, srcs, stopped)
	}
	s.mu.Lock()
	s.giving = false
	s.mu.Unlock()
	s.signal()
}

// giveBack has the server send no more of srcs, and publishes again what was not
// received. The last time, what cannot be published is returned, which counts.
func (s *subscription) giveBack(f *feed, srcs []*source, last bool) {
	for _, src := range srcs {
		if !s.silence(f, src) {
			return // all of f is lost
		}
	}
	s.mu.Lock()
	var back []parked
	if !f.ended {
		for _, src := range srcs {
			back = append(back, src.buffer...)
			src.buffer = nil
		}
	}
	s.mu.Unlock()
	if len(back) == 0 {
		return
	}
	items := make([]item, len(back))
	for i := range back {
		items[i], _ = back[i].h.back(0) // it was decoded before
	}
	sent := make(chan []error, 1)
	if !s.spawn(func() { sent <- s.sendBack(items, last) }) {
		return
	}
	late := time.NewTimer(lastCall + time.Second)
	defer late.Stop()
	select {
	case errs := <-sent:
		s.gaveBack(f, back, errs, last)
	case <-late.C: // the server may take no messages for long, but goes on to send some
		s.spawn(func() {
			errs := <-sent
			s.control.Lock()
			defer s.control.Unlock()
			s.gaveBack(f, back, errs, last)
		})
	}
}

// gaveBack acknowledges what was published again.
func (s *subscription) gaveBack(f *feed, back []parked, errs []error, last bool) {
	for i, err := range errs {
		h := back[i].h
		switch {
		case err == nil:
			s.ack(f, h)
		case last:
			f.ch.Nack(h.tag, false, true)
		default:
			s.park(back[i])
		}
		if i%acksAtOnce == acksAtOnce-1 {
			f.barrier()
		}
	}
	f.barrier()
}

// sendBack publishes what goes back. While the worker goes on it waits for the server as
// long as that takes: what is given up may be there twice.
func (s *subscription) sendBack(items []item, last bool) []error {
	ctx, cancel := context.WithTimeout(s.ctx, lastCall)
	defer cancel()
	if last {
		return s.b.send(ctx, items)
	}
	session, err := s.b.publishing.session(ctx)
	if err == nil {
		err = session.gate(ctx)
	}
	if err != nil {
		return fill(make([]error, len(items)), err)
	}
	return s.b.send(s.ctx, items)
}

// acksAtOnce is how many acks are written before the server is waited for: of more than
// 32 it keeps some to itself, and forgets them when the channel is closed.
const acksAtOnce = 16

// putLocked has a delivery wait, under mu, to be received or given back.
func (s *subscription) putLocked(p parked) {
	src := p.h.c.src
	src.buffer = append(src.buffer, p)
	if !s.timed && !s.stopped {
		s.timed = true
		time.AfterFunc(unaskedFor, s.lookForUnasked)
	}
	s.signal()
}

// park puts back what could not be given back.
func (s *subscription) park(p parked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.h.f.ended {
		p.at = time.Now()
		s.putLocked(p)
	}
}

// wait gives back a message whose delay was longer than the server's queues wait.
func (s *subscription) wait(h *hold, ms int64) {
	i, err := h.back(ms)
	if err == nil {
		err = s.b.send(s.ctx, []item{i})[0]
	}
	if err == nil {
		s.ack(h.f, h)
		return
	}
	s.later(h, func() { s.wait(h, ms) })
}

// bury dead-letters what is no message of this driver.
func (s *subscription) bury(h *hold, d *amqp.Delivery, cause error) {
	now := time.Now().UnixMilli()
	copyName := s.b.copyName()
	m := &driver.Message{ID: copyName, Queue: h.c.src.lane.queue, Attempt: 1, Envelope: d.Body, Dead: &driver.DeadInfo{
		Reason: driver.ReasonUndecodable, Message: cause.Error(), FirstAt: now, LastAt: now}}
	if s.b.send(s.ctx, []item{{m: m, copy: copyName}})[0] == nil {
		s.ack(h.f, h)
		return
	}
	s.later(h, func() { s.bury(h, d, cause) })
}

// later does what could not be done, unless the delivery is lost meanwhile.
func (s *subscription) later(h *hold, do func()) {
	select {
	case <-h.f.lost:
	case <-s.ctx.Done():
	case <-time.After(time.Second):
		do()
	}
}
