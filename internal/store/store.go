package store

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A Store holds the tasks and records of any number of namespaces. Its brokers
// and backends are clients: several of them on one store behave like several
// processes on one server. What it holds outlives its clients, but no timer
// runs while it has none. It is safe for concurrent use.
type Store struct {
	options Options
	base    time.Time // zero of its clock
	nonce   string    // keeps copies of two stores apart
	seed    maphash.Seed

	runs     uint64 // granted runs are above
	suspects uint64 // messages up to this number may have killed the process

	copies  atomic.Uint64
	pending atomic.Int64
	// envelopes counts the bytes of those in RAM that the journal has as well.
	envelopes atomic.Int64
	max       atomic.Int64

	life    sync.Mutex   // guards the coming and going of clients
	clients atomic.Int64 // written under life
	failed  atomic.Pointer[error]
	down    chan struct{} // closed once failed is set

	mu     sync.Mutex
	spaces map[string]*space
}

// Options say whose store it is.
type Options struct {
	// Driver is the driver's name: in Info and before errors.
	Driver string
	// Journal, if not nil, keeps what the store holds: it is durable.
	Journal Journal
	// MaxMessage and MaxBody limit envelopes and results, in bytes; 0 is no
	// limit.
	MaxMessage, MaxBody int
	// Cached is how many records stay in RAM that the journal has; 0 is 65536,
	// less is none.
	Cached int
	// Nonce keeps the copies of two stores apart. A store that is restored has
	// the one it had before. Empty: a random one.
	Nonce string
	// Left, if not nil, is called after the last client has gone, and again
	// whenever that happens. Ask Idle under a lock of your own before you let
	// the store go: a new client may have come.
	Left func()
}

// New returns an empty store.
func New(o Options) *Store {
	return &Store{
		options: o,
		base:    time.Now(),
		nonce:   cmp.Or(o.Nonce, NewNonce()) + "-",
		seed:    maphash.MakeSeed(),
		down:    make(chan struct{}),
		spaces:  map[string]*space{},
	}
}

// NewNonce returns a random nonce.
func NewNonce() string { return strconv.FormatUint(rand.Uint64N(1<<40), 36) }

// SetMax limits how many messages may be pending: ready, delayed or leased.
// A publish beyond is refused with [driver.ErrFull], which is transient.
// What a settlement or a replay puts back is not refused. Zero is no limit.
func (s *Store) SetMax(n int) { s.max.Store(int64(n)) }

// Broker returns a new broker on the store. Close it after use.
func (s *Store) Broker(namespace string) *Broker {
	return &Broker{client: newClient(s, namespace), subs: map[*subscription]struct{}{}}
}

// Backend returns a new backend on the store. Close it after use. From then
// on the brokers of the same store and namespace cover it.
func (s *Store) Backend(namespace string) *Backend {
	b := &Backend{client: newClient(s, namespace), streams: map[*notifications]struct{}{}}
	b.space.covering.Store(true)
	return b
}

// Idle reports whether the store has no client.
func (s *Store) Idle() bool { return s.clients.Load() == 0 }

// attach counts a client; the first one starts the timers.
func (s *Store) attach() {
	s.life.Lock()
	defer s.life.Unlock()
	if s.clients.Add(1) == 1 {
		s.eachQueue(func(q *queue) { q.tick(s.now().at); q.wake(); q.arm(s.now().at) })
		for _, sp := range s.allSpaces() {
			sp.sweeper.start()
		}
	}
}

// detach counts a client out; the last one stops the timers.
func (s *Store) detach() {
	if s.leave() && s.options.Left != nil {
		s.options.Left()
	}
}

// leave reports whether it was the last client that left.
func (s *Store) leave() bool {
	s.life.Lock()
	defer s.life.Unlock()
	if s.clients.Add(-1) > 0 {
		return false
	}
	s.eachQueue((*queue).disarm)
	for _, sp := range s.allSpaces() {
		sp.sweeper.stop()
	}
	return true
}

func (s *Store) eachQueue(f func(*queue)) {
	for _, sp := range s.allSpaces() {
		for _, q := range sp.allQueues() {
			q.mu.Lock()
			f(q)
			q.mu.Unlock()
		}
	}
}

