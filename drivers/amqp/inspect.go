package amqp

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/chicory-go/chicory/driver"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Queues implements [driver.Inspector]: those that this broker has used, and with the
// management API all there are.
func (b *Broker) Queues(ctx context.Context) ([]string, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	found := map[string]bool{}
	b.topology.used.Range(func(queue, _ any) bool { found[queue.(string)] = true; return true })
	if b.management != nil {
		stored, err := b.management.queues(ctx)
		if err != nil {
			return nil, b.over(driver.Transient(err))
		}
		for _, q := range stored {
			if queue, ok := b.names.queueOf(q.Name); ok {
				found[queue] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// Inspect implements [driver.Inspector]. What is delayed, and how old the oldest is, is
// never known: delays of all queues wait together. What is leased is known with the
// management API only, some seconds late, and includes what was pushed and not received.
func (b *Broker) Inspect(ctx context.Context, queues []string) ([]driver.QueueStats, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	s, err := b.consuming.session(ctx)
	if err != nil {
		return nil, err
	}
	leased := map[string]int{}
	if b.management != nil {
		stored, err := b.management.queues(ctx)
		if err != nil {
			return nil, b.over(driver.Transient(err))
		}
		for _, q := range stored {
			leased[q.Name] = q.Unacknowledged
		}
	}
	stats := make([]driver.QueueStats, len(queues))
	c := counter{s: s}
	defer c.close()
	for i, queue := range queues {
		st := driver.QueueStats{Queue: queue, Leased: -1, Delayed: -1, Oldest: -1}
		if b.management != nil {
			st.Leased = 0
		}
		for level := range levels {
			name := b.names.task(queue, level)
			n, err := c.count(ctx, name)
			if err != nil {
				return nil, b.over(err)
			}
			st.Ready += n
			if b.management != nil {
				st.Leased += leased[name]
			}
		}
		if st.Dead, err = c.count(ctx, b.names.dead(queue)); err != nil {
			return nil, b.over(err)
		}
		stats[i] = st
	}
	return stats, nil
}

// A counter counts what is ready in queues, on a channel that it opens again where the
// server has closed it, because a queue is not there.
type counter struct {
	s  *session
	ch *amqp.Channel
}

func (c *counter) count(ctx context.Context, name string) (int, error) {
	q, _, err := c.look(ctx, name)
	return q.Messages, err
}

// look tells of a queue, and whether it is there.
func (c *counter) look(ctx context.Context, name string) (q amqp.Queue, there bool, err error) {
	if c.ch == nil {
		if c.ch, err = c.s.channel(ctx); err != nil {
			return q, false, driver.Transient(fmt.Errorf("amqp: open a channel: %w", err))
		}
	}
	ch := c.ch
	q, err = call(ctx, func() (amqp.Queue, error) { return ch.QueueDeclarePassive(name, true, false, false, false, nil) }, nil)
	switch {
	case code(err) == amqp.NotFound:
		c.ch = nil
		return q, false, nil
	case err != nil:
		return q, false, driver.Transient(fmt.Errorf("amqp: count %s: %w", name, err))
	}
	return q, true, nil
}

// close does not wait for the server, which may not answer.
func (c *counter) close() {
	if ch := c.ch; ch != nil {
		c.s.spawn(func() { ch.Close() })
	}
}
