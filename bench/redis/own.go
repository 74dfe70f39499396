package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	"github.com/chicory-go/chicory/worker"
	"golang.org/x/sync/errgroup"
)

// ownWorkloads are those that no peer has a counterpart for.
func ownWorkloads() []workload {
	only := []peer{chicoryPeer}
	return []workload{
		{name: "lease extension, 200 at once", peers: only, run: extension},
		{name: "promotion of a delayed task", peers: only, run: promotion},
		{name: "10,000 waiters", peers: only, keep: true, rounds: 2, run: waiters},
		{name: fmt.Sprintf("%d tasks wait", crowdTimes**tasks), peers: only, keep: true, rounds: 1, run: crowd},
	}
}

// subscribed gives f a subscription of the plain driver with credit for n messages.
func (c *cell) subscribed(ctx context.Context, n int, f func(b *redis.Broker, s driver.Subscription) error) error {
	rdb := clientOf(c.at.addr)
	defer rdb.Close()
	b, err := redis.NewBroker(ctx, rdb, "own", nil)
	if err != nil {
		return err
	}
	defer b.Close(ctx)
	s, err := b.Subscribe(ctx, &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: "own"}}, Slots: n, Prefetch: n,
		Lease: 30 * time.Second, Worker: "bench"})
	if err != nil {
		return err
	}
	defer s.Close(ctx)
	return f(b, s)
}

// stored publishes n messages without records, the first numbered from.
func stored(ctx context.Context, b *redis.Broker, from, n int, delay time.Duration) error {
	text := []byte(textOf(textSize))
	ms := make([]*driver.Message, n)
	for i := range ms {
		ms[i] = &driver.Message{ID: strconv.Itoa(from + i), Queue: "own", Attempt: 1, NoRecord: true, Delay: delay, Envelope: text}
	}
	return b.Publish(ctx, ms)
}

func received(ctx context.Context, s driver.Subscription, n int) ([]*driver.Delivery, error) {
	var all []*driver.Delivery
	for len(all) < n {
		ds, err := s.Receive(ctx, n-len(all))
		if err != nil {
			return nil, err
		}
		all = append(all, ds...)
	}
	return all, nil
}

