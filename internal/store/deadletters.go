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
		return nil, "", l.broker.space.store.wrap("list dead letters", err)
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
	return messages(ds), next, nil
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

// messages returns copies of what ds hold.
func messages(ds []*deadLetter) []*driver.Message {
	msgs := make([]*driver.Message, 0, len(ds))
	for _, d := range ds {
		if m := d.message(); m != nil { // else it has just been removed
			msgs = append(msgs, m)
		}
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
	q.mu.Lock() // with a settlement whose record is written its dead letter may not be yet
	defer q.mu.Unlock()
	k.shard.mu.Lock()
	if e := k.find(q.space.store.now().at); e != nil {
		for _, d := range e.letters() {
			if d.queue == q {
				ds = append(ds, d)
			}
		}
		k.shard.tidy(e)
	}
	k.shard.mu.Unlock()
	slices.SortFunc(ds, func(a, b *deadLetter) int { return cmp.Compare(b.version.Epoch, a.version.Epoch) })
	return messages(ds), nil
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
	names, seq := q.space.store.copyNames(w, len(keys))
	tasks := make([]*task, len(keys))
	r := rounds{space: q.space, n: len(keys), queues: lockSet{q}}
	r.decide = func(c *change, i int, now instant) (err error) {
		tasks[i], err = q.revive(c, keys[i], names[i], seq+uint64(i), now)
		return err
	}
	r.run(ctx)
	var msgs []*driver.Message
	for i, t := range tasks {
		if t != nil && r.errs.at(i) == nil {
			m := t.msg.Clone()
			if t.resting {
				m.Envelope = t.envelope()
			}
			msgs = append(msgs, m)
		}
	}
	return msgs, r.whole()
}

// revive decides that c turns a dead letter into the task of its replay, which
// is nil if it cannot be. Its PENDING record is written in the same step.
func (q *queue) revive(c *change, dead driver.DeadKey, name string, seq uint64, now instant) (*task, error) {
	k := q.space.key(dead.ID)
	sh := k.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := k.find(now.at)
	if !c.mayHold(e) {
		return nil, errHeld
	}
	d := e.letter(q, dead.Epoch)
	if d == nil {
		return nil, nil
	}
	m := d.message()
	if m == nil {
		return nil, nil
	}
	t := &task{msg: *m.Replayed(), copy: name, seq: seq, size: len(m.Envelope), queue: q, shard: sh}
	for o := e.tasks; o != nil; o = o.twin {
		if o.msg.Version().Compare(t.msg.Version()) >= 0 {
			return nil, nil
		}
	}
	c.hold(sh, e)
	e.link(t)
	c.dig(sh, d, e)
	if q.space.covering.Load() && !t.msg.NoRecord {
		sh.apply(c, e, &driver.Update{ID: t.msg.ID, Epoch: t.msg.Epoch, Seq: t.msg.Seq,
			Attempt: t.msg.Attempt, State: driver.Pending, Once: t.msg.Once, ReplyTo: t.msg.ReplyTo}, now)
	}
	c.pending++
	c.enter(&posting{task: t}, now)
	return t, nil
}

// dig takes d out of its entry and, once c is applied, out of its queue.
func (c *change) dig(sh *shard, d *deadLetter, e *entry) {
	sh.unbury(d, e)
	c.dug = append(c.dug, d)
	c.queues.add(d.queue)
	if step := c.log(); step != nil {
		step.DropDead(d.seq)
	}
}

// Delete implements [driver.DeadLetters].
func (l *deadLetters) Delete(ctx context.Context, keys []driver.DeadKey) (int, error) {
	q, err := l.open(ctx)
	if q == nil {
		return 0, err
	}
	return q.exhume(ctx, keys)
}

// exhume removes dead letters and returns how many were there.
func (q *queue) exhume(ctx context.Context, keys []driver.DeadKey) (int, error) {
	there := make([]bool, len(keys))
	r := rounds{space: q.space, n: len(keys), queues: lockSet{q}}
	r.decide = func(c *change, i int, now instant) (err error) {
		there[i], err = q.exhumeOne(c, keys[i], now)
		return err
	}
	r.run(ctx)
	n := 0
	for i := range there {
		if there[i] && r.errs.at(i) == nil {
			n++
		}
	}
	return n, r.whole()
}

// exhumeOne decides that c removes a dead letter, and reports whether it is
// there.
func (q *queue) exhumeOne(c *change, dead driver.DeadKey, now instant) (bool, error) {
	k := q.space.key(dead.ID)
	k.shard.mu.Lock()
	defer k.shard.mu.Unlock()
	e := k.find(now.at)
	if !c.mayHold(e) {
		return false, errHeld
	}
	d := e.letter(q, dead.Epoch)
	if d == nil {
		return false, nil
	}
	c.hold(k.shard, e)
	c.dig(k.shard, d, e)
	return true, nil
}

// purgeAtOnce is how many dead letters or messages a purge removes in a step.
const purgeAtOnce = 4096

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
	keys, n := q.died(before), 0
	for chunk := range slices.Chunk(keys, purgeAtOnce) {
		removed, err := q.exhume(ctx, chunk)
		if n += removed; err != nil {
			return n, err
		}
	}
	return n, nil
}

// died returns the keys of the dead letters that died before the Unix
// millisecond t.
func (q *queue) died(t int64) []driver.DeadKey {
	q.mu.Lock()
	defer q.mu.Unlock()
	ds := q.dead.before(t)
	keys := make([]driver.DeadKey, len(ds))
	for i, d := range ds {
		keys[i] = d.key()
	}
	return keys
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
