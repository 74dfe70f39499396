package engine

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// An Attempt is one delivery in the hands of a worker, with all that a verdict
// on it needs.
type Attempt struct {
	D         *driver.Delivery
	Env       *Envelope
	Policy    Policy // message over registration over app
	HasRecord bool
	Covered   bool   // broker and backend share a store
	Run       uint64 // granted by Start; 0 before
	Worker    string
	RetryIf   func(error) bool // nil: any error may be retried
}

// A Verdict moves a task on: the record first, then the settlement.
type Verdict struct {
	State  driver.State     // of the task from now on; empty: another's verdict stands
	Why    *driver.DeadInfo // of a failure, or of parking
	Record *driver.Update   // nil: the task has no record
	Action driver.Action
	Delay  time.Duration // of a release
	Then   []*driver.Message
}

// Bounds of parking, which waits for a worker that knows the task.
const (
	parkFirst = time.Second
	parkMax   = time.Minute
	// ParkLimit is how long a task is parked before it is dead-lettered.
	ParkLimit = 24 * time.Hour
)

// Succeed is the verdict of a handler that returned a result.
func (a *Attempt) Succeed(contentType string, body []byte) Verdict {
	v := a.verdict(driver.Success)
	if v.Record != nil && !a.Policy.IgnoreResult {
		v.Record.ContentType, v.Record.Body = contentType, body
	}
	return v
}

// Fail is the verdict of a handler that returned err at now: another attempt,
// the dead letters or the end.
func (a *Attempt) Fail(err error, now time.Time) (v Verdict) {
	defer func() {
		if p := recover(); p != nil { // a method of the handler's error
			v = a.failed(&PanicError{Value: fmt.Sprintf("a method of the handler's error, a %T: %v", err, p), Stack: string(debug.Stack())}, now)
		}
	}()
	return a.failed(err, now)
}

func (a *Attempt) failed(err error, now time.Time) Verdict {
	why := driver.ReasonFailed
	var reason *ReasonError
	var snooze *SnoozeError
	switch {
	case errors.As(err, &reason):
		why = reason.Reason
	case errors.As(err, &snooze):
		return a.Snooze(snooze.Wait, now)
	}
	info := a.deadInfo(why, err, now)
	if wait, ok := a.retry(err); ok {
		v := a.again(wait, now, info)
		v.Then[0].Attempt++
		v.Then[0].Envelope = a.envelope(info.History)
		return v
	}
	return a.end(info)
}

// retry reports whether err is tried again, and after which wait.
func (a *Attempt) retry(err error) (time.Duration, bool) {
	var permanent *PermanentError
	var result *ResultError
	var reason *ReasonError
	if errors.As(err, &permanent) || errors.As(err, &result) || errors.As(err, &reason) && reason.Reason != driver.ReasonFailed {
		return 0, false
	}
	if int64(a.D.Attempt) > int64(a.Policy.Retries) || !a.retriable(err) {
		return 0, false
	}
	var after *RetryAfterError
	if errors.As(err, &after) {
		return max(0, after.Wait), true
	}
	return a.Policy.Backoff.Wait(a.D.Attempt), true
}

// retriable asks the handler's predicate, if there is one. One that panics says
// nothing: the numbers decide.
func (a *Attempt) retriable(err error) (ok bool) {
	if a.RetryIf == nil {
		return true
	}
	defer func() {
		if recover() != nil {
			ok = true
		}
	}()
	return a.RetryIf(err)
}

// Snooze runs the task again after wait; the attempt is not spent.
func (a *Attempt) Snooze(wait time.Duration, now time.Time) Verdict {
	return a.again(max(0, wait), now, nil)
}

// Unspent gives up a started at-most-once attempt that ended without failing:
// it runs again at once, as the same attempt.
func (a *Attempt) Unspent(now time.Time) Verdict { return a.again(0, now, nil) }

// Park holds the task back for a worker that can read it, or dead-letters it
// once that took ParkLimit. Its record, like those of poison and loss, carries
// no run.
func (a *Attempt) Park(err *ReasonError, now time.Time) Verdict {
	a = a.runless()
	since := a.D.ParkedSince
	if since == 0 {
		since = now.UnixMilli()
	}
	parked := now.Sub(time.UnixMilli(since))
	if parked >= ParkLimit {
		return a.end(a.deadInfo(err.Reason, err, now))
	}
	v := a.again(min(max(parked, parkFirst), parkMax), now, a.deadInfo(err.Reason, err, now))
	v.Then[0].ParkedSince = since
	return v
}

// Bury ends a task that must not run: poison, lost, undecodable. It carries no
// run.
func (a *Attempt) Bury(err *ReasonError, now time.Time) Verdict {
	a = a.runless()
	return a.end(a.deadInfo(err.Reason, err, now))
}

func (a *Attempt) runless() *Attempt {
	b := *a
	b.Run = 0
	return &b
}

// Poisoned says that too many workers died with the task.
func (a *Attempt) Poisoned(limit int) *ReasonError {
	return &ReasonError{driver.ReasonPoison, "poison",
		fmt.Errorf("delivered %d times without a verdict, more than %d: its workers died", a.D.Count, limit)}
}

// Lost says that an at-most-once task may have started before.
func Lost() *ReasonError {
	return &ReasonError{driver.ReasonLost, "lost",
		errors.New("at-most-once, and an earlier delivery may have started it")}
}

