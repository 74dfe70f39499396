package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

const (
	brief = 255       // begins the brief form of a record
	due   = 1<<42 - 1 // in 2109
)

// TestBrief does to a record in its brief form what can be done to one, and to its like in the
// full form: nobody can tell them apart.
func TestBrief(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	update := func(u driver.Update) func(*pair) any {
		u.ID = "a"
		return func(p *pair) any { return driver.ItemError(p.backend.Apply(p.t.Context(), []driver.Update{u}), 0, 1) }
	}
	settle := func(what driver.Settlement) func(*pair) any {
		return func(p *pair) any {
			ds := must(p.sub.Receive(p.t.Context(), 1))(p.t)
			what := what
			what.Delivery = ds[0]
			return p.sub.Settle(p.t.Context(), []driver.Settlement{what})
		}
	}
	for name, do := range map[string]func(p *pair) any{
		"get":       func(p *pair) any { return nil },
		"published": func(p *pair) any { return p.broker.Publish(p.t.Context(), []*driver.Message{message("a")}) },
		"published newer": func(p *pair) any {
			m := message("a")
			m.Epoch, m.Record.Epoch = 1, 1
			return p.broker.Publish(p.t.Context(), []*driver.Message{m})
		},
		"published without record": func(p *pair) any {
			m := message("a")
			m.Record = nil
			return p.broker.Publish(p.t.Context(), []*driver.Message{m})
		},
		"claimed":   func(p *pair) any { return must(p.sub.Receive(p.t.Context(), 1))(p.t)[0].ID },
		"succeeded": settle(driver.Settlement{Record: &driver.Update{ID: "a", Attempt: 1, State: driver.Success, Body: []byte("done"), TTL: time.Hour}}),
		"retried": settle(driver.Settlement{Record: &driver.Update{ID: "a", Attempt: 1, State: driver.Retry, Error: &driver.DeadInfo{Reason: "x"}},
			Then: []*driver.Message{{ID: "a", Queue: "q", Seq: 1, Attempt: 2}}}),
		"released":          settle(driver.Settlement{Action: driver.Release}),
		"acknowledged":      settle(driver.Settlement{}),
		"settled unstarted": func(p *pair) any { return p.settleUnstarted() },
		"started":           func(p *pair) any { return p.start(driver.Start{ID: "a", Attempt: 1, Copy: "c", Count: 1}) },
		"started once":      func(p *pair) any { return p.start(driver.Start{ID: "a", Attempt: 1, Copy: "c", Count: 1, Once: true}) },
		"started newer":     func(p *pair) any { return p.start(driver.Start{ID: "a", Seq: 1, Attempt: 2, Copy: "c", Count: 1}) },
		"cancelled":         update(driver.Update{State: driver.Cancelled, TTL: time.Hour}),
		"failed":            update(driver.Update{State: driver.Failure, TTL: time.Hour, ReplyTo: "another"}),
		"pending again":     update(driver.Update{Attempt: 1, State: driver.Pending}),
		"pending later":     update(driver.Update{Seq: 1, Attempt: 2, State: driver.Pending}),
		"deleted":           func(p *pair) any { return must(p.backend.Delete(p.t.Context(), []string{"a"}))(p.t) },
		"purged": func(p *pair) any {
			ids := must(p.broker.PurgeQueue(p.t.Context(), "q"))(p.t)
			c := goredis.NewClient(client(p.server))
			defer c.Close()
			ttl := must(c.PTTL(p.t.Context(), p.prefix+":ns:r:{a}").Result())(p.t)
			if year := 365 * 24 * time.Hour; ttl < 80*year { // it is due then
				p.t.Errorf("a record that is due in 2109 goes in %v", ttl)
			}
			return ids
		},
		"buried as newer": func(p *pair) any { return p.bury(1) },
		"buried as well":  func(p *pair) any { return p.bury(0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got [2]string
			for i, full := range []bool{false, true} {
				p := newPair(t, s)
				c := goredis.NewClient(client(s))
				defer c.Close()
				m := message("a")
				m.ReplyTo, m.Record.ReplyTo, m.Record.Due = "somebody", "somebody", due
				p.publish(m)
				key := p.prefix + ":ns:r:{a}"
				v := must(c.Get(t.Context(), key).Bytes())(t)
				if v[0] != brief || len(v) != 15+len("somebody") {
					t.Fatalf("the record is %q, want the brief form", v)
				}
				if full {
					vs := must(c.Eval(t.Context(), redis.Scripts["get"].Text(), nil, p.prefix+":ns", "a").StringSlice())(t)
					c.Set(t.Context(), key, vs[0], 0)
				}
				if r := must(p.backend.Get(t.Context(), []string{"a"}))(t)[0]; !reflect.DeepEqual(r.Update, *m.Record) || r.Copy != "" || r.Count != 0 {
					t.Fatalf("got %+v, want %+v", r, *m.Record)
				}
				got[i] = fmt.Sprint(do(p), " ", p.known(c, key))
			}
			if got[0] != got[1] {
				t.Errorf("of the brief form: %s\nof the full form: %s", got[0], got[1])
			}
		})
	}
}

