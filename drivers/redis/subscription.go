package redis

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// tick is how often a subscription that waits looks for leases that ran out. It
// is told of all else, and this makes good what it was not told.
const tick = time.Second

// A subscription takes messages for one worker.
type subscription struct {
	broker   *Broker
	strict   bool
	prefetch int
	lease    time.Duration
	token    string
	wake     chan struct{} // capacity 1: look again
	done     chan struct{} // closed by Stop and Close
	closed   atomic.Bool

	receiving sync.Mutex      // one Receive at a time
	given     <-chan struct{} // closed once the last Receive's late claim is undone, nil if it had none
	late      sync.WaitGroup  // claims that nobody waits for
	leaves    atomic.Uint64   // how often s was to wait no more

	mu      sync.Mutex
	sources []source
	held    int                  // credit that is taken
	holds   map[*handle]struct{} // deliveries that take some
	stopped bool
	waits   int       // for how many the server has it wait, 0 if it does not
	looked  time.Time // for leases that ran out
	silence uint64    // the last one that the server knows of, by its number
}

// A source is a queue of a subscription.
type source struct {
	name, key string
	weight    int
	owed      float64 // messages that it should have given already, by its weight
}

// Subscribe implements [driver.Broker].
func (b *Broker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("redis: subscribe: %w", err)
	}
	s := &subscription{broker: b, strict: o.Strict, prefetch: o.Prefetch, lease: o.Lease,
		token: strconv.FormatUint(b.conn.serial.Add(1), 36), wake: make(chan struct{}, 1), done: make(chan struct{}),
		holds: map[*handle]struct{}{}}
	sources, err := s.enter(ctx, o.Queues)
	if err != nil {
		return nil, err
	}
	s.sources = sources
	b.conn.silence.expects(o.Lease)
	s.silence = b.conn.silence.ended.Load()
	b.conn.hub.join(s.token, s.wake)
	return s, nil
}

// enter makes queues ready to be received from.
func (s *subscription) enter(ctx context.Context, specs []driver.QueueSpec) ([]source, error) {
	c := s.broker.conn
	sources := make([]source, 0, len(specs))
	for _, spec := range specs {
		src := source{name: spec.Name, key: c.queueKey(spec.Name), weight: max(1, spec.Weight)}
		sources = append(sources, src)
	}
	if len(sources) == 0 {
		return nil, nil
	}
	names := make([]string, len(sources))
	for i, src := range sources {
		names[i] = src.name
	}
	if c.cluster && len(sources) > 1 { // no queue is made if another one refuses
		if err := s.createAll(ctx, "0", sources); err != nil {
			return nil, err
		}
	}
	if err := s.createAll(ctx, "1", sources); err != nil {
		return nil, err
	}
	return sources, s.broker.list(ctx, names)
}

func (s *subscription) createAll(ctx context.Context, create string, sources []source) error {
	keyOf := func(src source) string { return src.key }
	for _, err := range each(s.broker.conn, sources, keyOf, func(key string, sources []source) []error {
		return []error{s.create(ctx, key, create, sources)}
	}) {
		if err != nil {
			return err
		}
	}
	return nil
}

// create makes queues that are not there, of the lease of s. If create is "0" it only
// looks whether they are of another.
func (s *subscription) create(ctx context.Context, key, create string, sources []source) error {
	args := []any{s.broker.conn.scope(key), s.lease.Milliseconds(), create}
	for _, src := range sources {
		args = append(args, src.key)
	}
	value, err := s.broker.call(ctx, subscribeScript, key, args...)
	if err != nil {
		return err
	}
	if i, _ := value.(int64); i > 0 {
		return fmt.Errorf("redis: queue %q: %w", sources[i-1].name, driver.ErrLeaseMismatch)
	}
	return nil
}

// check reports why a call cannot be made.
func (s *subscription) check(ctx context.Context) error {
	if s.closed.Load() {
		return driver.ErrClosed
	}
	return s.broker.check(ctx)
}

// Receive implements [driver.Subscription].
func (s *subscription) Receive(ctx context.Context, limit int) ([]*driver.Delivery, error) {
	if limit < 1 {
		return nil, fmt.Errorf("redis: receive: max is %d, want at least 1", limit)
	}
	s.receiving.Lock()
	defer s.receiving.Unlock()
	s.undone(ctx)
	for {
		if err := s.over(ctx); err != nil {
			return nil, err
		}
		due, leaves := tick, s.leaves.Load()
		if n, shares := s.plan(limit); n > 0 && len(shares) > 0 {
			ds, next, err := s.claim(ctx, n, shares)
			if err != nil && ctx.Err() != nil {
				s.given = s.undoing()
			}
			if err != nil || len(ds) > 0 {
				s.charge(n, shares, ds)
				return ds, err
			}
			if s.leaves.Load() != leaves { // maybe before the server had s wait
				s.withdraw(n, shares)
				continue
			}
			due = next
		}
		if err := s.wait(ctx, due); err != nil {
			return nil, err
		}
	}
}

