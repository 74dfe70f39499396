package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/chicory-go/chicory/internal/engine"
)

// hungGrace is how long a handler may take to obey its cancelled context.
const hungGrace = 5 * time.Second

// handle runs the handler within its time. What it returns besides the error is
// in j.contentType and j.body.
func (j *job) handle() (err error) {
	j.open()
	defer j.close()
	if j.isLost() {
		return engine.ErrLeaseLost
	}
	if len(j.s.opts.Middleware) == 0 {
		return j.runHandler(&j.ctx)
	}
	returned := false
	defer j.recovered(&err, &returned)
	h := j.runHandler
	for i := len(j.s.opts.Middleware) - 1; i >= 0; i-- {
		h = j.s.opts.Middleware[i](h)
	}
	err = h(&j.ctx)
	returned = true
	return err
}

func (j *job) runHandler(ctx context.Context) (err error) {
	returned := false
	defer j.recovered(&err, &returned)
	j.unfit = nil // of a run before, if middleware runs it twice
	j.contentType, j.body, err = j.task.Run(ctx, &j.env)
	switch err.(type) {
	case *engine.ReasonError, *engine.ResultError:
		j.unfit = err
	}
	returned = true
	return err
}

// recovered turns a panic into an error. Where nothing panicked and nothing
// returned, the handler ended its goroutine, which cannot be stopped: the error
// is kept for run.
func (j *job) recovered(err *error, returned *bool) {
	if *returned {
		return
	}
	v := recover()
	if v == nil {
		v = "runtime.Goexit was called"
	}
	*err = &engine.PanicError{Value: v, Stack: string(debug.Stack())}
	j.exited = *err
}

// open begins the time of the handler.
func (j *job) open() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.running = true
	j.s.running.Add(1)
	j.ctx.job = j
	if timeout := j.attempt.Policy.Timeout; timeout > 0 && !j.lost {
		j.deadline = time.Now().Add(timeout)
		j.alarm = j.s.alarms.set(j, j.deadline, timeout)
	}
}

// close ends the handler's context.
func (j *job) close() {
	j.mu.Lock()
	j.s.alarms.clear(j.alarm)
	j.alarm = nil
	j.running = false
	j.s.running.Add(-1)
	j.cause = j.causeLocked()
	if j.cancel != nil {
		j.cancel(nil)
	}
	j.mu.Unlock()
	j.s.hung.remove(j)
}

// causeLocked is why the handler's context has ended, nil if it has not.
func (j *job) causeLocked() error {
	if j.cause != nil {
		return j.cause
	}
	return context.Cause(j.s.base)
}

// interrupt cancels the handler's context with cause, if it runs, and gives it
// a while to obey.
func (j *job) interrupt(cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.running || j.decided || j.cause != nil {
		return
	}
	j.cause = cause
	if j.cancel != nil {
		j.cancel(cause)
	}
	j.s.alarms.clear(j.alarm)
	j.alarm = j.s.alarms.set(j, time.Now().Add(hungGrace), hungGrace)
}

// ring is called when the job's alarm goes off: its time is up, or it ignores
// its cancelled context.
func (j *job) ring() {
	j.mu.Lock()
	interrupted := j.cause != nil
	j.mu.Unlock()
	if interrupted {
		j.hang()
	} else {
		j.interrupt(engine.ErrTimeout)
	}
}

// hang gives up on a handler that ignores its cancelled context: it keeps its
// slot, and the task goes on elsewhere.
func (j *job) hang() {
	if j.isDecided() {
		return
	}
	j.s.hung.add(j)
	j.s.log.Error("chicory: handler ignores its cancelled context and keeps its slot", j.logAttrs()...)
	j.abandonHandler()
}

// abandonHandler decides without the handler.
func (j *job) abandonHandler() {
	a, now := &j.attempt, time.Now()
	j.mu.Lock()
	running, cause := j.running, j.causeLocked()
	j.mu.Unlock()
	switch {
	case !running:
		j.decide(a.GiveBack(0))
	case j.isLost():
		j.decide(a.Done())
	case errors.Is(cause, engine.ErrCancelled):
		j.decide(a.Cancelled())
	case j.d.Once:
		j.decide(a.Bury(engine.Lost(), now))
	case errors.Is(cause, engine.ErrTimeout):
		j.decide(a.Fail(fmt.Errorf("%w after %v, and the handler does not return", engine.ErrTimeout, a.Policy.Timeout), now))
	default:
		j.decide(a.GiveBack(0))
	}
}

// hungJobs are the jobs whose handlers do not return.
type hungJobs struct {
	mu   sync.Mutex
	jobs map[*job]struct{}
}

func (h *hungJobs) add(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.jobs == nil {
		h.jobs = map[*job]struct{}{}
	}
	h.jobs[j] = struct{}{}
}

func (h *hungJobs) remove(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.jobs, j)
}

func (h *hungJobs) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var js []*job
	for j := range h.jobs {
		js = append(js, j)
	}
	return sortedNames(js)
}
