package main

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	goredis "github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/taskq/redisq/v4"
	"github.com/vmihailenco/taskq/v4"
)

const (
	taskqQueueName = "bench"
	// taskqWait is how long a read blocks that finds nothing, and so what Close waits
	// for: its 1 s would be most of a round.
	taskqWait = 100 * time.Millisecond
)

// Its schedulers outlive Close for a moment, and complain of the closed client.
func init() { taskq.SetLogger(logr.Discard()) }

type taskqQueue struct {
	rdb, near *goredis.Client
	queue     taskq.Queue
	run       func(string)
}

func openTaskq(_ context.Context, at place) (queue, error) {
	q := &taskqQueue{
		rdb:  goredis.NewClient(&goredis.Options{Addr: at.addr, PoolSize: connections}),
		near: clientOf(at.near),
	}
	q.queue = redisq.NewQueue(&taskq.QueueConfig{Name: taskqQueueName, Redis: q.rdb, ReservationSize: 100,
		WaitTimeout: taskqWait, Handler: taskq.HandlerFunc(q.handle)})
	return q, nil
}

func (q *taskqQueue) handle(job *taskq.Job) error {
	body, err := job.MarshalArgs()
	if err != nil {
		return err
	}
	var args []string
	if err := msgpack.Unmarshal(body, &args); err != nil {
		return err
	}
	q.run(args[0])
	return nil
}

func (q *taskqQueue) publish(ctx context.Context, text string) error {
	return q.publishLater(ctx, text, 0)
}

func (q *taskqQueue) publishLater(ctx context.Context, text string, d time.Duration) error {
	job := taskq.NewJob(text)
	job.TaskName = "noop"
	job.Delay = d
	return q.queue.AddJob(ctx, job)
}

func (q *taskqQueue) work(ctx context.Context, c int, run func(string)) (func() error, error) {
	q.run = run
	q.queue.Options().NumWorker = c // read by Start
	return q.queue.Close, q.queue.Consumer().Start(ctx)
}

// settled needs no look at what is leased: that stays in the stream.
func (q *taskqQueue) settled(ctx context.Context) (bool, error) {
	n, err := q.near.XLen(ctx, "taskq:{"+taskqQueueName+"}:stream").Result()
	return n == 0, err
}

func (q *taskqQueue) close() error {
	err := q.queue.Close()
	q.near.Close()
	q.rdb.Close()
	return err
}
