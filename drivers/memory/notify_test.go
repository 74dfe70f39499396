package memory_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func (p *pair) notify() driver.Notifications {
	p.t.Helper()
	n, err := p.backend.Notify(p.t.Context())
	if err != nil {
		p.t.Fatalf("Notify: %v", err)
	}
	p.t.Cleanup(func() { n.Close() })
	return n
}

func (p *pair) succeed(id, replyTo string) {
	p.t.Helper()
	wantErr(p.t, "Apply", p.apply(driver.Update{ID: id, State: driver.Success, Run: 1, ReplyTo: replyTo, Body: []byte("body")}), nil)
}

func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		n, other := p.notify(), p.notify()
		p.succeed("before", "")
		wantErr(t, "Watch", n.Watch(t.Context(), []string{"before", "a", "b", "c"}), nil)
		n.Unwatch([]string{"b"})
		p.apply(driver.Update{ID: "a", State: driver.Pending})
		for _, id := range []string{"a", "b", "unwatched"} {
			p.succeed(id, "")
		}
		p.succeed("c", n.Address()) // watched and addressed: pushed once
		p.succeed("d", n.Address())
		p.succeed("e", other.Address())
		p.succeed("f", "nobody")
		rs, err := n.Next(t.Context())
		var got []string
		for _, r := range rs {
			got = append(got, r.ID)
		}
		if err != nil || !slices.Equal(got, []string{"a", "c", "d"}) {
			t.Errorf("Next: got %v, %v, want a c d", got, err)
		}
		rs[0].Body[0] = 'X'
		want(t, "stored body", string(p.record("a").Body), "body")
	})
}

func TestSettlePushes(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	n := p.notify()
	p.publish(tracked("x"))
	p.settle(driver.Settlement{Delivery: p.one(), Record: &driver.Update{ID: "x", State: driver.Success, ReplyTo: n.Address()}})
	rs, err := n.Next(t.Context())
	if err != nil || len(rs) != 1 || rs[0].State != driver.Success {
		t.Errorf("Next: got %v, %v", rs, err)
	}
}

// TestWatchRace lets records finish while they are watched and read: whoever
// watches first and reads then never waits in vain.
func TestWatchRace(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	n := p.notify()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 1000 {
		id := fmt.Sprint(i)
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.succeed(id, "")
		}()
		wantErr(t, "Watch", n.Watch(ctx, []string{id}), nil)
		for seen := p.record(id) != nil; !seen; {
			rs, err := n.Next(ctx)
			if err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			seen = slices.ContainsFunc(rs, func(r *driver.Record) bool { return r.ID == id })
		}
		n.Unwatch([]string{id})
		<-done
	}
}

func TestSlowReaderGetsGap(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	n := p.notify()
	for i := range 1<<14 + 1 {
		p.succeed(fmt.Sprint(i), n.Address())
	}
	p.succeed("after", n.Address())
	rs, err := n.Next(t.Context())
	if rs != nil || err != nil {
		t.Errorf("got %d records, %v, want a gap", len(rs), err)
	}
	rs, err = n.Next(t.Context())
	if len(rs) != 1 || rs[0].ID != "after" || err != nil {
		t.Errorf("after the gap: got %v, %v", rs, err)
	}
}

func TestNotificationsEnd(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"Close", "backend", "context"} {
		synctest.Test(t, func(t *testing.T) {
			p := open(t, true)
			n := p.notify()
			wantErr(t, "Watch", n.Watch(t.Context(), []string{"x"}), nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error)
			go func() {
				_, err := n.Next(ctx)
				ended <- err
			}()
			synctest.Wait()
			end := map[string]func(){"Close": func() { n.Close() }, "backend": func() { p.backend.Close(ctx) }, "context": cancel}
			end[what]()
			wants := map[string]error{"Close": driver.ErrClosed, "backend": driver.ErrClosed, "context": context.Canceled}
			wantErr(t, what, <-ended, wants[what])
			if what == "Close" {
				wantErr(t, "Watch", n.Watch(t.Context(), []string{"y"}), driver.ErrClosed)
				p.succeed("x", n.Address())
			}
		})
	}
}
