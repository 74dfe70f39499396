package amqp

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/chicory-go/chicory/driver"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// deliveryLimit is how often a quorum queue delivers a message before it drops it: a
// number that is never reached, for core judges what kills its workers. It is given
// because the default of RabbitMQ 4 is 20, and -1 drops at once on 3.10.
const deliveryLimit = 1_000_000

// declaring is how many channels declare at once.
const declaring = 4

// A thing is what a broker needs on the server: a queue, an exchange or a binding.
type thing struct {
	queue    string
	args     amqp.Table // of a queue
	exchange string
	binding  *binding
}

// A binding carries what comes to an exchange to a queue or to another exchange.
type binding struct {
	source, key, to string
	toQueue         bool
}

// id names a thing among all.
func (t *thing) id() string {
	switch {
	case t.queue != "":
		return "q " + t.queue
	case t.exchange != "":
		return "x " + t.exchange
	}
	return "b " + t.binding.source + " " + t.binding.key + " " + t.binding.to
}

// queueArgs are the arguments of a queue of tasks.
func (o *Options) queueArgs(v version) amqp.Table {
	args := amqp.Table{"x-queue-type": "classic", "x-overflow": "reject-publish"}
	if o.Classic {
		return args
	}
	args["x-queue-type"] = "quorum"
	args["x-delivery-limit"] = int64(deliveryLimit)
	if o.ConsumerTimeout > 0 && v.atLeast(3, 12) {
		args["x-consumer-timeout"] = o.ConsumerTimeout.Milliseconds()
	}
	return args
}

// task is the queue of a level.
func (o *Options) task(n names, v version, queue string, level int) thing {
	return thing{queue: n.task(queue, level), args: o.queueArgs(v)}
}

// dead is the queue of dead letters.
func (n names) deadThing(queue string) thing {
	return thing{queue: n.dead(queue), args: amqp.Table{"x-queue-type": "quorum", "x-overflow": "reject-publish",
		"x-delivery-limit": int64(deliveryLimit)}}
}

// dueThings carry what has waited to its queue. They must be there before anything
// waits: what finds no way is tried again after three minutes only. They come with the
// queue, for one that is made again has lost its binding, and others send delayed tasks on.
func (n names) dueThings(queue string, level int) []thing {
	return []thing{{exchange: n.due()}, {binding: &binding{source: n.due(), to: n.task(queue, level), toQueue: true,
		key: strings.Repeat("*.", digits) + key(queue, level)}}}
}

// digitThings are the exchange of digit l, and the way past its queues.
func (n names) digitThings(l int) []thing {
	return []thing{{exchange: n.digit(l)}, {binding: &binding{source: n.digit(l), to: n.behind(l), key: pattern(l, 0)}}}
}

// waitThings are the queue for value v of digit l. It is a quorum queue that dead-letters
// at least once: others lose what is on its way when the server restarts.
func (n names) waitThings(l, v int) []thing {
	q := n.wait(l, v)
	return []thing{{queue: q, args: amqp.Table{"x-queue-type": "quorum", "x-overflow": "reject-publish",
		"x-message-ttl": int64(v) << (4 * l), "x-dead-letter-exchange": n.behind(l), "x-dead-letter-strategy": "at-least-once"}},
		{binding: &binding{source: n.digit(l), to: q, toQueue: true, key: pattern(l, v)}}}
}

// levelThings are the queues of a digit of delays, and the way to, past and behind them.
// They are made together: a queue that is made just before its server crashes may be
// lost with what is in it, and so that is over soon.
func (n names) levelThings(l int) []thing {
	ts := n.digitThings(l)
	for v := 1; v < radix; v++ {
		ts = append(ts, n.waitThings(l, v)...)
	}
	return ts
}

// A need is what a message to a queue, or from one, needs on the server: the queue of a
// level, or that of dead letters, and for a delay of a number of digits what it waits in.
type need struct {
	queue  string // as users name it
	level  int
	dead   bool
	digits int
}

// id is the queue's name with the rest of the need before it.
func (n need) id(names names) string {
	switch {
	case n.dead:
		return "n " + names.dead(n.queue)
	case n.digits > 0:
		return "n " + strconv.Itoa(n.digits) + " " + names.task(n.queue, n.level)
	}
	return "n " + names.task(n.queue, n.level)
}

// things are what n is made of, in order: what is behind comes first.
func (n need) things(names names, o *Options, v version) []thing {
	if n.dead {
		return []thing{names.deadThing(n.queue)}
	}
	ts := append([]thing{o.task(names, v, n.queue, n.level)}, names.dueThings(n.queue, n.level)...)
	for l := range n.digits {
		ts = append(ts, names.levelThings(l)...)
	}
	return ts
}

// A topology declares things, each once.
type topology struct {
	b    *Broker
	turn chan struct{} // one declares at a time: rivals confuse a queue that begins
	have sync.Map      // ids of needs and things that are there
	used sync.Map      // queues, as users name them
}

func newTopology(b *Broker) *topology { return &topology{b: b, turn: make(chan struct{}, 1)} }

// missing returns those of needs that are not known to be there.
func (t *topology) missing(needs []need) (out []need) {
	for _, n := range needs {
		if _, ok := t.have.Load(n.id(t.b.names)); !ok {
			out = append(out, n)
		}
	}
	return out
}

