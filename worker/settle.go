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

// Verdict first, then settle: the record is written, then the delivery is
// settled with what follows. Where broker and backend share a store both are
// one step. Failed writes are tried again apart; the task is never run again
// for them while this worker lives.

// decide takes the job's verdict, once.
func (j *job) decide(v engine.Verdict) {
	j.mu.Lock()
	if j.decided {
		j.mu.Unlock()
		return
	}
	j.decided = true
	lost := j.lost
	j.mu.Unlock()
	if lost && !j.mayStillWin(&v) {
		j.forget()
		return
	}
	j.carryOut(v)
}

// mayStillWin reports whether a verdict counts although the delivery is lost:
// the success of an older run does, unless something else is terminal.
func (j *job) mayStillWin(v *engine.Verdict) bool {
	return !j.s.eng.Covered && v.Record != nil && v.Record.State == driver.Success
}

func (j *job) carryOut(v engine.Verdict) {
	j.verdict = v
	if v.Record == nil || j.s.eng.Covered {
		j.settle(v)
		return
	}
	j.s.records.Go(j)
}

// flushRecords writes the verdicts of jobs.
func (s *session) flushRecords(ctx context.Context, js []*job) error {
	us := make([]driver.Update, len(js))
	for i, j := range js {
		us[i] = *j.verdict.Record
	}
	return s.eng.Backend.Apply(ctx, us)
}

// flushSettles settles the deliveries of jobs.
func (s *session) flushSettles(ctx context.Context, js []*job) error {
	buf := settlements.Get().(*[]driver.Settlement)
	defer settlements.Put(buf)
	ss := (*buf)[:0]
	for _, j := range js {
		v := &j.verdict
		st := driver.Settlement{Delivery: j.d, Action: v.Action, Delay: v.Delay, Then: v.Then}
		if s.eng.Covered {
			st.Record = v.Record
		}
		ss = append(ss, st)
	}
	err := s.sub.Settle(ctx, ss)
	clear(ss)
	*buf = ss
	return err
}

var settlements = sync.Pool{New: func() any { return new([]driver.Settlement) }}

// recorded goes on after the backend answered.
func (j *job) recorded(err error) {
	v := j.verdict
	switch {
	case err == nil:
		j.settle(v)
	case errors.Is(err, driver.ErrStale):
		go j.refused()
	case errors.Is(err, driver.ErrStarted):
		j.carryOut(j.attempt.Bury(engine.Lost(), time.Now()))
	case errors.Is(err, driver.ErrTooLarge) && v.Record.State == driver.Success:
		j.carryOut(j.tooLarge(err))
	case errors.Is(err, driver.ErrClosed):
		j.forget()
	default:
		j.again("verdict not recorded", err, func() { j.carryOut(v) })
	}
}

// tooLarge is the verdict on a result that the store refused.
func (j *job) tooLarge(err error) engine.Verdict {
	return j.attempt.Fail(&engine.PermanentError{Err: fmt.Errorf("result: %w", err)}, time.Now())
}

// refused reads the record that refused the verdict, and settles as it says.
func (j *job) refused() {
	r, err := j.s.eng.Hub.Get(context.WithoutCancel(j.s.base), j.d.ID)
	switch {
	case errors.Is(err, driver.ErrClosed):
		j.forget()
	case err != nil:
		j.again("record not read", err, func() { go j.refused() })
	case r == nil:
		j.unseen()
	default:
		j.settle(j.attempt.Refused(r, time.Now()))
	}
}

// unseen goes on where a record refused the verdict and has expired since, or
// is a skeleton: what a start is told says what is left to do.
func (j *job) unseen() {
	v := j.verdict
	next, granted := j.start()
	switch {
	case granted: // there is no record any more
		j.carryOut(v)
	case next.Action == driver.Release && j.d.Once: // the worker stops: the next delivery counts
		j.forget()
	default:
		j.settle(next)
	}
}

