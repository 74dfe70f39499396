package amqp_test

import (
	"context"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
	amqp091 "github.com/rabbitmq/amqp091-go"
)

// letters returns n dead letters of a queue.
func letters(n int, queue string) []*driver.Message {
	ms := messages(n, queue)
	for i, m := range ms {
		m.Dead = &driver.DeadInfo{Reason: driver.ReasonFailed, LastAt: int64(i) + 1}
	}
	return ms
}

// putStrange puts what cannot be decoded behind the dead letters of q.
func putStrange(t *testing.T, s *server, prefix string) {
	t.Helper()
	ch := raw(t, s)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	c := must(ch.PublishWithDeferredConfirm("", prefix+".ns.dead.q", true, false, amqp091.Publishing{Body: []byte("strange")}))(t)
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	if !must(c.WaitContext(ctx))(t) {
		t.Fatal("the server does not take what is strange")
	}
}

// TestStrangeLetters has something else among dead letters, more of which follow than are
// looked at together: a purge of all removes it and them, one of the old leaves it there.
func TestStrangeLetters(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	o := &amqp.Options{Prefix: ownPrefix()}
	b := open(t, s.url("guest:guest", "/"), o)
	dead := b.DeadLetters("q")
	if err := b.Publish(background, letters(2, "q")); err != nil {
		t.Fatal(err)
	}
	putStrange(t, s, o.Prefix)
	if n := must(dead.Purge(background, time.UnixMilli(100)))(t); n != 2 {
		t.Errorf("purged %d old ones, want 2", n)
	}
	if n := must(dead.Len(background))(t); n != 1 {
		t.Fatalf("%d are left, want the strange one", n)
	}
	const more = 10_020
	if err := b.Publish(background, letters(more, "q")); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if n := must(dead.Purge(background, time.Time{}))(t); n != more+1 {
		t.Errorf("purged %d, want %d", n, more+1)
	}
	t.Logf("purged %d in %v", more, time.Since(begin))
	if n := must(dead.Len(background))(t); n != 0 {
		t.Errorf("%d are left, want none", n)
	}
}

// TestDeleteCut cuts the connection while dead letters are removed: as many are reported
// as were.
func TestDeleteCut(t *testing.T) {
	t.Parallel()
	p, b := openThrough(t)
	ms := letters(100, "q")
	if err := b.Publish(background, ms); err != nil {
		t.Fatal(err)
	}
	keys := make([]driver.DeadKey, len(ms))
	for i, m := range ms {
		keys[i] = m.Key()
	}
	dead := b.DeadLetters("q")
	const parts, size = 3, 16 // that the server confirms, and how many are removed with each
	p.cut(method(60, 10), 1+parts, false)
	n, err := dead.Delete(background, keys)
	if n != parts*size || err == nil {
		t.Errorf("got %d and %v, want %d and an error", n, err, parts*size)
	}
	least, most := len(ms)-(parts+1)*size, len(ms)-(parts-2)*size // a channel that is cut may forget what it has read
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := must(dead.Len(background))(t)
		if left >= least && left <= most {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d are left, want %d to %d", left, least, most)
		}
	}
}
