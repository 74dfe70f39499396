package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// brokenStream is a stream of notifications with methods replaced.
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

var ageMutants = []mutant{
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
	{"a skeleton forgets why its task died", "Backend/Skeleton/Refuses", started(nil, func(s driver.Start, g *driver.Grant) {
		if g.Record != nil && g.Record.Skeleton {
			g.Record.Error = nil
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
