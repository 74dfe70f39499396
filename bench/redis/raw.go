package main

import (
	"context"
	"errors"

	goredis "github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const (
	rawStream  = "raw"
	rawGroup   = "g"
	rawReaders = 4
	rawBatch   = 100
)

// A rawQueue is a stream and a plain client: no task queue can do with less.
type rawQueue struct{ rdb, near *goredis.Client }

func openRaw(ctx context.Context, at place) (queue, error) {
	q := &rawQueue{rdb: goredis.NewClient(&goredis.Options{Addr: at.addr, PoolSize: connections}), near: clientOf(at.near)}
	return q, q.near.XGroupCreateMkStream(ctx, rawStream, rawGroup, "0").Err()
}

func (q *rawQueue) publish(ctx context.Context, text string) error {
	return q.rdb.XAdd(ctx, addition(text)).Err()
}

func (q *rawQueue) publishMany(ctx context.Context, texts []string) error {
	_, err := q.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for _, text := range texts {
			p.XAdd(ctx, addition(text))
		}
		return nil
	})
	return err
}

func addition(text string) *goredis.XAddArgs {
	return &goredis.XAddArgs{Stream: rawStream, Values: []string{"t", text}}
}

// work has readers of its own number, whatever c is.
func (q *rawQueue) work(ctx context.Context, _ int, run func(string)) (func() error, error) {
	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	for range rawReaders {
		g.Go(func() error {
			for ctx.Err() == nil {
				if err := q.take(ctx, run); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	return func() error { stop(); return g.Wait() }, nil
}

// take runs and settles one batch.
func (q *rawQueue) take(ctx context.Context, run func(string)) error {
	streams, err := q.rdb.XReadGroup(ctx, &goredis.XReadGroupArgs{Group: rawGroup, Consumer: "c",
		Streams: []string{rawStream, ">"}, Count: rawBatch, Block: -1}).Result()
	if errors.Is(err, goredis.Nil) {
		return nil
	}
	if err != nil {
		return err
	}
	var ids []string
	for _, m := range streams[0].Messages {
		ids = append(ids, m.ID)
	}
	_, err = q.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		p.XAck(ctx, rawStream, rawGroup, ids...)
		p.XDel(ctx, rawStream, ids...)
		return nil
	})
	for _, m := range streams[0].Messages {
		run(m.Values["t"].(string))
	}
	return err
}

func (q *rawQueue) settled(ctx context.Context) (bool, error) {
	n, err := q.near.XLen(ctx, rawStream).Result()
	return n == 0, err
}

func (q *rawQueue) close() error {
	q.near.Close()
	return q.rdb.Close()
}
