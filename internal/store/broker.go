package store

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/chicory-go/chicory/driver"
)

// A Broker is a [driver.Broker] on a [Store]. It also is a [driver.Coverer],
// [driver.Control], [driver.Inspector] and [driver.Purger].
type Broker struct {
	client

	mu   sync.Mutex
	subs map[*subscription]struct{}
}

var (
	_ driver.Broker    = (*Broker)(nil)
	_ driver.Coverer   = (*Broker)(nil)
	_ driver.Control   = (*Broker)(nil)
	_ driver.Inspector = (*Broker)(nil)
	_ driver.Purger    = (*Broker)(nil)
)

// Info implements [driver.Broker].
func (b *Broker) Info() driver.BrokerInfo {
	return driver.BrokerInfo{
		Name:       b.space.store.options.Driver,
		Contract:   driver.Contract,
		Settle:     driver.SettleAtomic,
		Lease:      driver.LeaseTimed,
		Dedup:      true,
		FIFO:       true,
		Durable:    b.space.store.options.Journal != nil,
		Priorities: priorities,
		MaxMessage: b.space.store.options.MaxMessage,
	}
}

// Covers reports whether backend is on the same store and namespace.
func (b *Broker) Covers(backend driver.Backend) bool {
	mine, ok := driver.As[interface{ core() *Backend }](backend)
	return ok && mine.core().space == b.space
}

// DeadLetters implements [driver.Broker].
func (b *Broker) DeadLetters(queue string) driver.DeadLetters {
	return &deadLetters{broker: b, name: queue}
}

// Close implements [driver.Broker]. The store keeps what it holds for its
// other clients; deliveries that were not settled come back to them when their
// leases run out.
func (b *Broker) Close(context.Context) error {
	if !b.close() {
		return nil
	}
	b.mu.Lock()
	subs := slices.Collect(maps.Keys(b.subs))
	clear(b.subs)
	b.mu.Unlock()
	for _, s := range subs {
		s.shut()
	}
	b.space.store.detach()
	return nil
}
