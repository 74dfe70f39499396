package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// A job is one delivery in the hands of the worker, from receipt to settling.
type job struct {
	s       *session
	d       *driver.Delivery
	done    chan struct{} // of a suspect: closed once it is settled
	env     engine.Envelope
	task    *engine.Task
	call    engine.Call
	attempt engine.Attempt
	ctx     taskCtx
	verdict engine.Verdict

	contentType string // of the result
	body        []byte
	unfit       error // the argument or the result was, for good

	mu       sync.Mutex
	admitted bool                    // call may be read
	running  bool                    // the handler runs
	cancel   context.CancelCauseFunc // of the context, once somebody looked at it
	deadline time.Time
	alarm    *alarm // time-out, then hung
	cause    error  // why the context ended before the handler returned
	exited   error  // the handler ended its goroutine
	lost     bool   // the delivery is no longer ours
	decided  bool   // the verdict is under way
	gone     bool   // forgotten
	tries    int    // failed writes in a row
}

// run lives one job up to its verdict; recording and settling go on behind.
func (j *job) run() {
	if v, early := j.admit(); early {
		j.logUnrun(&v)
		j.decide(v)
		return
	}
	v, granted := j.start()
	if granted && j.expired() {
		v, granted = j.attempt.Expire(), false
	}
	if !granted {
		j.decide(v)
		return
	}
	returned := false
	defer func() {
		if !returned { // runtime.Goexit
			j.judge(j.exited)
		}
	}()
	err := j.handle()
	returned = true
	j.judge(err)
}

// logUnrun tells of a delivery that ends, or is parked, without a run.
func (j *job) logUnrun(v *engine.Verdict) {
	if v.Why == nil {
		return
	}
	what := "chicory: task failed for good without a run"
	if v.State == driver.Retry {
		what = "chicory: task parked until a worker can run it"
	}
	j.s.log.Warn(what, j.logAttrs("reason", v.Why.Reason, "error", v.Why.Message)...)
}

// admit reads the delivery and refuses what must not start.
func (j *job) admit() (v engine.Verdict, early bool) {
	s, d := j.s, j.d
	decodeErr := engine.DecodeEnvelope(d.Envelope, &j.env)
	j.task = s.core.Tasks.Find(j.env.Name)
	j.attempt = engine.Attempt{D: d, Env: &j.env, HasRecord: s.eng.Backend != nil && !d.NoRecord,
		Covered: s.eng.Covered, Worker: s.opts.Name, Policy: j.policy()}
	a := &j.attempt
	j.call = engine.Call{ID: d.ID, Name: j.env.Name, Queue: d.Queue, Attempt: int(d.Attempt),
		MaxAttempts: 1 + a.Policy.Retries, Deliveries: d.Count, Epoch: int(d.Epoch), Headers: j.env.Headers}
	j.mu.Lock()
	j.admitted = true
	j.mu.Unlock()
	switch {
	case s.stopping.Load():
		return a.GiveBack(0), true
	case d.Count > s.opts.MaxDeliveries:
		return a.Bury(a.Poisoned(s.opts.MaxDeliveries), time.Now()), true
	case d.Once && !a.HasRecord && d.Count > 1:
		return a.Bury(engine.Lost(), time.Now()), true
	case errors.Is(decodeErr, engine.ErrNewerEnvelope):
		return a.Park(&engine.ReasonError{Reason: driver.ReasonUnknownTask, Kind: "newer_envelope", Err: decodeErr}, time.Now()), true
	case decodeErr != nil:
		return a.Bury(&engine.ReasonError{Reason: driver.ReasonUndecodable, Kind: "undecodable", Err: decodeErr}, time.Now()), true
	case j.task == nil:
		err := fmt.Errorf("%w: %q; this worker knows %v", engine.ErrUnknownTask, j.env.Name, s.core.Tasks.Names())
		return a.Park(&engine.ReasonError{Reason: driver.ReasonUnknownTask, Kind: "unknown_task", Err: err}, time.Now()), true
	}
	a.RetryIf = j.task.RetryIf
	return engine.Verdict{}, false
}

// policy is what the message says, over the registration, over the app.
func (j *job) policy() engine.Policy {
	p := j.env.Policy
	if j.task != nil {
		p = p.Over(&j.task.Policy)
	}
	if keep := j.s.opts.deadLetters; keep != nil && !p.Has(engine.FieldDead) {
		p.DeadLetter, p.Set = *keep, p.Set|engine.FieldDead
	}
	return p.Over(&j.s.core.Defaults)
}

