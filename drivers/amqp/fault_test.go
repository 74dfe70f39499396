package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
	amqp091 "github.com/rabbitmq/amqp091-go"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func must[T any](v T, err error) func(tb testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

// open opens a broker with a prefix of its own at a URL.
func open(tb testing.TB, url string, o *amqp.Options) *amqp.Broker {
	tb.Helper()
	if o == nil {
		o = &amqp.Options{}
	}
	if o.Prefix == "" {
		o.Prefix = ownPrefix()
	}
	b := must(amqp.Open(background, []string{url}, "ns", o))(tb)
	tb.Cleanup(func() { b.Close(background) })
	return b
}

func subscribe(tb testing.TB, b *amqp.Broker, prefetch int, queues ...string) driver.Subscription {
	tb.Helper()
	o := &driver.SubscribeOptions{Prefetch: prefetch, Slots: prefetch, Lease: time.Second}
	for _, q := range queues {
		o.Queues = append(o.Queues, driver.QueueSpec{Name: q})
	}
	return must(b.Subscribe(background, o))(tb)
}

func messages(n int, queue string) []*driver.Message {
	ms := make([]*driver.Message, n)
	for i := range ms {
		ms[i] = &driver.Message{ID: fmt.Sprint("task-", i), Queue: queue, Attempt: 1, Envelope: []byte("work")}
	}
	return ms
}

// receive receives n deliveries.
func receive(tb testing.TB, s driver.Subscription, n int) (all []*driver.Delivery) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	for len(all) < n {
		ds, err := s.Receive(ctx, n-len(all))
		if err != nil {
			tb.Fatalf("%d of %d came: %v", len(all), n, err)
		}
		all = append(all, ds...)
	}
	return all
}

func ack(tb testing.TB, s driver.Subscription, ds ...*driver.Delivery) {
	tb.Helper()
	ss := make([]driver.Settlement, len(ds))
	for i, d := range ds {
		ss[i].Delivery = d
	}
	if err := s.Settle(background, ss); err != nil {
		tb.Fatal(err)
	}
}

// raw opens a channel of the client library.
func raw(tb testing.TB, s *server) *amqp091.Channel {
	tb.Helper()
	c := must(amqp091.Dial(s.url("guest:guest", "/")))(tb)
	tb.Cleanup(func() { c.Close() })
	return must(c.Channel())(tb)
}

