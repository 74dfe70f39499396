package amqp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// deadLetters are those of one queue. A queue of RabbitMQ cannot be read: they are all
// taken, looked at, and given back, by one client at a time.
type deadLetters struct {
	b     *Broker
	queue string
}

// DeadLetters implements [driver.Broker]. Each call looks through the first 10,000 dead
// letters and holds a lock on the server meanwhile, so it is for people, not for hot
// paths. Replay of one whose reply was lost may leave it there.
func (b *Broker) DeadLetters(queue string) driver.DeadLetters { return &deadLetters{b, queue} }

// A letter is one dead letter: a task dies once per epoch, and is one however often it
// was stored.
type letter struct {
	m    *driver.Message // nil if it cannot be decoded
	tags []uint64
}

// letters groups what was found, oldest first.
func (l *look) letters() []*letter {
	by := map[driver.DeadKey]*letter{}
	var all []*letter
	for _, e := range l.found {
		one := by[e.m.Key()]
		if one == nil {
			one = &letter{m: e.m}
			by[e.m.Key()] = one
			all = append(all, one)
		}
		one.tags = append(one.tags, e.tag)
	}
	slices.SortFunc(all, func(a, b *letter) int { return placeOf(a.m).compare(placeOf(b.m)) })
	return all
}

// A place is where a dead letter is among all: a cursor.
type place struct {
	At    int64
	ID    string
	Epoch uint32
}

func placeOf(m *driver.Message) place { return place{m.Dead.LastAt, m.ID, m.Epoch} }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.At, q.At), cmp.Compare(p.ID, q.ID), cmp.Compare(p.Epoch, q.Epoch))
}

// browse calls f with what is there, of which f names what to remove. It returns how many
// of these the server was told of, and answered.
func (d *deadLetters) browse(ctx context.Context, f func(ctx context.Context, l *look) (remove []*letter, err error)) (removed int, err error) {
	if err := d.b.check(ctx); err != nil {
		return 0, err
	}
	if err := driver.CheckQueue(d.queue); err != nil {
		return 0, fmt.Errorf("amqp: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(d.b.ending, cancel)
	defer stop()
	br, err := d.b.openBrowser(ctx, d.queue)
	if err != nil {
		return 0, d.b.over(err)
	}
	defer br.close()
	all, err := br.scan(ctx)
	if err != nil {
		if !br.s.isBlocked() { // else the server does not listen
			br.finish(nil)
		}
		return 0, d.b.over(err)
	}
	remove, err := f(ctx, &all)
	var tags []uint64
	for _, l := range remove {
		tags = append(tags, l.tags...)
	}
	acked, err2 := br.finish(tags)
	for _, l := range remove {
		if acked -= len(l.tags); acked < 0 {
			break
		}
		removed++
	}
	return removed, d.b.over(cmp.Or(err2, err))
}

// List implements [driver.DeadLetters].
func (d *deadLetters) List(ctx context.Context, cursor string, limit int) (dead []*driver.Message, next string, err error) {
	if limit < 1 {
		return nil, "", fmt.Errorf("amqp: list dead letters: limit is %d, want at least 1", limit)
	}
	var after place
	if cursor != "" {
		if err := json.Unmarshal([]byte(cursor), &after); err != nil {
			return nil, "", fmt.Errorf("amqp: list dead letters: the cursor %q is none of List", cursor)
		}
	}
	_, err = d.browse(ctx, func(_ context.Context, all *look) ([]*letter, error) {
		for _, l := range all.letters() {
			if cursor != "" && placeOf(l.m).compare(after) <= 0 {
				continue
			}
			if len(dead) == limit {
				text, err := json.Marshal(placeOf(dead[limit-1]))
				next = string(text)
				return nil, err
			}
			dead = append(dead, l.m)
		}
		return nil, nil
	})
	if err != nil {
		return nil, "", err
	}
	return dead, next, nil
}

// Get implements [driver.DeadLetters].
func (d *deadLetters) Get(ctx context.Context, id string) (dead []*driver.Message, err error) {
	_, err = d.browse(ctx, func(_ context.Context, all *look) ([]*letter, error) {
		for _, l := range all.letters() {
			if l.m.ID == id {
				dead = append(dead, l.m)
			}
		}
		return nil, nil
	})
	slices.SortFunc(dead, func(a, b *driver.Message) int { return cmp.Compare(b.Epoch, a.Epoch) })
	return dead, err
}

// chosen returns those of all that keys name.
func chosen(all []*letter, keys []driver.DeadKey) (out []*letter) {
	for _, l := range all {
		if slices.Contains(keys, l.m.Key()) {
			out = append(out, l)
		}
	}
	return out
}

// Replay implements [driver.DeadLetters]. The new messages are confirmed before the dead
// letters are removed.
func (d *deadLetters) Replay(ctx context.Context, keys []driver.DeadKey) (replayed []*driver.Message, err error) {
	if len(keys) == 0 {
		return nil, d.b.check(ctx)
	}
	_, err = d.browse(ctx, func(ctx context.Context, all *look) (remove []*letter, err error) {
		ls := chosen(all.letters(), keys)
		items := make([]item, len(ls))
		for i, l := range ls {
			items[i] = item{m: l.m.Replayed(), copy: d.b.copyName()}
		}
		for i, e := range d.b.send(ctx, items) {
			if e != nil {
				err = cmp.Or(err, e)
				continue
			}
			remove, replayed = append(remove, ls[i]), append(replayed, items[i].m)
		}
		return remove, err
	})
	return replayed, err
}

// Delete implements [driver.DeadLetters]. With an error it returns how many the
// server was told of, and answered.
func (d *deadLetters) Delete(ctx context.Context, keys []driver.DeadKey) (n int, err error) {
	if len(keys) == 0 {
		return 0, d.b.check(ctx)
	}
	return d.browse(ctx, func(_ context.Context, all *look) ([]*letter, error) { return chosen(all.letters(), keys), nil })
}

// Purge implements [driver.DeadLetters]. For the zero time it removes, and counts, what
// cannot be decoded too. With an error it returns how many the server was told of, and
// answered.
func (d *deadLetters) Purge(ctx context.Context, t time.Time) (n int, err error) {
	for {
		taken := 0
		removed, err := d.browse(ctx, func(_ context.Context, all *look) (remove []*letter, err error) {
			taken = all.taken
			for _, l := range all.letters() {
				if t.IsZero() || l.m.Dead.LastAt < t.UnixMilli() {
					remove = append(remove, l)
				}
			}
			if t.IsZero() {
				for _, tag := range all.strange {
					remove = append(remove, &letter{tags: []uint64{tag}})
				}
			}
			return remove, nil
		})
		n += removed
		if err != nil || taken < maxBrowse || removed == 0 { // there are no more behind these
			return n, err
		}
	}
}

// Len implements [driver.DeadLetters]. One that was stored twice counts twice, and what
// cannot be decoded counts.
func (d *deadLetters) Len(ctx context.Context) (int, error) {
	if err := d.b.check(ctx); err != nil {
		return 0, err
	}
	br, err := d.b.openBrowser(ctx, d.queue)
	if err != nil {
		return 0, d.b.over(err)
	}
	defer br.close()
	n, err := br.count(ctx)
	return n, d.b.over(err)
}

var errBrowse = errors.New("amqp: looking through the dead letters: the connection was lost")
