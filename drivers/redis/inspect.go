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
	names, err := b.conn.rdb.SMembers(ctx, b.conn.prefix+":queues").Result()
	if err != nil {
		return nil, b.readError(ctx, err)
	}
	slices.Sort(names)
	return names, nil
}

// enlistNext has the queues listed to which settlements publish. If that fails, as on
// a server that is full, it is tried again another time: to settle is what counts.
func (b *Broker) enlistNext(ctx context.Context, ss []driver.Settlement) {
	for i := range ss {
		if len(ss[i].Then) > 0 {
			b.enlist(ctx, ss[i].Then)
		}
	}
}

const perQueue = 5 // values of the reply, see lua/inspect.lua

// Inspect implements [driver.Inspector]. A queue that does not exist is empty.
func (b *Broker) Inspect(ctx context.Context, queues []string) ([]driver.QueueStats, error) {
	var args []any
	for _, name := range queues {
		args = append(args, b.conn.queueKey(name))
	}
	value, err := b.call(ctx, inspectScript, args...)
	if err != nil {
		return nil, err
	}
	vs, _ := value.([]any)
	if len(vs) != perQueue*len(queues) {
		return nil, fmt.Errorf("redis: a script answers %v to %d queues", value, len(queues))
	}
	stats := make([]driver.QueueStats, len(queues))
	for i, name := range queues {
		n := func(j int) int { v, _ := vs[perQueue*i+j].(int64); return int(v) }
		stats[i] = driver.QueueStats{Queue: name, Ready: n(0), Leased: n(1), Delayed: n(2), Dead: n(3),
			Oldest: time.Duration(n(4)) * time.Millisecond}
	}
	return stats, nil
}

// PurgeQueue implements [driver.Purger]. Dead letters stay.
func (b *Broker) PurgeQueue(ctx context.Context, queue string) ([]string, error) {
	var ids []string
	for {
		value, err := b.call(ctx, purgeScript, b.conn.prefix, b.conn.queueKey(queue), atOnce)
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
