package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// tombstones is how many removed keys are remembered for Await.
const tombstones = 1024

// maxKey is the most bytes of a control key.
const maxKey = 4096

// control keeps the small keys of a namespace. Its zero value is ready.
type control struct {
	mu      sync.Mutex
	rev     uint64
	keys    map[string]controlEntry
	removed map[string]uint64 // key → revision of its removal
	floor   uint64            // removals up to here may be forgotten
	prune   int               // size of keys that makes a Put drop the expired
	changed chan struct{}     // closed by the next change, nil if nobody waits
}

type controlEntry struct {
	value   []byte
	expires int64 // zero is never
	rev     uint64
}

// Put implements [driver.Control].
func (c *client) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	if key == "" || len(key) > maxKey {
		return c.space.store.wrap("put", fmt.Errorf("key has %d bytes, want 1 to %d", len(key), maxKey))
	}
	e := controlEntry{value: cloneBytes(value)}
	now := c.space.store.now()
	if ttl > 0 {
		e.expires = now.after(ttl)
	}
	step := c.space.note()
	if step != nil {
		step.PutKey(key, e.value, now.unixMilli(e.expires))
	}
	return c.space.store.keep(ctx, step, func() { c.space.control.put(key, e, now.at) })
}

func (l *control) put(key string, e controlEntry, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys == nil {
		l.keys, l.removed = map[string]controlEntry{}, map[string]uint64{}
	}
	if len(l.keys) >= l.prune {
		l.expire(now)
		l.prune = 2*len(l.keys) + 64
	}
	delete(l.removed, key)
	l.rev++
	e.rev = l.rev
	l.keys[key] = e
	l.broadcast()
}

func (l *control) expire(now int64) {
	for key, e := range l.keys {
		if e.expires != 0 && now >= e.expires {
			delete(l.keys, key)
		}
	}
}

func (l *control) broadcast() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Remove implements [driver.Control].
func (c *client) Remove(ctx context.Context, keys ...string) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	step := c.space.note()
	if step != nil {
		for _, key := range keys {
			step.DropKey(key)
		}
	}
	return c.space.store.keep(ctx, step, func() { c.space.control.remove(keys) })
}

func (l *control) remove(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if _, ok := l.keys[key]; !ok {
			continue
		}
		delete(l.keys, key)
		if len(l.removed) >= tombstones {
			clear(l.removed)
			l.floor = l.rev
		}
		l.rev++
		l.removed[key] = l.rev
		l.broadcast()
	}
}

// Entries implements [driver.Control].
func (c *client) Entries(ctx context.Context, prefix string) ([]driver.Entry, uint64, error) {
	if err := c.check(ctx); err != nil {
		return nil, 0, err
	}
	es, rev := c.space.control.list(prefix, c.space.store.now().at)
	return es, rev, nil
}

func (l *control) list(prefix string, now int64) ([]driver.Entry, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(now)
	var es []driver.Entry
	for key, e := range l.keys {
		if strings.HasPrefix(key, prefix) {
			es = append(es, driver.Entry{Key: key, Value: cloneBytes(e.value)})
		}
	}
	slices.SortFunc(es, func(a, b driver.Entry) int { return strings.Compare(a.Key, b.Key) })
	return es, l.rev
}

// Await implements [driver.Control]. Expiry does not count. After very many
// removals it may return for a change under another prefix.
func (c *client) Await(ctx context.Context, prefix string, rev uint64) error {
	for {
		if err := c.check(ctx); err != nil {
			return err
		}
		changed := c.space.control.since(prefix, rev)
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-c.done:
		case <-c.space.store.down:
		case <-ctx.Done():
		}
	}
}

// since returns nil if a key under prefix has changed after rev, otherwise a
// channel that the next change of any key closes.
func (l *control) since(prefix string, rev uint64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rev < l.floor {
		return nil
	}
	for key, e := range l.keys {
		if e.rev > rev && strings.HasPrefix(key, prefix) {
			return nil
		}
	}
	for key, at := range l.removed {
		if at > rev && strings.HasPrefix(key, prefix) {
			return nil
		}
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}
