package redis

import (
	"context"
	"fmt"
	"strconv"

	"github.com/chicory-go/chicory/driver"
)

// Start implements [driver.Backend].
func (b *Backend) Start(ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	grants := make([]driver.Grant, len(ss))
	errs := batches(len(ss), func(int) int { return 0 }, func(from, to int) error {
		return b.start(ctx, ss[from:to], grants[from:to])
	})
	for i, err := range errs {
		switch {
		case err != nil && len(ss) <= atOnce:
			return nil, err // the call as a whole
		case err != nil:
			grants[i].Err = err
		}
	}
	return grants, nil
}

const perGrant = 3 // values of the reply, see lua/start.lua

func (b *Backend) start(ctx context.Context, ss []driver.Start, grants []driver.Grant) error {
	args := []any{b.conn.prefix}
	var sent []int
	for i := range ss {
		s := &ss[i]
		err := driver.CheckID(s.ID)
		if err == nil && len(s.Copy) > maxText {
			err = fmt.Errorf("the copy of %s has a name of %d bytes, at most %d fit", s.ID, len(s.Copy), maxText)
		}
		if err != nil {
			grants[i].Err = fmt.Errorf("redis: start: %w", err)
			continue
		}
		q, level, entry, generation := "", byte(0), "", uint32(0)
		if s.Delivery != nil {
			h, ok := s.Delivery.Handle.(*handle)
			if !ok || h.sub.broker.conn.prefix != b.conn.prefix {
				grants[i].Err = driver.ErrLeaseLost
				continue
			}
			q, level, entry, generation = h.key, h.level, h.entry, h.generation
		}
		once := "0"
		if s.Once {
			once = "1"
		}
		args = append(args, s.ID, s.Epoch, s.Seq, s.Attempt, s.Copy, s.Count, once, q, level, entry, generation)
		sent = append(sent, i)
	}
	if len(sent) == 0 {
		return nil
	}
	value, err := b.call(ctx, startScript, args...)
	if err != nil {
		return err
	}
	vs, _ := value.([]any)
	if len(vs) != perGrant*len(sent) {
		return fmt.Errorf("redis: a script answers %v to %d starts", value, len(sent))
	}
	for j, i := range sent {
		code, _ := vs[perGrant*j].(string)
		run, _ := vs[perGrant*j+1].(string)
		blob, _ := vs[perGrant*j+2].(string)
		g := &grants[i]
		if g.Err = verdicts[code[0]]; g.Err == nil {
			g.Run, err = strconv.ParseUint(run, 10, 64)
		} else if blob != "" {
			g.Record, err = decodeRecord(ss[i].ID, []byte(blob))
		}
		if err != nil {
			return fmt.Errorf("redis: task %s: %w", ss[i].ID, err)
		}
	}
	return nil
}

// Apply implements [driver.Backend].
func (b *Backend) Apply(ctx context.Context, us []driver.Update) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	errs := batches(len(us), func(i int) int { return updateSize(&us[i]) }, func(from, to int) error {
		return b.apply(ctx, us[from:to])
	})
	return driver.Batch(errs)
}

func (b *Backend) apply(ctx context.Context, us []driver.Update) error {
	errs := make([]error, len(us))
	args := []any{b.conn.prefix}
	var sent []int
	for i := range us {
		if errs[i] = checkUpdate(&us[i]); errs[i] == nil {
			args, sent = append(args, us[i].ID, encodeUpdate(&us[i])), append(sent, i)
		}
	}
	if len(sent) == 0 {
		return driver.Batch(errs)
	}
	value, err := b.call(ctx, applyScript, args...)
	var answers string
	if err == nil {
		answers, err = codes(value, len(sent))
	}
	for j, i := range sent {
		if errs[i] = err; err == nil {
			errs[i] = verdicts[answers[j]]
		}
	}
	return driver.Batch(errs)
}

// Get implements [driver.Backend].
func (b *Backend) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	rs := make([]*driver.Record, len(ids))
	errs := batches(len(ids), func(int) int { return 0 }, func(from, to int) error {
		return b.get(ctx, ids[from:to], rs[from:to])
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return rs, nil
}

func (b *Backend) get(ctx context.Context, ids []string, rs []*driver.Record) error {
	for len(ids) > 0 {
		value, err := b.call(ctx, getScript, append([]any{b.conn.prefix}, anys(ids)...)...)
		if err != nil {
			return err
		}
		vs, _ := value.([]any)
		if len(vs) == 0 || len(vs) > len(ids) {
			return fmt.Errorf("redis: a script answers %v to %d ids", value, len(ids))
		}
		for i, v := range vs {
			if blob, _ := v.(string); blob != "" {
				if rs[i], err = decodeRecord(ids[i], []byte(blob)); err != nil {
					return fmt.Errorf("redis: record of %s: %w", ids[i], err)
				}
			}
		}
		ids, rs = ids[len(vs):], rs[len(vs):]
	}
	return nil
}

func anys(texts []string) []any {
	as := make([]any, len(texts))
	for i, text := range texts {
		as[i] = text
	}
	return as
}

// Delete implements [driver.Backend].
func (b *Backend) Delete(ctx context.Context, ids []string) (int, error) {
	if err := b.check(ctx); err != nil {
		return 0, err
	}
	n := 0
	errs := batches(len(ids), func(int) int { return 0 }, func(from, to int) error {
		value, err := b.call(ctx, deleteScript, append([]any{b.conn.prefix}, anys(ids[from:to])...)...)
		deleted, _ := value.(int64)
		n += int(deleted)
		return err
	})
	for _, err := range errs {
		if err != nil {
			return n, partly(n, err)
		}
	}
	return n, nil
}
