package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/semaphore"
)

const (
	window    = 1024     // messages of a session that are published and not confirmed
	atOnce    = 128      // of them, of one call
	size      = 16 << 20 // bytes of them; larger ones go alone
	nackPause = 50 * time.Millisecond
	nackTries = 5
)

var (
	errLost = errors.New("amqp: the connection was lost before the server confirmed: it may have the message or not")
	// errChannel is errLost where the connection lives: an exchange may be gone.
	errChannel = fmt.Errorf("%w: the channel was closed", errLost)

	errNack  = errors.New("amqp: the server refuses the message: its queue is full, or has no leader")
	errNoWay = errors.New("amqp: no queue takes the message")
)

// A publisher publishes on one session. It has as many messages on their way as the
// buffer of returned ones holds, so that the library never waits for it.
type publisher struct {
	s       *session
	ch      *amqp.Channel
	returns chan amqp.Return
	room    *semaphore.Weighted // for messages on their way
	bytes   *semaphore.Weighted // for theirs

	mu       sync.Mutex
	returned map[string]bool // copies that no queue took
}

// publisher returns that of the session, which it makes.
func (s *session) publisher(ctx context.Context) (*publisher, error) {
	s.mu.Lock()
	p := s.pub
	s.mu.Unlock()
	if p != nil && !p.ch.IsClosed() {
		return p, nil
	}
	ch, err := s.channel(ctx)
	if err == nil {
		err = rpc(ctx, func() error { return ch.Confirm(false) })
	}
	if err != nil {
		return nil, driver.Transient(fmt.Errorf("amqp: open a channel: %w", err))
	}
	p = &publisher{s: s, ch: ch, returns: ch.NotifyReturn(make(chan amqp.Return, window)),
		room: semaphore.NewWeighted(window), bytes: semaphore.NewWeighted(size), returned: map[string]bool{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.pub; other != nil && !other.ch.IsClosed() {
		go ch.Close()
		return other, nil
	}
	s.pub = p
	return p, nil
}

// publish publishes items, atOnce at most, and returns an error for each.
func (p *publisher) publish(ctx context.Context, items []item, b *Broker) []error {
	errs := make([]error, len(items))
	n, bytes := int64(len(items)), min(bytesOf(items), size)
	if err := p.room.Acquire(ctx, n); err != nil { // there is some, should the session end
		return fill(errs, driver.Transient(err))
	}
	if err := p.bytes.Acquire(ctx, bytes); err != nil {
		p.room.Release(n)
		return fill(errs, driver.Transient(err))
	}
	done := func() { p.room.Release(n); p.bytes.Release(bytes) }
	copies, confirms := make([]string, len(items)), make([]*amqp.DeferredConfirmation, len(items))
	for i := range items {
		copies[i] = items[i].copy
		confirms[i], errs[i] = p.send(&items[i], b)
	}
	if p.settle(ctx, copies, confirms, errs) {
		done()
		return errs
	}
	got := slices.Clone(errs)
	p.s.spawn(func() { p.settle(context.Background(), copies, confirms, errs); done() })
	return got
}

func bytesOf(items []item) (n int64) {
	for i := range items {
		n += int64(len(items[i].m.Envelope))
	}
	return n
}

func unknown(ctx context.Context) error {
	return fmt.Errorf("amqp: not confirmed in time: the server may have the message or not: %w", ctx.Err())
}

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (p *publisher) send(i *item, b *Broker) (*amqp.DeferredConfirmation, error) {
	exchange, key := i.route(b)
	c, err := p.ch.PublishWithDeferredConfirm(exchange, key, true, false, i.encode(b.longest))
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, amqp.ErrClosed):
		return nil, driver.Transient(fmt.Errorf("amqp: publish: %w", err))
	}
	return nil, fmt.Errorf("amqp: publish: %w", err) // part of it may have been written
}

// route is where i is published to.
func (i *item) route(b *Broker) (exchange, routingKey string) {
	switch {
	case i.m.Dead != nil:
		return "", b.names.dead(i.m.Queue)
	case i.ms > 0:
		d := delayOf(i.ms, b.longest)
		return b.names.digit(d.top), d.key(key(i.m.Queue, level(i.m.Priority)))
	}
	return "", b.names.task(i.m.Queue, level(i.m.Priority))
}

// settle waits for confirmations and fills errs. It reports whether all came.
func (p *publisher) settle(ctx context.Context, copies []string, confirms []*amqp.DeferredConfirmation, errs []error) bool {
	for i, c := range confirms {
		if c == nil {
			continue
		}
		select {
		case <-c.Done():
		default:
			select {
			case <-c.Done():
			case <-ctx.Done():
				for ; i < len(confirms); i++ {
					if confirms[i] != nil && errs[i] == nil {
						errs[i] = unknown(ctx)
					}
				}
				return false
			}
		}
		errs[i] = p.outcome(copies[i], c)
	}
	return true
}