// A startItem asks the backend for one grant.
type startItem struct {
	start driver.Start
	grant driver.Grant
}

func (s *session) flushStarts(ctx context.Context, items []*startItem) error {
	ss := make([]driver.Start, len(items))
	for i, it := range items {
		ss[i] = it.start
	}
	grants, err := s.eng.Backend.Start(ctx, ss)
	if err != nil {
		return err
	}
	for i, it := range items {
		it.grant = grants[i]
	}
	return nil
}

// start asks for the grant to run the handler. It waits for a backend that is
// away, while the lease is extended. Without a grant it returns the verdict.
func (j *job) start() (v engine.Verdict, granted bool) {
	a, d := &j.attempt, j.d
	if !a.HasRecord || a.Covered && !d.Once {
		return v, true // the delivery's token is the fence
	}
	it := &startItem{start: driver.Start{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq, Attempt: d.Attempt, Copy: d.Copy,
		Count: d.Count, Once: d.Once}}
	if a.Covered {
		it.start.Delivery = d
	}
	for wait := retryFirst; ; wait = min(2*wait, retryMax) {
		err := j.s.starts.Do(j.s.base, it)
		if err == nil {
			err = it.grant.Err
		}
		if v, granted, ok := j.answered(err, it.grant); ok {
			return v, granted
		}
		if j.isLost() || j.s.stopping.Load() || errors.Is(err, driver.ErrClosed) {
			return a.GiveBack(0), false
		}
		j.s.log.Warn("chicory: start not recorded, trying again", j.logAttrs("error", err)...)
		if !engine.Sleep(j.s.base, wait) {
			return a.GiveBack(0), false
		}
	}
}

// answered takes the backend's answer to a start; ok is false if err is an
// accident rather than an answer.
func (j *job) answered(err error, g driver.Grant) (v engine.Verdict, granted, ok bool) {
	a := &j.attempt
	switch {
	case err == nil:
		a.Run = g.Run
		return v, true, true
	case errors.Is(err, driver.ErrStale):
		return a.Finish(g.Record, time.Now()), false, true
	case errors.Is(err, driver.ErrStarted):
		return a.Bury(engine.Lost(), time.Now()), false, true
	case errors.Is(err, driver.ErrSuperseded):
		return a.Done(), false, true
	case errors.Is(err, driver.ErrLeaseLost):
		j.lose()
		return a.Done(), false, true
	}
	return v, false, false
}

func (j *job) expired() bool {
	return j.d.Deadline > 0 && time.Now().UnixMilli() > j.d.Deadline
}

// judge turns what the handler returned into the verdict.
func (j *job) judge(err error) {
	a, cause := &j.attempt, j.cause
	j.s.processed.Add(1)
	if err == nil && j.unfit == nil {
		j.decide(a.Succeed(j.contentType, j.body))
		return
	}
	j.s.failed.Add(1)
	now := time.Now()
	switch {
	case errors.Is(cause, engine.ErrLeaseLost):
		j.decide(a.Done())
	case errors.Is(cause, engine.ErrCancelled):
		j.decide(a.Cancelled())
	case j.unfit != nil: // whatever middleware, a time-out or a shutdown made of it
		j.fail(j.unfit, now)
	case errors.Is(cause, engine.ErrTimeout):
		j.fail(fmt.Errorf("%w after %v: %w", engine.ErrTimeout, a.Policy.Timeout, err), now)
	case cause != nil && j.d.Once: // cut off by shutdown
		j.decide(a.Unspent(now))
	case cause != nil:
		j.decide(a.GiveBack(0))
	default:
		j.fail(err, now)
	}
}

func (j *job) fail(err error, now time.Time) {
	v := j.attempt.Fail(err, now)
	switch {
	case len(v.Then) == 0 || v.Then[0].Dead != nil:
		j.s.log.Warn("chicory: task failed for good", j.logAttrs("reason", v.Why.Reason, "state", v.State, "error", err)...)
	case v.Then[0].Attempt == j.d.Attempt:
		j.s.log.Debug("chicory: task snoozed", j.logAttrs("wait", v.Then[0].Delay)...)
	default:
		j.s.log.Info("chicory: task failed, will retry", j.logAttrs("error", err, "wait", v.Then[0].Delay)...)
	}
	j.decide(v)
}

func (j *job) isLost() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lost
}

func (j *job) isDecided() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.decided
}

// lose notes that the delivery is no longer ours, and cancels the handler.
func (j *job) lose() {
	j.mu.Lock()
	j.lost = true
	j.mu.Unlock()
	j.interrupt(engine.ErrLeaseLost)
}
