package redis

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/chicory-go/chicory/driver"
)

// Start implements [driver.Backend].
func (b *Backend) Start(ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	starts := make([]starting, len(ss))
	grants := make([]driver.Grant, len(ss))
	for i := range ss {
		starts[i] = starting{&ss[i], &grants[i]}
	}
	keyOf := func(s starting) string { return b.conn.recordKey(s.ID) }
	errs := each(b.conn, starts, keyOf, func(key string, ss []starting) []error {
		return batches(len(ss), func(int) int { return 0 }, func(from, to int) error {
			return b.start(ctx, key, ss[from:to])
		})
	})
	for i, err := range errs {
		switch {
		case err != nil && len(ss) <= atOnce && !b.conn.cluster:
			return nil, err // the call as a whole
		case err != nil:
			grants[i].Err = err
		}
	}
	return grants, nil
}

// A starting is a start and its answer.
type starting struct {
	*driver.Start
	grant *driver.Grant
}

const perGrant = 3 // values of the reply, see lua/start.lua

func (b *Backend) start(ctx context.Context, key string, ss []starting) error {
	args := []any{b.conn.prefix}
	var sent []int
	for i, s := range ss {
		err := driver.CheckID(s.ID)
		if err == nil && len(s.Copy) > maxText {
			err = fmt.Errorf("the copy of %s has a name of %d bytes, at most %d fit", s.ID, len(s.Copy), maxText)
		}
		if err != nil {
			s.grant.Err = fmt.Errorf("redis: start: %w", err)
			continue
		}
		q, level, entry, generation := "", byte(0), "", uint32(0)
		if s.Delivery != nil {
			h, ok := s.Delivery.Handle.(*handle)
			if !ok || h.sub.broker.conn.prefix != b.conn.prefix {
				s.grant.Err = driver.ErrLeaseLost
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
	value, err := b.call(ctx, startScript, key, args...)
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
		g := ss[i].grant
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
	keyOf := func(u driver.Update) string { return b.conn.recordKey(u.ID) }
	return driver.Batch(each(b.conn, us, keyOf, func(key string, us []driver.Update) []error {
		return batches(len(us), func(i int) int { return updateSize(&us[i]) }, func(from, to int) error {
			return b.apply(ctx, key, us[from:to])
		})
	}))
}

func (b *Backend) apply(ctx context.Context, key string, us []driver.Update) error {
	errs := make([]error, len(us))
	told := "0"
	if b.conn.cluster { // where it is kept whether somebody watches, no script of a record can look
		told = "1"
	}
	args := []any{b.conn.prefix, told}
	var sent []int
	for i := range us {
		if errs[i] = checkUpdate(&us[i]); errs[i] == nil {
			args, sent = append(args, us[i].ID, encodeUpdate(&us[i])), append(sent, i)
		}
	}
	if len(sent) == 0 {
		return driver.Batch(errs)
	}
	value, err := b.call(ctx, applyScript, key, args...)
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
	lookups := make([]lookup, len(ids))
	for i := range ids {
		lookups[i] = lookup{ids[i], &rs[i]}
	}
	errs := each(b.conn, lookups, b.keyOf, func(key string, ls []lookup) []error {
		return batches(len(ls), func(int) int { return 0 }, func(from, to int) error {
			return b.get(ctx, key, ls[from:to])
		})
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return rs, nil
}

// A lookup is an ID, and where its record goes.
type lookup struct {
	id     string
	record **driver.Record
}

func (b *Backend) keyOf(l lookup) string { return b.conn.recordKey(l.id) }

func (b *Backend) get(ctx context.Context, key string, ls []lookup) error {
	for len(ls) > 0 {
		args := []any{b.conn.prefix}
		for _, l := range ls {
			args = append(args, l.id)
		}
		value, err := b.call(ctx, getScript, key, args...)
		if err != nil {
			return err
		}
		vs, _ := value.([]any)
		if len(vs) == 0 || len(vs) > len(ls) {
			return fmt.Errorf("redis: a script answers %v to %d ids", value, len(ls))
		}
		for i, v := range vs {
			if blob, _ := v.(string); blob != "" {
				if *ls[i].record, err = decodeRecord(ls[i].id, []byte(blob)); err != nil {
					return fmt.Errorf("redis: record of %s: %w", ls[i].id, err)
				}
			}
		}
		ls = ls[len(vs):]
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
	var n atomic.Int64
	errs := each(b.conn, ids, b.conn.recordKey, func(key string, ids []string) []error {
		return batches(len(ids), func(int) int { return 0 }, func(from, to int) error {
			value, err := b.call(ctx, deleteScript, key, append([]any{b.conn.prefix}, anys(ids[from:to])...)...)
			deleted, _ := value.(int64)
			n.Add(deleted)
			return err
		})
	})
	deleted := int(n.Load())
	for _, err := range errs {
		if err != nil {
			return deleted, partly(deleted, err)
		}
	}
	return deleted, nil
}
