package store

import (
	"context"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// Queues implements [driver.Inspector].
func (b *Broker) Queues(ctx context.Context) ([]string, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	var names []string
	for _, q := range b.space.allQueues() {
		names = append(names, q.name)
	}
	slices.Sort(names)
	return names, nil
}

// Inspect implements [driver.Inspector]. A queue that does not exist is empty.
func (b *Broker) Inspect(ctx context.Context, queues []string) ([]driver.QueueStats, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	stats := make([]driver.QueueStats, len(queues))
	for i, name := range queues {
		stats[i].Queue = name
		if q := b.space.lookup(name); q != nil {
			stats[i] = q.stats()
		}
	}
	return stats, nil
}

func (q *queue) stats() driver.QueueStats {
	queues := lockSet{q}
	now := queues.lock(q.space.store)
	defer queues.unlock(now)
	oldest := now.at
	for p := range q.rings {
		if r := &q.rings[p]; r.n > 0 {
			oldest = min(oldest, r.at(0).at)
		}
	}
	return driver.QueueStats{Queue: q.name, Ready: q.ready, Leased: q.leases,
		Delayed: len(q.delayed), Dead: q.dead.n, Oldest: time.Duration(now.at - oldest)}
}

// PurgeQueue implements [driver.Purger]. Dead letters stay.
func (b *Broker) PurgeQueue(ctx context.Context, queue string) ([]string, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	q := b.space.lookup(queue)
	if q == nil {
		return nil, nil
	}
	queues := lockSet{q}
	now := queues.lock(q.space.store)
	defer queues.unlock(now)
	ts := q.drain()
	ids := make([]string, len(ts))
	for i, t := range ts {
		ids[i] = t.msg.ID
		t.shard.mu.Lock()
		t.shard.unlink(t)
		t.shard.mu.Unlock()
	}
	q.space.store.pending.Add(int64(-len(ts)))
	return ids, nil
}

// drain takes out all tasks that are not leased.
func (q *queue) drain() []*task {
	ts := make([]*task, 0, q.ready+len(q.delayed))
	for q.ready > 0 {
		ts = append(ts, q.pop())
	}
	for _, d := range q.delayed {
		ts = append(ts, d.task)
	}
	q.delayed = nil
	for _, t := range ts {
		t.place = gone
	}
	return ts
}