// TestNotLetIn opens with wrong credentials and at a virtual host that does not exist: it
// fails at once, with an error of its own that keeps the password to itself.
func TestNotLetIn(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	for name, tt := range map[string]struct {
		user, vhost string
		wantVhost   bool
	}{
		"password":     {"guest:hunter2", "/", false},
		"user":         {"nobody:hunter2", "/", false},
		"virtual host": {"guest:guest", "nowhere", true},
	} {
		begin := time.Now()
		_, err := amqp.Open(background, []string{s.url(tt.user, tt.vhost)}, "ns", nil)
		var ae *amqp.AccessError
		if !errors.As(err, &ae) || ae.Vhost != tt.wantVhost {
			t.Errorf("a wrong %s: got %v, want an AccessError", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a wrong %s: the error tells the password: %v", name, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("a wrong %s: known after %v", name, took)
		}
	}
}

// TestSeveralAddresses has the first address not answer.
func TestSeveralAddresses(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	nobody := must(freeAddr())(t)
	o := &amqp.Options{Prefix: ownPrefix()}
	b := must(amqp.Open(background, []string{"amqp://guest:guest@" + nobody, s.url("guest:guest", "/")}, "ns", o))(t)
	defer b.Close(background)
	if err := b.Publish(background, messages(1, "q")); err != nil {
		t.Error(err)
	}
	if _, err := amqp.Open(background, []string{"amqp://guest:guest@" + nobody}, "ns", o); !errors.Is(err, driver.ErrTransient) {
		t.Errorf("an address that does not answer: got %v, want a transient error", err)
	}
}

// TestMismatch meets a queue with other arguments, which the error names.
func TestMismatch(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	ch := raw(t, s)
	for argument, args := range map[string]amqp091.Table{
		"x-queue-type":     {"x-queue-type": "classic", "x-overflow": "reject-publish"},
		"x-delivery-limit": {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-delivery-limit": int64(3)},
		"x-overflow":       {"x-queue-type": "quorum", "x-overflow": "drop-head", "x-delivery-limit": int64(1_000_000)},
	} {
		prefix := ownPrefix()
		must(ch.QueueDeclare(prefix+".ns.q.q.low", true, false, false, false, args))(t)
		b := open(t, s.url("guest:guest", "/"), &amqp.Options{Prefix: prefix})
		err := b.Publish(background, append(messages(1, "q"), messages(1, "other")...))
		var me *amqp.MismatchError
		if first := driver.ItemError(err, 0, 2); !errors.As(first, &me) || me.Argument != argument {
			t.Errorf("another %s: got %v, want a MismatchError that names it", argument, first)
		}
		if other := driver.ItemError(err, 1, 2); other != nil {
			t.Errorf("another %s: a message for another queue: %v", argument, other)
		}
		_, err = b.Subscribe(background, &driver.SubscribeOptions{Prefetch: 1, Lease: time.Second, Queues: []driver.QueueSpec{{Name: "q"}}})
		if !errors.As(err, &me) || me.Argument != argument {
			t.Errorf("another %s: subscribe: got %v, want a MismatchError that names it", argument, err)
		}
	}
}

// TestUnroutable deletes a queue behind the driver's back: the next message to it is not
// lost.
func TestUnroutable(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	prefix := ownPrefix()
	b := open(t, s.url("guest:guest", "/"), &amqp.Options{Prefix: prefix})
	ms := messages(4, "q")
	ms[3].Delay = 50 * time.Millisecond
	remove := func() {
		must(raw(t, s).QueueDelete(prefix+".ns.q.q.low", false, false, false))(t)
	}
	for i, m := range ms {
		if err := b.Publish(background, []*driver.Message{m}); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if i < 2 {
			remove()
		}
	}
	sub := subscribe(t, b, 10, "q")
	ack(t, sub, receive(t, sub, 2)...)
	remove() // a consumer learns of it, and goes on
	if err := b.Publish(background, ms[:1]); err != nil {
		t.Fatal(err)
	}
	ack(t, sub, receive(t, sub, 1)...)
}

// TestQueueMadeAgain deletes a queue that a worker then makes again: what another process
// delays, which knew the queue before, comes there.
func TestQueueMadeAgain(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	o := &amqp.Options{Prefix: ownPrefix()}
	producer := open(t, s.url("guest:guest", "/"), o)
	delayed := func() []*driver.Message {
		ms := messages(1, "q")
		ms[0].Delay = 5 * time.Millisecond
		return ms
	}
	for range 2 {
		worker := open(t, s.url("guest:guest", "/"), o)
		sub := subscribe(t, worker, 10, "q")
		if err := producer.Publish(background, delayed()); err != nil {
			t.Fatal(err)
		}
		ack(t, sub, receive(t, sub, 1)...)
		if err := worker.Close(background); err != nil {
			t.Fatal(err)
		}
		must(raw(t, s).QueueDelete(o.Prefix+".ns.q.q.low", false, false, false))(t)
	}
}

// TestWaitDeleted deletes a queue of delays: the next task that waits there is not lost,
// and the subscriptions of its queue do not begin again.
func TestWaitDeleted(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	o := &amqp.Options{Prefix: ownPrefix()}
	b := open(t, s.url("guest:guest", "/"), o)
	sub := subscribe(t, b, 10, "q")
	ms := messages(2, "q")
	ms[0].Delay, ms[1].Delay = 4*time.Millisecond, 5*time.Millisecond
	if err := b.Publish(background, ms[:1]); err != nil {
		t.Fatal(err)
	}
	held := receive(t, sub, 1)
	must(raw(t, s).QueueDelete(o.Prefix+".ns.delay.0.5", false, false, false))(t)
	if err := b.Publish(background, ms[1:]); err != nil {
		t.Fatal(err)
	}
	ack(t, sub, append(held, receive(t, sub, 1)...)...)
}

// TestMemoryAlarm has the server take no messages: publishers are told, within their
// context, consumers drain, and then all goes on.
func TestMemoryAlarm(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	b := open(t, s.url("guest:guest", "/"), nil)
	sub := subscribe(t, b, 10, "q")
	if err := b.Publish(background, append(messages(20, "q"), letters(1, "q")...)); err != nil {
		t.Fatal(err)
	}
	s.alarm(t, true)
	publish := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(background, within)
		defer cancel()
		return driver.ItemError(b.Publish(ctx, messages(1, "q")), 0, 1)
	}
	// The server says so when it is sent a message, which it may take later.
	if err := publish(2 * time.Second); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, driver.ErrTransient) {
		t.Errorf("the first publish during the alarm: got %v, want an unknown outcome", err)
	}
	begin := time.Now()
	err := publish(time.Second)
	if !errors.Is(err, driver.ErrFull) || !errors.Is(err, driver.ErrTransient) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a publish during the alarm: got %v, want ErrFull and certainly not stored", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("a publish during the alarm obeyed its context after %v", took)
	}
	ctx, cancel := context.WithTimeout(background, time.Second)
	defer cancel()
	begin = time.Now()
	if _, _, err := b.DeadLetters("q").List(ctx, "", 1); !errors.Is(err, driver.ErrFull) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dead letters during the alarm: got %v, want ErrFull", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("dead letters during the alarm: known after %v", took)
	}
	ack(t, sub, receive(t, sub, 10)...)
	ack(t, sub, receive(t, sub, 10)...)
	s.alarm(t, false)
	if err := publish(patience); err != nil {
		t.Errorf("a publish after the alarm: %v", err)
	}
	ack(t, sub, receive(t, sub, 2)...) // the first was taken after all
	if dead, _, err := b.DeadLetters("q").List(background, "", 10); len(dead) != 1 || err != nil {
		t.Errorf("dead letters after the alarm: got %d and %v, want 1", len(dead), err)
	}
}

