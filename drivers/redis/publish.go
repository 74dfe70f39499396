package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// perMessage is how many arguments a script takes for a message, see lua/add.lua.
const perMessage = 3

// Publish implements [driver.Broker].
func (b *Broker) Publish(ctx context.Context, msgs []*driver.Message) error {
	if err := b.check(ctx); err != nil {
		return err
	}
	if err := b.enlist(ctx, msgs); err != nil {
		return err
	}
	return driver.Batch(b.publishAll(ctx, msgs))
}

func (b *Broker) publishAll(ctx context.Context, msgs []*driver.Message) []error {
	return each(b.conn, msgs, b.keyOf, func(key string, msgs []*driver.Message) []error {
		return batches(len(msgs), func(i int) int { return messageSize(msgs[i]) }, func(from, to int) error {
			return b.publish(ctx, key, msgs[from:to])
		})
	})
}

// keyOf is the key of the queue of m.
func (b *Broker) keyOf(m *driver.Message) string { return b.conn.queueKey(m.Queue) }

func messageSize(m *driver.Message) int {
	n := len(m.Envelope)
	if m.Dead != nil {
		n += len(m.Dead.Stack)
	}
	return n
}

// publish stores msgs, of the queue that is called key in a cluster.
func (b *Broker) publish(ctx context.Context, key string, msgs []*driver.Message) error {
	errs := make([]error, len(msgs))
	args := arguments{args: make([]any, 0, perMessage*len(msgs))}
	var sent []int
	for i, m := range msgs {
		if errs[i] = checkMessage(m); errs[i] == nil {
			if m.Record != nil {
				errs[i] = checkUpdate(m.Record)
			}
		}
		if errs[i] == nil {
			b.conn.appendMessage(&args, m, b.covering.Load())
			sent = append(sent, i)
		}
	}
	if len(sent) == 0 {
		return driver.Batch(errs)
	}
	value, err := b.call(ctx, publishScript, key, args.after(b.conn.scope(key), b.covers())...)
	var answers string
	if err == nil {
		answers, err = codes(value, len(sent))
	}
	for j, i := range sent {
		switch {
		case err != nil:
			errs[i] = err
		case answers[j] == 'D' && !msgs[i].Repeat:
			errs[i] = driver.ErrDuplicate
		}
	}
	return driver.Batch(errs)
}

func checkMessage(m *driver.Message) error {
	err := driver.CheckID(m.ID)
	if err == nil {
		err = driver.CheckQueue(m.Queue)
	}
	switch {
	case err != nil:
	case m.Priority > 9:
		err = fmt.Errorf("priority %d, want 0 to 9", m.Priority)
	case len(m.Envelope) > maxValue:
		err = fmt.Errorf("envelope has %d bytes, at most %d fit: %w", len(m.Envelope), maxValue, driver.ErrTooLarge)
	default:
		return nil
	}
	return fmt.Errorf("redis: task %s: %w", m.ID, err)
}

func checkUpdate(u *driver.Update) error {
	err := driver.CheckID(u.ID)
	if err == nil && len(u.ReplyTo) > maxText {
		err = fmt.Errorf("its reply-to has %d bytes, at most %d fit", len(u.ReplyTo), maxText)
	}
	if err == nil && len(u.Body) > maxValue {
		err = fmt.Errorf("result has %d bytes, at most %d fit: %w", len(u.Body), maxValue, driver.ErrTooLarge)
	}
	if err != nil {
		return fmt.Errorf("redis: task %s: %w", u.ID, err)
	}
	return nil
}

// tracked reports whether the ID of m is known while m lives.
func tracked(m *driver.Message) bool { return !m.NoRecord || m.Once }

// arguments are those of a script whose items name queues by their number.
type arguments struct {
	queues []any
	args   []any
}

// queue returns the number of a queue, from 1.
func (a *arguments) queue(key string) uint16 {
	for i, q := range a.queues {
		if q == key {
			return uint16(i + 1)
		}
	}
	a.queues = append(a.queues, key)
	return uint16(len(a.queues))
}

func (a *arguments) add(args ...any) { a.args = append(a.args, args...) }

// after returns all arguments: first, the queues, the items.
func (a *arguments) after(first ...any) []any {
	return slices.Concat(first, []any{len(a.queues)}, a.queues, a.args)
}

// appendMessage appends what lua/add.lua wants of m.
func (c *conn) appendMessage(args *arguments, m *driver.Message, covering bool) {
	q := args.queue(c.queueKey(m.Queue))
	update := []byte{}
	if covering && m.Record != nil {
		update = encodeUpdate(m.Record)
	}
	if m.Dead != nil {
		args.add(deadHead(q, m), encodeDead(m), update)
		return
	}
	args.add(c.messageHead(q, m), encodeMessage(m), update)
}

// messageHead and deadHead are heads of lua/add.lua.

func (c *conn) messageHead(q uint16, m *driver.Message) []byte {
	b := append(make([]byte, 0, 12), 'm')
	b = binary.BigEndian.AppendUint16(b, q)
	b = append(b, byte(level(m.Priority)))
	b = binary.BigEndian.AppendUint64(b, uint64(millis(m.Delay)))
	if m.Delay > 0 {
		b = append(b, c.newName()...)
	}
	return b
}

func deadHead(q uint16, m *driver.Message) []byte {
	b := append(make([]byte, 0, 20+len(m.ID)), 'd')
	b = binary.BigEndian.AppendUint16(b, q)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Dead.LastAt))
	b = binary.BigEndian.AppendUint32(b, m.Epoch)
	b = binary.BigEndian.AppendUint32(b, m.Seq)
	return appendShort(b, m.ID)
}

// enlist has the queues of msgs listed, once per connection.
func (b *Broker) enlist(ctx context.Context, msgs []*driver.Message) error {
	var fresh []string
	for _, m := range msgs {
		if _, known := b.conn.listed.Load(m.Queue); !known && driver.CheckQueue(m.Queue) == nil {
			if _, known = b.conn.listed.LoadOrStore(m.Queue, true); !known {
				fresh = append(fresh, m.Queue)
			}
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := b.list(ctx, fresh); err != nil {
		for _, name := range fresh {
			b.conn.listed.Delete(name)
		}
		return err // no message was sent
	}
	return nil
}

// list has queues listed. A name too often does not matter, so errors are transient. In a
// cluster the list may be on a node that is away, while those of the queues are not: then
// it is made another time.
func (b *Broker) list(ctx context.Context, names []string) error {
	if b.conn.cluster {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	shared := b.conn.shared()
	_, err := b.call(ctx, listScript, shared, append([]any{shared}, anys(names)...)...)
	switch {
	case err == nil || errors.Is(err, driver.ErrClosed):
		return err
	case b.conn.cluster:
		b.conn.log.Warn("redis: queues are not listed", "queues", names, "error", err)
		return nil
	}
	return driver.Transient(err)
}
