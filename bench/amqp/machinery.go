package main

import (
	"context"

	machinery "github.com/RichardKnop/machinery/v2"
	"github.com/RichardKnop/machinery/v2/backends/iface"
	nullbackend "github.com/RichardKnop/machinery/v2/backends/null"
	redisbackend "github.com/RichardKnop/machinery/v2/backends/redis"
	amqpbroker "github.com/RichardKnop/machinery/v2/brokers/amqp"
	"github.com/RichardKnop/machinery/v2/config"
	eagerlock "github.com/RichardKnop/machinery/v2/locks/eager"
	machinerylog "github.com/RichardKnop/machinery/v2/log"
	"github.com/RichardKnop/machinery/v2/tasks"
)

// silent drops what machinery logs of every task.
type silent struct{}

func (silent) Print(...any)          {}
func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}
func (silent) Fatal(...any)          {}
func (silent) Fatalf(string, ...any) {}
func (silent) Fatalln(...any)        {}
func (silent) Panic(...any)          {}
func (silent) Panicf(string, ...any) {}
func (silent) Panicln(...any)        {}

func init() { machinerylog.Set(silent{}) }

type machineryQueue struct {
	server *machinery.Server
	run    func()
}

func machineryOn(redis bool) func(ctx context.Context, at place) (queue, error) {
	return func(_ context.Context, at place) (queue, error) {
		cnf := &config.Config{Broker: urlOf(at.amqp), DefaultQueue: at.name, ResultsExpireIn: 3600, NoUnixSignals: true,
			AMQP: &config.AMQPConfig{Exchange: at.name, ExchangeType: "direct", BindingKey: at.name, PrefetchCount: prefetch,
				QueueDeclareArgs: config.QueueDeclareArgs{"x-queue-type": "quorum"}},
			Redis: &config.RedisConfig{MaxIdle: handlers, MaxActive: 2 * handlers, IdleTimeout: 60, ReadTimeout: 15, WriteTimeout: 15, ConnectTimeout: 15}}
		var backend iface.Backend = nullbackend.New()
		if redis {
			backend = redisbackend.NewGR(cnf, []string{at.redis}, 0)
		}
		q := &machineryQueue{server: machinery.NewServer(cnf, amqpbroker.New(cnf), backend, eagerlock.New())}
		return q, q.server.RegisterTask("noop", func(string) (int64, error) {
			q.run()
			return 1, nil
		})
	}
}

func (q *machineryQueue) publish(ctx context.Context, text string) error {
	_, err := q.server.SendTaskWithContext(ctx, &tasks.Signature{Name: "noop", Args: []tasks.Arg{{Type: "string", Value: text}}})
	return err
}

func (q *machineryQueue) work(_ context.Context, run func()) (func() error, error) {
	q.run = run
	w := q.server.NewWorker("bench", handlers)
	w.LaunchAsync(make(chan error, 1))
	return func() error { w.Quit(); return nil }, nil
}

func (q *machineryQueue) close() error { return nil }
