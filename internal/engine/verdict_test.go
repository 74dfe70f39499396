package engine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var now = time.UnixMilli(1_000_000)

// attempt is the third delivery of the second attempt, its run being 7.
func attempt() *Attempt {
	env := &Envelope{Name: "t", Body: []byte("1")}
	m := driver.Message{ID: "id", Queue: "q", Epoch: 1, Seq: 4, Attempt: 2, Priority: 5, Deadline: 9, ReplyTo: "r", Envelope: env.Encode()}
	return &Attempt{D: &driver.Delivery{Message: m, Count: 3, Copy: "c"}, Env: env, HasRecord: true, Run: 7, Worker: "w",
		Policy: Policy{Retries: 3, DeadLetter: true, TTL: time.Hour, Backoff: Backoff{Curve: Fixed, Base: time.Second, Max: time.Second}}}
}

func TestRetryRepublishes(t *testing.T) {
	t.Parallel()
	a := attempt()
	v := a.Fail(errors.New("no"), now)
	if v.Action != driver.Ack || v.Record.State != driver.Retry || v.Record.Run != 7 || v.Record.Due != now.Add(time.Second).UnixMilli() {
		t.Fatalf("got %+v, record %+v", v, v.Record)
	}
	n := v.Then[0]
	if n.Seq != 5 || n.Epoch != 1 || n.Attempt != 3 || n.Delay != time.Second || n.Deliveries != 2 ||
		n.Priority != 5 || n.Queue != "q" || n.Deadline != 9 || n.ReplyTo != "r" || n.Dead != nil {
		t.Errorf("a republish keeps what belongs to the task and carries deaths along; got %+v", n)
	}
	var env Envelope
	if err := DecodeEnvelope(n.Envelope, &env); err != nil || len(env.History) != 1 || env.History[0].Attempt != 2 {
		t.Errorf("the history travels; got %+v, %v", env.History, err)
	}
	if v.Record.Next != n {
		t.Error("the record holds the next message where it is kept apart")
	}
	a.Covered = true
	if v := a.Fail(errors.New("no"), now); v.Record.Next != nil {
		t.Error("sharing a store, verdict and settlement are one step: the record needs no next message")
	}
}

