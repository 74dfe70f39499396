package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// PendingBehind reports whether the PENDING record of id is still to be
// written.
func (e *Engine) PendingBehind(id string) bool { return e.behind.has(id) }

// CancelTask writes CANCELLED over whatever is not terminal.
func (e *Engine) CancelTask(ctx context.Context, id string, ttl time.Duration) error {
	if err := driver.CheckID(id); err != nil {
		return fmt.Errorf("%w: %w", ErrValidation, err)
	}
	for {
		rs, err := e.Backend.Get(ctx, []string{id})
		if err != nil {
			return err
		}
		r := rs[0]
		switch {
		case r == nil:
			return fmt.Errorf("%w: %s", ErrNotFound, id)
		case r.State == driver.Cancelled:
			return nil
		case r.State.Terminal():
			return fmt.Errorf("%w: %s is %s", ErrFinished, id, r.State)
		}
		u := driver.Update{ID: id, Epoch: r.Epoch, Seq: r.Seq, Attempt: r.Attempt, State: driver.Cancelled,
			Once: r.Once, TTL: ttl, ReplyTo: r.ReplyTo}
		err = driver.ItemError(e.Backend.Apply(ctx, []driver.Update{u}), 0, 1)
		if !errors.Is(err, driver.ErrStale) { // stale: it moved meanwhile
			return err
		}
	}
}

// MayReplay refuses to replay a task that could then start twice: at-most-once,
// on a broker with neither dedup nor record.
func (e *Engine) MayReplay(m *driver.Message) error {
	if m.Once && m.NoRecord && !e.Broker.Info().Dedup {
		return fmt.Errorf("%w: %s is at-most-once without a record, and broker %s cannot tell a second copy: it may not be replayed",
			ErrValidation, m.ID, e.Broker.Info().Name)
	}
	return nil
}

// Replayed writes the PENDING records of replayed messages, unless the broker
// has done it. The messages are moved already, so that late is harmless.
func (e *Engine) Replayed(ctx context.Context, ms []*driver.Message) {
	if e.Backend == nil || e.Covered {
		return
	}
	var us []driver.Update
	for _, m := range ms {
		if !m.NoRecord {
			us = append(us, pending(m, time.Now()))
		}
	}
	if len(us) > 0 {
		e.WritePending(ctx, us)
	}
}
