package main

import (
	"context"
	"math"
	"time"

	"github.com/gocraft/work"
	redigo "github.com/gomodule/redigo/redis"
)

const gocraftNamespace = "bench"

type gocraftQueue struct {
	pool, near *redigo.Pool
	enqueuer   *work.Enqueuer
}

func openGocraft(_ context.Context, at place) (queue, error) {
	q := &gocraftQueue{pool: redigoPool(at.addr), near: redigoPool(at.near)}
	q.enqueuer = work.NewEnqueuer(gocraftNamespace, q.pool)
	return q, nil
}

func redigoPool(addr string) *redigo.Pool {
	return &redigo.Pool{MaxActive: connections, MaxIdle: connections, Wait: true,
		Dial: func() (redigo.Conn, error) { return redigo.Dial("tcp", addr) }}
}

func (q *gocraftQueue) publish(_ context.Context, text string) error {
	_, err := q.enqueuer.Enqueue("noop", work.Q{"text": text})
	return err
}

// publishLater rounds up: it counts whole seconds.
func (q *gocraftQueue) publishLater(_ context.Context, text string, d time.Duration) error {
	_, err := q.enqueuer.EnqueueIn("noop", int64(math.Ceil(d.Seconds())), work.Q{"text": text})
	return err
}

func (q *gocraftQueue) work(_ context.Context, c int, run func(string)) (func() error, error) {
	p := work.NewWorkerPool(struct{}{}, uint(c), gocraftNamespace, q.pool)
	p.Job("noop", func(j *work.Job) error {
		run(j.ArgString("text"))
		return j.ArgError()
	})
	p.Start()
	return func() error { p.Stop(); return nil }, nil
}

// settled looks at the count of what is leased, which it keeps with its settlements:
// the list of that has the name of the worker.
func (q *gocraftQueue) settled(context.Context) (bool, error) {
	conn := q.near.Get()
	defer conn.Close()
	ready, err := redigo.Int(conn.Do("LLEN", gocraftNamespace+":jobs:noop"))
	if err != nil {
		return false, err
	}
	leased, err := redigo.Int(conn.Do("GET", gocraftNamespace+":jobs:noop:lock"))
	return ready+leased == 0, err
}

func (q *gocraftQueue) close() error {
	q.near.Close()
	return q.pool.Close()
}
