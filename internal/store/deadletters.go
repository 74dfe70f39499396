package store

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// deadLetters are the dead letters of one queue, which need not exist.
type deadLetters struct {
	broker *Broker
	name   string
}

// open returns the queue, nil if it does not exist.
func (l *deadLetters) open(ctx context.Context) (*queue, error) {
	if err := l.broker.check(ctx); err != nil {
		return nil, err
	}
	return l.broker.space.lookup(l.name), nil
}

// List implements [driver.DeadLetters]. A limit below one is one.
func (l *deadLetters) List(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
	after, err := parseCursor(cursor)
	if err != nil {
		return nil, "", l.broker.space.store.failure("list dead letters", err)
	}
	q, err := l.open(ctx)
	if q == nil {
		return nil, "", err
	}
	q.mu.Lock()
	ds, more := q.dead.after(after, max(1, limit))
	q.mu.Unlock()
	next := ""
	if more {
		last := ds[len(ds)-1].rank
		next = fmt.Sprintf("%d.%d", last.at, last.order)
	}
	return cloneDead(ds), next, nil
}

func parseCursor(cursor string) (r deadRank, err error) {
	if cursor == "" {
		return deadRank{at: math.MinInt64}, nil
	}
	if _, err := fmt.Sscanf(cursor, "%d.%d", &r.at, &r.order); err != nil {
		return r, fmt.Errorf("cursor %q is not one that List returned", cursor)
	}
	return r, nil
}

func cloneDead(ds []*deadLetter) []*driver.Message {
	msgs := make([]*driver.Message, len(ds))
	for i, d := range ds {
		msgs[i] = d.msg.Clone()
	}
	return msgs
}

// Get implements [driver.DeadLetters].
func (l *deadLetters) Get(ctx context.Context, id string) ([]*driver.Message, error) {
	q, err := l.open(ctx)
	if q == nil {
		return nil, err
	}
	var ds []*deadLetter
	k := q.space.key(id)
	k.shard.mu.Lock()
	if e := k.find(q.space.store.now().at); e != nil {
		for d := e.dead; d != nil; d = d.twin {
			if d.queue == q {
				ds = append(ds, d)
			}
		}
	}
	k.shard.mu.Unlock()
	slices.SortFunc(ds, func(a, b *deadLetter) int { return cmp.Compare(b.msg.Epoch, a.msg.Epoch) })
	return cloneDead(ds), nil
}

// Replay implements [driver.DeadLetters]. A dead letter whose ID is alive with
// a message as new as the replay's is passed over.
func (l *deadLetters) Replay(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error) {
	q, err := l.open(ctx)
	if q == nil {
		return nil, err
	}
	w := getScratch()
	defer w.free()
	names := q.space.store.copyNames(w, len(keys))
	var msgs []*driver.Message
	queues := lockSet{q}
	now := queues.lock(q.space.store)
	for i, key := range keys {
		if t := q.revive(key, names[i], now); t != nil {
			q.add(t, now.at)
			msgs = append(msgs, t.msg.Clone())
		}
	}
	queues.unlock(now)
	q.space.store.pending.Add(int64(len(msgs)))
	return msgs, nil
}

// revive turns a dead letter into the task of its replay, nil if it cannot.
// Its PENDING record is written in the same step.
func (q *queue) revive(dead driver.DeadKey, name string, now instant) *task {
	k := q.space.key(dead.ID)
	sh := k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.find(now.at)
	d := e.letter(q, dead.Epoch)
	if d == nil {
		return nil
	}
	t := &task{msg: *d.msg.Replayed(), copy: name, queue: q, shard: sh}
	for o := e.tasks; o != nil; o = o.twin {
		if o.msg.Version().Compare(t.msg.Version()) >= 0 {
			return nil
		}
	}
	e.link(t)
	sh.unbury(d, e)
	q.dead.remove(d)
	if q.space.covering.Load() && !t.msg.NoRecord {
		sh.apply(e, &driver.Update{ID: t.msg.ID, Epoch: t.msg.Epoch, Seq: t.msg.Seq,
			Attempt: t.msg.Attempt, State: driver.Pending, Once: t.msg.Once, ReplyTo: t.msg.ReplyTo}, now)
	}
	return t
}

// Delete implements [driver.DeadLetters].
func (l *deadLetters) Delete(ctx context.Context, keys []driver.DeadKey) (int, error) {
	q, err := l.open(ctx)
	if q == nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, key := range keys {
		if q.exhume(key) {
			n++
		}
	}
	return n, nil
}

// exhume removes a dead letter and reports whether it was there. q.mu is held.
func (q *queue) exhume(dead driver.DeadKey) bool {
	k := q.space.key(dead.ID)
	k.shard.mu.Lock()
	defer k.shard.mu.Unlock()
	e := k.find(q.space.store.now().at)
	d := e.letter(q, dead.Epoch)
	if d == nil {
		return false
	}
	k.shard.unbury(d, e)
	q.dead.remove(d)
	return true
}

// Purge implements [driver.DeadLetters].
func (l *deadLetters) Purge(ctx context.Context, t time.Time) (int, error) {
	q, err := l.open(ctx)
	if q == nil {
		return 0, err
	}
	before := int64(math.MaxInt64)
	if !t.IsZero() {
		before = t.UnixMilli()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	ds := q.dead.before(before)
	for _, d := range ds {
		q.exhume(d.msg.Key())
	}
	return len(ds), nil
}

// Len implements [driver.DeadLetters].
func (l *deadLetters) Len(ctx context.Context) (int, error) {
	q, err := l.open(ctx)
	if q == nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dead.n, nil
}
