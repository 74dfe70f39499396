package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A queue is what one peer keeps on an empty server, with one kind of task, whose
// argument is a text.
type queue interface {
	publish(ctx context.Context, text string) error
	// work starts a worker that runs up to c of run at once. Run is given the
	// argument.
	work(ctx context.Context, c int, run func(text string)) (stop func() error, err error)
	// settled reports whether no task is ready or leased.
	settled(ctx context.Context) (bool, error)
	close() error
}

// A batcher is a queue that publishes many tasks in one call.
type batcher interface {
	publishMany(ctx context.Context, texts []string) error
}

// A delayer is a queue that can hold a task back.
type delayer interface {
	publishLater(ctx context.Context, text string, d time.Duration) error
}

// A caller is a queue with results.
type caller interface {
	// call publishes a task and waits for its result.
	call(ctx context.Context, text string) error
}

// A place is where a queue is opened.
type place struct {
	addr string // of the server, or of the proxy before it
	near string // of the server, for what only watches
	keep bool   // the results, for a day
}

// A peer is a task queue that is measured.
type peer struct {
	name   string
	open   func(ctx context.Context, at place) (queue, error)
	serial bool // fetches one task at a time: one a round trip, at any concurrency
	sleepy bool // sleeps for some 0.5 s before it looks again at an empty queue
}

// connections are the most of peers whose handlers have one each.
const connections = 128

var (
	chicoryPeer  = peer{name: "chicory", open: openChicory}
	asynqPeer    = peer{name: "asynq", open: openAsynqTuned, serial: true}
	asynqDefault = peer{name: "asynq as it comes", open: openAsynqDefault, serial: true, sleepy: true}
	gocraftPeer  = peer{name: "gocraft/work", open: openGocraft, sleepy: true}
	taskqPeer    = peer{name: "taskq", open: openTaskq}
	rawPeer      = peer{name: "raw", open: openRaw}
)

// publishAll publishes n tasks from p goroutines, batch at a time if q has batches.
func publishAll(ctx context.Context, q queue, n, p, batch int, text string) error {
	many, ok := q.(batcher)
	if !ok {
		batch = 1
	}
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range p {
		g.Go(func() error {
			for {
				left := n - int(taken.Add(int64(batch))) + batch
				switch {
				case left <= 0:
					return nil
				case batch == 1:
					if err := q.publish(ctx, text); err != nil {
						return err
					}
				default:
					if err := many.publishMany(ctx, repeated(text, min(batch, left))); err != nil {
						return err
					}
				}
			}
		})
	}
	return g.Wait()
}

func repeated(text string, n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = text
	}
	return texts
}

// runAll starts a worker and returns when n tasks have run and are settled.
func runAll(ctx context.Context, q queue, n, c int) (stop func() error, err error) {
	var done atomic.Int64
	all := make(chan struct{})
	stop, err = q.work(ctx, c, func(string) {
		if done.Add(1) == int64(n) {
			close(all)
		}
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-all:
	case <-ctx.Done():
		stop()
		return nil, fmt.Errorf("%d of %d tasks have run: %w", done.Load(), n, context.Cause(ctx))
	}
	for {
		if ok, err := q.settled(ctx); ok || err != nil {
			return stop, err
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// textOf returns n bytes that do not compress to nothing, as some peers would.
func textOf(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	r := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, n)
	for i := range text {
		text[i] = letters[r.IntN(len(letters))]
	}
	return string(text)
}