// ensure declares those of needs that are not known to be there. It does so on a connection
// of its own: the server lets one that publishes wait while it is out of memory, and closes
// one on which a queue cannot be made, as it is busy, with all that it has delivered.
func (t *topology) ensure(ctx context.Context, needs ...need) error {
	if len(t.missing(needs)) == 0 {
		return nil
	}
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return driver.Transient(ctx.Err())
	}
	s, err := t.connect(ctx)
	if err != nil {
		<-t.turn
		return err
	}
	needs = slices.Clone(needs)
	err = rpc(ctx, func() error {
		defer func() {
			s.end(true)
			<-t.turn
		}()
		return t.supply(s, t.missing(needs))
	})
	return t.b.over(driver.Transient(err)) // nothing of a message was stored
}

// connect opens a session, once the server can be reached.
func (t *topology) connect(ctx context.Context) (*session, error) {
	l := t.b.consuming
	for {
		other, err := l.session(ctx)
		if err != nil {
			return nil, err
		}
		s, err := l.dialer.dial(ctx, declaringName)
		if err == nil || other.alive() {
			return s, err
		}
	}
}

func (t *topology) supply(s *session, needs []need) error {
	for _, n := range needs {
		if err := t.declare(s, n.things(t.b.names, &t.b.opts, s.version)); err != nil {
			return err
		}
		t.have.Store(n.id(t.b.names), true)
		t.used.Store(n.queue, true)
	}
	return nil
}

// declare declares what of ts is not known to be there: several at a time, as the server
// waits for its disk with each; and bindings when what they bind is there.
func (t *topology) declare(s *session, ts []thing) error {
	ts = slices.DeleteFunc(ts, func(one thing) bool { _, ok := t.have.Load(one.id()); return ok })
	if len(ts) == 0 {
		return nil
	}
	if len(ts) <= declaring {
		return t.declareInOrder(s, ts)
	}
	var ends, bindings []thing
	for _, one := range ts {
		if one.binding == nil {
			ends = append(ends, one)
		} else {
			bindings = append(bindings, one)
		}
	}
	for _, some := range [][]thing{ends, bindings} {
		var parts errgroup.Group
		for part := range slices.Chunk(some, len(some)/declaring+1) {
			parts.Go(func() error { return t.declareInOrder(s, part) })
		}
		if err := parts.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// declareInOrder declares ts on a channel.
func (t *topology) declareInOrder(s *session, ts []thing) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return fmt.Errorf("amqp: open a channel: %w", err)
	}
	defer ch.Close()
	for i := range ts {
		if err := ts[i].declare(ch, t.b.opts.Passive); err != nil {
			return declareError(&ts[i], err, t.b.opts.Passive)
		}
		t.have.Store(ts[i].id(), true)
	}
	return nil
}

func (t *thing) declare(ch *amqp.Channel, passive bool) error {
	switch {
	case t.queue != "" && passive:
		_, err := ch.QueueDeclarePassive(t.queue, true, false, false, false, nil)
		return err
	case t.queue != "":
		_, err := ch.QueueDeclare(t.queue, true, false, false, false, t.args)
		return err
	case t.exchange != "" && passive:
		return ch.ExchangeDeclarePassive(t.exchange, "topic", true, false, false, false, nil)
	case t.exchange != "":
		return ch.ExchangeDeclare(t.exchange, "topic", true, false, false, false, nil)
	case passive: // nobody can look at a binding: what finds no way comes back
		return nil
	case t.binding.toQueue:
		return ch.QueueBind(t.binding.to, t.binding.key, t.binding.source, false, nil)
	}
	return ch.ExchangeBind(t.binding.to, t.binding.key, t.binding.source, false, nil)
}

// forgetAll has everything declared again when it is next needed: something is gone.
func (t *topology) forgetAll() { t.have.Clear() }

// A MismatchError says that a queue or exchange exists with another argument than the
// driver asks for. It must be deleted, or the driver be given its old options.
type MismatchError struct {
	Name     string // of the queue or exchange on the server
	Argument string // x-queue-type, for example
	Err      error  // what the server said
}

// Error implements error.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s exists with another %s: delete it when it is empty, or use the options it was made with: %v", e.Name, e.Argument, e.Err)
}

// Unwrap returns the client library's error.
func (e *MismatchError) Unwrap() error { return e.Err }

var inequivalent = regexp.MustCompile(`inequivalent arg '([^']*)'`)

// declareError says what is wrong with a thing.
func declareError(t *thing, err error, passive bool) error {
	name := t.queue + t.exchange
	if t.binding != nil {
		name = t.binding.source + " → " + t.binding.to
	}
	var ae *amqp.Error
	if !errors.As(err, &ae) {
		return fmt.Errorf("amqp: declare %s: %w", name, err)
	}
	switch ae.Code {
	case amqp.PreconditionFailed:
		argument := "arguments"
		if m := inequivalent.FindStringSubmatch(ae.Reason); m != nil {
			argument = m[1]
		}
		return fmt.Errorf("amqp: %w", &MismatchError{Name: name, Argument: argument, Err: err})
	case amqp.NotFound:
		if passive {
			return fmt.Errorf("amqp: %s does not exist, and the driver is passive: import its definitions: %w", name, err)
		}
	case amqp.AccessRefused:
		return fmt.Errorf("amqp: declare %s: the user may not: import definitions and set passive: %w", name, err)
	}
	return fmt.Errorf("amqp: declare %s: %w", name, err)
}
