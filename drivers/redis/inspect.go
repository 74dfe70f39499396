package redis

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// Queues implements [driver.Inspector].
func (b *Broker) Queues(ctx context.Context) ([]string, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	names, err := b.conn.rdb.SMembers(ctx, b.conn.shared()+":queues").Result()
	if err != nil {
		return nil, b.readError(ctx, err)
	}
	slices.Sort(names)
	return names, nil
}

// enlistNext has the queues listed to which settlements publish. If that fails, as on
// a server that is full, it is tried again another time: to settle is what counts.
func (b *Broker) enlistNext(ctx context.Context, ss []driver.Settlement) {
	var next []*driver.Message
	for i := range ss {
		next = append(next, ss[i].Then...)
	}
	b.enlist(ctx, next)
}

const perQueue = 5 // values of the reply, see lua/inspect.lua

// Inspect implements [driver.Inspector]. A queue that does not exist is empty.
func (b *Broker) Inspect(ctx context.Context, queues []string) ([]driver.QueueStats, error) {
	stats := make([]*driver.QueueStats, len(queues))
	for i, name := range queues {
		stats[i] = &driver.QueueStats{Queue: name}
	}
	keyOf := func(s *driver.QueueStats) string { return b.conn.queueKey(s.Queue) }
	errs := each(b.conn, stats, keyOf, func(key string, stats []*driver.QueueStats) []error {
		return batches(len(stats), func(int) int { return 0 }, func(from, to int) error {
			return b.inspect(ctx, key, stats[from:to])
		})
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	found := make([]driver.QueueStats, len(stats))
	for i := range stats {
		found[i] = *stats[i]
	}
	return found, b.check(ctx)
}

func (b *Broker) inspect(ctx context.Context, key string, stats []*driver.QueueStats) error {
	var args []any
	for _, s := range stats {
		args = append(args, b.conn.queueKey(s.Queue))
	}
	value, err := b.call(ctx, inspectScript, key, args...)
	if err != nil {
		return err
	}
	vs, _ := value.([]any)
	if len(vs) != perQueue*len(stats) {
		return fmt.Errorf("redis: a script answers %v to %d queues", value, len(stats))
	}
	for i, s := range stats {
		n := func(j int) int { v, _ := vs[perQueue*i+j].(int64); return int(v) }
		s.Ready, s.Leased, s.Delayed, s.Dead = n(0), n(1), n(2), n(3)
		s.Oldest = time.Duration(n(4)) * time.Millisecond
	}
	return nil
}

// PurgeQueue implements [driver.Purger]. Dead letters stay.
func (b *Broker) PurgeQueue(ctx context.Context, queue string) ([]string, error) {
	var ids []string
	key := b.conn.queueKey(queue)
	for {
		value, err := b.call(ctx, purgeScript, key, b.conn.scope(key), key, atOnce)
		if err != nil {
			return ids, partly(len(ids), err)
		}
		vs, _ := value.([]any)
		for _, v := range vs {
			id, _ := v.(string)
			ids = append(ids, id)
		}
		if len(vs) < atOnce {
			return ids, nil
		}
	}
}
