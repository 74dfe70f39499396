package amqp

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	unaskedFor = 50 * time.Millisecond  // for so long is kept what nobody asks for
	lacking    = 5 * time.Millisecond   // for so long a Receive waits before more is asked of the server
	soon       = 5 * time.Second        // within which the server sends what it says it has
	asking     = 3 * time.Millisecond   // after which it is asked whether it has
	arriving   = 20 * time.Millisecond  // from when it has sent something until that is here
	ackTaken   = 200 * time.Millisecond // within which a busy server has taken an ack
	lastCall   = 5 * time.Second        // for giving back, when the worker stops
	idle       = 5 * time.Second        // after which a subscription makes sure that it is one
	restMin    = 100 * time.Millisecond // for so long a queue rests that nobody asked, while another is served
	restMax    = 2 * time.Second
)

// suspect is from which count a message may be what kills its workers. While there are
// some, nothing is kept at hand: the server counts a death for all that was pushed,
// received or not.
const suspect = 3

// suspicion is for how long there may be more of them.
const suspicion = time.Second

// A subscription takes messages for one worker. The server pushes them; what was pushed
// and not received waits in the buffers of its sources, and goes back if nobody asks.
type subscription struct {
	b        *Broker
	strict   bool
	prefetch int
	ctx      context.Context // of its own work; ends with it
	cancel   context.CancelFunc
	wake     chan struct{} // capacity 1: look again
	done     chan struct{} // closed by Stop and Close
	opened   chan struct{} // closed with the first feed

	receiving sync.Mutex // one Receive at a time
	control   sync.Mutex // one call on the channel at a time, for the library mixes up the answers
	work      sync.WaitGroup

	mu      sync.Mutex
	lanes   []*lane
	gone    []*lane // that it had before, of which something may have to go back
	feed    *feed   // nil while there is no connection
	held    int     // received and not settled, of feed
	stopped bool
	closed  bool
	growing bool
	asks    bool    // the server whether it sends more
	timed   bool    // looks for what nobody asks for
	careful bool    // nobody asked before: ask the server for what is asked for only
	giving  bool    // back, so that what is there is not all
	taken   *source // from which the last delivery was received

	suspects  int       // that came and are not settled
	suspected time.Time // when the last one came
}

// A feed is the subscription's channel on one session. Deliveries belong to it, and are
// lost with it.
type feed struct {
	s     *session
	ch    *amqp.Channel
	lost  chan struct{} // closed when it has ended
	ended bool          // under the subscription's mu

	acking sync.Mutex // held while acks are written, which must not overtake each other
	acked  tags
	last   time.Time // when the last acks were written
}

// Subscribe implements [driver.Broker].
func (b *Broker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("amqp: subscribe: %w", err)
	}
	s := &subscription{b: b, strict: o.Strict, prefetch: o.Prefetch, wake: make(chan struct{}, 1),
		done: make(chan struct{}), opened: make(chan struct{})}
	lanes, err := s.lanesOf(ctx, o.Queues)
	if err != nil {
		return nil, b.over(err)
	}
	s.lanes = lanes
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := b.enter(s); err != nil {
		s.cancel()
		return nil, err
	}
	s.work.Go(s.run)
	select {
	case <-s.opened:
		return s, nil
	case <-s.done:
		return nil, driver.ErrClosed
	case <-ctx.Done():
		s.Close(context.Background())
		return nil, notConnected(ctx)
	}
}

