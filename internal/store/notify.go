package store

import (
	"context"
	"slices"
	"strconv"
	"sync"

	"github.com/chicory-go/chicory/driver"
)

// backlog is how many records a stream holds for a reader that is slow. More
// are dropped and reported as a gap.
const backlog = 1 << 14

// replies finds streams by address.
type replies struct {
	mu      sync.RWMutex
	last    uint64
	streams map[string]*notifications
}

func (r *replies) add(n *notifications, prefix string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams == nil {
		r.streams = map[string]*notifications{}
	}
	r.last++
	n.address = prefix + "." + strconv.FormatUint(r.last, 36)
	r.streams[n.address] = n
}

func (r *replies) find(address string) *notifications {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.streams[address]
}

func (r *replies) remove(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, address)
}

// announce pushes a terminal record to those who watch it and to its ReplyTo.
// The shard is locked: a watch is either before the write or after it.
func (sp *space) announce(e *entry) {
	for _, n := range e.watch {
		n.push(*e.record)
	}
	if to := e.record.ReplyTo; to != "" {
		if n := sp.replies.find(to); n != nil && !slices.Contains(e.watch, n) {
			n.push(*e.record)
		}
	}
}

// notifications are one reader's stream of terminal records.
type notifications struct {
	backend *Backend
	address string
	wake    chan struct{} // capacity 1: look again

	mu      sync.Mutex
	closed  bool
	gap     bool
	records []driver.Record
	ids     map[string]struct{}
}

// Notify implements [driver.Notifier].
func (b *Backend) Notify(ctx context.Context) (driver.Notifications, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	n := &notifications{backend: b, wake: make(chan struct{}, 1), ids: map[string]struct{}{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return nil, driver.ErrClosed
	}
	b.space.replies.add(n, b.space.store.options.Driver)
	b.streams[n] = struct{}{}
	return n, nil
}

// push never blocks.
func (n *notifications) push(r driver.Record) {
	n.mu.Lock()
	switch {
	case n.closed:
	case len(n.records) < backlog:
		n.records = append(n.records, r)
	default:
		n.records, n.gap = nil, true
	}
	n.mu.Unlock()
	signal(n.wake)
}

// Address implements [driver.Notifications].
func (n *notifications) Address() string { return n.address }

// Watch implements [driver.Notifications].
func (n *notifications) Watch(ctx context.Context, ids []string) error {
	if err := n.backend.check(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		n.enter(id)
	}
	if !n.note(ids) { // end has not seen them
		n.leave(ids)
		return driver.ErrClosed
	}
	return nil
}

// note remembers what end has to take back, unless that is over.
func (n *notifications) note(ids []string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	for _, id := range ids {
		n.ids[id] = struct{}{}
	}
	return true
}

func (n *notifications) enter(id string) {
	k, now := n.backend.space.key(id), n.backend.space.store.now().at
	k.shard.mu.Lock()
	defer k.shard.mu.Unlock()
	if e := k.entry(now); !slices.Contains(e.watch, n) {
		e.watch = append(e.watch, n)
	}
}

// Unwatch implements [driver.Notifications].
func (n *notifications) Unwatch(ids []string) {
	n.mu.Lock()
	for _, id := range ids {
		delete(n.ids, id)
	}
	n.mu.Unlock()
	n.leave(ids)
}

func (n *notifications) leave(ids []string) {
	now := n.backend.space.store.now().at
	for _, id := range ids {
		k := n.backend.space.key(id)
		k.shard.mu.Lock()
		if e := k.find(now); e != nil {
			k.shard.unwatch(e, n)
		}
		k.shard.mu.Unlock()
	}
}

// Next implements [driver.Notifications].
func (n *notifications) Next(ctx context.Context) ([]*driver.Record, error) {
	for {
		if err := live(ctx); err != nil {
			return nil, err
		}
		rs, ready, err := n.take()
		if ready || err != nil {
			return rs, err
		}
		select {
		case <-n.wake:
		case <-n.backend.space.store.down:
			return nil, n.backend.space.store.failure()
		case <-ctx.Done():
		}
	}
}

// take returns what was pushed, or nil for a gap, if ready.
func (n *notifications) take() (rs []*driver.Record, ready bool, err error) {
	n.mu.Lock()
	switch {
	case n.closed:
		n.mu.Unlock()
		return nil, false, driver.ErrClosed
	case n.gap:
		n.gap = false
		if len(n.records) > 0 {
			signal(n.wake)
		}
		n.mu.Unlock()
		return nil, true, nil
	}
	pushed := n.records
	n.records = nil
	n.mu.Unlock()
	rs = make([]*driver.Record, len(pushed))
	for i := range pushed {
		rs[i] = pushed[i].Clone()
	}
	return rs, len(rs) > 0, nil
}

// Close implements [driver.Notifications].
func (n *notifications) Close() error {
	n.backend.mu.Lock()
	delete(n.backend.streams, n)
	n.backend.mu.Unlock()
	n.end()
	return nil
}

// end ends the stream and takes its watches back.
func (n *notifications) end() {
	n.mu.Lock()
	n.closed = true
	ids := make([]string, 0, len(n.ids))
	for id := range n.ids {
		ids = append(ids, id)
	}
	clear(n.ids)
	n.records = nil
	n.mu.Unlock()
	n.backend.space.replies.remove(n.address)
	n.leave(ids)
	signal(n.wake)
}