// TestGiveBackInAlarm has a worker learn of the alarm by what it gives back: it goes on
// with what the server sends, and what it could not give back comes later.
func TestGiveBackInAlarm(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	o := &amqp.Options{Prefix: ownPrefix()}
	producer := open(t, s.url("guest:guest", "/"), o)
	for _, q := range []string{"a", "b"} {
		if err := producer.Publish(background, messages(20, q)); err != nil {
			t.Fatal(err)
		}
	}
	s.alarm(t, true)
	worker := open(t, s.url("guest:guest", "/"), o)
	sub := subscribe(t, worker, 5, "a", "b")
	first := receive(t, sub, 1)
	time.Sleep(500 * time.Millisecond) // nobody asks for the other ones
	ack(t, sub, first...)
	for range 29 { // all but two windows of 5
		ack(t, sub, receive(t, sub, 1)...)
	}
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	if err := sub.SetQueues(ctx, []driver.QueueSpec{{Name: "a"}}); err != nil { // to pause b
		t.Errorf("pause during the alarm: %v", err)
	}
	s.alarm(t, false)
	receiving(t, sub, subscribe(t, producer, 5, "a", "b"), 10)
}

// receiving acknowledges n messages that either of two subscriptions brings.
func receiving(t *testing.T, one, other driver.Subscription, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	var got atomic.Int64
	var all sync.WaitGroup
	for _, s := range []driver.Subscription{one, other} {
		all.Go(func() {
			for {
				ds, err := s.Receive(ctx, 1)
				if err != nil {
					return
				}
				ack(t, s, ds...)
				if got.Add(1) == int64(n) {
					cancel()
				}
			}
		})
	}
	all.Wait()
	if got.Load() != int64(n) {
		t.Errorf("%d messages came, want %d", got.Load(), n)
	}
}

// TestConsumerTimeout holds a delivery for longer than the server lets it be held.
func TestConsumerTimeout(t *testing.T) {
	t.Parallel()
	s := newServer(t, "consumer_timeout = 2000")
	b := open(t, s.url("guest:guest", "/"), &amqp.Options{ConsumerTimeout: 2 * time.Second})
	if got := b.Info().MaxLease; got != 2*time.Second {
		t.Errorf("MaxLease is %v, want what was configured", got)
	}
	sub := subscribe(t, b, 10, "q")
	if err := b.Publish(background, messages(1, "q")); err != nil {
		t.Fatal(err)
	}
	d := receive(t, sub, 1)[0]
	select {
	case <-d.Lost:
	case <-time.After(patience):
		t.Fatal("the delivery does not say that it is lost")
	}
	if err := sub.Settle(background, []driver.Settlement{{Delivery: d}}); !errors.Is(err, driver.ErrLeaseLost) {
		t.Errorf("settle what was held too long: got %v, want ErrLeaseLost", err)
	}
	again := receive(t, sub, 1)[0]
	if again.ID != d.ID || again.Count != 2 {
		t.Errorf("got %s, count %d; want %s again, count 2", again.ID, again.Count, d.ID)
	}
	ack(t, sub, again)
}

// TestForeign has something else in a queue: it is dead-lettered, and the worker goes on.
func TestForeign(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	prefix := ownPrefix()
	b := open(t, s.url("guest:guest", "/"), &amqp.Options{Prefix: prefix})
	sub := subscribe(t, b, 10, "q")
	err := raw(t, s).PublishWithContext(background, "", prefix+".ns.q.q.low", true, false, amqp091.Publishing{Body: []byte("not ours")})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(background, messages(1, "q")); err != nil {
		t.Fatal(err)
	}
	ack(t, sub, receive(t, sub, 1)...)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		dead, _, err := b.DeadLetters("q").List(background, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(dead) == 1 && dead[0].Dead.Reason == driver.ReasonUndecodable && string(dead[0].Envelope) == "not ours" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %+v, want one dead letter that cannot be decoded", dead)
		}
	}
}

// TestOnlyOneLooks has two clients look through dead letters, of which one gives up in the
// middle: each sees all of them.
func TestOnlyOneLooks(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	b := open(t, s.url("guest:guest", "/"), nil)
	ms := messages(300, "q")
	for i, m := range ms {
		m.Dead = &driver.DeadInfo{Reason: driver.ReasonFailed, LastAt: int64(i)}
	}
	if err := b.Publish(background, ms); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(background)
	looked := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, _, err := b.DeadLetters("q").List(ctx, "", 10); err != nil && ctx.Err() == nil {
				looked <- err
				return
			}
		}
		looked <- nil
	}()
	for range 20 {
		got, _, err := b.DeadLetters("q").List(background, "", 1000)
		if err != nil || len(got) != len(ms) {
			t.Fatalf("got %d dead letters, %v; want %d", len(got), err, len(ms))
		}
	}
	cancel() // in the middle of one
	if err := <-looked; err != nil {
		t.Error(err)
	}
	if n, err := b.DeadLetters("q").Purge(background, time.Time{}); n != len(ms) || err != nil {
		t.Errorf("purged %d, %v; want %d", n, err, len(ms))
	}
}
