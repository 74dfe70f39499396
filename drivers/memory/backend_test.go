package memory_test

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func (p *pair) start(s driver.Start) driver.Grant {
	p.t.Helper()
	gs, err := p.backend.Start(p.t.Context(), []driver.Start{s})
	if err != nil {
		p.t.Fatalf("Start: %v", err)
	}
	return gs[0]
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		u := driver.Update{ID: "x", Epoch: 1, Seq: 2, Attempt: 3, State: driver.Retry, Once: true, Due: 4,
			Next: message("x"), Error: &driver.DeadInfo{Message: "m", History: []driver.FailedAttempt{{Attempt: 1}}},
			ContentType: "c", Body: []byte("body"), TTL: time.Hour, ReplyTo: "me"}
		sent := u.Clone()
		wantErr(t, "Apply", p.apply(u), nil)
		u.Body[0], u.Next.Envelope[0], u.Error.History[0].Attempt = 'X', 'X', 9
		got := p.record("x")
		if !reflect.DeepEqual(got.Update, sent) {
			t.Errorf("got %+v, want %+v", got.Update, sent)
		}
		want(t, "RetriedAt", got.RetriedAt, time.Now().UnixMilli())
		got.Body[0], got.Next.Envelope[0], got.Error.History[0].Attempt = 'Y', 'Y', 9
		if again := p.record("x"); !reflect.DeepEqual(again.Update, sent) {
			t.Errorf("stored: got %+v, want %+v", again.Update, sent)
		}
	})
}

func TestStates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		began := time.Now().UnixMilli()
		step := func() { time.Sleep(time.Second) }
		wantErr(t, "PENDING", p.apply(driver.Update{ID: "x", State: driver.Pending, ReplyTo: "me"}), nil)
		step()
		g1 := p.start(driver.Start{ID: "x", Copy: "c", Count: 1})
		g2 := p.start(driver.Start{ID: "x", Copy: "c", Count: 2})
		wantErr(t, "start", g1.Err, nil)
		if g2.Err != nil || g2.Run <= g1.Run {
			t.Errorf("second start: got %+v after %+v", g2, g1)
		}
		late := p.start(driver.Start{ID: "x", Copy: "c", Count: 1})
		wantErr(t, "older start", late.Err, driver.ErrSuperseded)
		if late.Record == nil || late.Record.Run != g2.Run {
			t.Errorf("refusing record: got %+v", late.Record)
		}
		wantErr(t, "late PENDING", p.apply(driver.Update{ID: "x", State: driver.Pending}), driver.ErrStale)
		wantErr(t, "older run", p.apply(driver.Update{ID: "x", State: driver.Failure, Run: g1.Run}), driver.ErrStale)
		step()
		wantErr(t, "SUCCESS", p.apply(driver.Update{ID: "x", State: driver.Success, Run: g2.Run}), nil)
		wantErr(t, "after the end", p.start(driver.Start{ID: "x", Seq: 5}).Err, driver.ErrStale)
		r := p.record("x")
		want(t, "ReplyTo", r.ReplyTo, "me")
		want(t, "Copy", r.Copy, "c")
		want(t, "Count", r.Count, 2)
		want(t, "PendingAt", r.PendingAt-began, 0)
		want(t, "StartedAt", r.StartedAt-began, 1000)
		want(t, "FinishedAt", r.FinishedAt-began, 2000)
	})
}