// undoing returns a channel that is closed once all late claims are undone.
func (s *subscription) undoing() <-chan struct{} {
	given := make(chan struct{})
	go func() {
		s.late.Wait()
		close(given)
	}()
	return given
}

// undone waits for the late claim of the last Receive, which would have the server
// let s wait, or no longer wait, at the wrong moment.
func (s *subscription) undone(ctx context.Context) {
	if s.given == nil {
		return
	}
	select {
	case <-s.given:
		s.given = nil
	case <-s.done:
	case <-s.broker.done:
	case <-ctx.Done():
	}
}

// over reports why nothing is received any more.
func (s *subscription) over(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return driver.ErrClosed
	}
	return nil
}

// wait waits until there may be something.
func (s *subscription) wait(ctx context.Context, due time.Duration) error {
	timer := time.NewTimer(min(due, tick))
	defer timer.Stop()
	select {
	case <-s.wake:
		return nil
	case <-timer.C:
		return nil
	case <-s.done:
	case <-s.broker.done:
	case <-ctx.Done():
		s.leave(nil)
		return driver.Transient(ctx.Err())
	}
	s.leave(nil)
	return driver.ErrClosed
}

// leave has the server no longer let s wait. Somebody else is told what it was
// told in vain.
func (s *subscription) leave(sources []source) {
	s.mu.Lock()
	s.leaves.Add(1)
	waits := s.waits
	s.waits = 0
	if sources == nil {
		sources = s.sources
	}
	s.mu.Unlock()
	if waits == 0 {
		return
	}
	keys := make([]string, len(sources))
	for i := range sources {
		keys[i] = sources[i].key
	}
	s.waitNoMore(waits, keys)
}

// withdraw is leave for a claim that had the server let s wait after leave.
func (s *subscription) withdraw(n int, shares []share) {
	s.mu.Lock()
	s.waits = 0
	s.mu.Unlock()
	keys := make([]string, len(shares))
	for i := range shares {
		keys[i] = shares[i].key
	}
	s.waitNoMore(n, keys)
}

func (s *subscription) waitNoMore(waits int, keys []string) {
	c := s.broker.conn
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	each(c, keys, func(key string) string { return key }, func(key string, keys []string) []error {
		c.run(ctx, leaveScript, key, append([]any{c.hub.channel, s.token, waits}, anys(keys)...)...)
		return nil
	})
}

// plan says how many messages to ask for, and how they are shared among the
// queues, in the order in which these are served.
func (s *subscription) plan(limit int) (int, []share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held >= s.prefetch {
		s.forget(time.Now())
	}
	// In parts, so that some run while the server makes others ready.
	n := min(limit, s.prefetch-s.held, (s.prefetch+3)/4, atOnce)
	if n <= 0 {
		return 0, nil
	}
	shares := make([]share, len(s.sources))
	for i := range s.sources {
		shares[i] = share{key: s.sources[i].key, name: s.sources[i].name}
	}
	if s.strict || len(shares) < 2 {
		for i := range shares {
			shares[i].n = n
		}
		return n, shares
	}
	return n, s.weigh(n, shares)
}

// forget gives the credit back of deliveries that nobody settles or extends any
// more: their leases have run out. s.mu is held.
func (s *subscription) forget(now time.Time) {
	for h := range s.holds {
		if now.After(h.until) {
			s.held--
			delete(s.holds, h)
		}
	}
}

// A share is how many messages a queue may give.
type share struct {
	n         int
	key, name string
}

// weigh deals n turns out by weight, smoothly: whoever is owed most is next, and gets
// the turns of those that turn out to be empty.
func (s *subscription) weigh(n int, shares []share) []share {
	owed, total := make([]float64, len(shares)), 0
	for i := range s.sources {
		owed[i] = s.sources[i].owed
		total += s.sources[i].weight
	}
	order := make([]int, 0, len(shares))
	for range n {
		best := 0
		for i := range owed {
			owed[i] += float64(s.sources[i].weight) / float64(total)
			if owed[i] > owed[best] {
				best = i
			}
		}
		owed[best]--
		if shares[best].n++; shares[best].n == 1 {
			order = append(order, best)
		}
	}
	served := len(order)
	for i := range shares {
		if shares[i].n == 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order[served:], func(a, b int) int { return cmp.Compare(owed[b], owed[a]) })
	ordered := make([]share, len(order))
	for at, i := range order {
		ordered[at] = shares[i]
	}
	return ordered
}

