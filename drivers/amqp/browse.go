package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	maxBrowse  = 10_000 // dead letters that are looked at
	lockPause  = 10 * time.Millisecond
	perAcks    = 50 * time.Millisecond // within which the server answers to some acks
	markerType = "application/vnd.chicory.marker"
)

// A browser looks through the dead letters of a queue, alone: on a connection of its
// own, which has a queue that only one connection can have.
type browser struct {
	b        *Broker
	s        *session
	ch       *amqp.Channel
	name     string // of the queue
	consumer string
	kept     int // dead letters that are taken and must be there again
}

// An entry is a stored dead letter.
type entry struct {
	m   *driver.Message
	tag uint64
}

// openBrowser connects, and waits until nobody else looks through queue.
func (b *Broker) openBrowser(ctx context.Context, queue string) (*browser, error) {
	s, err := b.publishing.dialer.dial(ctx, "browse")
	if err != nil {
		return nil, err
	}
	br := &browser{b: b, s: s, name: b.names.dead(queue)}
	if err := br.lock(ctx, b.names.lock(queue)); err != nil {
		br.close()
		return nil, err
	}
	return br, nil
}

func (br *browser) close() { br.s.end(true) }

func (br *browser) lock(ctx context.Context, name string) error {
	for {
		err := br.reopen(ctx)
		if err == nil {
			err = rpc(ctx, func() error {
				_, err := br.ch.QueueDeclare(name, false, true, true, false, nil)
				return err
			})
		}
		if code(err) != amqp.ResourceLocked {
			if err != nil {
				err = driver.Transient(fmt.Errorf("amqp: lock the dead letters: %w", err))
			}
			return err
		}
		if !pause(ctx, lockPause) {
			return driver.Transient(fmt.Errorf("amqp: another client looks through the dead letters: %w", ctx.Err()))
		}
	}
}

// code is that of an error of the server, 0 of others.
func code(err error) int {
	var ae *amqp.Error
	if errors.As(err, &ae) {
		return ae.Code
	}
	return 0
}

// reopen opens a channel: an error has closed the last one.
func (br *browser) reopen(ctx context.Context) (err error) {
	br.ch, err = br.s.channel(ctx)
	return err
}

// count returns how many dead letters there are.
func (br *browser) count(ctx context.Context) (int, error) {
	ch := br.ch
	q, err := call(ctx, func() (amqp.Queue, error) {
		return ch.QueueDeclarePassive(br.name, true, false, false, false, nil)
	}, nil)
	switch {
	case code(err) == amqp.NotFound: // nothing has died there
		return 0, br.reopen(ctx)
	case err != nil:
		return 0, driver.Transient(fmt.Errorf("amqp: count the dead letters: %w", err))
	}
	return q.Messages, nil
}

// A look is what a browser has taken.
type look struct {
	taken   int
	found   []entry
	strange []uint64 // tags of what is no dead letter, or cannot be decoded
}

func (l *look) add(d *amqp.Delivery) {
	l.taken++
	m, _, _, err := decode(d.Body)
	if err != nil || m.Dead == nil {
		l.strange = append(l.strange, d.DeliveryTag)
		return
	}
	l.found = append(l.found, entry{m, d.DeliveryTag})
}

// scan takes the dead letters, maxBrowse at most. A marker behind them tells when all
// have come.
func (br *browser) scan(ctx context.Context) (l look, err error) {
	n, err := br.count(ctx)
	if err != nil || n == 0 {
		return l, err
	}
	br.kept = n
	marker := br.b.copyName()
	br.consumer = marker
	in, err := br.consume(ctx, n, marker)
	if err != nil {
		return l, driver.Transient(fmt.Errorf("amqp: look through the dead letters: %w", err))
	}
	for l.taken < maxBrowse {
		select {
		case d, ok := <-in:
			switch {
			case !ok:
				return l, driver.Transient(errBrowse)
			case d.ContentType == markerType:
				br.ch.Ack(d.DeliveryTag, false) // one that was left behind, or
				if d.CorrelationId == marker {
					br.kept = l.taken
					return l, nil
				}
				continue
			}
			l.add(&d)
		case <-ctx.Done():
			return l, driver.Transient(ctx.Err())
		}
	}
	return l, nil
}

// consume has n dead letters sent, with a marker behind them if all are to come.
func (br *browser) consume(ctx context.Context, n int, marker string) (<-chan amqp.Delivery, error) {
	in, err := call(ctx, func() (<-chan amqp.Delivery, error) {
		if n <= maxBrowse {
			if err := br.mark(ctx, marker); err != nil {
				return nil, err
			}
		}
		if err := br.ch.Qos(maxBrowse+1, 0, false); err != nil {
			return nil, err
		}
		return br.ch.Consume(br.name, marker, false, false, false, false, nil)
	}, nil)
	if err != nil && ctx.Err() != nil {
		err = cmp.Or(br.s.gate(ctx), err) // it may be full
	}
	return in, err
}

func (br *browser) mark(ctx context.Context, marker string) error {
	if err := br.s.gate(ctx); err != nil {
		return err
	}
	if err := br.ch.Confirm(false); err != nil {
		return err
	}
	c, err := br.ch.PublishWithDeferredConfirm("", br.name, false, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: markerType, CorrelationId: marker})
	if err != nil {
		return err
	}
	acked, err := c.WaitContext(ctx)
	if err == nil && !acked {
		err = errNack
	}
	return err
}

// finish removes dead letters and gives the others back. It waits until the server has
// them, for who looks next is to see them. It returns how many acknowledgements the server has
// read.
func (br *browser) finish(remove []uint64) (removed int, err error) {
	within := lastCall + time.Duration(len(remove)/acksAtOnce)*perAcks
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if removed, err = br.remove(ctx, remove); err != nil {
		return removed, fmt.Errorf("amqp: remove dead letters: %w", err)
	}
	if err := rpc(ctx, br.giveBack); err != nil {
		return removed, fmt.Errorf("amqp: give the dead letters back: %w", err)
	}
	for br.kept -= removed; br.kept > 0; {
		n, err := br.count(ctx)
		if err != nil || n >= br.kept {
			return removed, err
		}
		if !pause(ctx, lockPause) {
			return removed, fmt.Errorf("amqp: give the dead letters back: %w", ctx.Err())
		}
	}
	return removed, nil
}

// remove acknowledges dead letters. Those count before which the server has answered.
func (br *browser) remove(ctx context.Context, tags []uint64) (n int, err error) {
	for part := range slices.Chunk(tags, acksAtOnce) {
		err := rpc(ctx, func() error {
			for _, tag := range part {
				if err := br.ch.Ack(tag, false); err != nil {
					return err
				}
			}
			return br.ch.Qos(1, 0, false)
		})
		if err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

func (br *browser) giveBack() error {
	if br.consumer != "" {
		if err := br.ch.Cancel(br.consumer, false); err != nil {
			return err
		}
	}
	if err := br.ch.Nack(0, true, true); err != nil { // what is not settled
		return err
	}
	return br.ch.Qos(1, 0, false)
}
