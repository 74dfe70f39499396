package conformance_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// applied applies updates that f has changed.
func applied(f func(u *driver.Update)) mutation {
	return mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		us = slices.Clone(us)
		for i := range us {
			f(&us[i])
		}
		return be.Backend.Apply(ctx, us)
	}}
}

// read returns records that f has changed.
func read(f func(be *brokenBackend, r *driver.Record)) mutation {
	return mutation{get: func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error) {
		rs, err := be.Backend.Get(ctx, ids)
		for i, r := range rs {
			if r != nil {
				rs[i] = r.Clone()
				f(be, rs[i])
			}
		}
		return rs, err
	}}
}

// started asks for starts that f has changed, and answers with grants that g
// has.
func started(f func(s *driver.Start), g func(s driver.Start, g *driver.Grant)) mutation {
	return mutation{start: func(be *brokenBackend, ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
		changed := slices.Clone(ss)
		for i := range changed {
			if f != nil {
				f(&changed[i])
			}
		}
		gs, err := be.Backend.Start(ctx, changed)
		for i := range gs {
			if g != nil {
				g(ss[i], &gs[i])
			}
		}
		return gs, err
	}}
}

// accepts makes refused updates that match f seem accepted, and forces them.
func accepts(f func(u *driver.Update) bool) mutation {
	return mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		err := be.Backend.Apply(ctx, us)
		errs := make([]error, len(us))
		for i := range us {
			if errs[i] = driver.ItemError(err, i, len(us)); errors.Is(errs[i], driver.ErrStale) && f(&us[i]) {
				errs[i] = nil
			}
		}
		return driver.Batch(errs)
	}}
}