// charge notes which queues gave ds, of n messages that they were asked for as shares
// says. Among those that have more, each is owed its part by weight.
func (s *subscription) charge(n int, shares []share, ds []*driver.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strict || len(shares) < 2 || len(ds) == 0 {
		return
	}
	took := map[string]int{}
	for _, d := range ds {
		took[d.Queue]++
	}
	have := having(n, shares, ds, took)
	taken, total := 0, 0
	for _, src := range s.sources {
		if have[src.name] {
			taken += took[src.name]
			total += src.weight
		}
	}
	for i := range s.sources {
		if src := &s.sources[i]; have[src.name] {
			src.owed += float64(taken*src.weight)/float64(total) - float64(took[src.name])
		}
	}
}

// having returns the queues that are not known to be empty after a claim. It served
// them by their shares first, and then in their order.
func having(n int, shares []share, ds []*driver.Delivery, took map[string]int) map[string]bool {
	size, passed := 0, 0 // passed is how many queues were asked for all they have
	for _, d := range ds {
		size += len(d.Envelope)
	}
	for i, sh := range shares {
		if took[sh.name] > sh.n {
			passed = i
		}
	}
	if len(ds) < n {
		passed = len(shares)
	}
	have := make(map[string]bool, len(shares))
	for i, sh := range shares {
		empty := took[sh.name] < sh.n || took[sh.name] == 0 && i < passed
		have[sh.name] = !empty || size >= bytesAtOnce // then the claim may have ended for that
	}
	return have
}

// claim asks the server for up to n messages. If there are none it says when the
// next is due, and the server lets s wait.
func (s *subscription) claim(ctx context.Context, n int, shares []share) ([]*driver.Delivery, time.Duration, error) {
	b := s.broker
	s.mu.Lock()
	ask := question{n: n, look: noLook}
	if time.Since(s.looked) >= tick {
		ask.look, s.looked = looks, time.Now()
		if b.conn.silence.after(s.silence) {
			ask.look = breaks
		}
	}
	ask.waits = s.waits
	s.waits = n
	s.held += n // until it is known how many there are
	s.mu.Unlock()
	r, late := b.conn.start(ctx, func(ctx context.Context) (any, error) {
		if b.conn.cluster && len(shares) > 1 {
			return s.askEach(ctx, ask, shares)
		}
		return s.ask(ctx, ask, true, shares)
	})
	if late != nil {
		s.late.Go(func() { s.giveBack(<-late, n, shares) })
		return nil, 0, driver.Transient(ctx.Err())
	}
	if r.err != nil {
		s.charged(n, 0)
		if errors.Is(r.err, driver.ErrTransient) {
			s.stillWaits(ask.waits)
		}
		if b.closed.Load() {
			r.err = driver.ErrClosed
		}
		return nil, 0, r.err
	}
	if ask.look == breaks {
		s.mu.Lock()
		s.silence = b.conn.silence.ended.Load()
		s.mu.Unlock()
	}
	ds, due, err := s.deliveries(r.value, shares)
	s.charged(n, len(ds))
	if len(ds) > 0 {
		s.stillWaits(0)
	}
	return ds, due, err
}

// charged has a claim for n messages, of which there were fewer, take no more credit than
// these. Unlike credit it wakes nobody: who claims knows.
func (s *subscription) charged(n, taken int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held -= n - taken
}

// stillWaits notes for how many messages the server has s wait.
func (s *subscription) stillWaits(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = n
}

// A question is what claims have in common.
type question struct {
	n     int // how many messages
	waits int // for how many the server has s wait, 0 if it does not
	look  string
}

// How a claim looks for leases that ran out.
const (
	noLook = "0"
	looks  = "1"
	breaks = "2" // and says that the server was silent: nobody could extend
)

// ask claims messages. If there are none the server lets s wait, if it is to.
func (s *subscription) ask(ctx context.Context, q question, wait bool, shares []share) (any, error) {
	b := s.broker
	key, waits := shares[0].key, "0"
	if wait {
		waits = "1"
	}
	args := []any{b.conn.scope(key), b.conn.hub.channel, s.token, q.n, b.covers(), s.lease.Milliseconds(), q.waits, q.look, waits}
	for _, sh := range shares {
		args = append(args, sh.key, sh.n)
	}
	return b.conn.eval(ctx, claimScript, key, args)
}

// giveBack undoes a claim that nobody waited for.
func (s *subscription) giveBack(late reply, n int, shares []share) {
	if late.err != nil {
		s.credit(n)
		return
	}
	ds, _, _ := s.deliveries(late.value, shares)
	s.credit(n - len(ds))
	if len(ds) == 0 {
		s.withdraw(n, shares)
		return
	}
	ss := make([]driver.Settlement, len(ds))
	for i, d := range ds {
		ss[i] = driver.Settlement{Delivery: d, Action: driver.Release}
	}
	s.settleAll(context.Background(), ss)
	for _, d := range ds {
		s.release(s.handleOf(d)) // whatever became of it: nobody else has it
	}
}