func (p *pair) start(s driver.Start) any {
	gs := must(p.backend.Start(p.t.Context(), []driver.Start{s}))(p.t)
	return fmt.Sprint(gs[0].Err, gs[0].Run > 0)
}

// settleUnstarted settles a message that was claimed before its broker covered the backend.
func (p *pair) settleUnstarted() any {
	o := &redis.Options{Prefix: p.prefix}
	b := must(redis.OpenBroker(p.t.Context(), client(p.server), "ns", o))(p.t)
	defer b.Close(context.Background())
	be := must(redis.OpenBackend(p.t.Context(), client(p.server), "ns", o, b))(p.t)
	defer be.Close(context.Background())
	late := &pair{t: p.t, server: p.server, prefix: p.prefix, broker: b, backend: be}
	late.subscribe()
	ds := must(late.sub.Receive(p.t.Context(), 1))(p.t)
	b.Covers(be)
	return late.sub.Settle(p.t.Context(), []driver.Settlement{{Delivery: ds[0],
		Record: &driver.Update{ID: "a", Attempt: 1, State: driver.Success, TTL: time.Hour}}})
}

// bury publishes a dead letter of a.
func (p *pair) bury(epoch uint32) any {
	return p.broker.Publish(p.t.Context(), []*driver.Message{{ID: "a", Queue: "q", Epoch: epoch, Attempt: 1, Dead: &driver.DeadInfo{Reason: "x"},
		Record: &driver.Update{ID: "a", Epoch: epoch, Attempt: 1, State: driver.DeadLettered, TTL: time.Hour}}})
}

// known tells what is known of a, but for the moments, and checks that these are of now.
func (p *pair) known(c *goredis.Client, key string) string {
	p.t.Helper()
	v, _ := c.Get(p.t.Context(), key).Bytes()
	alive := byte(1) // and the newest is 0.0
	if len(v) == 0 {
		alive = 0
	} else if v[0] != brief {
		alive = v[0]
	}
	r := must(p.backend.Get(p.t.Context(), []string{"a"}))(p.t)[0]
	if r == nil {
		return fmt.Sprint(alive, " no record")
	}
	ttl := must(c.PTTL(p.t.Context(), key).Result())(p.t).Round(time.Hour)
	text := fmt.Sprint(ttl, " ", alive, r.Held, r.Skeleton, r.State, r.Version(), r.Attempt, r.Count, r.ReplyTo, r.TTL, r.Due, r.Once, r.Provisional,
		string(r.Body), r.ContentType, r.Error, r.Next, r.Run > 0, strings.Contains(r.Copy, "-"))
	for _, at := range []int64{r.PendingAt, r.StartedAt, r.RetriedAt, r.FinishedAt} {
		if age := time.Since(time.UnixMilli(at)); at != 0 && (age < -time.Minute || age > time.Minute) {
			p.t.Errorf("a moment is %v ago", age)
		}
		text += fmt.Sprint(" ", at != 0)
	}
	return text
}

