package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/batch"
	"github.com/chicory-go/chicory/internal/engine"
)

// A session is one run of a worker.
type session struct {
	w    *Worker
	opts *Options
	core *engine.Core
	eng  *engine.Engine
	sub  driver.Subscription
	// queues are those of the worker, open those of them that are not paused.
	queues, open []driver.QueueSpec

	log *slog.Logger

	// base is the parent of all handler contexts. It carries the values of
	// Run's context, and ends only when the grace is over.
	base   context.Context
	cancel context.CancelCauseFunc

	slots    *slots
	jobs     *inflight
	handlers sync.WaitGroup // goroutines that run jobs
	queue    chan *job      // to those that are idle
	idle     atomic.Int64
	loops    sync.WaitGroup

	starts  *batch.Batcher[*startItem]
	records *batch.Batcher[*job]
	settles *batch.Batcher[*job]

	stopping atomic.Bool
	suspect  atomic.Pointer[job] // the one suspect that runs
	hung     hungJobs
	away     atomic.Pointer[error] // what Receive said last
	sessions lostWatch
	alarms   alarms

	running           atomic.Int64  // handlers that run now
	processed, failed atomic.Uint64 // handlers that have returned
}

// Times of a session.
const (
	settleBatch  = 256
	retryFirst   = 50 * time.Millisecond
	retryMax     = 5 * time.Second
	stopTimeout  = 5 * time.Second // of the last calls of a session
	purgeFirst   = time.Minute
	purgeEvery   = time.Hour
	suspectCount = 3 // deliveries from which a task is suspected to kill
	suspectDelay = 500 * time.Millisecond
	suspectAlone = time.Second
)

func newSession(ctx context.Context, w *Worker, eng *engine.Engine, queues []driver.QueueSpec) (*session, error) {
	s := &session{w: w, opts: &w.opts, core: w.core, eng: eng, log: w.opts.Logger, queues: queues, open: queues,
		slots: newSlots(w.opts.Concurrency), jobs: newInflight(), queue: make(chan *job, w.opts.Concurrency)}
	if max := eng.Broker.Info().MaxLease; max > 0 {
		if err := w.checkTimeouts(max); err != nil {
			return nil, err
		}
	}
	sub, err := eng.Broker.Subscribe(ctx, &driver.SubscribeOptions{Queues: queues, Strict: w.opts.Strict,
		Slots: w.opts.Concurrency, Prefetch: w.opts.Prefetch, Lease: w.opts.Lease, Worker: w.opts.Name})
	if err != nil {
		return nil, fmt.Errorf("chicory: subscribe to %s: %w", queueNames(queues), err)
	}
	s.sub = sub
	s.base, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	background := context.WithoutCancel(ctx)
	s.starts = batch.New(background, settleBatch, s.flushStarts, nil)
	s.records = batch.New(background, settleBatch, s.flushRecords, (*job).recorded)
	s.settles = batch.New(background, settleBatch, s.flushSettles, (*job).settled)
	return s, nil
}

// checkTimeouts refuses tasks that may run longer than the broker lets a
// delivery be held.
func (w *Worker) checkTimeouts(limit time.Duration) error {
	for _, name := range w.core.Tasks.Names() {
		t := w.core.Tasks.Find(name)
		p := t.Policy.Over(&w.core.Defaults)
		if p.Timeout < 0 || p.Timeout > limit {
			return fmt.Errorf("%w: task %s: Timeout is longer than the %v for which the broker lets a delivery be held",
				engine.ErrValidation, name, limit)
		}
	}
	return nil
}

func (s *session) run(ctx context.Context) error {
	stop, end := context.WithCancel(context.WithoutCancel(ctx))
	rev, perr := s.obeyPauses(ctx) // before the first delivery
	s.loops.Go(func() { s.watchPauses(stop, rev, perr) })
	s.loops.Go(func() { s.announce(stop) })
	s.loops.Go(func() { s.heartbeat(stop) })
	s.loops.Go(func() { s.purge(stop) })
	err := s.receive(ctx)
	if err != nil {
		s.abandon(err)
	} else {
		s.drain()
	}
	end()
	s.loops.Wait()
	s.sessions.wait()
	s.cancel(engine.ErrShutdown)
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer done()
	if cerr := s.sub.Close(closing); cerr != nil && !errors.Is(cerr, driver.ErrClosed) {
		s.log.Warn("chicory: closing the subscription", "error", cerr)
	}
	return err
}

// receive takes deliveries until ctx ends (nil) or the broker is closed.
func (s *session) receive(ctx context.Context) error {
	wait := retryFirst
	for {
		free := s.slots.take(ctx)
		if free == 0 {
			return nil
		}
		ds, err := s.sub.Receive(ctx, free)
		s.slots.give(free - len(ds))
		if ctx.Err() != nil {
			s.stopping.Store(true) // what was claimed on the way goes back
		}
		if j := s.accept(ds); j != nil {
			s.await(ctx, j)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, driver.ErrClosed):
			return fmt.Errorf("chicory: worker: broker was closed: %w", err)
		case err != nil:
			s.away.Store(&err)
			s.log.Warn("chicory: receive failed, trying again", "error", err, "wait", wait)
			engine.Sleep(ctx, wait)
			wait = min(2*wait, retryMax)
		default:
			s.away.Store(nil)
			wait = retryFirst
		}
	}
}

