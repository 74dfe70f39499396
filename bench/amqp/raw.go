package main

import (
	"context"
	"errors"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// A rawQueue is a quorum queue of the client library.
type rawQueue struct {
	name    string
	in, out *amqp091.Connection
	channel *amqp091.Channel // of in
}

func openRaw(ctx context.Context, at place) (queue, error) {
	q := &rawQueue{name: at.name}
	var err error
	if q.in, err = amqp091.Dial(urlOf(at.amqp)); err != nil {
		return nil, err
	}
	if q.out, err = amqp091.Dial(urlOf(at.amqp)); err != nil {
		return nil, err
	}
	if q.channel, err = q.in.Channel(); err == nil {
		err = q.channel.Confirm(false)
	}
	if err == nil {
		_, err = q.channel.QueueDeclare(q.name, true, false, false, false, amqp091.Table{"x-queue-type": "quorum"})
	}
	return q, err
}

func (q *rawQueue) publish(ctx context.Context, text string) error {
	c, err := q.channel.PublishWithDeferredConfirmWithContext(ctx, "", q.name, true, false,
		amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: []byte(text)})
	if err != nil {
		return err
	}
	stored, err := c.WaitContext(ctx)
	if err == nil && !stored {
		err = errors.New("not stored")
	}
	return err
}

func (q *rawQueue) work(ctx context.Context, run func()) (func() error, error) {
	ch, err := q.out.Channel()
	if err == nil {
		err = ch.Qos(prefetch, 0, false)
	}
	if err != nil {
		return nil, err
	}
	in, err := ch.Consume(q.name, "", false, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	go func() {
		for d := range in {
			run()
			d.Ack(false)
		}
	}()
	return ch.Close, nil
}

func (q *rawQueue) close() error { return errors.Join(q.in.Close(), q.out.Close()) }
