package conformance_test

import (
	"context"
	"errors"
	"fmt"
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

// stream wraps a stream of notifications.
type brokenStream struct {
	driver.Notifications
	next    func(ctx context.Context) ([]*driver.Record, error)
	watch   func(ctx context.Context, ids []string) error
	address func() string
	close   func() error
}

func (s *brokenStream) Next(ctx context.Context) ([]*driver.Record, error) {
	if s.next != nil {
		return s.next(ctx)
	}
	return s.Notifications.Next(ctx)
}

func (s *brokenStream) Watch(ctx context.Context, ids []string) error {
	if s.watch != nil {
		return s.watch(ctx, ids)
	}
	return s.Notifications.Watch(ctx, ids)
}

func (s *brokenStream) Address() string {
	if s.address != nil {
		return s.address()
	}
	return s.Notifications.Address()
}

func (s *brokenStream) Close() error {
	if s.close != nil {
		return s.close()
	}
	return s.Notifications.Close()
}

func notified(f func(be *brokenBackend, s *brokenStream)) mutation {
	return mutation{notify: func(be *brokenBackend, n driver.Notifications) driver.Notifications {
		s := &brokenStream{Notifications: n}
		f(be, s)
		return s
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

	// Ages
	{"the time to live runs from the publish", "Backend/TTL/FromTheEnd", mutation{get: func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error) {
		rs, err := be.Backend.Get(ctx, ids)
		for i, r := range rs {
			if r != nil && r.TTL > 0 && r.PendingAt > 0 && r.State == driver.Success && time.Since(time.UnixMilli(r.PendingAt)) > r.TTL {
				rs[i] = nil
			}
		}
		return rs, err
	}}},
	{"records are kept for twice their time", "Backend/TTL/FromTheEnd", applied(func(u *driver.Update) {
		if u.State == driver.Failure {
			u.TTL *= 2
		}
	})},
	{"for ever is a month", "Backend/TTL/Zero", applied(func(u *driver.Update) {
		if u.TTL == 0 && u.State == driver.Success {
			u.TTL = 30 * 24 * time.Hour
		}
	})},
	{"a cancellation's time begins at once", "Backend/TTL/Held", read(func(_ *brokenBackend, r *driver.Record) { r.Held = false })},
	{"a late PENDING ends a cancellation's hold", "Backend/TTL/Held", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		if len(us) == 1 && us[0].State == driver.Pending && us[0].ID == "started" && !us[0].Provisional {
			if rs, _ := be.Backend.Get(ctx, []string{us[0].ID}); rs[0] != nil && rs[0].Held {
				be.Backend.Start(ctx, []driver.Start{{ID: us[0].ID, Attempt: 1, Copy: "x", Count: 1}})
			}
		}
		return be.Backend.Apply(ctx, us)
	}}},
	{"Delete leaves no skeleton", "Backend/Skeleton/Refuses", started(nil, func(s driver.Start, g *driver.Grant) {
		if s.ID == "deleted" && s.Seq == 0 && errors.Is(g.Err, driver.ErrSuperseded) {
			*g = driver.Grant{Run: 99}
		}
	})},
	{"a skeleton lives for an hour", "Backend/Skeleton/Age", mutation{
		apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
			err := be.Backend.Apply(ctx, us)
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			for i := range us {
				at, ended := be.shared.any["ended "+us[i].ID].(time.Time)
				if us[i].State == driver.Pending && ended && time.Since(at) > time.Hour+time.Minute && len(us) == 1 {
					return nil
				}
				if us[i].State.Terminal() && driver.ItemError(err, i, len(us)) == nil {
					be.shared.any["ended "+us[i].ID] = time.Now()
				}
			}
			return err
		}}},
	{"a skeleton lives for ever", "Backend/Skeleton/Age", mutation{
		apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
			be.shared.mu.Lock()
			at, ended := be.shared.any["ended "+us[0].ID].(time.Time)
			be.shared.mu.Unlock()
			if ended && us[0].State == driver.Pending && us[0].Epoch == 0 && time.Since(at) > 3*time.Hour {
				return driver.ErrStale
			}
			err := be.Backend.Apply(ctx, us)
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			for i := range us {
				if us[i].State == driver.Success && driver.ItemError(err, i, len(us)) == nil {
					be.shared.any["ended "+us[i].ID] = time.Now()
				}
			}
			return err
		}}},
	{"a provisional record stays", "Backend/Age/Provisional", applied(func(u *driver.Update) {
		if u.Provisional && u.ID == "a" {
			u.Provisional, u.Due = false, 0
		}
	})},
	{"a confirmed record still expires", "Backend/Age/Provisional", mutation{get: func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error) {
		rs, err := be.Backend.Get(ctx, ids)
		for i, r := range rs {
			if r != nil && r.ID == "b" && r.State == driver.Pending && time.Since(time.UnixMilli(r.PendingAt)) > driver.ProvisionalAge && time.Since(time.UnixMilli(r.PendingAt)) < time.Hour {
				rs[i] = nil
			}
		}
		return rs, err
	}}},
	{"an unfinished record lives for a month from its publish", "Backend/Age/Safety", mutation{get: func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error) {
		rs, err := be.Backend.Get(ctx, ids)
		for i, r := range rs {
			if r != nil && !r.State.Terminal() && r.PendingAt > 0 && time.Since(time.UnixMilli(r.PendingAt)) > driver.SafetyAge {
				rs[i] = nil
			}
		}
		return rs, err
	}}},

	// Notifications
	{"an end is pushed a second late", "Backend/Notify/Watch", notified(func(_ *brokenBackend, s *brokenStream) {
		s.next = func(ctx context.Context) ([]*driver.Record, error) {
			rs, err := s.Notifications.Next(ctx)
			if len(rs) > 0 {
				time.Sleep(time.Second)
			}
			return rs, err
		}
	})},
	{"a pushed record has no result", "Backend/Notify/Watch", notified(func(_ *brokenBackend, s *brokenStream) {
		s.next = func(ctx context.Context) ([]*driver.Record, error) {
			rs, err := s.Notifications.Next(ctx)
			for i, r := range rs {
				rs[i] = r.Clone()
				rs[i].Body = nil
			}
			return rs, err
		}
	})},
	{"a watch is active a moment later", "Backend/Notify/Race", notified(func(_ *brokenBackend, s *brokenStream) {
		s.watch = func(ctx context.Context, ids []string) error {
			if len(ids) != 1 || !isTask(ids[0]) {
				return s.Notifications.Watch(ctx, ids)
			}
			go func() {
				time.Sleep(time.Microsecond)
				s.Notifications.Watch(context.WithoutCancel(ctx), ids)
			}()
			return nil
		}
	})},
	{"a reply goes to everyone", "Backend/Notify/Reply", notified(func(be *brokenBackend, s *brokenStream) {
		s.address = func() string { return "the address" }
	})},
	{"only the last watcher is told", "Backend/Notify/Many", notified(func(be *brokenBackend, s *brokenStream) {
		s.next = func(ctx context.Context) ([]*driver.Record, error) {
			rs, err := s.Notifications.Next(ctx)
			rs = slices.Clone(rs)
			return slices.DeleteFunc(rs, func(r *driver.Record) bool {
				be.shared.mu.Lock()
				defer be.shared.mu.Unlock()
				key := "told " + r.ID
				n, _ := be.shared.any[key].(int)
				be.shared.any[key] = n + 1
				return n >= 3 && r.ID == "task-100"
			}), err
		}
	})},
	{"every update is pushed", "Backend/Notify/Terminal", feeding(func(u *driver.Update) bool { return u.State == driver.Retry })},
	{"Next ignores its context", "Backend/Notify/Close", notified(func(_ *brokenBackend, s *brokenStream) {
		s.next = func(ctx context.Context) ([]*driver.Record, error) {
			return s.Notifications.Next(context.WithoutCancel(ctx))
		}
	})},
	{"Close does not end Next", "Backend/Notify/Close", notified(func(_ *brokenBackend, s *brokenStream) {
		s.close = func() error { return nil }
	})},
	{"records of all namespaces are pushed", "Backend/Notify/Namespaces", mutation{backendNS: func(ns string) string {
		if ns == "one" || ns == "two" {
			return "all"
		}
		return ns
	}}},

	// Life
	{"the backend has no name", "Backend/Life/Info", mutation{backendInfo: func(i driver.BackendInfo) driver.BackendInfo { i.Name = ""; return i }}},
	{"reads after Close", "Backend/Life/Closed", mutation{get: func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error) {
		rs, err := be.Backend.Get(ctx, ids)
		if errors.Is(err, driver.ErrClosed) {
			return make([]*driver.Record, len(ids)), nil
		}
		return rs, err
	}}},
	{"writes under a context that has ended", "Backend/Life/Cancelled", mutation{apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
		return be.Backend.Apply(context.WithoutCancel(ctx), us)
	}}},
	{"closing one backend closes all", "Backend/Life/Others", mutation{
		closeBE: func(be *brokenBackend, ctx context.Context) error {
			be.shared.mu.Lock()
			be.shared.any["gone"] = true
			be.shared.mu.Unlock()
			return be.Backend.Close(ctx)
		},
		start: func(be *brokenBackend, ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
			be.shared.mu.Lock()
			gone := be.shared.any["gone"] != nil
			be.shared.mu.Unlock()
			if gone {
				return nil, driver.ErrClosed
			}
			return be.Backend.Start(ctx, ss)
		}}},
	{"namespaces share their records", "Backend/Life/Namespaces", mutation{
		get: func(be *brokenBackend, ctx context.Context, ids []string) ([]*driver.Record, error) {
			rs, err := be.Backend.Get(ctx, ids)
			be.shared.mu.Lock()
			defer be.shared.mu.Unlock()
			for i, id := range ids {
				if r, ok := be.shared.any["any "+id].(*driver.Record); ok && rs != nil && rs[i] == nil {
					rs[i] = r
				}
			}
			return rs, err
		},
		apply: func(be *brokenBackend, ctx context.Context, us []driver.Update) error {
			err := be.Backend.Apply(ctx, us)
			if len(us) == 1 && us[0].State == driver.Success && us[0].ID == "a" && us[0].TTL == 0 && us[0].Run == 0 && us[0].Seq == 0 && us[0].Body == nil {
				be.shared.mu.Lock()
				be.shared.any["any a"] = &driver.Record{Update: us[0]}
				be.shared.mu.Unlock()
			}
			return err
		}}},
	{"a start fails under load", "Backend/Life/Everything", mutation{start: func(be *brokenBackend, ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
		be.shared.mu.Lock()
		be.shared.count++
		n := be.shared.count
		be.shared.mu.Unlock()
		if n == 155 && len(ss) == 1 {
			return nil, errors.New("busy")
		}
		return be.Backend.Start(ctx, ss)
	}}},
	{"the backend says it is durable", "Backend/Life/Restart", mutation{backendInfo: func(i driver.BackendInfo) driver.BackendInfo { i.Durable = true; return i }}},
	{"the backend leaks a goroutine", "Backend/Life/Info", mutation{closeBE: func(be *brokenBackend, ctx context.Context) error {
		if be.Backend.Close(ctx) == nil {
			go func() { select {} }()
		}
		return nil
	}}},
}

func isTask(id string) bool {
	var n int
	_, err := fmt.Sscanf(id, "task-%d", &n)
	return err == nil
}
