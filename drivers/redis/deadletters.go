package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// deadLetters are the dead letters of one queue.
type deadLetters struct {
	broker *Broker
	key    string // of the queue
}

// DeadLetters implements [driver.Broker].
func (b *Broker) DeadLetters(queue string) driver.DeadLetters {
	return &deadLetters{b, b.conn.queueKey(queue)}
}

// deadKey names a dead letter.
func deadKey(k driver.DeadKey) string { return fmt.Sprintf("%010d%s", k.Epoch, k.ID) }

const epochDigits = 10

// These go through the client as a whole.
const (
	listAtOnce   = 50
	replayAtOnce = 50
)

// List implements [driver.DeadLetters].
func (l *deadLetters) List(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
	limit = min(max(1, limit), listAtOnce)
	score, key, ok := strings.Cut(cursor, " ")
	if cursor != "" && (!ok || len(key) < epochDigits) {
		return nil, "", fmt.Errorf("redis: list dead letters: cursor %q is not one that List returned", cursor)
	}
	value, err := l.broker.call(ctx, deadListScript, l.key, l.key, limit+1, score, key)
	if err != nil {
		return nil, "", err
	}
	vs, _ := value.([]any)
	var msgs []*driver.Message
	next := ""
	for i := 0; i+2 < len(vs) && i < 3*limit; i += 3 {
		blob, _ := vs[i+2].(string)
		m, err := decodeDead([]byte(blob))
		if err != nil {
			return nil, "", fmt.Errorf("redis: dead letter %v: %w", vs[i+1], err)
		}
		msgs = append(msgs, m)
		next = fmt.Sprintf("%v %v", vs[i], vs[i+1])
	}
	if len(vs) <= 3*limit {
		next = ""
	}
	return msgs, next, nil
}

// Get implements [driver.DeadLetters].
func (l *deadLetters) Get(ctx context.Context, id string) ([]*driver.Message, error) {
	value, err := l.broker.call(ctx, deadGetScript, l.key, l.key, id)
	if err != nil {
		return nil, err
	}
	msgs, err := deadMessages(value)
	slices.SortFunc(msgs, func(a, b *driver.Message) int { return int(int64(b.Epoch) - int64(a.Epoch)) })
	return msgs, err
}

func deadMessages(value any) ([]*driver.Message, error) {
	vs, _ := value.([]any)
	var msgs []*driver.Message
	for _, v := range vs {
		blob, _ := v.(string)
		m, err := decodeDead([]byte(blob))
		if err != nil {
			return nil, fmt.Errorf("redis: dead letter: %w", err)
		}
		msgs = append(msgs, m)
	}
	return msgs, nil
}

// Replay implements [driver.DeadLetters].
func (l *deadLetters) Replay(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error) {
	if err := l.broker.check(ctx); err != nil {
		return nil, err
	}
	var replayed []*driver.Message
	for chunk := range slices.Chunk(keys, replayAtOnce) {
		msgs, err := l.replay(ctx, chunk)
		if replayed = append(replayed, msgs...); err != nil {
			return replayed, partly(len(replayed), err)
		}
	}
	return replayed, nil
}

func (l *deadLetters) replay(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error) {
	b := l.broker
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = deadKey(k)
	}
	blobs, err := b.conn.rdb.HMGet(ctx, l.key+":dm", names...).Result()
	if err != nil {
		return nil, b.readError(ctx, err)
	}
	args := []any{b.conn.scope(l.key), l.key, b.covers()}
	var msgs []*driver.Message
	for i, blob := range blobs {
		text, ok := blob.(string)
		if !ok {
			continue
		}
		dead, err := decodeDead([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("redis: dead letter %s: %w", names[i], err)
		}
		m := dead.Replayed()
		update, known := any(""), "0"
		if tracked(m) {
			known = "1"
		}
		if b.covering.Load() && !m.NoRecord {
			update = encodeUpdate(&driver.Update{ID: m.ID, Epoch: m.Epoch, Seq: m.Seq, Attempt: m.Attempt,
				State: driver.Pending, Once: m.Once, ReplyTo: m.ReplyTo})
		}
		args = append(args, names[i], known, level(m.Priority), m.Epoch, encodeMessage(m), update)
		msgs = append(msgs, m)
	}
	if len(msgs) == 0 {
		return nil, nil
	}
	value, err := b.call(ctx, deadReplayScript, l.key, args...)
	if err != nil {
		return nil, err
	}
	answers, err := codes(value, len(msgs))
	if err != nil {
		return nil, err
	}
	var done []*driver.Message
	for i, m := range msgs {
		if answers[i] == '0' {
			done = append(done, m)
		}
	}
	return done, nil
}

// Delete implements [driver.DeadLetters].
func (l *deadLetters) Delete(ctx context.Context, keys []driver.DeadKey) (int, error) {
	if err := l.broker.check(ctx); err != nil {
		return 0, err
	}
	n := 0
	for chunk := range slices.Chunk(keys, atOnce) {
		args := []any{l.broker.conn.scope(l.key), l.key}
		for _, k := range chunk {
			args = append(args, deadKey(k))
		}
		value, err := l.broker.call(ctx, deadRemoveScript, l.key, args...)
		if err != nil {
			return n, partly(n, err)
		}
		removed, _ := value.(int64)
		n += int(removed)
	}
	return n, nil
}

// Purge implements [driver.DeadLetters].
func (l *deadLetters) Purge(ctx context.Context, t time.Time) (int, error) {
	before := any("+inf")
	if !t.IsZero() {
		before = t.UnixMilli()
	}
	for n := 0; ; {
		value, err := l.broker.call(ctx, deadPurgeScript, l.key, l.broker.conn.scope(l.key), l.key, atOnce, before)
		if err != nil {
			return n, partly(n, err)
		}
		removed, _ := value.(int64)
		if n += int(removed); removed < atOnce {
			return n, nil
		}
	}
}

// Len implements [driver.DeadLetters].
func (l *deadLetters) Len(ctx context.Context) (int, error) {
	if err := l.broker.check(ctx); err != nil {
		return 0, err
	}
	n, err := l.broker.conn.rdb.ZCard(ctx, l.key+":d").Result()
	return int(n), l.broker.readError(ctx, err)
}

// readError is what a read returns that failed.
func (c *client) readError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return driver.Transient(ctx.Err())
	case c.closed.Load():
		return driver.ErrClosed
	}
	return driver.Transient(c.conn.classify(err))
}

// partly is err for a call that has done something: it is not transient.
func partly(done int, err error) error {
	if done > 0 && errors.Is(err, driver.ErrTransient) {
		return fmt.Errorf("redis: only a part was done: %v", err)
	}
	return err
}
