package memory_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func fullMessage() *driver.Message {
	return &driver.Message{ID: "full", Queue: "q", Epoch: 3, Seq: 4, Attempt: 5, Deliveries: 6,
		Deadline: 7, ParkedSince: 8, Priority: 9, Delay: 2 * time.Millisecond, Once: true, NoRecord: true,
		ReplyTo: "me", Envelope: []byte("body")}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		sent, given := fullMessage(), fullMessage()
		given.Repeat = true
		p.publish(given)
		copy(given.Envelope, "XXXX") // the caller's again
		d := p.one()
		if !reflect.DeepEqual(&d.Message, sent) {
			t.Errorf("got %+v, want %+v", d.Message, *sent)
		}
		want(t, "Count", d.Count, 7)
		if d.Copy == "" {
			t.Error("Copy is empty")
		}
		copy(d.Envelope, "YYYY") // ours: what is stored must not change
		wantErr(t, "Release", p.settle(driver.Settlement{Delivery: d, Action: driver.Release}), nil)
		if again := p.one(); !bytes.Equal(again.Envelope, sent.Envelope) {
			t.Errorf("stored envelope is %q, want %q", again.Envelope, sent.Envelope)
		}
	})
}

func TestOrder(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	var msgs []*driver.Message
	for i := range 40 {
		m := message(fmt.Sprintf("p%d-%02d", i%10, i))
		m.Priority = uint8(i % 10)
		msgs = append(msgs, m)
	}
	p.publish(msgs...)
	slices.SortStableFunc(msgs, func(a, b *driver.Message) int { return int(b.Priority) - int(a.Priority) })
	ds := receive(t, p.sub, 100)
	for i, d := range ds {
		want(t, fmt.Sprint("delivery ", i), d.ID, msgs[i].ID)
	}
	// What is given back, in whatever order, returns to its place.
	var ss []driver.Settlement
	for i := range ds {
		ss = append(ss, driver.Settlement{Delivery: ds[(i*7)%40], Action: driver.Release})
	}
	wantErr(t, "Release", p.settle(ss...), nil)
	if got := receive(t, p.sub, 100); ids(got) != ids(ds) {
		t.Errorf("after release got %v, want %v", ids(got), ids(ds))
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		start := time.Now()
		for _, d := range []time.Duration{time.Hour, 30 * time.Millisecond, 1, 10 * time.Millisecond, 365 * 24 * time.Hour} {
			m := message(fmt.Sprint("in-", int64(d)))
			m.Delay = d
			p.publish(m)
		}
		want(t, "delayed", p.stats("q").Delayed, 5)
		for _, due := range []time.Duration{1, 10 * time.Millisecond, 30 * time.Millisecond, time.Hour, 365 * 24 * time.Hour} {
			d := p.one()
			want(t, d.ID, time.Since(start), due)
			p.ack(d)
		}
	})
}

func TestDelayedQueuesUpWhenDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		late := message("late")
		late.Delay = time.Minute
		p.publish(late, message("a"))
		time.Sleep(time.Minute)
		p.publish(message("b"))
		want(t, "order", ids(receive(t, p.sub, 10)), " a late b")
	})
}

func TestDedup(t *testing.T) {
	t.Parallel()
	version := func(epoch, seq uint32) *driver.Message {
		m := message("x")
		m.Epoch, m.Seq = epoch, seq
		return m
	}
	buried := version(1, 1)
	buried.Dead = &driver.DeadInfo{}
	tests := []struct {
		name   string
		alive  *driver.Message
		given  *driver.Message
		repeat bool
		want   error
	}{
		{"equal", version(1, 1), version(1, 1), false, driver.ErrDuplicate},
		{"older seq", version(1, 1), version(1, 0), false, driver.ErrDuplicate},
		{"older epoch", version(1, 1), version(0, 9), false, driver.ErrDuplicate},
		{"newer seq", version(1, 1), version(1, 2), false, nil},
		{"newer epoch", version(1, 1), version(2, 0), false, nil},
		{"repeat", version(1, 1), version(1, 1), true, nil},
		{"dead", buried, version(1, 1), false, driver.ErrDuplicate},
		{"newer than dead", buried, version(2, 0), false, nil},
		{"repeat of dead", buried, version(1, 1), true, nil},
		{"dead twice", buried, buried, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := open(t, false)
			p.publish(tt.alive)
			before := p.stats("q")
			m := *tt.given
			m.Repeat = tt.repeat
			wantErr(t, "Publish", p.broker.Publish(t.Context(), []*driver.Message{&m}), tt.want)
			stored := tt.want == nil && !tt.repeat && tt.given.Dead == nil
			if after := p.stats("q"); (after.Ready > before.Ready) != stored || after.Dead != before.Dead {
				t.Errorf("stored: before %+v, after %+v", before, after)
			}
		})
	}
}

func TestDedupOtherQueue(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	p.publish(message("x"))
	other := message("x")
	other.Queue = "other"
	wantErr(t, "other queue", p.broker.Publish(t.Context(), []*driver.Message{other}), driver.ErrDuplicate)
	p.ack(p.one())
	p.publish(other) // dead and gone: the id is free
}

func TestPublishBatchErrors(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	high := message("high")
	high.Priority = 10
	noQueue := message("noqueue")
	noQueue.Queue = strings.Repeat("x", driver.MaxQueue+1)
	msgs := []*driver.Message{message("a"), message(""), high, noQueue, message("b"), message("a")}
	err := p.broker.Publish(t.Context(), msgs)
	for i, w := range []error{nil, driver.ErrName, errAny, driver.ErrName, nil, driver.ErrDuplicate} {
		got := driver.ItemError(err, i, len(msgs))
		if w == errAny && got == nil || w != errAny && !errors.Is(got, w) {
			t.Errorf("item %d: got %v, want %v", i, got, w)
		}
	}
	want(t, "stored", ids(receive(t, p.sub, 10)), " a b")
}

var errAny = errors.New("any error")

func TestMax(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	p.store.SetMax(2)
	err := p.broker.Publish(t.Context(), []*driver.Message{message("a"), message("a"), message("b"), message("c")})
	for i, w := range []error{nil, driver.ErrDuplicate, nil, driver.ErrFull} {
		wantErr(t, fmt.Sprint("item ", i), driver.ItemError(err, i, 4), w)
	}
	wantErr(t, "class", driver.ItemError(err, 3, 4), driver.ErrTransient)
	d := p.one()
	// A settlement is never refused: consumers drain a full store.
	next := message("a2")
	wantErr(t, "Then", p.settle(driver.Settlement{Delivery: d, Then: []*driver.Message{next, message("a3")}}), nil)
	wantErr(t, "full", p.broker.Publish(t.Context(), []*driver.Message{message("d")}), driver.ErrFull)
	p.ack(receive(t, p.sub, 2)...)
	p.publish(message("d"))
}

func TestManyQueues(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	var msgs []*driver.Message
	for i := range 60 {
		m := message(fmt.Sprintf("m%02d", i))
		m.Queue = []string{"a", "#", "amq.}*"}[i%3]
		msgs = append(msgs, m)
	}
	p.publish(msgs...)
	for _, q := range []string{"a", "#", "amq.}*"} {
		want(t, q, p.stats(q).Ready, 20)
	}
	names, err := p.broker.Queues(t.Context())
	if err != nil || !slices.Equal(names, []string{"#", "a", "amq.}*", "q"}) {
		t.Errorf("Queues: got %q, %v", names, err)
	}
}
