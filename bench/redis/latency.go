package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const latencyConcurrency = 10

func latencies() []workload {
	return []workload{
		{name: "dispatch to start after idling", peers: []peer{chicoryPeer, asynqPeer, asynqDefault, gocraftPeer, taskqPeer}, keep: true, run: idle},
		{name: "Delay to Get", peers: []peer{chicoryPeer, asynqPeer, asynqDefault}, keep: true, run: roundTrips},
		{name: "delayed tasks, off their time", peers: []peer{chicoryPeer, asynqPeer, asynqDefault, gocraftPeer, taskqPeer}, keep: true, rounds: 1, run: precision},
	}
}

// spread are the figures of durations.
func spread(name string, took []time.Duration) []figure {
	figures := []figure{{"p50", "ms", inMs(quantile(took, 0.5)), false}, {"p99", "ms", inMs(quantile(took, 0.99)), false}}
	for i := range figures {
		if name != "" {
			figures[i].name = name + ", " + figures[i].name
		}
	}
	return figures
}

// withWorker opens the peer's queue, and has a worker run for the time of f.
func (c *cell) withWorker(ctx context.Context, concurrency int, run func(string), f func(q queue) error) error {
	return c.open(ctx, func(q queue) error {
		stop, err := q.work(ctx, concurrency, run)
		if err != nil {
			return err
		}
		err = f(q)
		if stopping := stop(); err == nil {
			err = stopping
		}
		return err
	})
}

// idle tells how long it takes a task to be started that comes alone.
func idle(ctx context.Context, c *cell) ([]figure, error) {
	n := *samples
	if c.peer.sleepy {
		n = max(3, n/3)
	}
	started := make(chan time.Time, 1)
	var took []time.Duration
	err := c.withWorker(ctx, latencyConcurrency, func(string) { started <- time.Now() }, func(q queue) error {
		for i := range n + 1 {
			time.Sleep(150*time.Millisecond + rand.N(100*time.Millisecond))
			begin := time.Now()
			if err := q.publish(ctx, textOf(textSize)); err != nil {
				return err
			}
			select {
			case at := <-started:
				if i > 0 { // the first opens connections
					took = append(took, at.Sub(begin))
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return spread("", took), nil
}

// roundTrips tells how long one result after another takes.
func roundTrips(ctx context.Context, c *cell) ([]figure, error) {
	n := 20 * *samples
	if c.peer.sleepy {
		n = max(3, *samples/6)
	}
	var took []time.Duration
	err := c.withWorker(ctx, latencyConcurrency, func(string) {}, func(q queue) (err error) {
		took, err = calls(ctx, q.(caller), n)
		return err
	})
	if err != nil {
		return nil, err
	}
	return spread("", took), nil
}

// calls times n calls after a few that warm up.
func calls(ctx context.Context, q caller, n int) ([]time.Duration, error) {
	const warm = 3
	var took []time.Duration
	for i := range warm + n {
		begin := time.Now()
		if err := q.call(ctx, textOf(textSize)); err != nil {
			return nil, err
		}
		if i >= warm {
			took = append(took, time.Since(begin))
		}
	}
	return took, nil
}

// precision tells how far off their time tasks start that are due over 5 s: too late,
// or too early where a peer counts in whole seconds.
func precision(ctx context.Context, c *cell) ([]figure, error) {
	n := max(*tasks/10, 100)
	var off durations
	all := make(chan struct{})
	run := func(text string) {
		due, _ := strconv.ParseInt(text, 10, 64) // we wrote it
		if off.add(time.Since(time.Unix(0, due)).Abs()) == n {
			close(all)
		}
	}
	err := c.withWorker(ctx, 100, run, func(q queue) error {
		if err := publishOver(ctx, q.(delayer), n, 5*time.Second); err != nil {
			return err
		}
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%d of %d tasks have run: %w", off.len(), n, context.Cause(ctx))
		}
	})
	if err != nil {
		return nil, err
	}
	return spread("", off.all), nil
}

// publishOver publishes n tasks that are due over a span of time. Their argument is
// when, in Unix ns.
func publishOver(ctx context.Context, q delayer, n int, span time.Duration) error {
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range 8 {
		g.Go(func() error {
			for {
				i := int(taken.Add(1)) - 1
				if i >= n {
					return nil
				}
				d := time.Second + time.Duration(i)*span/time.Duration(n)
				due := time.Now().Add(d)
				if err := q.publishLater(ctx, strconv.FormatInt(due.UnixNano(), 10), d); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// durations are gathered by many goroutines.
type durations struct {
	mu  sync.Mutex
	all []time.Duration
}

// add returns how many there are.
func (d *durations) add(v time.Duration) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, v)
	return len(d.all)
}

func (d *durations) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.all)
}