// TestExpiry follows records through time. A want of "" is no record, and of
// "skeleton" none that still refuses.
func TestExpiry(t *testing.T) {
	t.Parallel()
	held := driver.Update{State: driver.Cancelled, TTL: time.Hour}
	meet := func(p *pair) { wantErr(p.t, "Start", p.start(driver.Start{ID: "x"}).Err, driver.ErrStale) }
	poke := func(p *pair) { p.apply(driver.Update{ID: "x", State: driver.Pending}) }
	due := time.Now().AddDate(0, 0, 300)
	tests := []struct {
		name   string
		update driver.Update
		do     func(p *pair)
		after  time.Duration
		want   string
	}{
		{"within TTL", driver.Update{State: driver.Success, Run: 1, TTL: time.Hour}, nil, time.Hour - 1, "SUCCESS"},
		{"TTL over", driver.Update{State: driver.Success, Run: 1, TTL: time.Hour}, nil, time.Hour, "skeleton"},
		{"skeleton", driver.Update{State: driver.Success, Run: 1, TTL: time.Hour}, nil, time.Hour + driver.SkeletonAge - 1, "skeleton"},
		{"skeleton over", driver.Update{State: driver.Success, Run: 1, TTL: time.Hour}, nil, time.Hour + driver.SkeletonAge, ""},
		{"for ever", driver.Update{State: driver.Failure, Run: 1}, nil, 10 * 365 * 24 * time.Hour, "FAILURE"},
		{"provisional", driver.Update{State: driver.Pending, Provisional: true}, nil, driver.ProvisionalAge - 1, "PENDING"},
		{"provisional over", driver.Update{State: driver.Pending, Provisional: true}, nil, driver.ProvisionalAge, ""},
		{"confirmed", driver.Update{State: driver.Pending, Provisional: true}, poke, driver.ProvisionalAge, "PENDING"},
		{"pending", driver.Update{State: driver.Pending, TTL: 1}, nil, driver.SafetyAge - 1, "PENDING"},
		{"pending, forgotten", driver.Update{State: driver.Pending, TTL: 1}, nil, driver.SafetyAge, ""},
		{"due in 300 days", driver.Update{State: driver.Pending, Due: due.UnixMilli()}, nil, time.Until(due), "PENDING"},
		{"held", held, nil, driver.SafetyAge - 1, "CANCELLED"},
		{"held, forgotten", held, nil, driver.SafetyAge, ""},
		{"held, a late PENDING", held, poke, time.Hour, "CANCELLED"},
		{"held, met", held, meet, time.Hour - 1, "CANCELLED"},
		{"held, met, TTL over", held, meet, time.Hour, "skeleton"},
		{"deleted", driver.Update{State: driver.Success, Run: 1}, func(p *pair) {
			n, err := p.backend.Delete(p.t.Context(), []string{"x", "y"})
			want(p.t, "deleted", n, 1)
			wantErr(p.t, "Delete", err, nil)
			n, _ = p.backend.Delete(p.t.Context(), []string{"x"})
			want(p.t, "deleted again", n, 0)
		}, driver.SkeletonAge - 1, "skeleton"},
		{"unfinished ones are not deleted", driver.Update{State: driver.Pending}, func(p *pair) {
			n, _ := p.backend.Delete(p.t.Context(), []string{"x"})
			want(p.t, "deleted", n, 0)
		}, 0, "PENDING"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := open(t, true)
				tt.update.ID = "x"
				if d := tt.update.Due; d != 0 { // on the bubble's clock
					tt.update.Due = time.Now().AddDate(0, 0, 300).UnixMilli()
				}
				wantErr(t, "Apply", p.apply(tt.update), nil)
				if tt.do != nil {
					tt.do(p)
				}
				time.Sleep(tt.after)
				got := string(p.state("x"))
				if got == "" && p.start(driver.Start{ID: "x"}).Err != nil {
					got = "skeleton"
				}
				want(t, "state", got, tt.want)
			})
		})
	}
}

// TestHeldIsMetByStart checks the other way to meet a cancellation, and what
// an age-old skeleton allows.
func TestHeldIsMetByStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		p.apply(driver.Update{ID: "x", State: driver.Cancelled, TTL: time.Minute})
		want(t, "Held", p.record("x").Held, true)
		wantErr(t, "Start", p.start(driver.Start{ID: "x"}).Err, driver.ErrStale)
		want(t, "Held", p.record("x").Held, false)
		time.Sleep(time.Minute)
		want(t, "state", p.state("x"), "")
		wantErr(t, "its epoch", p.start(driver.Start{ID: "x"}).Err, driver.ErrSuperseded)
		wantErr(t, "the next epoch", p.start(driver.Start{ID: "x", Epoch: 1}).Err, nil)
	})
}

func TestBackendClosed(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	want(t, "Name", p.backend.Info().Name, "memory")
	wantErr(t, "Close", p.backend.Close(t.Context()), nil)
	wantErr(t, "Close again", p.backend.Close(t.Context()), nil)
	wantErr(t, "Apply", p.apply(driver.Update{ID: "x"}), driver.ErrClosed)
	_, err := p.backend.Get(t.Context(), nil)
	wantErr(t, "Get", err, driver.ErrClosed)
	_, err = p.backend.Delete(t.Context(), nil)
	wantErr(t, "Delete", err, driver.ErrClosed)
	_, err = p.backend.Start(t.Context(), nil)
	wantErr(t, "Start", err, driver.ErrClosed)
	_, err = p.backend.Notify(t.Context())
	wantErr(t, "Notify", err, driver.ErrClosed)
}
