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
	return driver.QueueStats{Queue: q.name, Ready: q.ready + q.aside, Leased: q.leases,
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
	var ids []string
	for {
		c := b.space.begin()
		locked := lockSet{q}
		now := locked.lock(b.space.store)
		purged := q.drain(c, purgeAtOnce)
		if err := c.commit(ctx, locked, now); err != nil {
			return ids, err
		}
		c.free()
		ids = append(ids, purged...)
		if len(purged) < purgeAtOnce {
			return ids, nil
		}
	}
}

// drain decides that c takes out up to limit tasks that are not leased, and
// returns their IDs. What another change is about may come or go: it stays.
// q.mu is held.
func (q *queue) drain(c *change, limit int) (ids []string) {
	c.queues.add(q)
	for q.ready > 0 && len(ids) < limit {
		t := q.pop()
		if !q.purge(c, departure{task: t, from: ready}) {
			continue
		}
		ids = append(ids, t.msg.ID)
	}
	var stay []dueTask
	for len(q.delayed) > 0 && len(ids) < limit {
		d := q.delayed[0]
		q.delayed.pop()
		if q.purge(c, departure{task: d.task, from: delayed, due: d.due}) {
			ids = append(ids, d.task.msg.ID)
		} else {
			stay = append(stay, d)
		}
	}
	for _, d := range stay {
		q.delayed.push(d)
	}
	return ids
}

// purge decides that c removes the task of d. It reports false, and sets a ready
// task aside, if another change holds it.
func (q *queue) purge(c *change, d departure) bool {
	t, sh := d.task, d.task.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !c.mayHold(t.entry) {
		if d.from == ready {
			q.wait(t)
		}
		return false
	}
	c.hold(sh, t.entry)
	sh.unlink(t)
	t.place, t.change = leaving, c
	c.out = append(c.out, d)
	c.pending--
	if step := c.log(); step != nil {
		step.DropTask(t.seq)
	}
	return true
}

// Size returns how many ids the store knows, by a message, a dead letter or a
// record, and how many messages are pending.
func (s *Store) Size() int {
	n := int(s.pending.Load())
	for _, sp := range s.allSpaces() {
		for i := range sp.shards {
			sh := &sp.shards[i]
			sh.mu.Lock()
			n += sh.entries.n
			sh.mu.Unlock()
		}
	}
	return n
}
