package memory_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

type wrapped struct{ driver.Backend }

func (w wrapped) Unwrap() any { return w.Backend }

func TestCovers(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	other := memory.New().Backend("ns")
	defer other.Close(t.Context())
	elsewhere := p.store.Backend("other")
	defer elsewhere.Close(t.Context())
	want(t, "same store", p.broker.Covers(p.backend), true)
	want(t, "wrapped", p.broker.Covers(wrapped{p.backend}), true)
	want(t, "other store", p.broker.Covers(other), false)
	want(t, "other namespace", p.broker.Covers(elsewhere), false)
	want(t, "nil", p.broker.Covers(nil), false)
}

func TestPublishWritesRecord(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	p.publish(tracked("x"))
	want(t, "published", p.state("x"), driver.Pending)
	d := p.one()
	r := p.record("x")
	if r.State != driver.Started || r.Copy != d.Copy || r.Count != 1 || r.Run == 0 {
		t.Errorf("claimed: got %+v", r)
	}
	u := &driver.Update{ID: "x", State: driver.Success, Body: []byte("result")}
	wantErr(t, "Settle", p.settle(driver.Settlement{Delivery: d, Record: u}), nil)
	u.Body[0] = 'X'
	r = p.record("x")
	if r.State != driver.Success || string(r.Body) != "result" || r.PendingAt == 0 || r.StartedAt == 0 {
		t.Errorf("settled: got %+v", r)
	}
	wantErr(t, "published again", p.broker.Publish(t.Context(), []*driver.Message{tracked("x")}), driver.ErrDuplicate)
	p.backend.Delete(t.Context(), []string{"x"})
	wantErr(t, "over a skeleton", p.broker.Publish(t.Context(), []*driver.Message{tracked("x")}), driver.ErrDuplicate)
	again := tracked("x")
	again.Repeat = true
	wantErr(t, "repeated", p.broker.Publish(t.Context(), []*driver.Message{again}), nil)
	p.none()
}

func TestProvisionalIsConfirmed(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	wantErr(t, "Apply", p.apply(driver.Update{ID: "x", State: driver.Pending, Provisional: true}), nil)
	p.publish(tracked("x"))
	want(t, "Provisional", p.record("x").Provisional, false)
}

// TestNotCovering checks that a broker whose store has no backend leaves
// records alone.
func TestNotCovering(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	p.publish(tracked("x"))
	d := p.one()
	wantErr(t, "Settle", p.settle(driver.Settlement{Delivery: d, Record: &driver.Update{ID: "x", State: driver.Success}}), nil)
	p.publish(tracked("x")) // no record, no duplicate
	p.backend = p.store.Backend("ns")
	defer p.backend.Close(t.Context())
	want(t, "record", p.state("x"), "")
}

func TestClaimObeysRecord(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		record driver.Update
		want   bool // handed out
		state  driver.State
	}{
		{"pending", driver.Update{State: driver.Pending}, true, driver.Started},
		{"finished", driver.Update{State: driver.Success, Run: 1}, false, driver.Success},
		{"cancelled", driver.Update{State: driver.Cancelled, TTL: time.Hour}, false, driver.Cancelled},
		{"newer", driver.Update{State: driver.Pending, Seq: 1}, false, driver.Pending},
		{"newer epoch", driver.Update{State: driver.Pending, Epoch: 1}, false, driver.Pending},
		{"retry closes its version", driver.Update{State: driver.Retry}, true, driver.Retry},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := open(t, true)
				p.publish(message("x"), message("after"))
				tt.record.ID = "x"
				wantErr(t, "Apply", p.apply(tt.record), nil)
				want(t, "handed out", p.one().ID == "x", tt.want)
				want(t, "state", p.state("x"), tt.state)
				want(t, "Held", p.record("x").Held, false)
				if !tt.want {
					p.publish(message("x")) // the refused one is gone
				}
			})
		})
	}
}

func TestCancelledBeforeStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		m := tracked("x")
		m.Delay = 48 * time.Hour
		p.publish(m)
		p.apply(driver.Update{ID: "x", State: driver.Cancelled, TTL: time.Hour})
		time.Sleep(47 * time.Hour)
		want(t, "kept until met", p.state("x"), driver.Cancelled)
		time.Sleep(time.Hour)
		p.none()
		time.Sleep(time.Hour)
		want(t, "its TTL over", p.state("x"), "")
	})
}

// TestDeletedCancellation checks that deleting the record of a cancellation
// does not bring its delayed message to life.
func TestDeletedCancellation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		m := tracked("x")
		m.Delay = 24 * time.Hour
		p.publish(m)
		p.apply(driver.Update{ID: "x", State: driver.Cancelled})
		p.backend.Delete(t.Context(), []string{"x"})
		time.Sleep(25 * time.Hour)
		p.none()
	})
}

