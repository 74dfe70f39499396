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
	m    *driver.Message
	tags []uint64
}

// letters groups what a browse found, oldest first.
func letters(found []entry) []*letter {
	by := map[driver.DeadKey]*letter{}
	var all []*letter
	for _, e := range found {
		l := by[e.m.Key()]
		if l == nil {
			l = &letter{m: e.m}
			by[e.m.Key()] = l
			all = append(all, l)
		}
		l.tags = append(l.tags, e.tag)
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

// browse calls f with the dead letters, of which f names those to remove.
func (d *deadLetters) browse(ctx context.Context, f func(ctx context.Context, all []*letter) (remove []*letter, err error)) error {
	if err := d.b.check(ctx); err != nil {
		return err
	}
	if err := driver.CheckQueue(d.queue); err != nil {
		return fmt.Errorf("amqp: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(d.b.ending, cancel)
	defer stop()
	br, err := d.b.openBrowser(ctx, d.queue)
	if err != nil {
		return d.b.over(err)
	}
	defer br.close()
	found, err := br.scan(ctx)
	if err != nil {
		br.finish(nil)
		return d.b.over(err)
	}
	remove, err := f(ctx, letters(found))
	var tags []uint64
	for _, l := range remove {
		tags = append(tags, l.tags...)
	}
	return d.b.over(cmp.Or(br.finish(tags), err))
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
	err = d.browse(ctx, func(_ context.Context, all []*letter) ([]*letter, error) {
		for _, l := range all {
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
	err = d.browse(ctx, func(_ context.Context, all []*letter) ([]*letter, error) {
		for _, l := range all {
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
	err = d.browse(ctx, func(ctx context.Context, all []*letter) (remove []*letter, err error) {
		ls := chosen(all, keys)
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

// Delete implements [driver.DeadLetters].
func (d *deadLetters) Delete(ctx context.Context, keys []driver.DeadKey) (n int, err error) {
	if len(keys) == 0 {
		return 0, d.b.check(ctx)
	}
	err = d.browse(ctx, func(_ context.Context, all []*letter) ([]*letter, error) {
		ls := chosen(all, keys)
		n = len(ls)
		return ls, nil
	})
	return n, err
}

// Purge implements [driver.DeadLetters].
func (d *deadLetters) Purge(ctx context.Context, t time.Time) (n int, err error) {
	looked := 0
	err = d.browse(ctx, func(_ context.Context, all []*letter) (remove []*letter, err error) {
		for _, l := range all {
			looked += len(l.tags)
			if t.IsZero() || l.m.Dead.LastAt < t.UnixMilli() {
				remove = append(remove, l)
			}
		}
		n = len(remove)
		return remove, nil
	})
	if looked >= maxBrowse && n > 0 && err == nil { // there are more behind these
		more, err := d.Purge(ctx, t)
		return n + more, err
	}
	return n, err
}

// Len implements [driver.DeadLetters]. One that was stored twice counts twice.
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
