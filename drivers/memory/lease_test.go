package memory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func TestLeaseExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		m := message("x")
		m.Deliveries = 3
		p.publish(m)
		first, start := p.one(), time.Now()
		want(t, "first Count", first.Count, 4)
		second := p.one() // waits for the lease to end
		want(t, "returned after", time.Since(start), lease)
		want(t, "second Count", second.Count, 5)
		want(t, "Copy", second.Copy, first.Copy)
		want(t, "third Count", p.one().Count, 6)
	})
}

func TestManyLeasesExpireInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		for i := range 50 {
			p.publish(message(fmt.Sprintf("%02d", i)))
		}
		before := ids(receive(t, p.sub, 50))
		time.Sleep(lease)
		want(t, "order", ids(receive(t, p.sub, 50)), before)
	})
}

func TestExtend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		p.publish(message("long"), message("short"))
		ds := receive(t, p.sub, 2)
		for range 10 {
			time.Sleep(lease / 3)
			wantErr(t, "Extend", p.sub.Extend(t.Context(), ds[:1]), nil)
		}
		err := p.sub.Extend(t.Context(), ds)
		wantErr(t, "held", driver.ItemError(err, 0, 2), nil)
		wantErr(t, "lost", driver.ItemError(err, 1, 2), driver.ErrLeaseLost)
		want(t, "came back", ids(receive(t, p.sub, 2)), " short")
		start := time.Now()
		p.one()
		if d := time.Since(start); d > lease {
			t.Errorf("an extension lasts %v, want %v", d, lease)
		}
	})
}

// TestStaleToken checks that a delivery that is no longer held changes nothing.
func TestStaleToken(t *testing.T) {
	t.Parallel()
	actions := map[string]func(p *pair, d *driver.Delivery) error{
		"ack": func(p *pair, d *driver.Delivery) error { return p.settle(driver.Settlement{Delivery: d}) },
		"release": func(p *pair, d *driver.Delivery) error {
			return p.settle(driver.Settlement{Delivery: d, Action: driver.Release})
		},
		"then": func(p *pair, d *driver.Delivery) error {
			return p.settle(driver.Settlement{Delivery: d, Then: []*driver.Message{message("next")}})
		},
		"record": func(p *pair, d *driver.Delivery) error {
			return p.settle(driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, State: driver.Success}})
		},
		"extend": func(p *pair, d *driver.Delivery) error {
			return p.sub.Extend(context.Background(), []*driver.Delivery{d})
		},
	}
	loss := map[string]func(p *pair, d *driver.Delivery){
		"expired": func(p *pair, d *driver.Delivery) { time.Sleep(lease) },
		"held by another": func(p *pair, d *driver.Delivery) {
			time.Sleep(lease)
			p.one()
		},
		"settled": func(p *pair, d *driver.Delivery) { p.ack(d) },
		"released": func(p *pair, d *driver.Delivery) {
			p.settle(driver.Settlement{Delivery: d, Action: driver.Release})
		},
		"of another subscription": func(p *pair, d *driver.Delivery) { p.sub = subscribe(p.t, p.broker, 1, "q") },
		"of another driver":       func(p *pair, d *driver.Delivery) { d.Handle = "?" },
	}
	for what, act := range actions {
		for how, lose := range loss {
			t.Run(what+" "+how, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					p := open(t, true)
					p.publish(tracked("x"))
					d := p.one()
					lose(p, d)
					before, state := p.stats("q"), p.state("x")
					wantErr(t, what, act(p, d), driver.ErrLeaseLost)
					want(t, "stats", p.stats("q"), before)
					want(t, "state", p.state("x"), state)
				})
			})
		}
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		p.publish(message("a"), message("b"))
		a := p.one()
		wantErr(t, "Release", p.settle(driver.Settlement{Delivery: a, Action: driver.Release}), nil)
		again := p.one()
		want(t, "first again", again.ID, "a")
		want(t, "Count", again.Count, 1)
		want(t, "Copy", again.Copy, a.Copy)
		start := time.Now()
		wantErr(t, "delayed Release", p.settle(driver.Settlement{Delivery: again, Action: driver.Release, Delay: time.Second}), nil)
		want(t, "meanwhile", p.one().ID, "b")
		p.publish(message("c"))
		time.Sleep(time.Second - time.Millisecond)
		want(t, "delayed", p.stats("q").Delayed, 1)
		time.Sleep(time.Millisecond)
		last := p.one()
		want(t, "back at its place", last.ID, "a")
		want(t, "Count", last.Count, 1)
		want(t, "Copy", last.Copy, a.Copy)
		want(t, "after", time.Since(start), time.Second)
	})
}

func TestPrefetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		sub := subscribe(t, p.broker, 3, "a", "b", "c")
		for i := range 12 {
			m := message(fmt.Sprint(i))
			m.Queue = string(rune('a' + i%3))
			p.publish(m)
		}
		ds := receive(t, sub, 10)
		want(t, "first", len(ds), 3)
		nothing(t, sub) // without credit

		got := make(chan int)
		go func() {
			ds, _ := sub.Receive(t.Context(), 10)
			got <- len(ds)
		}()
		synctest.Wait() // it waits for credit
		wantErr(t, "Settle", sub.Settle(t.Context(), []driver.Settlement{{Delivery: ds[0]}, {Delivery: ds[1]}}), nil)
		want(t, "after a settlement", <-got, 2)
		time.Sleep(lease + time.Second) // all three are lost, and so is their debt
		want(t, "after the leases", len(receive(t, sub, 10)), 3)
	})
}

func TestLeaseOfQueue(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	tests := []struct {
		name   string
		queues []string
		lease  time.Duration
		want   error
	}{
		{"other lease", []string{"q"}, lease / 2, driver.ErrLeaseMismatch},
		{"other lease of one", []string{"new", "q"}, lease / 2, driver.ErrLeaseMismatch},
		{"refused ones store nothing", []string{"new"}, lease / 3, nil},
		{"same lease", []string{"q"}, lease, nil},
		{"zero", []string{"q2"}, 0, errAny},
		{"too long", []string{"q2"}, driver.MaxLease + time.Second, errAny},
		{"fraction", []string{"q2"}, time.Microsecond, errAny},
		{"longest", []string{"q2"}, driver.MaxLease, nil},
		{"no queues", nil, lease, errAny},
		{"queue twice", []string{"q3", "q3"}, lease, errAny},
	}
	for _, tt := range tests {
		o := &driver.SubscribeOptions{Prefetch: 1, Lease: tt.lease}
		for _, q := range tt.queues {
			o.Queues = append(o.Queues, driver.QueueSpec{Name: q})
		}
		_, err := p.broker.Subscribe(t.Context(), o)
		if tt.want == errAny && err == nil || tt.want != errAny && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestHandOutCountsAsStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		m := message("x")
		m.Once, m.NoRecord = true, true
		p.publish(m)
		wantErr(t, "Release", p.settle(driver.Settlement{Delivery: p.one(), Action: driver.Release}), nil)
		want(t, "given back", p.one().Count, 1)
		want(t, "died", p.one().Count, 2)
		want(t, "record", p.state("x"), "")
	})
}
