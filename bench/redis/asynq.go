package main

import (
	"context"
	"time"

	"github.com/hibiken/asynq"
)

const asynqQueueName = "default"

type asynqQueue struct {
	at        place
	addr      asynq.RedisClientOpt
	intervals asynqIntervals
	client    *asynq.Client
	inspector *asynq.Inspector
	options   []asynq.Option
}

// asynqIntervals are those of its polls; zero is its default.
type asynqIntervals struct{ ready, delayed time.Duration }

func openAsynqTuned(_ context.Context, at place) (queue, error) {
	return newAsynq(at, asynqIntervals{time.Millisecond, 10 * time.Millisecond}), nil
}

func openAsynqDefault(_ context.Context, at place) (queue, error) {
	return newAsynq(at, asynqIntervals{}), nil
}

func newAsynq(at place, intervals asynqIntervals) *asynqQueue {
	q := &asynqQueue{at: at, addr: asynq.RedisClientOpt{Addr: at.addr, PoolSize: connections}, intervals: intervals}
	q.client = asynq.NewClient(q.addr)
	q.inspector = asynq.NewInspector(asynq.RedisClientOpt{Addr: at.near})
	if at.keep {
		q.options = append(q.options, asynq.Retention(24*time.Hour))
	}
	return q
}

func (q *asynqQueue) publish(ctx context.Context, text string) error {
	_, err := q.client.EnqueueContext(ctx, asynq.NewTask("noop", []byte(text)), q.options...)
	return err
}

func (q *asynqQueue) publishLater(ctx context.Context, text string, d time.Duration) error {
	_, err := q.client.EnqueueContext(ctx, asynq.NewTask("noop", []byte(text)), append(q.options, asynq.ProcessIn(d))...)
	return err
}

// call polls every millisecond: results are not pushed.
func (q *asynqQueue) call(ctx context.Context, text string) error {
	sent, err := q.client.EnqueueContext(ctx, asynq.NewTask("noop", []byte(text)), q.options...)
	for err == nil {
		var info *asynq.TaskInfo
		info, err = q.inspector.GetTaskInfo(asynqQueueName, sent.ID)
		if err == nil && info.State == asynq.TaskStateCompleted {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

func (q *asynqQueue) work(_ context.Context, c int, run func(string)) (func() error, error) {
	s := asynq.NewServer(q.addr, asynq.Config{Concurrency: c, LogLevel: asynq.FatalLevel,
		TaskCheckInterval: q.intervals.ready, DelayedTaskCheckInterval: q.intervals.delayed})
	err := s.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		if q.at.keep {
			if _, err := t.ResultWriter().Write([]byte("1")); err != nil {
				return err
			}
		}
		run(string(t.Payload()))
		return nil
	}))
	return func() error { s.Shutdown(); return nil }, err
}

func (q *asynqQueue) settled(context.Context) (bool, error) {
	info, err := q.inspector.GetQueueInfo(asynqQueueName)
	if err != nil {
		return false, err
	}
	return info.Pending+info.Active+info.Scheduled+info.Retry == 0, nil
}

func (q *asynqQueue) close() error {
	q.inspector.Close()
	return q.client.Close()
}
