package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	"github.com/chicory-go/chicory/worker"
	goredis "github.com/redis/go-redis/v9"
)

const chicoryQueueName = "default"

type argument struct{ Text string }

// A chicoryQueue is Chicory with its defaults.
type chicoryQueue struct {
	rdb, near *goredis.Client
	watch     *redis.Broker // of near
	app       *chicory.App
	task      *chicory.Task[argument, int]
	run       func(string)
}

func openChicory(ctx context.Context, at place) (queue, error) {
	q := &chicoryQueue{rdb: clientOf(at.addr), near: clientOf(at.near)}
	broker, err := redis.NewBroker(ctx, q.rdb, "bench", nil)
	if err != nil {
		return nil, err
	}
	backend, err := redis.NewBackend(ctx, q.rdb, "bench", nil)
	if err != nil {
		return nil, err
	}
	if q.watch, err = redis.NewBroker(ctx, q.near, "bench", nil); err != nil {
		return nil, err
	}
	q.app, err = chicory.NewWith(broker, backend, chicory.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	var opts []chicory.TaskOption
	if !at.keep {
		opts = append(opts, chicory.IgnoreResult())
	}
	q.task = chicory.Register(q.app, "noop", func(_ context.Context, a argument) (int, error) {
		q.run(a.Text)
		return 1, nil
	}, opts...)
	return q, q.app.Connect(ctx)
}

// clientOf returns a client as Chicory's driver wants it.
func clientOf(addr string) *goredis.Client {
	return goredis.NewClient(&goredis.Options{ContextTimeoutEnabled: true, Addr: addr, MaxRetries: -1})
}

func (q *chicoryQueue) publish(ctx context.Context, text string) error {
	_, err := q.task.Send(ctx, argument{text})
	return err
}

func (q *chicoryQueue) publishMany(ctx context.Context, texts []string) error {
	ins := make([]argument, len(texts))
	for i, text := range texts {
		ins[i].Text = text
	}
	_, err := q.task.SendMany(ctx, ins)
	return err
}

func (q *chicoryQueue) publishLater(ctx context.Context, text string, d time.Duration) error {
	_, err := q.task.Send(ctx, argument{text}, chicory.After(d))
	return err
}

func (q *chicoryQueue) call(ctx context.Context, text string) error {
	r, err := q.task.Delay(ctx, argument{text})
	if err != nil {
		return err
	}
	_, err = r.Get(ctx)
	return err
}

func (q *chicoryQueue) work(ctx context.Context, c int, run func(string)) (func() error, error) {
	q.run = run
	return worker.New(q.app, worker.Options{Concurrency: c}).Start(ctx)
}

func (q *chicoryQueue) settled(ctx context.Context) (bool, error) {
	stats, err := q.watch.Inspect(ctx, []string{chicoryQueueName})
	if err != nil {
		return false, err
	}
	return stats[0] == driver.QueueStats{Queue: chicoryQueueName}, nil
}

func (q *chicoryQueue) close() error {
	err := q.app.Close()
	q.watch.Close(context.Background())
	q.rdb.Close()
	q.near.Close()
	return err
}
