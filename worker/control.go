package worker

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// obeyPauses leaves paused queues alone. It returns the revision it obeyed.
func (s *session) obeyPauses(ctx context.Context) (rev uint64, err error) {
	paused, rev, err := s.eng.Paused(ctx)
	if err != nil {
		return 0, err
	}
	open := slices.DeleteFunc(slices.Clone(s.queues), func(q driver.QueueSpec) bool { return slices.Contains(paused, q.Name) })
	if slices.Equal(open, s.open) {
		return rev, nil
	}
	if err := s.sub.SetQueues(ctx, open); err != nil {
		return 0, err
	}
	s.open = open
	s.log.Info("chicory: queues paused or resumed", "worker", s.opts.Name, "open", queueNames(open))
	return rev, nil
}

// watchPauses obeys pauses as they come and go, from rev on.
func (s *session) watchPauses(ctx context.Context, rev uint64, err error) {
	for wait := retryFirst; ; {
		if err == nil {
			wait = retryFirst
			err = s.eng.AwaitPause(ctx, rev)
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, driver.ErrClosed), errors.Is(err, engine.ErrNoControl):
			return
		case err != nil:
			if !errors.Is(err, context.Canceled) { // of a worker stopped as it started
				s.log.Warn("chicory: watching for paused queues", "error", err, "wait", wait)
			}
			if !engine.Sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, retryMax)
		}
		rev, err = s.obeyPauses(ctx)
	}
}

// announce tells of the worker three times a lease, until ctx ends; then it
// leaves the list.
func (s *session) announce(ctx context.Context) {
	info := engine.WorkerInfo{Name: s.opts.Name, PID: os.Getpid(), Started: time.Now(), Concurrency: s.opts.Concurrency,
		Tasks: s.core.Tasks.Names(), TTL: s.opts.Lease}
	info.Host, _ = os.Hostname()
	for _, q := range s.queues {
		info.Queues = append(info.Queues, q.Name)
	}
	beat := s.opts.Lease / 3
	for {
		info.Seen, info.Running = time.Now(), s.w.Running()
		info.Processed, info.Failed = s.processed.Load(), s.failed.Load()
		info.Health = ""
		if err := s.w.Health(); err != nil {
			info.Health = err.Error()
		}
		bounded, cancel := context.WithTimeout(ctx, beat)
		err := s.eng.Announce(bounded, &info)
		cancel()
		switch {
		case errors.Is(err, engine.ErrNoControl), errors.Is(err, driver.ErrClosed):
			return
		case err != nil && ctx.Err() == nil:
			s.log.Warn("chicory: telling of the worker", "error", err)
		}
		if !engine.Sleep(ctx, beat) {
			break
		}
	}
	leaving, done := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer done()
	if err := s.eng.Leave(leaving, s.opts.Name); err != nil && !errors.Is(err, driver.ErrClosed) {
		s.log.Warn("chicory: leaving the list of workers", "error", err)
	}
}
