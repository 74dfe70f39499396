package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/drivers/redis"
	"github.com/chicory-go/chicory/worker"
	goredis "github.com/redis/go-redis/v9"
)

type argument struct{ Text string }

// A chicoryQueue is Chicory with its defaults.
type chicoryQueue struct {
	app  *chicory.App
	task *chicory.Task[argument, int]
	run  func()
	rest func() error // closes what the app does not
}

// A results opens a backend.
type results func(ctx context.Context, at place) (driver.Backend, func() error, error)

func inMemory(context.Context, place) (driver.Backend, func() error, error) {
	return memory.New().Backend("bench"), func() error { return nil }, nil
}

func onRedis(ctx context.Context, at place) (driver.Backend, func() error, error) {
	rdb := goredis.NewClient(&goredis.Options{ContextTimeoutEnabled: true, Addr: at.redis, MaxRetries: -1})
	b, err := redis.NewBackend(ctx, rdb, "bench", &redis.Options{Prefix: at.name})
	return b, rdb.Close, err
}

// chicoryOn keeps results in backend, or ignores them if that is nil.
func chicoryOn(backend results) func(ctx context.Context, at place) (queue, error) {
	return func(ctx context.Context, at place) (queue, error) {
		q := &chicoryQueue{rest: func() error { return nil }}
		broker, err := amqp.Open(ctx, []string{urlOf(at.amqp)}, "bench", &amqp.Options{Prefix: at.name})
		if err != nil {
			return nil, err
		}
		var kept driver.Backend
		var opts []chicory.TaskOption
		if backend == nil {
			opts = append(opts, chicory.IgnoreResult())
		} else if kept, q.rest, err = backend(ctx, at); err != nil {
			return nil, err
		}
		q.app, err = chicory.NewWith(broker, kept, chicory.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		q.task = chicory.Register(q.app, "noop", func(context.Context, argument) (int, error) {
			q.run()
			return 1, nil
		}, opts...)
		return q, q.app.Connect(ctx)
	}
}

func (q *chicoryQueue) publish(ctx context.Context, text string) error {
	_, err := q.task.Send(ctx, argument{text})
	return err
}

func (q *chicoryQueue) work(ctx context.Context, run func()) (func() error, error) {
	q.run = run
	return worker.New(q.app, worker.Options{Concurrency: handlers}).Start(ctx)
}

func (q *chicoryQueue) close() error { return errors.Join(q.app.Close(), q.rest()) }