// accept hands the deliveries to goroutines. Of those suspected to kill their
// worker it keeps at most one, and gives back the others before that one
// starts, so that it takes none of them along. It returns the suspect it kept.
func (s *session) accept(ds []*driver.Delivery) (suspect *job) {
	var back []driver.Settlement
	kept := ds[:0]
	for _, d := range ds {
		if d.Count >= suspectCount && d.Count <= s.opts.MaxDeliveries && !s.admitSuspect(d) {
			back = append(back, driver.Settlement{Delivery: d, Action: driver.Release, Delay: suspectDelay})
			continue
		}
		kept = append(kept, d)
	}
	if len(back) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		if err := s.sub.Settle(ctx, back); err != nil {
			s.log.Warn("chicory: giving suspects back", "error", err) // their lease brings them back
		}
		cancel()
		s.slots.give(len(back))
	}
	for _, d := range kept {
		j := s.suspectJob(d)
		if j != nil {
			suspect = j
		} else {
			j = &job{s: s, d: d}
		}
		s.jobs.add(j)
		s.sessions.watch(s, d.Lost)
		s.dispatch(j)
	}
	return suspect
}

// await lets a suspect run alone for a while before more is received: what
// kills at once then takes along nothing that was just claimed.
func (s *session) await(ctx context.Context, suspect *job) {
	t := time.NewTimer(suspectAlone)
	defer t.Stop()
	select {
	case <-suspect.done:
	case <-t.C:
	case <-ctx.Done():
	}
}

// dispatch runs j on a goroutine that is idle, or on a new one: they are kept,
// because the stack that a handler has grown is worth keeping.
func (s *session) dispatch(j *job) {
	if s.idle.Add(-1) >= 0 {
		s.queue <- j
		return
	}
	s.idle.Add(1)
	s.handlers.Go(func() { s.work(j) })
}

// work runs j and then what comes from the queue, until that is closed.
func (s *session) work(j *job) {
	running := true
	defer func() {
		if running { // the handler ended its goroutine: only its slot is left
			s.slots.give(1)
		}
	}()
	for ok := true; ok; j, ok = <-s.queue {
		running = true
		j.run()
		running = false
		s.idle.Add(1)
		s.slots.give(1) // last: there are no more goroutines than slots
	}
}

// admitSuspect reserves the place of the running suspect for d.
func (s *session) admitSuspect(d *driver.Delivery) bool {
	return s.suspect.CompareAndSwap(nil, &job{s: s, d: d, done: make(chan struct{})})
}

func (s *session) suspectJob(d *driver.Delivery) *job {
	if j := s.suspect.Load(); j != nil && j.d == d {
		return j
	}
	return nil
}

// drain stops the session: nothing new starts, handlers get their grace, then
// are cancelled, and what is left is given up.
func (s *session) drain() {
	s.stopping.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	if err := s.sub.Stop(ctx); err != nil && !errors.Is(err, driver.ErrClosed) {
		s.log.Warn("chicory: stop receiving", "error", err)
	}
	cancel()
	settled := s.jobs.empty()
	if !within(settled, max(0, s.opts.ShutdownTimeout)) {
		s.log.Warn("chicory: shutdown grace is over, cancelling handlers", "running", sortedNames(s.jobs.all()))
		s.cancel(engine.ErrShutdown)
		if !within(settled, stopTimeout) {
			s.giveUp()
			within(settled, stopTimeout)
		}
	}
	s.end(settled)
}

// giveUp decides for handlers that do not return.
func (s *session) giveUp() {
	for _, j := range s.jobs.all() {
		j.hang()
	}
}

// abandon ends a session whose broker is gone: nothing can be settled.
func (s *session) abandon(err error) {
	s.stopping.Store(true)
	s.cancel(err)
	settled := s.jobs.empty()
	for _, j := range s.jobs.all() {
		j.lose()
	}
	within(settled, stopTimeout)
	s.end(settled)
}

// end forgets what could not be settled, so that nothing waits for it.
func (s *session) end(settled <-chan struct{}) {
	for _, j := range s.jobs.all() {
		s.log.Error("chicory: task left unsettled; its lease brings it back", j.logAttrs()...)
		j.forget()
	}
	<-settled
	close(s.queue)
	if s.hung.names() == nil { // handlers that do not return cannot be waited for
		s.handlers.Wait()
	}
	s.starts.Close()
	s.records.Close()
	s.settles.Close()
}

func within(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// purge drops dead letters that are older than the limit.
func (s *session) purge(ctx context.Context) {
	if s.opts.DeadLetterAge < 0 {
		return
	}
	for wait := purgeFirst; engine.Sleep(ctx, wait); wait = purgeEvery {
		queues, err := s.w.queues()
		if err != nil {
			return
		}
		for _, q := range queues {
			n, err := s.eng.Broker.DeadLetters(q.Name).Purge(ctx, time.Now().Add(-s.opts.DeadLetterAge))
			if err != nil && ctx.Err() == nil {
				s.log.Warn("chicory: purge of old dead letters", "queue", q.Name, "error", err)
			}
			if n > 0 {
				s.log.Info("chicory: purged old dead letters", "queue", q.Name, "count", n)
			}
		}
	}
}
