package memory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// fill publishes n messages to each of queues.
func (p *pair) fill(n int, queues ...string) {
	for _, q := range queues {
		for i := range n {
			m := message(fmt.Sprintf("%s-%d", q, i))
			m.Queue = q
			p.publish(m)
		}
	}
}

// byQueue counts what sub hands out in n rounds of size.
func byQueue(t *testing.T, sub driver.Subscription, n, size int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		ds := receive(t, sub, size)
		var ss []driver.Settlement
		for _, d := range ds {
			counts[d.Queue]++
			ss = append(ss, driver.Settlement{Delivery: d})
		}
		wantErr(t, "Settle", sub.Settle(t.Context(), ss), nil)
	}
	return counts
}

func TestWeights(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3, 8} {
		t.Run(fmt.Sprint("size ", size), func(t *testing.T) {
			t.Parallel()
			p := open(t, false)
			p.fill(240, "a", "b", "c")
			sub, err := p.broker.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: size, Lease: lease,
				Queues: []driver.QueueSpec{{Name: "empty", Weight: 100}, {Name: "a", Weight: 5}, {Name: "b"}, {Name: "c", Weight: 2}}})
			if err != nil {
				t.Fatal(err)
			}
			got := byQueue(t, sub, 240/size, size)
			for q, w := range map[string]int{"a": 150, "b": 30, "c": 60} {
				if n := got[q]; n < w-w/10-2 || n > w+w/10+2 {
					t.Errorf("of 240 from %s: got %d, want about %d", q, n, w)
				}
			}
		})
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	p.fill(10, "low", "high")
	sub, err := p.broker.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: 4, Lease: lease, Strict: true,
		Queues: []driver.QueueSpec{{Name: "high"}, {Name: "low", Weight: 9}}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "high first", fmt.Sprint(byQueue(t, sub, 2, 4)), "map[high:8]")
	want(t, "then low", fmt.Sprint(byQueue(t, sub, 1, 4)), "map[high:2 low:2]")
}

func TestSetQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		set := func(qs ...driver.QueueSpec) {
			t.Helper()
			wantErr(t, "SetQueues", p.sub.SetQueues(t.Context(), qs), nil)
		}
		got := make(chan *driver.Delivery)
		go func() { got <- p.one() }()
		synctest.Wait() // it waits at q
		set(driver.QueueSpec{Name: "r"})
		p.fill(1, "q")
		synctest.Wait()
		want(t, "paused queue", p.stats("q").Ready, 1)
		p.fill(1, "r")
		want(t, "from the new queue", (<-got).ID, "r-0")
		set()
		p.none()
		set(driver.QueueSpec{Name: "q"})
		want(t, "resumed", p.one().ID, "q-0")
	})
}

func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		p.publish(message("held"))
		d := p.one()
		ended := make(chan error)
		go func() {
			_, err := p.sub.Receive(t.Context(), 1)
			ended <- err
		}()
		synctest.Wait()
		wantErr(t, "Stop", p.sub.Stop(t.Context()), nil)
		wantErr(t, "blocked Receive", <-ended, driver.ErrClosed)
		_, err := p.sub.Receive(t.Context(), 1)
		wantErr(t, "later Receive", err, driver.ErrClosed)
		wantErr(t, "Extend", p.sub.Extend(t.Context(), []*driver.Delivery{d}), nil)
		p.ack(d)
		wantErr(t, "Close", p.sub.Close(t.Context()), nil)
		wantErr(t, "after Close", p.settle(driver.Settlement{Delivery: d}), driver.ErrClosed)
	})
}

// TestClose checks that a closed client's deliveries come back, to the other
// clients of the store, as after a crash.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		other := p.store.Broker("ns")
		defer other.Close(t.Context())
		sub := subscribe(t, other, 10, "q")
		p.publish(message("held"), message("ready"))
		d := p.one()
		ended := make(chan error)
		go func() {
			p.sub.SetQueues(t.Context(), []driver.QueueSpec{{Name: "idle"}})
			_, err := p.sub.Receive(t.Context(), 1)
			ended <- err
		}()
		synctest.Wait()
		wantErr(t, "Close", p.broker.Close(t.Context()), nil)
		wantErr(t, "second Close", p.broker.Close(t.Context()), nil)
		wantErr(t, "blocked Receive", <-ended, driver.ErrClosed)
		wantErr(t, "Settle", p.settle(driver.Settlement{Delivery: d}), driver.ErrClosed)
		wantErr(t, "Extend", p.sub.Extend(t.Context(), nil), driver.ErrClosed)
		wantErr(t, "Publish", p.broker.Publish(t.Context(), nil), driver.ErrClosed)
		_, err := p.broker.DeadLetters("q").Len(t.Context())
		wantErr(t, "Len", err, driver.ErrClosed)
		_, err = p.broker.Subscribe(t.Context(), &driver.SubscribeOptions{})
		wantErr(t, "Subscribe", err, driver.ErrClosed)

		want(t, "ready", ids(receive(t, sub, 10)), " ready")
		start := time.Now()
		ds, err := sub.Receive(t.Context(), 1)
		if err != nil || ds[0].ID != "held" || ds[0].Count != 2 {
			t.Errorf("got %v, %v, want held with Count 2", ids(ds), err)
		}
		if took := time.Since(start); took > lease {
			t.Errorf("came back after %v, want %v", took, lease)
		}
	})
}