// lanesOf makes queues ready to be received from. Those that s has are kept.
func (s *subscription) lanesOf(ctx context.Context, specs []driver.QueueSpec) ([]*lane, error) {
	have := map[string]*lane{}
	s.mu.Lock()
	for _, l := range s.known() {
		have[l.queue] = l
	}
	s.mu.Unlock()
	lanes := make([]*lane, 0, len(specs))
	for _, spec := range specs {
		l := have[spec.Name]
		if l == nil {
			l = newLane(s.b.names, spec.Name)
		}
		lanes = append(lanes, l)
	}
	if err := s.declare(ctx, sourcesOf(lanes...)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range lanes {
		l.weight = max(1, specs[i].Weight)
	}
	return lanes, nil
}

// declare makes sure that the queues of srcs are there.
func (s *subscription) declare(ctx context.Context, srcs []*source) error {
	needs := make([]need, len(srcs))
	for i, src := range srcs {
		needs[i] = need{queue: src.lane.queue, level: src.level}
	}
	return s.b.topology.ensure(ctx, needs...)
}

// run keeps a feed, until the subscription ends.
func (s *subscription) run() {
	for first := true; ; {
		session, err := s.b.consuming.session(s.ctx)
		if err != nil {
			return
		}
		ch, err := session.channel(s.ctx)
		if err != nil {
			if !pause(s.ctx, firstPause) {
				return
			}
			continue
		}
		closes := ch.NotifyClose(make(chan *amqp.Error, 1))
		f := &feed{s: session, ch: ch, lost: make(chan struct{})}
		s.mu.Lock()
		s.feed = f
		s.mu.Unlock()
		if first {
			close(s.opened)
			first = false
		}
		s.signal()
		select {
		case err := <-closes:
			s.drop(f)
			if err != nil && session.alive() {
				s.b.log.Warn("amqp: the server ended a subscription, which begins again", "error", err)
			}
		case <-s.ctx.Done():
			s.drop(f)
			return
		}
		if s.isStopped() {
			return
		}
	}
}

// drop ends f: what it brought is lost.
func (s *subscription) drop(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.ended {
		return
	}
	f.ended = true
	close(f.lost)
	s.feed, s.held, s.careful = nil, 0, false
	s.suspects, s.suspected = 0, time.Time{}
	for _, l := range s.known() {
		l.clear()
	}
	s.signal()
}

// known returns, under mu, the lanes that s has or had.
func (s *subscription) known() []*lane { return slices.Concat(s.lanes, s.gone) }

// narrow reports, under mu, whether nothing may be kept at hand.
func (s *subscription) narrow() bool {
	return s.suspects > 0 || time.Since(s.suspected) < suspicion
}

func (s *subscription) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped || s.closed
}

// signal has a waiting Receive look again.
func (s *subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// spawn runs f apart. It reports false, and does not, if s is closed.
func (s *subscription) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spawnLocked(f)
}

func (s *subscription) spawnLocked(f func()) bool {
	if !s.closed {
		s.work.Go(f)
	}
	return !s.closed
}

// check reports why a call cannot be made.
func (s *subscription) check(ctx context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return driver.ErrClosed
	}
	return s.b.check(ctx)
}

// Receive implements [driver.Subscription].
func (s *subscription) Receive(ctx context.Context, limit int) ([]*driver.Delivery, error) {
	if limit < 1 {
		return nil, fmt.Errorf("amqp: receive: max is %d, want at least 1", limit)
	}
	s.receiving.Lock()
	defer s.receiving.Unlock()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for begin := time.Now(); ; {
		if err := s.check(ctx); err != nil {
			return nil, err
		}
		ds, narrow, wait, err := s.next(limit, time.Since(begin) >= lacking)
		if len(ds) > 0 && narrow {
			s.giveAllBack()
		}
		if err != nil || len(ds) > 0 {
			return ds, err
		}
		timer.Reset(wait)
		select {
		case <-s.wake:
		case <-timer.C:
			if wait == idle {
				s.spawn(s.probe)
			}
		case <-s.done:
		case <-ctx.Done():
		}
	}
}