func (j *job) settle(v engine.Verdict) {
	if j.isLost() {
		j.forget()
		return
	}
	j.verdict = v
	j.s.settles.Go(j)
}

// settled goes on after the broker answered. ErrLeaseLost means done or lost:
// the record says which, and is written already.
func (j *job) settled(err error) {
	switch {
	case err == nil:
		j.report(j.verdict.State)
		j.forget()
	case errors.Is(err, driver.ErrStale): // another verdict stood
		j.report("")
		j.forget()
	case errors.Is(err, driver.ErrLeaseLost), errors.Is(err, driver.ErrClosed):
		j.forget()
	default:
		j.unsettled(err, j.verdict)
	}
}

// unsettled goes on after the broker did not settle.
func (j *job) unsettled(err error, v engine.Verdict) {
	switch {
	case errors.Is(err, driver.ErrStarted):
		j.settle(j.attempt.Bury(engine.Lost(), time.Now()))
	case errors.Is(err, driver.ErrTooLarge) && v.Record != nil && v.Record.State == driver.Success:
		j.settle(j.tooLarge(err))
	case j.mustNotRepeat(&v, err):
		j.s.log.Error("chicory: settling an at-most-once task: outcome unknown; its redelivery is dead-lettered as lost", j.logAttrs("error", err)...)
		j.forget()
	default:
		j.again("not settled", err, func() { j.settle(v) })
	}
}

// report tells Options.OnSettled what became of the delivery: the task's state
// from now on, empty if this worker did not decide it. Who cancelled a task has
// written so before its handler could.
func (j *job) report(state driver.State) {
	if j.s.opts.OnSettled == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			j.s.log.Error("chicory: OnSettled panics", j.logAttrs("panic", p)...)
		}
	}()
	o := Outcome{ID: j.d.ID, Queue: j.d.Queue, Attempt: int(j.d.Attempt), State: state,
		Released: j.verdict.Action == driver.Release}
	if j.task != nil {
		o.Name = j.task.Name
	}
	j.mu.Lock()
	if state == "" && errors.Is(j.cause, engine.ErrCancelled) {
		o.State = driver.Cancelled
	}
	j.mu.Unlock()
	if why := j.verdict.Why; why != nil && state != "" {
		o.Reason, o.Kind = why.Reason, why.Kind
	}
	j.s.opts.OnSettled(o)
}

// mustNotRepeat reports whether settling again could publish a second copy of
// an at-most-once message that nothing would tell from the first: no record,
// no deduplication, and err leaves open whether it was published.
func (j *job) mustNotRepeat(v *engine.Verdict, err error) bool {
	return j.d.Once && j.d.NoRecord && len(v.Then) > 0 && v.Then[0].Dead == nil &&
		!errors.Is(err, driver.ErrTransient) && j.s.eng.Broker.Info().Settle == driver.SettlePublishFirst &&
		!j.s.eng.Broker.Info().Dedup
}

// again tries a failed write later, for as long as the delivery is ours.
func (j *job) again(what string, err error, do func()) {
	j.mu.Lock()
	j.tries++
	wait := min(retryFirst<<min(j.tries, 10), retryMax)
	gone := j.gone || j.lost
	j.mu.Unlock()
	if gone {
		j.forget()
		return
	}
	j.s.log.Warn("chicory: "+what+", trying again", j.logAttrs("error", err, "wait", wait)...)
	time.AfterFunc(wait, func() {
		if j.isGone() {
			return
		}
		do()
	})
}

func (j *job) isGone() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.gone
}

// forget ends the job: its lease is extended no more.
func (j *job) forget() {
	j.mu.Lock()
	gone := j.gone
	j.gone = true
	j.mu.Unlock()
	if gone {
		return
	}
	j.s.jobs.remove(j)
	if j.done != nil { // only now: until it is settled the next one could take it along
		j.s.suspect.CompareAndSwap(j, nil)
		close(j.done)
	}
}