// outcome is what became of a message whose confirmation is done.
func (p *publisher) outcome(copyName string, c *amqp.DeferredConfirmation) error {
	switch {
	case c.Acked():
		if p.wasReturned(copyName) {
			return driver.Transient(errNoWay)
		}
		return nil
	case p.ch.IsClosed() && p.s.alive():
		return errChannel
	case p.ch.IsClosed():
		return errLost
	}
	return errNack
}

// wasReturned reports whether no queue took a copy: its return comes before its
// confirmation.
func (p *publisher) wasReturned(copyName string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		select {
		case r, ok := <-p.returns:
			if ok {
				p.returned[r.CorrelationId] = true
				continue
			}
		default:
		}
		break
	}
	was := p.returned[copyName]
	delete(p.returned, copyName)
	return was
}

// need is what i needs on the server.
func (i *item) need(b *Broker) need {
	n := need{queue: i.m.Queue, level: level(i.m.Priority), dead: i.m.Dead != nil}
	if i.ms > 0 && !n.dead {
		n.digits = delayOf(i.ms, b.longest).top + 1
	}
	return n
}

// send publishes items and returns an error for each.
func (b *Broker) send(ctx context.Context, items []item) []error {
	errs := make([]error, 0, len(items))
	for len(items) > 0 {
		n := min(atOnce, len(items))
		for n > 1 && bytesOf(items[:n]) > size {
			n /= 2
		}
		errs = append(errs, b.sendPart(ctx, items[:n])...)
		items = items[n:]
	}
	return errs
}

// sendPart publishes up to atOnce items. Those that certainly were not stored for a
// reason that may be gone are tried again: a queue was deleted, or has no leader yet.
func (b *Broker) sendPart(ctx context.Context, items []item) []error {
	errs := b.tryPart(ctx, items)
	for try := 1; try < nackTries; try++ {
		var again []item
		var places []int
		nacked := false
		for i, err := range errs {
			switch {
			case errors.Is(err, errChannel):
				b.topology.forgetAll()
				continue
			case errors.Is(err, errNoWay) && (items[i].m.Dead != nil || items[i].ms > 0): // its queue may be there
				b.topology.forgetAll()
			case errors.Is(err, errNoWay):
				b.deleted(b.names.task(items[i].m.Queue, level(items[i].m.Priority)))
			case errors.Is(err, errNack) && items[i].mayRepeat():
				nacked = true
			default:
				continue
			}
			next := items[i]
			if !next.again { // should the other be there after all, this one is superseded
				next.copy = b.copyName()
			}
			again, places = append(again, next), append(places, i)
		}
		if len(again) == 0 {
			return errs
		}
		if nacked && !pause(ctx, nackPause<<try) {
			return errs
		}
		for j, err := range b.tryPart(ctx, again) {
			errs[places[j]] = err
		}
	}
	return errs
}

// mayRepeat reports whether a second message, should the first be there after all, does no
// harm: it could start an at-most-once task again, or have it be taken for lost.
func (i *item) mayRepeat() bool { return !i.m.Once || !i.m.NoRecord && !i.again }

// deleted says that a queue is not there any more.
func (b *Broker) deleted(queue string) {
	b.topology.forgetAll()
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.deleted(queue)
	}
}

// pause waits for d. It reports false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *Broker) tryPart(ctx context.Context, items []item) []error {
	errs := make([]error, len(items))
	s, err := b.publishing.session(ctx)
	if err != nil {
		return fill(errs, err)
	}
	needs := make([]need, len(items))
	for i := range items {
		needs[i] = items[i].need(b)
	}
	if err := b.topology.ensure(ctx, needs...); err != nil {
		if len(items) == 1 {
			return fill(errs, err)
		}
		for i := range items { // each for itself: one that cannot be declared is no matter of the others
			errs[i] = b.tryPart(ctx, items[i:i+1])[0]
		}
		return errs
	}
	if err := s.gate(ctx); err != nil {
		return fill(errs, err)
	}
	p, err := s.publisher(ctx)
	if err != nil {
		return fill(errs, err)
	}
	return p.publish(ctx, items, b)
}

// checkMessage reports why m cannot be stored.
func checkMessage(m *driver.Message) error {
	if err := cmp.Or(driver.CheckID(m.ID), driver.CheckQueue(m.Queue)); err != nil {
		return fmt.Errorf("amqp: %w", err)
	}
	if len(m.Envelope) > maxMessage {
		return fmt.Errorf("amqp: %s: %d bytes, at most %d are taken: %w", m.ID, len(m.Envelope), maxMessage, driver.ErrTooLarge)
	}
	return nil
}

// Publish implements [driver.Broker]. Nothing is deduplicated. While the server is out
// of memory or disk space, and while it is away, it waits within ctx.
func (b *Broker) Publish(ctx context.Context, msgs []*driver.Message) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	errs := make([]error, len(msgs))
	items, places := make([]item, 0, len(msgs)), make([]int, 0, len(msgs))
	for i, m := range msgs {
		if errs[i] = checkMessage(m); errs[i] == nil {
			items, places = append(items, item{m: m, copy: b.copyName(), ms: millis(m.Delay)}), append(places, i)
		}
	}
	for j, err := range b.send(ctx, items) {
		errs[places[j]] = b.over(err)
	}
	return driver.Batch(errs)
}