// next takes what is there, up to limit, or says after how long to look again. Narrow
// says that nothing else may be at hand. Where nothing is there and the server may not
// send enough, it is asked to; where it was asked before, only if the wait was long.
func (s *subscription) next(limit int, long bool) (ds []*driver.Delivery, narrow bool, wait time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, false, 0, driver.ErrClosed
	}
	n := min(limit, s.prefetch-s.held)
	if narrow = s.narrow(); narrow {
		n = min(n, 1)
	}
	if n <= 0 || s.feed == nil || s.giving {
		return nil, narrow, idle, nil
	}
	ds, until := s.take(n, time.Now())
	switch {
	case len(ds) > 0:
		return ds, narrow, 0, nil
	case until != nil:
		switch e := until.expected; {
		case e == nil:
			s.growFor(until.lane, n)
		case !e.until.IsZero():
			return nil, narrow, max(time.Until(e.until), time.Millisecond), nil
		case !s.asks:
			s.asks = true
			s.spawnLocked(func() { s.ask(until) })
		}
		return nil, narrow, idle, nil
	}
	return nil, narrow, s.want(n, long), nil
}

// want has the server send n more, and returns after how long to look again.
func (s *subscription) want(n int, long bool) time.Duration {
	lack := s.lack(n, time.Now())
	if lack == lacksSome && !long {
		return lacking
	}
	if lack != lacksNone {
		s.startGrowing(sourcesOf(s.lanes...), n)
	}
	return idle
}

// Stop implements [driver.Subscription].
func (s *subscription) Stop(ctx context.Context) error {
	s.mu.Lock()
	stopped := s.stopped
	if !s.stopped && !s.closed {
		s.stopped = true
		close(s.done)
	}
	s.mu.Unlock()
	if stopped {
		return nil
	}
	if err := s.apart(ctx, s.giveAllBack); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

// SetQueues implements [driver.Subscription].
func (s *subscription) SetQueues(ctx context.Context, qs []driver.QueueSpec) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := driver.CheckQueues(qs); err != nil {
		return fmt.Errorf("amqp: set queues: %w", err)
	}
	lanes, err := s.lanesOf(ctx, qs)
	if err != nil {
		return s.b.over(err)
	}
	return s.apart(ctx, func() {
		s.control.Lock()
		defer s.control.Unlock()
		s.mu.Lock()
		f := s.feed
		s.gone = slices.DeleteFunc(s.known(), func(l *lane) bool { return slices.Contains(lanes, l) })
		s.lanes = lanes
		gone := sourcesOf(s.gone...)
		s.mu.Unlock()
		s.signal()
		if f != nil {
			s.giveBack(f, gone, false)
		}
	})
}

// apart runs f, and waits for it within ctx.
func (s *subscription) apart(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if !s.spawn(func() { defer close(done); f() }) {
		return driver.ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-s.ctx.Done():
		return driver.ErrClosed
	case <-ctx.Done():
		return driver.Transient(ctx.Err())
	}
}

// Close implements [driver.Subscription].
func (s *subscription) Close(context.Context) error {
	s.mu.Lock()
	closed, f := s.closed, s.feed
	if !s.stopped && !closed {
		close(s.done)
	}
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.b.leave(s)
	if f != nil && !s.b.consuming.rude.Load() {
		s.sayGoodbye(f)
	}
	s.cancel()
	ended := make(chan struct{})
	go func() { s.work.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(goodbye): // calls on a dead connection end with it
	}
	return nil
}

// sayGoodbye closes the channel once the server has taken the last acks: it keeps those to
// itself that come while a queue is busy with others, does not tell of it, and drops them
// when the channel is closed.
func (s *subscription) sayGoodbye(f *feed) {
	ctx, cancel := context.WithTimeout(context.Background(), lastCall)
	defer cancel()
	f.acking.Lock()
	last := f.last
	f.acking.Unlock()
	pause(ctx, time.Until(last.Add(ackTaken)))
	rpc(ctx, func() error {
		s.control.Lock()
		defer s.control.Unlock()
		f.barrier()
		f.barrier()
		return f.ch.Close()
	})
}

// barrier waits until the server has read what was written to the channel.
func (f *feed) barrier() { f.ch.Qos(1, 0, false) }