var backendMutants = []mutant{
	{"a record loses when it is due", "Backend/Record/Fields", applied(func(u *driver.Update) { u.Due = 0 })},
	{"a record loses its next message", "Backend/Record/Fields", applied(func(u *driver.Update) { u.Next = nil })},
	{"a record loses its content type", "Backend/Record/Fields", applied(func(u *driver.Update) {
		if u.ContentType == "x/y" {
			u.ContentType = ""
		}
	})},
	{"a start forgets where to reply", "Backend/Record/Fields", read(func(_ *brokenBackend, r *driver.Record) {
		if r.State == driver.Started {
			r.ReplyTo = ""
		}
	})},
	{"Get leaves out what is absent", "Backend/Record/Absent", mutation{get: func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error) {
		rs, err := be.Backend.Get(ctx, ids)
		if len(rs) == 5 {
			rs = slices.DeleteFunc(rs, func(r *driver.Record) bool { return r == nil })
		}
		return rs, err
	}}},
	{"StartedAt is when it was published", "Backend/Record/Times", read(func(_ *brokenBackend, r *driver.Record) {
		if r.PendingAt > 0 && r.StartedAt > 0 {
			r.StartedAt = r.PendingAt
		}
	})},
	{"times are seconds", "Backend/Record/Times", read(func(_ *brokenBackend, r *driver.Record) {
		r.PendingAt /= 1000
	})},
	{"applies the first hundred", "Backend/Record/Batch", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		if len(us) > 200 {
			return be.Backend.Apply(ctx, us[:100])
		}
		return be.Backend.Apply(ctx, us)
	}}},
	{"a stale update of a batch refuses it", "Backend/Record/PerItem", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		err := be.Backend.Apply(ctx, us)
		if err != nil && len(us) > 100 {
			return driver.ErrStale
		}
		return err
	}}},
	{"errors of updates are in the wrong place", "Backend/Record/PerItem", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		err := be.Backend.Apply(ctx, us)
		var b *driver.BatchError
		if len(us) > 100 && errors.As(err, &b) {
			slices.Reverse(b.Errs)
		}
		return err
	}}},
	{"the last update of a batch wins", "Backend/Record/Twice", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		if len(us) == 4 && us[0].ID == us[3].ID {
			return be.Backend.Apply(ctx, us[3:])
		}
		return be.Backend.Apply(ctx, us)
	}}},
	{"keeps the caller's result", "Backend/Record/Retention", mutation{
		apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
			err := be.Backend.Apply(ctx, us)
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			for i := range us {
				if driver.ItemError(err, i, len(us)) == nil && us[i].State == driver.Retry && len(us[i].Body) > 0 {
					be.shared.any["body "+us[i].ID] = us[i].Body
				}
			}
			return err
		},
		get: read(func(be *brokenBackend, r *driver.Record) {
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			if b, ok := be.shared.any["body "+r.ID].([]byte); ok && r.State == driver.Retry {
				r.Body = b
			}
		}).get}},
	{"returned records change", "Backend/Record/Retention", mutation{get: func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error) {
		rs, err := be.Backend.Get(ctx, ids)
		be.shared.mu.Lock()
		defer be.shared.mu.Unlock()
		if len(rs) == 1 && rs[0] != nil && ids[0] == "a" {
			if old, ok := be.shared.any["record"].(*driver.Record); ok {
				*old = *rs[0].Clone()
				return []*driver.Record{old}, err
			}
			c := rs[0].Clone()
			be.shared.any["record"] = c
			return []*driver.Record{c}, err
		}
		return rs, err
	}}},
	{"cuts results at 2 MiB", "Backend/Record/Oversize", applied(func(u *driver.Update) { u.Body = u.Body[:min(len(u.Body), 2<<20)] })},
	{"says a limit of results that it does not keep", "Backend/Record/Oversize", mutation{backendInfo: func(i driver.BackendInfo) driver.BackendInfo {
		i.MaxBody = 3 << 20
		return i
	}}},
	{"results are text", "Backend/Record/Data", applied(func(u *driver.Update) {
		for i, c := range u.Body {
			if c == 0xff {
				u.Body = append(slices.Clone(u.Body[:i]), '?')
			}
		}
	})},
	{"two equal verdicts both win", "Backend/Record/Concurrent", accepts(func(u *driver.Update) bool {
		return u.State == driver.Success && len(u.Body) == 1 && u.Body[0] == '7' && u.Run > 0
	})},
	{"two starts share a run", "Backend/Record/Concurrent", started(nil, func(s driver.Start, g *driver.Grant) {
		if g.Run > 0 && s.Copy == "c" && s.ID == "task-3" && g.Run%16 == 5 {
			g.Run--
		}
	})},
	{"Delete removes what has not ended", "Backend/Record/Delete", mutation{del: func(be *brokenBackend, ctx context.Context, ids []string) (int, error) {
		n, err := be.Backend.Delete(ctx, ids)
		if len(ids) == 6 {
			n++
		}
		return n, err
	}}},
	{"a late PENDING is no error", "Backend/Rules/Pending", accepts(func(u *driver.Update) bool { return u.State == driver.Pending && u.Seq == 9 })},
	{"a second claim of an id is no error", "Backend/Rules/Pending", accepts(func(u *driver.Update) bool { return u.Provisional })},
	{"an older version is no error", "Backend/Rules/Versions", accepts(func(u *driver.Update) bool { return u.State == driver.Failure && u.Seq == 3 && u.Epoch == 0 })},
	{"a later seq passes over a terminal state", "Backend/Rules/Terminal", accepts(func(u *driver.Update) bool { return u.Seq == 5 })},
	{"a new epoch keeps the old error", "Backend/Rules/Terminal", read(func(_ *brokenBackend, r *driver.Record) {
		if r.Epoch == 1 && r.State == driver.Pending && r.Attempt == 1 && r.Due == 0 && r.Seq == 0 && len(r.ID) == 6 {
			r.FinishedAt = 1
		}
	})},
	{"a dead letter passes over RETRY", "Backend/Rules/Retry", accepts(func(u *driver.Update) bool {
		return u.State == driver.Expired && u.Run > 0 && u.Seq == 0
	})},
	{"RETRY refuses a late success", "Backend/Rules/Retry", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		if len(us) == 1 && us[0].State == driver.Success && us[0].Run == 0 {
			if rs, _ := be.Backend.Get(ctx, []string{us[0].ID}); len(rs) == 1 && rs[0] != nil && rs[0].State == driver.Retry && rs[0].Version() == us[0].Version() {
				return driver.ErrStale
			}
		}
		return be.Backend.Apply(ctx, us)
	}}},
	{"an older run's failure wins", "Backend/Rules/Fencing", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		err := be.Backend.Apply(ctx, us)
		if len(us) == 1 && us[0].State == driver.Failure && errors.Is(driver.ItemError(err, 0, 1), driver.ErrStale) && us[0].Run > 0 {
			if rs, _ := be.Backend.Get(ctx, []string{us[0].ID}); rs[0] != nil && rs[0].State == driver.Started {
				u := us[0]
				u.Run = rs[0].Run
				return be.Backend.Apply(ctx, []driver.Update{u})
			}
		}
		return err
	}}},
	{"an older run's success is stale", "Backend/Rules/Fencing", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		if len(us) == 1 && us[0].State == driver.Success && string(us[0].Body) == "older" {
			return driver.ErrStale
		}
		return be.Backend.Apply(ctx, us)
	}}},
	{"poison passes over RETRY", "Backend/Rules/Outside", accepts(func(u *driver.Update) bool {
		return u.State == driver.DeadLettered && u.Run == 0 && len(u.ID) > 20
	})},
	{"a verdict without a run does not pass over STARTED", "Backend/Rules/Outside", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		if len(us) == 1 && us[0].Run == 0 && us[0].State == driver.DeadLettered {
			if rs, _ := be.Backend.Get(ctx, []string{us[0].ID}); rs[0] != nil && rs[0].State == driver.Started {
				return driver.ErrStale
			}
		}
		return be.Backend.Apply(ctx, us)
	}}},
	{"parks an at-most-once task that has started", "Backend/Rules/ParkOnce", applied(func(u *driver.Update) {
		if u.State == driver.Retry && u.Run == 0 && u.ID == "a" {
			u.Once = false
		}
	})},
	{"a provisional record refuses a start", "Backend/Start/Grant", mutation{start: func(be *brokenBackend, ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
		if rs, _ := be.Backend.Get(ctx, []string{ss[0].ID}); len(ss) == 1 && rs[0] != nil && rs[0].Provisional {
			return []driver.Grant{{Err: driver.ErrStale, Record: rs[0]}}, nil
		}
		return be.Backend.Start(ctx, ss)
	}}},
	{"a start forgets its attempt", "Backend/Start/Grant", started(func(s *driver.Start) {
		if s.Seq == 1 && s.Copy == "d" {
			s.Attempt = 1
		}
	}, nil)},
	{"runs stay as they are", "Backend/Start/Runs", started(nil, func(s driver.Start, g *driver.Grant) {
		if s.Seq == 1 && s.Attempt == 1 && s.Copy == "d" && g.Run > 0 {
			g.Run = 1
		}
	})},
	{"a refused start comes without its record", "Backend/Start/Stale", started(nil, func(s driver.Start, g *driver.Grant) {
		if s.ID == "epoch" || s.ID == "newer" {
			g.Record = nil
		}
	})},
	{"an equal start from another copy is granted", "Backend/Start/Superseded", started(func(s *driver.Start) {
		if s.Copy == "d" && s.Seq == 0 && s.Count == 3 {
			s.Copy = "c"
		}
	}, nil)},
	{"an at-most-once task is granted again", "Backend/Start/Once", started(func(s *driver.Start) {
		if s.ID == "none" && s.Count == 2 {
			s.Once = false
		}
	}, nil)},
	{"a refused start counts", "Backend/Start/Refusal", mutation{
		start: func(be *brokenBackend, ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
			gs, err := be.Backend.Start(ctx, ss)
			if len(gs) == 1 && gs[0].Err != nil && ss[0].Attempt == 9 {
				be.shared.mu.Lock()
				be.shared.any["refused "+ss[0].ID] = true
				be.shared.mu.Unlock()
			}
			return gs, err
		},
		get: read(func(be *brokenBackend, r *driver.Record) {
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			if be.shared.any["refused "+r.ID] != nil {
				r.Attempt = 9
			}
		}).get}},
	{"an update of an absent record is lost", "Backend/Rules/Absent", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		if len(us) == 1 && us[0].Epoch == 2 && us[0].Run == 7 {
			return nil
		}
		return be.Backend.Apply(ctx, us)
	}}},
	{"a cancelled record takes a late retry", "Backend/Rules/Model", accepts(func(u *driver.Update) bool {
		return u.State == driver.Cancelled && u.Seq == 2 && u.Once && u.TTL == time.Hour
	})},
}