func TestFail(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	last := func(a *Attempt) { a.D.Attempt = 4 }
	tests := []struct {
		name  string
		err   error
		tweak func(*Attempt)
		state driver.State
		then  string
	}{
		{"retry", no, nil, driver.Retry, "1s, attempt 3"},
		{"last attempt", no, last, driver.DeadLettered, "dead"},
		{"no dead letters", no, func(a *Attempt) { last(a); a.Policy.DeadLetter = false }, driver.Failure, ""},
		{"permanent", fmt.Errorf("x: %w", &PermanentError{no}), nil, driver.DeadLettered, "dead"},
		{"refused by RetryIf", no, func(a *Attempt) { a.RetryIf = func(error) bool { return false } }, driver.DeadLettered, "dead"},
		{"retry after", &RetryAfterError{time.Minute, no}, nil, driver.Retry, "1m0s, attempt 3"},
		{"retry after the last attempt", &RetryAfterError{time.Minute, no}, last, driver.DeadLettered, "dead"},
		{"snooze", &SnoozeError{time.Hour}, nil, driver.Retry, "1h0m0s, attempt 2"},
		{"snooze of the last attempt", &SnoozeError{time.Hour}, last, driver.Retry, "1h0m0s, attempt 4"},
		{"undecodable", &ReasonError{driver.ReasonUndecodable, "undecodable", no}, nil, driver.DeadLettered, "dead undecodable"},
		{"no record", no, func(a *Attempt) { a.HasRecord = false }, "", "1s, attempt 3"},
	}
	for _, tt := range tests {
		a := attempt()
		if tt.tweak != nil {
			tt.tweak(a)
		}
		v := a.Fail(tt.err, now)
		var state driver.State
		if v.Record != nil {
			state = v.Record.State
		}
		then := ""
		if len(v.Then) == 1 {
			if then = fmt.Sprintf("%v, attempt %d", v.Then[0].Delay, v.Then[0].Attempt); v.Then[0].Dead != nil {
				then = "dead"
				if r := v.Then[0].Dead.Reason; r != driver.ReasonFailed {
					then += " " + r
				}
			}
		}
		if state != tt.state || then != tt.then {
			t.Errorf("%s: got %s, %q; want %s, %q", tt.name, state, then, tt.state, tt.then)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	record := func(state driver.State, seq uint32, run uint64) *driver.Record {
		r := &driver.Record{}
		r.Epoch, r.Seq, r.State, r.Run, r.Due = 1, seq, state, run, now.Add(time.Minute).UnixMilli()
		r.Next = &driver.Message{ID: "id", Seq: seq + 1}
		r.Error = &driver.DeadInfo{Reason: "why"}
		return r
	}
	tests := []struct {
		name   string
		r      *driver.Record
		action driver.Action
		then   string
	}{
		{"a newer run has started: never acknowledge", record(driver.Started, 4, 8), driver.Release, ""},
		{"RETRY of this version: publish what it holds, when it is due", record(driver.Retry, 4, 8), driver.Ack, "seq 5 in 1m0s"},
		{"DEAD_LETTERED of this version: dead-letter with its reason", record(driver.DeadLettered, 4, 8), driver.Ack, "dead: why"},
		{"RETRY of a newer version is not ours", record(driver.Retry, 5, 8), driver.Ack, ""},
		{"DEAD_LETTERED of a newer version is not ours", record(driver.DeadLettered, 6, 8), driver.Ack, ""},
		{"SUCCESS", record(driver.Success, 4, 8), driver.Ack, ""},
		{"nothing", nil, driver.Ack, ""},
	}
	for _, tt := range tests {
		v := attempt().Refused(tt.r, now)
		then := ""
		if len(v.Then) == 1 {
			if then = fmt.Sprintf("seq %d in %v", v.Then[0].Seq, v.Then[0].Delay); v.Then[0].Dead != nil {
				then = "dead: " + v.Then[0].Dead.Reason
			}
		}
		if v.Action != tt.action || then != tt.then || v.Record != nil {
			t.Errorf("%s: got %v, %q, %+v", tt.name, v.Action, then, v.Record)
		}
	}
}

func TestParkAndBuryCarryNoRun(t *testing.T) {
	t.Parallel()
	why := &ReasonError{driver.ReasonUnknownTask, "unknown_task", errors.New("who?")}
	a := attempt()
	v := a.Park(why, now)
	if v.Record.State != driver.Retry || v.Record.Run != 0 || v.Then[0].ParkedSince != now.UnixMilli() || v.Then[0].Attempt != 2 || v.Then[0].Delay < time.Second {
		t.Errorf("park: got %+v, %+v", v.Record, v.Then[0])
	}
	a.D.ParkedSince = now.Add(-ParkLimit).UnixMilli()
	if v := a.Park(why, now); v.Record.State != driver.DeadLettered || v.Then[0].Dead.Reason != driver.ReasonUnknownTask {
		t.Errorf("park for a day: got %+v", v.Record)
	}
	if v := a.Bury(Lost(), now); v.Record.State != driver.DeadLettered || v.Record.Run != 0 || v.Then[0].Dead.Reason != driver.ReasonLost {
		t.Errorf("bury: got %+v", v.Record)
	}
	if a.Run != 7 {
		t.Error("a verdict changed its attempt")
	}
}

type coded struct{}

func (coded) Error() string { return "" }
func (coded) Code() string  { return "code" }

func TestKind(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"":                    nil,
		"code":                fmt.Errorf("x: %w", coded{}),
		"timeout":             fmt.Errorf("%w after 1s: %w", ErrTimeout, errors.New("x")),
		"panic":               &PanicError{Value: 1},
		"*errors.errorString": &PermanentError{&RetryAfterError{0, errors.New("x")}},
	} {
		if got := Kind(err); got != want {
			t.Errorf("Kind(%v) = %q, want %q", err, got, want)
		}
	}
}
