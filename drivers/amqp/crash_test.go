package amqp_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
)

var (
	loadFlag  = flag.Int("amqp.load", 2500, "messages that are ready, and as many delayed, when the server crashes")
	delayFlag = flag.Int("amqp.delays", 600, "delayed messages whose moments are measured")
	longFlag  = flag.Duration("amqp.longest", 4*time.Second, "their longest delay")
)

// TestRestartUnderLoad ends the server in the middle of publishing and receiving, once
// by a crash and once gracefully: what was confirmed comes, all of it, and what comes more
// than once is known by its record.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*server){"crash": (*server).kill, "graceful": (*server).stop} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			restartUnderLoad(t, end)
		})
	}
}

func restartUnderLoad(t *testing.T, end func(*server)) {
	s := newServer(t)
	b := open(t, s.url("guest:guest", "/"), nil)
	sub := subscribe(t, b, 50, "q")
	warm := messages(1, "q")
	warm[0].ID, warm[0].Delay = "warm", math.MaxInt32*time.Millisecond // every digit has its queues
	if err := b.Publish(background, warm); err != nil {
		t.Fatal(err)
	}
	time.Sleep(leaderless)
	n := *loadFlag
	ready, late := messages(n, "q"), messages(n, "q")
	for i, m := range late {
		m.ID, m.Delay = fmt.Sprint("late-", i), 3*time.Second+rand.N(9*time.Second)
	}
	var wg sync.WaitGroup
	half := make(chan struct{})
	confirmed := make(chan string, 2*n)
	for _, ms := range [][]*driver.Message{late, ready} {
		wg.Go(func() {
			for some := range slices.Chunk(ms, 25) {
				publishAll(t, b, some, confirmed)
				if some[0] == ready[n/2/25*25] {
					close(half)
				}
			}
		})
	}
	got, ran, again := map[string]bool{}, map[string]bool{}, 0
	records := inMemory(t)("ns")
	ctx, cancel := context.WithTimeout(background, 4*patience)
	defer cancel()
	wg.Go(func() {
		for {
			wait := 4 * patience
			if len(got) == 2*n { // some may come again
				wait = 2 * time.Second
			}
			within, done := context.WithTimeout(ctx, wait)
			ds, err := sub.Receive(within, 10)
			ended := within.Err() != nil
			done()
			if ended {
				return
			}
			if err != nil {
				t.Errorf("receive: %v", err)
				return
			}
			for _, d := range ds {
				if run(t, records, d) {
					if ran[d.ID] {
						t.Errorf("%s ran twice", d.ID)
					}
					ran[d.ID] = true
				} else {
					again++
				}
				if sub.Settle(ctx, []driver.Settlement{{Delivery: d}}) == nil {
					got[d.ID] = true
				}
			}
		}
	})
	<-half
	end(s)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	close(confirmed)
	lost := 0
	for id := range confirmed {
		if !got[id] {
			if lost++; lost < 10 {
				t.Errorf("%s was confirmed and did not come", id)
			}
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d confirmed messages were lost", lost, 2*n)
	}
	t.Logf("%d of %d confirmed messages came and ran; %d came again, and did not run", len(ran), 2*n, again)
}

// run runs d as a worker does, unless its record says that it ended before.
func run(t *testing.T, records driver.Backend, d *driver.Delivery) bool {
	grants, err := records.Start(background, []driver.Start{{ID: d.ID, Attempt: d.Attempt, Copy: d.Copy, Count: d.Count}})
	if err != nil {
		t.Error(err)
		return false
	}
	if err := grants[0].Err; err != nil {
		if !errors.Is(err, driver.ErrStale) {
			t.Errorf("start %s: got %v, want ErrStale", d.ID, err)
		}
		return false
	}
	err = records.Apply(background, []driver.Update{{ID: d.ID, Attempt: d.Attempt, State: driver.Success, Run: grants[0].Run, TTL: time.Hour}})
	if err != nil {
		t.Error(err)
	}
	return true
}

// publishAll publishes ms, each until it is confirmed.
func publishAll(t *testing.T, b *amqp.Broker, ms []*driver.Message, confirmed chan<- string) {
	for end := time.Now().Add(3 * patience); len(ms) > 0; {
		err := b.Publish(background, ms)
		var again []*driver.Message
		for i, m := range ms {
			if driver.ItemError(err, i, len(ms)) == nil {
				confirmed <- m.ID
			} else {
				again = append(again, m)
			}
		}
		if ms = again; len(ms) > 0 && time.Now().After(end) {
			t.Errorf("cannot publish: %v", err)
			return
		}
	}
}

// TestDelays measures when delayed messages come: none early, each once.
func TestDelays(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	b := open(t, s.url("guest:guest", "/"), nil)
	sub := subscribe(t, b, 100, "q")
	n := *delayFlag
	ms := messages(n, "q")
	shortest := 100 * time.Millisecond
	span := math.Log(float64(*longFlag) / float64(shortest))
	for _, m := range ms {
		m.Delay = time.Duration(float64(shortest) * math.Exp(rand.Float64()*span)).Truncate(time.Millisecond)
	}
	type moment struct{ sent, stored time.Time }
	var mu sync.Mutex
	moments := map[string]moment{}
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for some := range slices.Chunk(ms, 10) { // 1,000 a second
			sent := time.Now()
			if err := b.Publish(background, some); err != nil {
				t.Errorf("publish: %v", err)
				return
			}
			mu.Lock()
			for _, m := range some {
				moments[m.ID] = moment{sent, time.Now()}
			}
			mu.Unlock()
			<-tick.C
		}
	})
	came := map[string]time.Time{}
	ctx, cancel := context.WithTimeout(background, time.Duration(n)*time.Millisecond*4+*longFlag+patience)
	defer cancel()
	for len(came) < n {
		ds, err := sub.Receive(ctx, 100)
		now := time.Now()
		if err != nil {
			t.Fatalf("%d of %d came: %v", len(came), n, err)
		}
		for _, d := range ds {
			if !came[d.ID].IsZero() {
				t.Errorf("%s came twice", d.ID)
			}
			came[d.ID] = now
		}
		ack(t, sub, ds...)
	}
	wg.Wait()
	var late []time.Duration
	for _, m := range ms {
		at := moments[m.ID]
		if early := at.sent.Add(m.Delay).Sub(came[m.ID]); early > 0 {
			t.Errorf("%s, delayed by %v, came %v early", m.ID, m.Delay, early)
		}
		late = append(late, came[m.ID].Sub(at.stored.Add(m.Delay)))
	}
	slices.Sort(late)
	t.Logf("%d delays of %v to %v: late by %v (p50), %v (p99), %v (most)", n, shortest, *longFlag, late[n/2], late[n*99/100], late[n-1])
	if most := 10 * time.Second; late[n-1] > most {
		t.Errorf("one came %v late", late[n-1])
	}
}

