package main

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/drivers/redis"
	"github.com/chicory-go/chicory/worker"
	"github.com/hibiken/asynq"
	goredis "github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// payload has the 128 bytes of the peers' benchmarks.
type payload struct{ Text string }

var argument = payload{strings.Repeat("x", 116)}

type chicoryPeer struct {
	rdb    *goredis.Client
	broker *redis.Broker
	app    *chicory.App
	task   *chicory.Task[payload, int]
	done   atomic.Int64
}

func openChicory(ctx context.Context, addr string) (peer, error) {
	rdb := goredis.NewClient(&goredis.Options{Addr: addr, MaxRetries: -1})
	broker, err := redis.NewBroker(ctx, rdb, "default", nil)
	if err != nil {
		return nil, err
	}
	backend, err := redis.NewBackend(ctx, rdb, "default", nil)
	if err != nil {
		return nil, err
	}
	app, err := chicory.NewWith(broker, backend, chicory.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	p := &chicoryPeer{rdb: rdb, broker: broker, app: app}
	p.task = chicory.Register(app, "noop", func(context.Context, payload) (int, error) {
		p.done.Add(1)
		return 1, nil
	})
	return p, app.Connect(ctx)
}

func (p *chicoryPeer) fill(ctx context.Context, n, producers, batch int) error {
	g, ctx := errgroup.WithContext(ctx)
	for range producers {
		g.Go(func() error {
			for i := 0; i < n/producers; i += batch {
				if batch == 1 {
					if _, err := p.task.Send(ctx, argument); err != nil {
						return err
					}
					continue
				}
				ins := make([]payload, min(batch, n/producers-i))
				for j := range ins {
					ins[j] = argument
				}
				if _, err := p.task.DelayMany(ctx, ins); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (p *chicoryPeer) drain(ctx context.Context, n, c int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- worker.New(p.app, worker.Options{Concurrency: c}).Run(ctx) }()
	for int(p.done.Load()) < n/8*8 {
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Millisecond):
		}
	}
	for {
		stats, err := p.broker.Inspect(ctx, []string{"default"})
		if err != nil {
			return err
		}
		if stats[0].Leased == 0 {
			break
		}
	}
	stop()
	return <-ended
}

func (p *chicoryPeer) close() {
	p.app.Close()
	p.rdb.Close()
}

type asynqPeer struct {
	addr   asynq.RedisClientOpt
	client *asynq.Client
}

func openAsynq(_ context.Context, addr string) (peer, error) {
	opt := asynq.RedisClientOpt{Addr: addr}
	return &asynqPeer{opt, asynq.NewClient(opt)}, nil
}

func (p *asynqPeer) fill(ctx context.Context, n, producers, _ int) error {
	g, ctx := errgroup.WithContext(ctx)
	body := []byte(`{"Text":"` + argument.Text + `"}`)
	for range producers {
		g.Go(func() error {
			for range n / producers {
				if _, err := p.client.EnqueueContext(ctx, asynq.NewTask("noop", body), asynq.Retention(24*time.Hour)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (p *asynqPeer) drain(_ context.Context, n, c int) error {
	var done atomic.Int64
	s := asynq.NewServer(p.addr, asynq.Config{Concurrency: c, LogLevel: asynq.FatalLevel})
	err := s.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		_, err := t.ResultWriter().Write([]byte("1"))
		done.Add(1)
		return err
	}))
	if err != nil {
		return err
	}
	inspector := asynq.NewInspector(p.addr)
	defer inspector.Close()
	for int(done.Load()) < n/8*8 {
		time.Sleep(time.Millisecond)
	}
	for {
		info, err := inspector.GetQueueInfo("default")
		if err != nil {
			return err
		}
		if info.Active == 0 {
			break
		}
	}
	// Its shutdown waits for its polls, and is none of its drain: not timed.
	go s.Shutdown()
	return nil
}

func (p *asynqPeer) close() { p.client.Close() }
