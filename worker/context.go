package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/chicory-go/chicory/internal/engine"
)

// taskCtx is a handler's context. It becomes a real one only when somebody
// looks at it, which the shortest handlers never do.
type taskCtx struct {
	job   *job
	inner context.Context // guarded by job.mu
}

func (c *taskCtx) real() context.Context {
	j := c.job
	j.mu.Lock()
	defer j.mu.Unlock()
	if c.inner == nil {
		c.inner, j.cancel = context.WithCancelCause(j.s.base)
		switch {
		case j.cause != nil:
			j.cancel(j.cause)
		case !j.running:
			j.cancel(nil)
		}
	}
	return c.inner
}

// Deadline is when the task's time is up.
func (c *taskCtx) Deadline() (time.Time, bool) {
	c.job.mu.Lock()
	defer c.job.mu.Unlock()
	return c.job.deadline, !c.job.deadline.IsZero()
}

func (c *taskCtx) Done() <-chan struct{} { return c.real().Done() }

// Err says DeadlineExceeded for a time-out, as contexts do.
func (c *taskCtx) Err() error {
	inner := c.real()
	err := inner.Err()
	if err != nil && errors.Is(context.Cause(inner), engine.ErrTimeout) {
		return context.DeadlineExceeded
	}
	return err
}

func (c *taskCtx) Value(key any) any {
	if key == (engine.CallKey{}) {
		return &c.job.call
	}
	return c.real().Value(key)
}

// alarms are timers that jobs set and clear: they are used again and again.
type alarms struct {
	mu   sync.Mutex
	idle []*alarm
}

// An alarm rings for at most one job.
type alarm struct {
	timer *time.Timer
	mu    sync.Mutex
	job   *job
	at    time.Time
}

// set makes j ring at a time, which is d from now.
func (as *alarms) set(j *job, at time.Time, d time.Duration) *alarm {
	as.mu.Lock()
	var a *alarm
	if n := len(as.idle); n > 0 {
		a, as.idle = as.idle[n-1], as.idle[:n-1]
	}
	as.mu.Unlock()
	if a == nil {
		a = &alarm{job: j, at: at}
		a.timer = time.AfterFunc(d, a.ring)
		return a
	}
	a.mu.Lock()
	a.job, a.at = j, at
	a.mu.Unlock()
	a.timer.Reset(d)
	return a
}

// clear takes an alarm back; nil is none.
func (as *alarms) clear(a *alarm) {
	if a == nil {
		return
	}
	a.timer.Stop()
	a.mu.Lock()
	a.job = nil
	a.mu.Unlock()
	as.mu.Lock()
	as.idle = append(as.idle, a)
	as.mu.Unlock()
}

// ring rings for the job that has the alarm now. A timer that went off just
// before it was set anew finds that its time has not come.
func (a *alarm) ring() {
	a.mu.Lock()
	j := a.job
	if j != nil && time.Now().Before(a.at) {
		j = nil
	}
	a.mu.Unlock()
	if j != nil {
		j.ring()
	}
}