// credit makes room for n more deliveries.
func (s *subscription) credit(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	full := s.held >= s.prefetch
	s.held -= n
	s.mu.Unlock()
	if full {
		signal(s.wake)
	}
}

// A handle is the token of a hand-out.
type handle struct {
	sub        *subscription
	key        string // of the queue
	level      byte
	entry      string
	generation uint32
	id         string
	tracked    bool
	settling   atomic.Int32
	settled    chan struct{} // on a cluster: closed once the settlement in progress has ended; nil if there is none; guarded by sub.mu
	until      time.Time     // its lease runs out, at the latest; guarded by sub.mu
}

// release gives the credit of hs back, of each once, and all together: the next
// claim is for as many.
func (s *subscription) release(hs ...*handle) {
	n := 0
	s.mu.Lock()
	for _, h := range hs {
		if _, holds := s.holds[h]; holds {
			delete(s.holds, h)
			n++
		}
	}
	s.mu.Unlock()
	s.credit(n)
}

// renew notes that the lease of h was extended.
func (h *handle) renew(now time.Time) {
	h.sub.mu.Lock()
	defer h.sub.mu.Unlock()
	h.until = now.Add(h.sub.lease)
}

// handleOf returns the handle of d if it is s's.
func (s *subscription) handleOf(d *driver.Delivery) *handle {
	if d == nil {
		return nil
	}
	if h, ok := d.Handle.(*handle); ok && h.sub == s {
		return h
	}
	return nil
}

const (
	perClaim  = 3  // values of a delivery, see lua/claim.lua
	claimHead = 11 // bytes of the first
)

// copyOf names a stored message, as copy_of in lua/queue.lua does.
func copyOf(h *handle) string {
	queue := h.key[strings.IndexByte(h.key, '{')+1 : len(h.key)-1]
	return h.entry + string('a'+rune(h.level)) + queue[max(0, len(queue)-200):]
}

// deliveries makes deliveries of the reply to a claim.
func (s *subscription) deliveries(value any, shares []share) ([]*driver.Delivery, time.Duration, error) {
	vs, ok := value.([]any)
	if !ok || len(vs)%perClaim != 1 {
		return nil, 0, fmt.Errorf("redis: a claim is answered by %v", value)
	}
	ms, _ := vs[0].(int64)
	due := tick
	if ms >= 0 {
		due = time.Duration(ms)*time.Millisecond + time.Millisecond
	}
	var ds []*driver.Delivery
	until := time.Now().Add(s.lease)
	for i := 1; i < len(vs); i += perClaim {
		head, _ := vs[i].(string)
		entry, _ := vs[i+1].(string)
		blob, _ := vs[i+2].(string)
		if len(head) != claimHead {
			return nil, 0, fmt.Errorf("redis: a claim is answered by %v", value)
		}
		b := []byte(head)
		sh := shares[binary.BigEndian.Uint16(b)-1]
		d := &driver.Delivery{Count: int(binary.BigEndian.Uint32(b[7:]))}
		d.Queue = sh.name
		h := &handle{sub: s, key: sh.key, level: b[2], entry: entry, generation: binary.BigEndian.Uint32(b[3:]), until: until}
		if err := decodeMessage([]byte(blob), d); err != nil {
			s.broker.conn.log.Error("redis: a message or its record is damaged; it stays where it is", "queue", sh.name, "entry", entry, "error", err)
			continue
		}
		h.id, h.tracked = d.ID, tracked(&d.Message)
		d.Handle, d.Copy = h, copyOf(h)
		ds = append(ds, d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		s.holds[d.Handle.(*handle)] = struct{}{}
	}
	return ds, due, nil
}

// SetQueues implements [driver.Subscription].
func (s *subscription) SetQueues(ctx context.Context, specs []driver.QueueSpec) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := driver.CheckQueues(specs); err != nil {
		return fmt.Errorf("redis: set queues: %w", err)
	}
	sources, err := s.enter(ctx, specs)
	if err != nil {
		return err
	}
	s.mu.Lock()
	before := s.sources
	s.sources = sources
	s.mu.Unlock()
	s.leave(before)
	signal(s.wake)
	return nil
}

// Stop implements [driver.Subscription]. Nothing is prefetched that was not
// received, so there is nothing to give back.
func (s *subscription) Stop(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	return s.end(ctx)
}

// Close implements [driver.Subscription].
func (s *subscription) Close(ctx context.Context) error {
	err := s.end(ctx)
	s.closed.Store(true)
	return err
}

// end ends receiving, and waits until what was claimed too late is given back.
func (s *subscription) end(ctx context.Context) error {
	s.mu.Lock()
	ended := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if ended || s.broker.closed.Load() {
		return nil
	}
	close(s.done)
	s.broker.conn.hub.part(s.token)
	s.leave(nil)
	select {
	case <-s.undoing():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