// TestBriefClaimed claims messages whose record is brief: it says what they do.
func TestBriefClaimed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change  func(m *driver.Message)
		state   driver.State
		attempt uint32
		count   int
	}{
		"first":     {func(m *driver.Message) {}, driver.Started, 1, 1},
		"delivered": {func(m *driver.Message) { m.Deliveries = 4 }, driver.Started, 1, 5},
		"tried":     {func(m *driver.Message) { m.Attempt = 3 }, driver.Started, 3, 1},
		"once":      {func(m *driver.Message) { m.Once = true }, driver.Pending, 1, 0},
	} {
		p := newPair(t, sharedServer(t))
		m := message("a")
		tt.change(m)
		p.publish(m)
		d := must(p.sub.Receive(t.Context(), 1))(t)[0]
		r := must(p.backend.Get(t.Context(), []string{"a"}))(t)[0]
		if r.State != tt.state || r.Attempt != tt.attempt || r.Count != tt.count || tt.count > 0 && r.Copy != d.Copy {
			t.Errorf("%s: got %+v, want %s of attempt %d, count %d, copy %s", name, r, tt.state, tt.attempt, tt.count, d.Copy)
		}
	}
}

// TestNotBrief publishes what the brief form cannot tell, or not without loss.
func TestNotBrief(t *testing.T) {
	t.Parallel()
	p := newPair(t, sharedServer(t))
	c := goredis.NewClient(client(p.server))
	defer c.Close()
	for i, change := range []func(m *driver.Message, u *driver.Update){
		func(m *driver.Message, u *driver.Update) { m.Epoch, u.Epoch = 1, 1 },
		func(m *driver.Message, u *driver.Update) { m.Seq, u.Seq = 1, 1 },
		func(m *driver.Message, u *driver.Update) { m.Seq = 1 },
		func(m *driver.Message, u *driver.Update) { u.Attempt = 2 },
		func(m *driver.Message, u *driver.Update) { m.Once, u.Once = true, true },
		func(m *driver.Message, u *driver.Update) { u.Provisional = true },
		func(m *driver.Message, u *driver.Update) { u.Run = 7 },
		func(m *driver.Message, u *driver.Update) { u.TTL = time.Hour },
		func(m *driver.Message, u *driver.Update) { u.TTL = 1 },
		func(m *driver.Message, u *driver.Update) { u.Due = 1 << 50 },
		func(m *driver.Message, u *driver.Update) { u.ContentType = "text/plain" },
		func(m *driver.Message, u *driver.Update) { u.Body = []byte{} },
		func(m *driver.Message, u *driver.Update) { u.Error = &driver.DeadInfo{} },
		func(m *driver.Message, u *driver.Update) { u.Next = message("next") },
	} {
		m := message(fmt.Sprint("m", i))
		m.Record.Due = time.Now().UnixMilli()
		change(m, m.Record)
		p.publish(m)
		v := must(c.Get(t.Context(), p.prefix+":ns:r:{"+m.ID+"}").Bytes())(t)
		r := must(p.backend.Get(t.Context(), []string{m.ID}))(t)[0]
		u := r.Update
		if u.Next != nil && m.Record.Next != nil {
			u.Next = m.Record.Next
		}
		if v[0] == brief || !reflect.DeepEqual(u, *m.Record) {
			t.Errorf("%d: stored as %q, got %+v, want %+v", i, bytes.ToValidUTF8(v, nil), u, *m.Record)
		}
	}
}

// TestMemory bounds what a task takes that waits, in classes of the allocator.
func TestMemory(t *testing.T) {
	t.Parallel()
	p := newPair(t, sharedServer(t))
	c := goredis.NewClient(client(p.server))
	defer c.Close()
	id := "019302a5-7c41-7b1e-9d7a-3f0f5a0e6c11"
	m := message(id)
	m.ReplyTo, m.Record.ReplyTo, m.Record.Due = "ABCDEFGHIJKL", "ABCDEFGHIJKL", time.Now().UnixMilli()
	p.publish(m)
	key := p.prefix + ":ns:r:{" + id + "}"
	used := must(c.MemoryUsage(t.Context(), key).Result())(t)
	if limit := int64(24 + 64 + 48 + 16); used > limit { // entry, key, value; some versions count another pointer
		t.Errorf("the record takes %d bytes, want at most %d", used, limit)
	}
	es := must(c.XRange(t.Context(), p.prefix+":ns:{q}:s0", "-", "+").Result())(t)
	if own := len(es[0].Values["m"].(string)) - len(m.ID) - len(m.ReplyTo) - len(m.Envelope); own > 8 {
		t.Errorf("a message takes %d bytes beside what is in it, want at most 8", own)
	}
}