// TestLongDelay arms a delay again that is longer than the server's queues wait.
func TestLongDelay(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	b := open(t, s.url("guest:guest", "/"), nil)
	amqp.SetLongest(b, 200)
	sub := subscribe(t, b, 10, "q")
	m := messages(1, "q")[0]
	m.Delay = 900 * time.Millisecond
	begin := time.Now()
	if err := b.Publish(background, []*driver.Message{m}); err != nil {
		t.Fatal(err)
	}
	d := receive(t, sub, 1)[0]
	if took := time.Since(begin); took < m.Delay {
		t.Errorf("delayed by %v, came after %v", m.Delay, took)
	}
	if d.Count != 1 {
		t.Errorf("count is %d, want 1", d.Count)
	}
	ack(t, sub, d)
}

// TestCutTells cuts the connection: deliveries say at once that they are lost, and a
// stale settlement changes nothing.
func TestCutTells(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	b := open(t, s.url("guest:guest", "/"), nil)
	sub := subscribe(t, b, 2, "q")
	if err := b.Publish(background, messages(2, "q")); err != nil {
		t.Fatal(err)
	}
	old := receive(t, sub, 2)
	begin := time.Now()
	amqp.Cut(b)
	for _, d := range old {
		select {
		case <-d.Lost:
		case <-time.After(patience):
			t.Fatal("a lost delivery does not say so")
		}
	}
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("they say so after %v", took)
	}
	again := receive(t, sub, 2) // with the same tags, on another channel
	for _, d := range old {
		if err := sub.Settle(background, []driver.Settlement{{Delivery: d}}); !errors.Is(err, driver.ErrLeaseLost) {
			t.Errorf("a stale settlement: got %v, want ErrLeaseLost", err)
		}
	}
	for _, d := range again {
		if d.Count != 2 {
			t.Errorf("%s has count %d, want 2", d.ID, d.Count)
		}
	}
	if err := sub.Extend(background, again); err != nil {
		t.Errorf("the holder extends: %v", err)
	}
	ack(t, sub, again...)
}