func extension(ctx context.Context, c *cell) ([]figure, error) {
	const held, atOnce, times = 2000, 200, 10
	var spent cost
	err := c.subscribed(ctx, held, func(b *redis.Broker, s driver.Subscription) error {
		if err := stored(ctx, b, 0, held, 0); err != nil {
			return err
		}
		ds, err := received(ctx, s, held)
		if err != nil {
			return err
		}
		spent, err = c.server.measure(ctx, func() error {
			for i := range times * held / atOnce {
				from := i * atOnce % held
				if err := s.Extend(ctx, ds[from:from+atOnce]); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	})
	return []figure{{"CPU of the server", "µs/lease", µsEach(spent.server, times*held), false},
		{"CPU of the worker", "µs/lease", µsEach(spent.worker, times*held), false}}, err
}

// promotion is what it takes to receive delayed messages that are due, less what it
// takes to receive as many that were never delayed.
func promotion(ctx context.Context, c *cell) ([]figure, error) {
	n := *tasks
	const delay = 500 * time.Millisecond
	var ready, delayed cost
	err := c.subscribed(ctx, 2*n, func(b *redis.Broker, s driver.Subscription) error {
		receive := func() error { _, err := received(ctx, s, n); return err }
		if err := stored(ctx, b, 0, n, 0); err != nil {
			return err
		}
		var err error
		if ready, err = c.server.measure(ctx, receive); err != nil {
			return err
		}
		if err := stored(ctx, b, n, n, delay); err != nil {
			return err
		}
		time.Sleep(delay)
		delayed, err = c.server.measure(ctx, receive)
		return err
	})
	return []figure{{"CPU of the server", "µs/task", µsEach(delayed.server-ready.server, n), false}}, err
}

// crowdTimes is how many times as many tasks wait as come and go.
const crowdTimes = 50

// crowd tells what it takes to publish tasks, and to run them, where none wait and then
// where many do.
func crowd(ctx context.Context, c *cell) ([]figure, error) {
	var figures []figure
	err := c.open(ctx, func(q queue) error {
		come := func(n int) error { return publishAll(ctx, q, n, 64, 1, textOf(textSize)) }
		round := func(where string) error {
			publishing, err := c.server.measure(ctx, func() error { return come(*tasks) })
			if err != nil {
				return err
			}
			running, err := c.runSome(ctx, q, *tasks)
			figures = append(figures, figure{"publish, " + where, "µs/task", µsEach(publishing.time, *tasks), false},
				figure{"run, " + where, "µs/task", µsEach(running.time, *tasks), false})
			return err
		}
		if err := come(100); err != nil { // opens connections
			return err
		}
		if err := round("else none"); err != nil {
			return err
		}
		if err := come(crowdTimes * *tasks); err != nil {
			return err
		}
		return round("beside all")
	})
	return figures, err
}

// runSome tells what it takes to run n tasks of more.
func (c *cell) runSome(ctx context.Context, q queue, n int) (spent cost, err error) {
	var runs atomic.Int64
	done := make(chan struct{})
	var stop func() error
	spent, err = c.server.measure(ctx, func() (err error) {
		stop, err = q.work(ctx, 100, func(string) {
			if runs.Add(1) == int64(n) {
				close(done)
			}
		})
		if err != nil {
			return err
		}
		select {
		case <-done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		return err
	})
	if stop != nil {
		err = errors.Join(err, stop())
	}
	return spent, err
}

const (
	waiting   = 10000
	heldQueue = "held"
)

// waiters has many goroutines wait for results that do not come, looks at what that
// costs and at what another round trip takes, then has the results come.
func waiters(ctx context.Context, c *cell) ([]figure, error) {
	var figures []figure
	var finished [waiting]atomic.Int64 // Unix ns
	run := func(text string) {
		if i, err := strconv.Atoi(text); err == nil {
			finished[i].Store(time.Now().UnixNano())
		}
	}
	err := c.open(ctx, func(opened queue) error {
		q := opened.(*chicoryQueue)
		q.run = run
		stop, err := workOn(ctx, q, chicoryQueueName)
		if err != nil {
			return err
		}
		defer stop()
		if _, err := calls(ctx, q, *samples); err != nil { // opens connections
			return err
		}
		memory, clients, err := c.footprint(ctx)
		if err != nil {
			return err
		}
		var took durations
		gets, err := q.wait(ctx, finished[:], &took)
		if err != nil {
			return err
		}
		if err := c.server.quiet(ctx); err != nil {
			return err
		}
		memoryNow, clientsNow, err := c.footprint(ctx)
		if err != nil {
			return err
		}
		figures = append(figures, figure{"memory of the process", "MiB", memoryNow, false},
			figure{"memory of the waiters", "MiB", memoryNow - memory, false},
			figure{"connections of the waiters", "", clientsNow - clients, false})
		beside, err := calls(ctx, q, 20**samples)
		if err != nil {
			return err
		}
		figures = append(figures, spread("Delay to Get beside", beside)...)
		stopHeld, err := workOn(ctx, q, heldQueue)
		if err != nil {
			return err
		}
		defer stopHeld()
		if err := gets.Wait(); err != nil {
			return err
		}
		figures = append(figures, spread("handler to Get, all at once", took.all)...)
		return nil
	})
	return figures, err
}

func workOn(ctx context.Context, q *chicoryQueue, name string) (func() error, error) {
	return worker.New(q.app, worker.Options{Concurrency: latencyConcurrency, Queues: []worker.Queue{{Name: name}}}).Start(ctx)
}

// wait publishes a task per item of finished to the queue that is held, and has a
// goroutine wait for each. Took tells how long after the handler each had its result.
func (q *chicoryQueue) wait(ctx context.Context, finished []atomic.Int64, took *durations) (*errgroup.Group, error) {
	ins := make([]argument, len(finished))
	for i := range ins {
		ins[i].Text = strconv.Itoa(i)
	}
	rs, err := q.task.DelayMany(ctx, ins, chicory.Queue(heldQueue))
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, r := range rs {
		g.Go(func() error {
			_, err := r.Get(ctx)
			took.add(time.Since(time.Unix(0, finished[i].Load())))
			return err
		})
	}
	return g, nil
}

// footprint is what this process holds in MiB, and the connections of the server.
func (c *cell) footprint(ctx context.Context) (mib, clients float64, err error) {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("/proc/self/statm: %q", text)
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, 0, err
	}
	clients, err = c.server.number(ctx, "clients", "connected_clients")
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20), clients, err
}

// quiet returns once the server has had next to nothing to do for a moment.
func (s *server) quiet(ctx context.Context) error {
	for before := 0.0; ; {
		now, err := s.number(ctx, "stats", "total_commands_processed")
		if err != nil || now-before < 10 {
			return err
		}
		before = now
		time.Sleep(100 * time.Millisecond)
	}
}