func (s *Store) allSpaces() []*space {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*space, 0, len(s.spaces))
	for _, sp := range s.spaces {
		all = append(all, sp)
	}
	return all
}

func (s *Store) space(namespace string) *space {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.spaces[namespace]
	if sp == nil {
		sp = newSpace(s, namespace)
		s.spaces[namespace] = sp
	}
	return sp
}

// An instant is a moment on the store's clock.
type instant struct {
	at   int64 // nanoseconds since Store.base, monotonic: leases, delays, ages
	unix int64 // Unix nanoseconds
}

// ms returns the moment in Unix milliseconds, as records show it.
func (now instant) ms() int64 { return now.unix / int64(time.Millisecond) }

// forever is the longest time that is kept: what begins before it ends does
// not overflow.
const forever = math.MaxInt64 / 2

// after returns the moment that comes d later.
func (now instant) after(d time.Duration) int64 { return now.at + int64(min(d, forever)) }

func (s *Store) now() instant {
	t := time.Now()
	return instant{int64(t.Sub(s.base)), t.UnixNano()}
}

// reserve counts n messages as pending and returns how many of them fit.
func (s *Store) reserve(n int) int {
	limit, total := s.max.Load(), s.pending.Add(int64(n))
	if limit <= 0 || total <= limit {
		return n
	}
	over := min(int64(n), total-limit)
	s.pending.Add(-over)
	return n - int(over)
}

// copyNames returns n names of stored messages, which share one allocation,
// and the number that the first is made of. The slice is w's.
func (s *Store) copyNames(w *scratch, n int) ([]string, uint64) {
	w.text, w.ends = w.text[:0], w.ends[:0]
	last := s.copies.Add(uint64(n))
	for i := range n {
		w.text = append(w.text, s.nonce...)
		w.text = strconv.AppendUint(w.text, last-uint64(n-1-i), 36)
		w.ends = append(w.ends, len(w.text))
	}
	all, from := string(w.text), 0
	for _, end := range w.ends {
		w.names = append(w.names, all[from:end])
		from = end
	}
	return w.names[len(w.names)-n:], last - uint64(n-1)
}

// Last returns the highest number that was given out.
func (s *Store) Last() uint64 { return s.copies.Load() }

// copyName returns the name that is made of seq.
func (s *Store) copyName(seq uint64) string { return s.nonce + strconv.FormatUint(seq, 36) }

// A space is one namespace of a store.
type space struct {
	store   *Store
	name    string
	invalid error // what is wrong with name
	// covering is set for good once the space has a backend: from then on its
	// brokers apply records and obey them.
	covering atomic.Bool
	runs     atomic.Uint64
	shards   [shards]shard
	sweeper  sweeper
	control  control
	replies  replies

	mu     sync.RWMutex
	queues map[string]*queue
}

func newSpace(s *Store, name string) *space {
	sp := &space{store: s, name: name, queues: map[string]*queue{}}
	if err := driver.CheckNamespace(name); err != nil {
		sp.invalid = s.wrap("namespace", err)
	}
	sp.runs.Store(s.runs)
	sp.sweeper.space = sp
	for i := range sp.shards {
		sp.shards[i].space = sp
	}
	return sp
}

// queue returns the queue of that name, which it creates if need be.
func (sp *space) queue(name string) *queue {
	if q := sp.lookup(name); q != nil {
		return q
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	q := sp.queues[name]
	if q == nil {
		q = &queue{space: sp, name: name, rank: len(sp.queues)}
		sp.queues[name] = q
	}
	return q
}

// lookup returns the queue of that name or nil.
func (sp *space) lookup(name string) *queue {
	sp.mu.RLock()
	defer sp.mu.RUnlock()
	return sp.queues[name]
}

func (sp *space) allQueues() []*queue {
	sp.mu.RLock()
	defer sp.mu.RUnlock()
	all := make([]*queue, 0, len(sp.queues))
	for _, q := range sp.queues {
		all = append(all, q)
	}
	slices.SortFunc(all, func(a, b *queue) int { return a.rank - b.rank })
	return all
}

// wrap names the driver and what it did before err.
func (s *Store) wrap(what string, err error) error {
	return fmt.Errorf("%s: %s: %w", s.options.Driver, what, err)
}