func TestAtMostOnceIsNotMarked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		m := tracked("x")
		m.Once = true
		p.publish(m)
		d := p.one()
		want(t, "claimed", p.state("x"), driver.Pending)
		s := driver.Start{ID: "x", Copy: d.Copy, Count: d.Count, Once: true, Delivery: d}
		wantErr(t, "Start", p.start(s).Err, nil)
		want(t, "started", p.state("x"), driver.Started)
		wantErr(t, "second Start", p.start(s).Err, driver.ErrStarted)

		park := driver.Settlement{Delivery: d, Then: []*driver.Message{message("next")},
			Record: &driver.Update{ID: "x", State: driver.Retry, Once: true}}
		wantErr(t, "park", p.settle(park), driver.ErrStarted)
		want(t, "still leased", p.stats("q").Leased, 1)
		want(t, "nothing new", p.stats("q").Ready, 0)
		lost := driver.Settlement{Delivery: d, Record: &driver.Update{ID: "x", State: driver.DeadLettered, Once: true},
			Then: []*driver.Message{dead("x", 0, 1)}}
		wantErr(t, "lost", p.settle(lost), nil)
		want(t, "dead", p.lenDead(), 1)
	})
}

func TestStartNeedsCurrentDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		p.publish(tracked("x"))
		d := p.one()
		p.ack(d)
		wantErr(t, "settled", p.start(driver.Start{ID: "x", Delivery: d}).Err, driver.ErrLeaseLost)
		p.publish(message("y"))
		d = p.one()
		time.Sleep(lease)
		wantErr(t, "expired", p.start(driver.Start{ID: "y", Delivery: d}).Err, driver.ErrLeaseLost)
		foreign := &driver.Delivery{Handle: 1}
		wantErr(t, "foreign", p.start(driver.Start{ID: "y", Delivery: foreign}).Err, driver.ErrLeaseLost)
	})
}

// TestStaleSettle checks that a refused record acknowledges without Then, and
// lets the time to live of a cancellation begin.
func TestStaleSettle(t *testing.T) {
	t.Parallel()
	for _, action := range []driver.Action{driver.Ack, driver.Release} {
		synctest.Test(t, func(t *testing.T) {
			p := open(t, true)
			p.publish(tracked("x"), tracked("y"))
			ds := receive(t, p.sub, 2)
			p.apply(driver.Update{ID: "x", State: driver.Cancelled, TTL: time.Hour})
			want(t, "Held", p.record("x").Held, true)
			err := p.settle(
				driver.Settlement{Delivery: ds[0], Action: action, Then: []*driver.Message{dead("x", 0, 1), message("next")},
					Record: &driver.Update{ID: "x", State: driver.Success}},
				driver.Settlement{Delivery: ds[1], Record: &driver.Update{ID: "y", State: driver.Success}})
			wantErr(t, "stale item", driver.ItemError(err, 0, 2), driver.ErrStale)
			wantErr(t, "its neighbour", driver.ItemError(err, 1, 2), nil)
			s := p.stats("q")
			want(t, "left", s.Ready+s.Leased+s.Dead, 0)
			want(t, "Held", p.record("x").Held, false)
			time.Sleep(time.Hour)
			want(t, "TTL over", p.state("x"), "")
		})
	}
}

// TestCancelledBySettle checks that a verdict CANCELLED is not held.
func TestCancelledBySettle(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	p.publish(tracked("x"))
	err := p.settle(driver.Settlement{Delivery: p.one(), Record: &driver.Update{ID: "x", State: driver.Cancelled}})
	wantErr(t, "Settle", err, nil)
	want(t, "Held", p.record("x").Held, false)
}

func TestRedeliveryMarksNewRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		p.publish(tracked("x"))
		p.one()
		first := p.record("x")
		d := p.one() // after the lease
		second := p.record("x")
		if second.Count != 2 || second.Run <= first.Run {
			t.Errorf("got %+v after %+v", second, first)
		}
		wantErr(t, "zombie", p.apply(driver.Update{ID: "x", State: driver.Failure, Run: first.Run}), driver.ErrStale)
		p.ack(d)
	})
}

// TestNoRecordIsNeverMarked checks that a message without a record gets none,
// and is handed out whatever the record of another task of its id says.
func TestNoRecordIsNeverMarked(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	m, other := message("x"), message("y")
	m.NoRecord, other.NoRecord = true, true
	p.apply(driver.Update{ID: "y", State: driver.Cancelled})
	p.publish(m, other)
	want(t, "handed out", ids(receive(t, p.sub, 2)), " x y")
	want(t, "state", p.state("x"), "")
}
