package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

const maxKey = 1 << 10 // bytes of a control key

// Put implements [driver.Control].
func (c *client) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("redis: put: key has %d bytes, want 1 to %d", len(key), maxKey)
	}
	if value == nil {
		value = []byte{}
	}
	_, err := c.control(ctx, "put", key, value, millis(ttl))
	return err
}

// Remove implements [driver.Control].
func (c *client) Remove(ctx context.Context, keys ...string) error {
	_, err := c.control(ctx, append([]any{"remove"}, anys(keys)...)...)
	return err
}

// Entries implements [driver.Control].
func (c *client) Entries(ctx context.Context, prefix string) ([]driver.Entry, uint64, error) {
	value, err := c.control(ctx, "list", prefix)
	if err != nil {
		return nil, 0, err
	}
	vs, _ := value.([]any)
	if len(vs) == 0 {
		return nil, 0, fmt.Errorf("redis: a script lists control keys as %v", value)
	}
	text, _ := vs[0].(string)
	rev, err := strconv.ParseUint(text, 10, 64)
	var es []driver.Entry
	for i := 1; i+1 < len(vs); i += 2 {
		key, _ := vs[i].(string)
		value, _ := vs[i+1].(string)
		es = append(es, driver.Entry{Key: key, Value: []byte(value)})
	}
	slices.SortFunc(es, func(a, b driver.Entry) int { return strings.Compare(a.Key, b.Key) })
	return es, rev, err
}

// Await implements [driver.Control]. Expiry does not count. After very many
// removals it may return for a change under another prefix.
func (c *client) Await(ctx context.Context, prefix string, rev uint64) error {
	for {
		changed, err := c.changed(ctx, prefix, rev)
		if err != nil || changed {
			return err
		}
	}
}

// changed asks whether an entry under prefix has changed after rev. If not, it waits
// until one may have.
func (c *client) changed(ctx context.Context, prefix string, rev uint64) (bool, error) {
	hub := c.conn.hub
	next := hub.nextChange(prefix)
	defer hub.drop(next)
	value, err := c.control(ctx, "since", prefix, rev)
	if n, _ := value.(int64); err != nil || n > 0 {
		return true, err
	}
	select {
	case <-next.happened:
	case <-c.done:
	case <-ctx.Done():
	}
	return false, nil
}

// control runs what lua/control.lua has.
func (c *client) control(ctx context.Context, args ...any) (any, error) {
	shared := c.conn.shared()
	return c.call(ctx, controlScript, shared, append([]any{shared}, args...)...)
}
