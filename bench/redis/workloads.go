package main

import (
	"context"
	"fmt"
)

// Sizes of arguments, in bytes.
const (
	textSize   = 128
	memorySize = 256
)

// memoryTasks are as many as have a table of keys grow to what is usual.
const memoryTasks = 20000

var (
	allPeers = []peer{chicoryPeer, asynqPeer, gocraftPeer, taskqPeer}
	rawToo   = append(allPeers[:len(allPeers):len(allPeers)], rawPeer)
)

func workloads() []workload {
	var ws []workload
	for _, far := range []bool{false, true} {
		for _, keep := range []bool{true, false} {
			for _, concurrency := range []int{1, 10, 50, 100} {
				ws = append(ws, drain(concurrency, far, keep))
			}
			ws = append(ws, publish("1 goroutine", 1, 1, far, keep), publish("64 goroutines", 64, 1, far, keep),
				publish("batches of 100", 1, 100, far, keep))
		}
	}
	ws = append(ws, latencies()...)
	for _, keep := range []bool{true, false} {
		ws = append(ws, workload{name: title("memory, 256 B", false, keep), peers: rawToo, keep: keep, rounds: 1, run: memory})
	}
	return append(ws, ownWorkloads()...)
}

// title completes the name of a workload.
func title(what string, far, keep bool) string {
	what += map[bool]string{true: ", results kept", false: ", no results"}[keep]
	if far {
		what += ", 2.4 ms away"
	}
	return what
}

func drain(concurrency int, far, keep bool) workload {
	w := workload{name: title(fmt.Sprintf("drain, concurrency %d", concurrency), far, keep), peers: allPeers, far: far, keep: keep}
	if concurrency == 100 {
		w.peers = rawToo
	}
	w.run = func(ctx context.Context, c *cell) ([]figure, error) {
		n := drainSize(concurrency, far, c.peer)
		spent, err := c.drain(ctx, n, concurrency)
		figures := []figure{{"", "tasks/s", perSecond(n, spent.time), true}}
		if concurrency == 100 && !far {
			figures = append(figures, figure{"CPU of the worker", "µs/task", µsEach(spent.worker, n), false},
				figure{"CPU of the server", "µs/task", µsEach(spent.server, n), false})
		}
		return figures, err
	}
	return w
}

// drainSize gives every peer about as much time, a second or so.
func drainSize(concurrency int, far bool, p peer) int {
	n := *tasks
	switch {
	case far && p.serial:
		n /= max(40, 100/concurrency)
	case far && concurrency <= 10:
		n /= max(20, 100/concurrency)
	case far:
		n /= 400 / concurrency
	case concurrency == 1:
		n /= 5
	case p.serial:
		n /= 2
	}
	return max(n, 100)
}

// drain tells what it takes to run n tasks that are there already.
func (c *cell) drain(ctx context.Context, n, concurrency int) (spent cost, err error) {
	err = c.open(ctx, func(q queue) error {
		if err := publishAll(ctx, q, n, 64, 100, textOf(textSize)); err != nil {
			return err
		}
		var stop func() error
		var err error
		spent, err = c.server.measure(ctx, func() error {
			stop, err = runAll(ctx, q, n, concurrency)
			return err
		})
		if stop != nil {
			if stopping := stop(); err == nil {
				err = stopping
			}
		}
		return err
	})
	return spent, err
}

func publish(how string, goroutines, batch int, far, keep bool) workload {
	return workload{name: title("publish, "+how, far, keep), peers: rawToo, far: far, keep: keep,
		run: func(ctx context.Context, c *cell) ([]figure, error) {
			var rate float64
			err := c.open(ctx, func(q queue) error {
				n := publishSize(goroutines, batch, far, q)
				// Connections are opened before, for a program has them.
				if err := publishAll(ctx, q, 4*goroutines, goroutines, batch, textOf(textSize)); err != nil {
					return err
				}
				spent, err := c.server.measure(ctx, func() error {
					return publishAll(ctx, q, n, goroutines, batch, textOf(textSize))
				})
				rate = perSecond(n, spent.time)
				return err
			})
			return []figure{{"", "tasks/s", rate, true}}, err
		}}
}

// publishSize gives every peer about as much time, half a second or so.
func publishSize(goroutines, batch int, far bool, q queue) int {
	n := *tasks
	_, batches := q.(batcher)
	switch alone := goroutines == 1 && !(batches && batch > 1); {
	case alone && far:
		n /= 50
	case alone:
		n /= 3
	case far && batch == 1:
		n /= 4
	}
	return max(n, 100)
}

// memory tells what a task takes that waits. It counts once the connections are
// gone, for their buffers are memory too.
func memory(ctx context.Context, c *cell) ([]figure, error) {
	fill := func(n int) error {
		return c.open(ctx, func(q queue) error { return publishAll(ctx, q, n, 64, 100, textOf(memorySize)) })
	}
	if err := fill(100); err != nil { // scripts are loaded, pools have been filled
		return nil, err
	}
	if err := c.server.flush(ctx); err != nil {
		return nil, err
	}
	before, err := c.server.quietMemory(ctx)
	if err != nil {
		return nil, err
	}
	if err := fill(memoryTasks); err != nil {
		return nil, err
	}
	after, err := c.server.quietMemory(ctx)
	return []figure{{"", "B/task", (after - before) / memoryTasks, false}}, err
}
