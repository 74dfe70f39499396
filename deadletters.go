package chicory

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// DeadLetters are the tasks of one queue that failed for good.
type DeadLetters struct {
	app   *App
	queue string
}

// DeadLetters returns the dead letters of queue.
func (a *App) DeadLetters(queue string) *DeadLetters { return &DeadLetters{a, queue} }

// A DeadLetter is a task that failed for good, with all that is needed to
// understand it and to run it again.
type DeadLetter struct {
	ID           string
	Name         string // empty if it could not be read
	Queue        string
	Epoch        int    // replays so far
	Reason       string // "failed", "poison", "lost", "undecodable", "validation", "unknown_task"
	Kind         string // class of the error
	Message      string // text of the error
	Stack        string // of a panic
	Worker       string // that gave the verdict
	Attempts     int
	Deliveries   int // 1 + deliveries whose worker died
	FirstFailure time.Time
	LastFailure  time.Time
	History      []FailedAttempt // oldest first, at most 20
	Headers      map[string]string
	ContentType  string
	Body         []byte // the encoded argument
}

const deadPage = 100

// All yields the dead letters, oldest first, reading them in pages. It changes
// nothing. An error ends it.
func (d *DeadLetters) All(ctx context.Context) iter.Seq2[*DeadLetter, error] {
	return func(yield func(*DeadLetter, error) bool) {
		store, _, err := d.store()
		for cursor := ""; err == nil; {
			var page []*driver.Message
			page, cursor, err = store.List(ctx, cursor, deadPage)
			for _, m := range page {
				if !yield(deadLetterOf(m), nil) {
					return
				}
			}
			if cursor == "" {
				break
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// Get returns the dead letter of a task, or ErrNotFound. Where broker and
// backend are two stores the record says DEAD_LETTERED a moment before the dead
// letter is stored: Get and Replay wait for it, up to two seconds. In one store
// both come in one step.
func (d *DeadLetters) Get(ctx context.Context, id string) (*DeadLetter, error) {
	store, eng, err := d.store()
	if err != nil {
		return nil, err
	}
	ms, err := letters(ctx, eng, store, id)
	if err != nil {
		return nil, err
	}
	if len(ms) == 0 {
		return nil, fmt.Errorf("%w: dead letter %s", ErrNotFound, id)
	}
	return deadLetterOf(ms[0]), nil
}

// Replay moves dead letters back to their queue, as new tasks of the same ids
// with their attempts unspent, and returns how many it moved. Each is moved
// once, even with two replayers; ids without a dead letter are passed over.
// An at-most-once task without a record is refused by brokers that cannot tell
// a second copy from the first.
func (d *DeadLetters) Replay(ctx context.Context, ids ...string) (int, error) {
	store, eng, err := d.store()
	if err != nil {
		return 0, err
	}
	keys, err := replayable(ctx, eng, store, ids)
	if err != nil {
		return 0, err
	}
	return d.replay(ctx, store, eng, keys)
}

// ReplayAll replays every dead letter that is there now.
func (d *DeadLetters) ReplayAll(ctx context.Context) (int, error) {
	store, eng, err := d.store()
	if err != nil {
		return 0, err
	}
	keys, err := listKeys(ctx, eng, store)
	if err != nil {
		return 0, err
	}
	total := 0
	for len(keys) > 0 {
		n := min(len(keys), deadPage)
		moved, err := d.replay(ctx, store, eng, keys[:n])
		if total += moved; err != nil {
			return total, err
		}
		keys = keys[n:]
	}
	return total, nil
}

// listKeys takes the keys of all pages first: a replayed task may come back
// while the next page is read.
func listKeys(ctx context.Context, eng *engine.Engine, store driver.DeadLetters) ([]driver.DeadKey, error) {
	var keys []driver.DeadKey
	for cursor := ""; ; {
		page, next, err := store.List(ctx, cursor, deadPage)
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			if err := eng.MayReplay(m); err != nil {
				return nil, err
			}
			keys = append(keys, m.Key())
		}
		if cursor = next; cursor == "" {
			return keys, nil
		}
	}
}

func (d *DeadLetters) replay(ctx context.Context, store driver.DeadLetters, eng *engine.Engine, keys []driver.DeadKey) (int, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	ms, err := store.Replay(ctx, keys)
	eng.Replayed(ctx, ms)
	return len(ms), err
}

// letters returns the dead letters of one task, newest first, and waits for one
// that its record announces.
func letters(ctx context.Context, eng *engine.Engine, store driver.DeadLetters, id string) ([]*driver.Message, error) {
	const first = time.Millisecond
	last := time.Second
	if eng.Covered {
		last = 8 * time.Millisecond
	}
	for wait := first; ; wait *= 2 {
		ms, err := store.Get(ctx, id)
		if err != nil || eng.Backend == nil || wait > last {
			return ms, err
		}
		r, err := eng.Hub.Get(ctx, id)
		if err != nil || r == nil || r.State != driver.DeadLettered || len(ms) > 0 && ms[0].Epoch >= r.Epoch ||
			time.Since(time.UnixMilli(r.FinishedAt)) > announced {
			return ms, err
		}
		if !engine.Sleep(ctx, wait) {
			return nil, context.Cause(ctx)
		}
	}
}

// announced is for how long after its record a dead letter is waited for.
const announced = time.Minute

// replayable returns the keys of the newest dead letters of ids.
func replayable(ctx context.Context, eng *engine.Engine, store driver.DeadLetters, ids []string) ([]driver.DeadKey, error) {
	var keys []driver.DeadKey
	for _, id := range ids {
		ms, err := letters(ctx, eng, store, id)
		if err != nil {
			return nil, err
		}
		if len(ms) == 0 {
			continue
		}
		if err := eng.MayReplay(ms[0]); err != nil {
			return nil, err
		}
		keys = append(keys, ms[0].Key())
	}
	return keys, nil
}

// Delete removes dead letters for good and returns how many there were.
func (d *DeadLetters) Delete(ctx context.Context, ids ...string) (int, error) {
	store, _, err := d.store()
	if err != nil {
		return 0, err
	}
	var keys []driver.DeadKey
	for _, id := range ids {
		ms, err := store.Get(ctx, id)
		if err != nil {
			return 0, err
		}
		for _, m := range ms {
			keys = append(keys, m.Key())
		}
	}
	if len(keys) == 0 {
		return 0, nil
	}
	return store.Delete(ctx, keys)
}

// Purge removes the dead letters that are older than age, all for 0, and
// returns how many there were.
func (d *DeadLetters) Purge(ctx context.Context, age time.Duration) (int, error) {
	store, _, err := d.store()
	if err != nil {
		return 0, err
	}
	var before time.Time
	if age < 0 {
		return 0, fmt.Errorf("%w: Purge(%v)", ErrValidation, age)
	}
	if age > 0 {
		before = time.Now().Add(-age)
	}
	return store.Purge(ctx, before)
}

// Len returns the number of dead letters.
func (d *DeadLetters) Len(ctx context.Context) (int, error) {
	store, _, err := d.store()
	if err != nil {
		return 0, err
	}
	return store.Len(ctx)
}

func (d *DeadLetters) store() (driver.DeadLetters, *engine.Engine, error) {
	if err := driver.CheckQueue(d.queue); err != nil {
		return nil, nil, invalid(err)
	}
	eng, err := d.app.core.Engine()
	if err != nil {
		return nil, nil, err
	}
	return eng.Broker.DeadLetters(d.queue), eng, nil
}

func deadLetterOf(m *driver.Message) *DeadLetter {
	d := &DeadLetter{ID: m.ID, Queue: m.Queue, Epoch: int(m.Epoch)}
	if i := m.Dead; i != nil {
		d.Name, d.Reason, d.Kind, d.Message, d.Stack, d.Worker = i.Name, i.Reason, i.Kind, i.Message, i.Stack, i.Worker
		d.Attempts, d.Deliveries = int(i.Attempts), int(i.Deliveries)
		d.FirstFailure, d.LastFailure = at(i.FirstAt), at(i.LastAt)
		d.History = historyOf(i.History)
	}
	var env engine.Envelope
	if err := engine.DecodeEnvelope(m.Envelope, &env); err == nil {
		d.Headers, d.ContentType, d.Body = env.Headers, env.ContentType, env.Body
	} else {
		d.Body = m.Envelope
	}
	return d
}