// Expire ends a task whose deadline passed before it started.
func (a *Attempt) Expire() Verdict { return a.verdict(driver.Expired) }

// Cancelled ends a task that its owner cancelled.
func (a *Attempt) Cancelled() Verdict { return a.verdict(driver.Cancelled) }

// Done acknowledges a delivery about which nothing is left to say.
func (a *Attempt) Done() Verdict { return Verdict{Action: driver.Ack} }

// GiveBack releases the delivery for others, uncounted.
func (a *Attempt) GiveBack(delay time.Duration) Verdict {
	return Verdict{Action: driver.Release, Delay: delay}
}

// Finish is what is left to do where the record r stands against the delivery:
// carry out the verdict of its version, or just acknowledge.
func (a *Attempt) Finish(r *driver.Record, now time.Time) Verdict {
	v := Verdict{Action: driver.Ack}
	if r == nil || r.Version() != a.D.Version() {
		return v
	}
	switch {
	case r.State == driver.Retry && r.Next != nil:
		next := r.Next.Clone()
		next.Delay = max(0, time.UnixMilli(r.Due).Sub(now))
		v.Then = []*driver.Message{next}
	case r.State == driver.DeadLettered:
		v.Then = []*driver.Message{a.dead(r.Error)}
	}
	return v
}

// Refused is what to do with a delivery whose verdict the record r refused.
func (a *Attempt) Refused(r *driver.Record, now time.Time) Verdict {
	if r != nil && r.State == driver.Started && r.Version() == a.D.Version() && r.Run > a.Run {
		return a.GiveBack(0)
	}
	return a.Finish(r, now)
}

func (a *Attempt) verdict(s driver.State) Verdict {
	v := Verdict{State: s, Action: driver.Ack}
	if !a.HasRecord {
		return v
	}
	d := a.D
	v.Record = &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq, Attempt: d.Attempt, State: s,
		Run: a.Run, Once: d.Once, ReplyTo: d.ReplyTo}
	if s.Terminal() && a.Policy.TTL > 0 {
		v.Record.TTL = a.Policy.TTL
	}
	return v
}

// again is the RETRY verdict: the next message, after wait.
func (a *Attempt) again(wait time.Duration, now time.Time, info *driver.DeadInfo) Verdict {
	next := a.next()
	next.Seq++
	next.Delay = wait
	v := a.verdict(driver.Retry)
	v.Why = info
	v.Then = []*driver.Message{next}
	if v.Record != nil {
		v.Record.Due = now.Add(wait).UnixMilli()
		v.Record.Error = info
		if !a.Covered { // sharing a store, verdict and settlement are one step
			v.Record.Next = next
		}
	}
	return v
}

// end is the verdict on a task that failed for good.
func (a *Attempt) end(info *driver.DeadInfo) Verdict {
	state := driver.Failure
	if a.Policy.DeadLetter {
		state = driver.DeadLettered
	}
	v := a.verdict(state)
	v.Why = info
	if v.Record != nil {
		v.Record.Error = info
	}
	if a.Policy.DeadLetter {
		v.Then = []*driver.Message{a.dead(info)}
	}
	return v
}

// next returns the message to republish: as every republish it carries the
// deliveries that died.
func (a *Attempt) next() *driver.Message {
	m := a.D.Message
	m.Deliveries = uint32(max(0, a.D.Count-1))
	m.Delay, m.Record, m.Dead, m.Repeat = 0, nil, nil, false
	return &m
}

func (a *Attempt) dead(info *driver.DeadInfo) *driver.Message {
	m := a.next()
	if info == nil {
		info = &driver.DeadInfo{Reason: driver.ReasonFailed}
	}
	m.Dead = info
	return m
}

// envelope returns the delivery's envelope with another history.
func (a *Attempt) envelope(history []driver.FailedAttempt) []byte {
	env := *a.Env
	env.History = history
	return env.Encode()
}

// Limits of what an error may say, in bytes: it travels with every retry.
const (
	maxKind = 200
	maxLine = 1 << 10 // in the history
	maxText = 16 << 10
)

// clip shortens s to about n bytes, of whole characters, and says so.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes in all)", strings.ToValidUTF8(s[:n], ""), len(s))
}

func (a *Attempt) deadInfo(reason string, err error, now time.Time) *driver.DeadInfo {
	at := now.UnixMilli()
	info := &driver.DeadInfo{Reason: reason, Kind: clip(Kind(err), maxKind), Message: clip(err.Error(), maxText), Worker: a.Worker,
		Attempts: a.D.Attempt, Deliveries: uint32(a.D.Count), FirstAt: at, LastAt: at}
	var p *PanicError
	if errors.As(err, &p) {
		info.Stack = clip(p.Stack, maxText)
	}
	if a.Env == nil {
		return info
	}
	info.Name = a.Env.Name
	info.History = a.Env.History
	if reason == driver.ReasonFailed {
		info.History = AddHistory(info.History, driver.FailedAttempt{
			Attempt: a.D.Attempt, At: at, Kind: info.Kind, Message: clip(info.Message, maxLine), Worker: a.Worker})
	}
	if len(info.History) > 0 {
		info.FirstAt = info.History[0].At
	}
	return info
}
