package driver

import (
	"errors"
	"testing"
)

func rec(state State, epoch, seq uint32, run uint64) *Record {
	r := &Record{Copy: "c", Count: 2}
	r.ID, r.State, r.Epoch, r.Seq, r.Run = "id", state, epoch, seq, run
	return r
}

func skeleton(epoch uint32) *Record { return SkeletonOf(rec(Success, epoch, 3, 7)) }

func TestCheckStart(t *testing.T) {
	tests := []struct {
		name  string
		r     *Record
		start Start
		want  error
	}{
		{"absent", nil, Start{Count: 2}, nil},
		{"absent, once, first delivery", nil, Start{Count: 1, Once: true}, nil},
		{"absent, once, redelivered", nil, Start{Count: 2, Once: true}, ErrStarted},
		{"skeleton of the epoch", skeleton(0), Start{Seq: 9}, ErrSuperseded},
		{"skeleton of an older epoch", skeleton(0), Start{Epoch: 1}, nil},
		{"pending", rec(Pending, 0, 0, 0), Start{}, nil},
		{"older seq", rec(Pending, 0, 1, 0), Start{}, ErrStale},
		{"older epoch", rec(Pending, 1, 0, 0), Start{Seq: 5}, ErrStale},
		{"terminal of the epoch, newer seq", rec(Success, 0, 0, 1), Start{Seq: 1}, ErrStale},
		{"terminal of an older epoch", rec(DeadLettered, 0, 4, 1), Start{Epoch: 1}, nil},
		{"retry closes its version", rec(Retry, 0, 0, 1), Start{Copy: "c", Count: 3}, ErrStale},
		{"next version after retry", rec(Retry, 0, 0, 1), Start{Seq: 1}, nil},
		{"started, redelivered", rec(Started, 0, 0, 1), Start{Copy: "c", Count: 3}, nil},
		{"started, repeated start", rec(Started, 0, 0, 1), Start{Copy: "c", Count: 2}, nil},
		{"started, older delivery", rec(Started, 0, 0, 1), Start{Copy: "c", Count: 1}, ErrSuperseded},
		{"started, other copy", rec(Started, 0, 0, 1), Start{Copy: "d", Count: 3}, ErrSuperseded},
		{"started, once", rec(Started, 0, 0, 1), Start{Copy: "c", Count: 3, Once: true}, ErrStarted},
		{"started, once, other copy", rec(Started, 0, 0, 1), Start{Copy: "d", Count: 3, Once: true}, ErrSuperseded},
	}
	for _, tt := range tests {
		if got := CheckStart(tt.r, &tt.start); !errors.Is(got, tt.want) || (got == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCheckUpdate(t *testing.T) {
	up := func(state State, seq uint32, run uint64) Update { return Update{State: state, Seq: seq, Run: run} }
	once := func(u Update) Update { u.Once = true; return u }
	provisional := func(r *Record) *Record { r.Provisional = true; return r }
	tests := []struct {
		name   string
		r      *Record
		u      Update
		fenced bool
		want   error
	}{
		{"absent", nil, up(Success, 0, 1), false, nil},
		{"skeleton", skeleton(0), up(Success, 9, 1), false, ErrStale},
		{"skeleton, newer epoch", skeleton(0), Update{Epoch: 1, State: Pending}, false, nil},
		{"pending over provisional", provisional(rec(Pending, 0, 0, 0)), up(Pending, 0, 0), false, nil},
		{"pending over pending", rec(Pending, 0, 0, 0), up(Pending, 0, 0), false, ErrStale},
		{"late pending over started", rec(Started, 0, 0, 1), up(Pending, 0, 0), false, ErrStale},
		{"success of the run", rec(Started, 0, 0, 2), up(Success, 0, 2), false, nil},
		{"success of an older run", rec(Started, 0, 0, 2), up(Success, 0, 1), false, nil},
		{"failure of an older run", rec(Started, 0, 0, 2), up(DeadLettered, 0, 1), false, ErrStale},
		{"retry of an older run", rec(Started, 0, 0, 2), up(Retry, 0, 1), false, ErrStale},
		{"fenced by its token", rec(Started, 0, 0, 2), up(Retry, 0, 1), true, nil},
		{"success of an older seq", rec(Started, 0, 1, 2), up(Success, 0, 1), false, ErrStale},
		{"newer seq", rec(Retry, 0, 0, 2), up(Retry, 1, 3), false, nil},
		{"retry again", rec(Retry, 0, 0, 2), up(Retry, 0, 2), false, ErrStale},
		{"dead over retry", rec(Retry, 0, 0, 2), up(DeadLettered, 0, 3), false, ErrStale},
		{"poison over retry", rec(Retry, 0, 0, 2), up(DeadLettered, 0, 0), false, ErrStale},
		{"success over retry", rec(Retry, 0, 0, 2), up(Success, 0, 1), false, nil},
		{"cancel over retry", rec(Retry, 0, 0, 2), up(Cancelled, 0, 0), false, nil},
		{"terminal stays", rec(Success, 0, 0, 2), up(DeadLettered, 5, 3), false, ErrStale},
		{"cancel of a terminal", rec(Success, 0, 0, 2), up(Cancelled, 0, 0), false, ErrStale},
		{"poison over started", rec(Started, 0, 0, 2), up(DeadLettered, 0, 0), false, nil},
		{"park over started", rec(Started, 0, 0, 2), up(Retry, 0, 0), false, nil},
		{"park over started, once", rec(Started, 0, 0, 2), once(up(Retry, 0, 0)), false, ErrStarted},
		{"park over pending, once", rec(Pending, 0, 0, 0), once(up(Retry, 0, 0)), false, nil},
	}
	for _, tt := range tests {
		if got := CheckUpdate(tt.r, &tt.u, tt.fenced); !errors.Is(got, tt.want) || (got == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCheckClaim(t *testing.T) {
	tests := []struct {
		name string
		r    *Record
		v    Version
		want error
	}{
		{"absent", nil, Version{}, nil},
		{"cancelled before start", rec(Cancelled, 0, 0, 0), Version{}, ErrStale},
		{"cancelled, next seq", rec(Cancelled, 0, 0, 0), Version{0, 1}, ErrStale},
		{"newer epoch", rec(DeadLettered, 0, 3, 1), Version{1, 0}, nil},
		{"older seq", rec(Retry, 0, 1, 1), Version{0, 0}, ErrStale},
		{"skeleton", skeleton(0), Version{0, 1}, ErrStale},
		{"skeleton, newer epoch", skeleton(0), Version{1, 0}, nil},
		{"started", rec(Started, 0, 0, 1), Version{}, nil},
	}
	for _, tt := range tests {
		if got := CheckClaim(tt.r, tt.v); !errors.Is(got, tt.want) || (got == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestNextUpdatedKeepsHistoryOfTheEpoch(t *testing.T) {
	r := rec(Started, 0, 1, 5)
	r.PendingAt, r.StartedAt, r.ReplyTo = 10, 20, "here"
	got := NextUpdated(r, &Update{ID: "id", Seq: 1, State: Success, Run: 5}, 30, false)
	if got.PendingAt != 10 || got.StartedAt != 20 || got.FinishedAt != 30 || got.ReplyTo != "here" || got.Copy != "c" {
		t.Errorf("got %+v, want the times and copy of the epoch kept", got)
	}
	got = NextUpdated(r, &Update{ID: "id", Epoch: 1, State: Pending}, 40, false)
	if got.StartedAt != 0 || got.PendingAt != 40 {
		t.Errorf("got %+v, want a new epoch to start afresh", got)
	}
	if met := NextUpdated(r, &Update{ID: "id", Seq: 1, State: Cancelled}, 50, true); met.Held {
		t.Error("a cancellation by a settlement has met its message")
	}
	held := NextUpdated(r, &Update{ID: "id", Seq: 1, State: Cancelled}, 50, false)
	if !held.Held {
		t.Error("a cancellation from outside must be held until its message is met")
	}
}