// TestStoreOutlivesClients checks that time goes on for a store without
// clients, although it runs no timer.
func TestStoreOutlivesClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		late := message("late")
		late.Delay = time.Hour
		p.publish(message("held"), late)
		p.one()
		p.broker.Close(t.Context())
		time.Sleep(2 * time.Hour)
		b := p.store.Broker("ns")
		defer b.Close(t.Context())
		ds := receive(t, subscribe(t, b, 10, "q"), 10)
		want(t, "after reopening", ids(ds), " held late")
		want(t, "Count", ds[0].Count, 2)
	})
}

func TestDoneContext(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	p.publish(tracked("x"))
	d := p.one()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := map[string]error{
		"Publish":   p.broker.Publish(ctx, []*driver.Message{message("y")}),
		"Settle":    p.sub.Settle(ctx, []driver.Settlement{{Delivery: d}}),
		"Extend":    p.sub.Extend(ctx, []*driver.Delivery{d}),
		"SetQueues": p.sub.SetQueues(ctx, nil),
		"Apply":     p.backend.Apply(ctx, nil),
		"Put":       p.broker.Put(ctx, "k", nil, 0),
		"Await":     p.broker.Await(ctx, "k", 0),
	}
	_, errs["Receive"] = p.sub.Receive(ctx, 1)
	_, errs["Start"] = p.backend.Start(ctx, nil)
	_, errs["Get"] = p.backend.Get(ctx, nil)
	_, errs["List"] = func() (any, error) { _, _, err := p.broker.DeadLetters("q").List(ctx, "", 1); return nil, err }()
	for what, err := range errs {
		wantErr(t, what, err, context.Canceled)
		wantErr(t, what, err, driver.ErrTransient)
	}
	p.ack(d)
	p.none()
}

// TestCancelRace lets Receive be cancelled while messages arrive, and checks
// that each is received once all the same.
func TestCancelRace(t *testing.T) {
	t.Parallel()
	const n = 2000
	p := open(t, false)
	var wg sync.WaitGroup
	seen := make(chan string, 2*n)
	done, stop := context.WithCancel(t.Context())
	defer stop()
	for range 4 {
		sub := subscribe(t, p.broker, 2, "q", "r")
		wg.Go(func() {
			for done.Err() == nil {
				ctx, cancel := context.WithTimeout(done, time.Duration(rand.IntN(50))*time.Microsecond)
				ds, _ := sub.Receive(ctx, 2)
				cancel()
				for _, d := range ds {
					seen <- d.ID
					sub.Settle(context.Background(), []driver.Settlement{{Delivery: d}})
				}
			}
		})
	}
	for i := range n {
		m := message(fmt.Sprint(i))
		m.Queue = []string{"q", "r"}[i%2]
		p.publish(m)
		if i%10 == 0 {
			runtime.Gosched()
		}
	}
	got := map[string]bool{}
	for range n {
		id := <-seen
		if got[id] {
			t.Fatalf("%s was received twice", id)
		}
		got[id] = true
	}
	stop()
	wg.Wait()
	want(t, "left", len(seen), 0)
}

// TestWakeups parks many receivers on overlapping queues and checks that none
// of many single messages is left lying while somebody waits.
func TestWakeups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		sets := [][]string{{"a"}, {"b"}, {"a", "b"}, {"b", "a", "c"}, {"c"}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 20 {
			sub := subscribe(t, p.broker, 1+i%3, sets[i%5]...)
			wg.Go(func() {
				for {
					ds, err := sub.Receive(ctx, 3)
					if err != nil {
						return
					}
					for _, d := range ds {
						sub.Settle(ctx, []driver.Settlement{{Delivery: d}})
					}
				}
			})
		}
		for round := range 300 {
			var msgs []*driver.Message
			for i := range 1 + round%7 {
				m := message(fmt.Sprintf("%d-%d", round, i))
				m.Queue = string(rune('a' + (round+i)%3))
				msgs = append(msgs, m)
			}
			p.publish(msgs...)
			synctest.Wait()
			for _, q := range []string{"a", "b", "c"} {
				if s := p.stats(q); s.Ready+s.Leased > 0 {
					t.Fatalf("round %d: everybody waits, but there is %+v", round, s)
				}
			}
		}
		cancel()
		wg.Wait()
	})
}

// TestNoGoroutines checks that nothing runs on after Close: synctest fails if
// a goroutine of the bubble is left.
func TestNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	p := open(t, true)
	for i := range 10 {
		m := tracked(fmt.Sprint(i))
		m.Delay = time.Duration(i%2) * time.Hour
		p.publish(m)
	}
	receive(t, p.sub, 3)
	p.broker.Close(t.Context())
	p.backend.Close(t.Context())
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}
