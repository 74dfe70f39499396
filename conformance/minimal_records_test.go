package conformance_test

import (
	"context"
	"time"

	"github.com/chicory-go/chicory/driver"
)

type tinyRecord struct {
	*driver.Record
	until time.Time // zero: for ever
}

type tinyBackend struct{ *tinyClient }

func (b *tinyBackend) Info() driver.BackendInfo { return driver.BackendInfo{Name: "tiny", Contract: 1} }

// get returns the record of id as it is now, skeletons included.
func (s *tinyStore) get(id string) *driver.Record {
	r := s.records[id]
	for r != nil && !r.until.IsZero() && !time.Now().Before(r.until) {
		if r.Skeleton || !r.State.Terminal() {
			delete(s.records, id)
			return nil
		}
		r = &tinyRecord{driver.SkeletonOf(r.Record), r.until.Add(driver.SkeletonAge)}
		s.records[id] = r
	}
	if r == nil {
		return nil
	}
	return r.Record
}

func (s *tinyStore) set(r *driver.Record) {
	until := time.Now()
	switch due := time.UnixMilli(r.Due); {
	case r.Provisional:
		until = until.Add(driver.ProvisionalAge)
	case !r.State.Terminal() && due.After(until):
		until = due.Add(driver.SafetyAge)
	case !r.State.Terminal(), r.Held:
		until = until.Add(driver.SafetyAge)
	case r.TTL > 0:
		until = until.Add(r.TTL)
	default:
		until = time.Time{}
	}
	s.records[r.ID] = &tinyRecord{r, until}
}

// meet ends the hold of a cancellation that refused something.
func (s *tinyStore) meet(r *driver.Record) {
	if r != nil && r.Held {
		met := *r
		met.Held = false
		s.set(&met)
	}
}

func (b *tinyBackend) Start(ctx context.Context, ss []driver.Start) ([]driver.Grant, error) {
	gs := make([]driver.Grant, len(ss))
	return gs, b.each(ctx, len(ss), func(i int) error {
		r := b.get(ss[i].ID)
		if err := driver.CheckStart(r, &ss[i]); err != nil {
			gs[i] = driver.Grant{Record: r.Clone(), Err: err}
			b.meet(r)
			return nil
		}
		b.last++
		gs[i].Run = b.last
		b.set(driver.NextStarted(r, &ss[i], b.last, time.Now().UnixMilli()))
		return nil
	})
}

func (b *tinyBackend) Apply(ctx context.Context, us []driver.Update) error {
	return b.each(ctx, len(us), func(i int) error {
		u, r := us[i].Clone(), b.get(us[i].ID)
		err := driver.CheckUpdate(r, &u, false)
		if err == nil {
			b.set(driver.NextUpdated(r, &u, time.Now().UnixMilli(), false))
		} else if u.State != driver.Pending {
			b.meet(r)
		}
		return err
	})
}

func (b *tinyBackend) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	rs := make([]*driver.Record, len(ids))
	return rs, b.each(ctx, len(ids), func(i int) error {
		if r := b.get(ids[i]); r != nil && !r.Skeleton {
			rs[i] = r.Clone()
		}
		return nil
	})
}

func (b *tinyBackend) Delete(ctx context.Context, ids []string) (n int, err error) {
	return n, b.each(ctx, len(ids), func(i int) error {
		if r := b.get(ids[i]); r != nil && !r.Skeleton && r.State.Terminal() {
			b.records[r.ID] = &tinyRecord{driver.SkeletonOf(r), time.Now().Add(driver.SkeletonAge)}
			n++
		}
		return nil
	})
}
