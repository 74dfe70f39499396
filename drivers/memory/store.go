package memory

import (
	"sync"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/store"
)

// A Store holds the tasks and records of any number of namespaces. Its brokers
// and backends are clients: several of them on one store behave like several
// processes on one server. What it holds outlives its clients, but no timer
// runs while it has none. It is safe for concurrent use.
type Store struct {
	name string // of a store that URLs share, else empty
	core *store.Store
}

// New returns an empty store.
func New() *Store { return newStore("") }

func newStore(name string) *Store {
	s := &Store{name: name}
	s.core = store.New(store.Options{Driver: driverName, Left: s.left})
	return s
}

// SetMax limits how many messages may be pending: ready, delayed or leased.
// A publish beyond is refused with [driver.ErrFull], which is transient.
// What a settlement or a replay puts back is not refused. Zero is no limit.
func (s *Store) SetMax(n int) { s.core.SetMax(n) }

// Broker returns a new broker on the store. Close it after use.
func (s *Store) Broker(namespace string) *Broker {
	return &Broker{s.core.Broker(namespace), s}
}

// Backend returns a new backend on the store. Close it after use. From then
// on the brokers of the same store and namespace cover it.
func (s *Store) Backend(namespace string) *Backend {
	return &Backend{s.core.Backend(namespace), s}
}

// named holds the stores that URLs share by name.
var named = struct {
	mu     sync.Mutex
	stores map[string]*Store
}{stores: map[string]*Store{}}

// left lets a named store go once it has no clients.
func (s *Store) left() {
	named.mu.Lock()
	defer named.mu.Unlock()
	if s.core.Idle() && named.stores[s.name] == s {
		delete(named.stores, s.name)
	}
}

// A Broker is a [driver.Broker] on a [Store]. It also is a [driver.Coverer],
// [driver.Control], [driver.Inspector] and [driver.Purger].
type Broker struct {
	*store.Broker
	store *Store
}

// Store returns the store that b is a client of.
func (b *Broker) Store() *Store { return b.store }

// A Backend is a [driver.Backend] on a [Store]. It also is a
// [driver.Notifier] and [driver.Control].
type Backend struct {
	*store.Backend
	store *Store
}

// Store returns the store that b is a client of.
func (b *Backend) Store() *Store { return b.store }

var (
	_ driver.Broker    = (*Broker)(nil)
	_ driver.Coverer   = (*Broker)(nil)
	_ driver.Control   = (*Broker)(nil)
	_ driver.Inspector = (*Broker)(nil)
	_ driver.Purger    = (*Broker)(nil)
	_ driver.Backend   = (*Backend)(nil)
	_ driver.Notifier  = (*Backend)(nil)
	_ driver.Control   = (*Backend)(nil)
)
