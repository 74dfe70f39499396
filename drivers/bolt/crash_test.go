package bolt_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// TestSuspects counts the hand-outs of what a crash has left in the file: each
// crash that follows is one more, so that a killer is found.
func TestSuspects(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.publish(message("killer"), message("released"))
	p.one()
	p.one()
	p = p.crash()
	for i, d := range p.receive(2) {
		want(t, "count after the first crash, which nobody has seen coming", d.Count, 1)
		if i == 1 {
			p.settle(driver.Settlement{Delivery: d, Action: driver.Release})
		}
	}
	for n := 2; n < 5; n++ {
		p = p.crash()
		counts := map[string]int{}
		for _, d := range p.receive(2) {
			counts[d.ID] = d.Count
			if d.ID == "released" {
				p.settle(driver.Settlement{Delivery: d, Action: driver.Release})
			}
		}
		want(t, "count of the killer", counts["killer"], n)
		want(t, "count of what was given back", counts["released"], 1)
	}
	p = p.reopen() // cleanly: nobody is suspected any more, what was counted stays
	want(t, "count after a clean close", p.one().Count, 5)
	p = p.crash()
	want(t, "count after one more crash", p.one().Count, 5)
}

// TestLeaseRunsOut counts deaths within the process durably.
func TestLeaseRunsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.publish(message("a"))
		p.one()
		time.Sleep(lease)
		want(t, "count", p.one().Count, 2)
		synctest.Wait() // nobody waits for it to be written
		p = p.crash()
		want(t, "count after a crash", p.one().Count, 2)
	})
}

// TestRestartOrder finds messages in line as they were.
func TestRestartOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		late, urgent, delayed := message("late"), message("urgent"), message("delayed")
		late.Delay, urgent.Priority, delayed.Delay = 2*time.Second, 9, time.Hour
		p.publish(message("a"), late)
		time.Sleep(time.Second)
		p.publish(message("b"), urgent, delayed)
		time.Sleep(4 * time.Second)
		p.publish(message("c"))
		held := p.one()
		want(t, "first", held.ID, "urgent")
		p.settle(driver.Settlement{Delivery: held, Action: driver.Release})
		p = p.crash()
		for _, id := range []string{"urgent", "a", "b", "late", "c"} {
			d := p.one()
			want(t, "in line", d.ID, id)
			p.settle(driver.Settlement{Delivery: d})
		}
		p.none()
		begin := time.Now()
		want(t, "last", p.one().ID, "delayed")
		if waited := time.Since(begin); waited < 59*time.Minute || waited > time.Hour {
			t.Errorf("it was due after %v", waited)
		}
	})
}

// TestCopySurvives keeps what fences a start on another store's record.
func TestCopySurvives(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.publish(message("a"))
	before := p.one().Copy
	p = p.crash()
	want(t, "copy", p.one().Copy, before)
	p.publish(message("b"))
	if again := p.one().Copy; again == before {
		t.Error("another message has the same copy")
	}
}

// TestExpiry drops records from the file, not only from sight.
func TestExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		for i := range 100 {
			p.publish(tracked(name(i)))
			p.succeed(p.one(), time.Hour)
		}
		p.publish(tracked("pending"))
		p = p.crash()
		want(t, "state", p.state(name(0)), driver.Success)
		time.Sleep(2 * time.Hour) // the results are gone, skeletons are left
		want(t, "state", p.state(name(0)), "")
		p = p.crash()
		want(t, "state", p.state(name(0)), "")
		err := p.broker.Publish(t.Context(), []*driver.Message{tracked(name(0))})
		wantErr(t, "an ID whose skeleton lives", driver.ItemError(err, 0, 1), driver.ErrDuplicate)
		time.Sleep(6 * time.Hour)
		p.close()
		want(t, "records in the file", countKeys(t, p.path, "ns/r"), 1)
	})
}

// TestControlSurvives keeps keys as long as they live.
func TestControlSurvives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		for key, ttl := range map[string]time.Duration{"pause/q": 0, "pause/removed": 0, "worker/long": time.Hour, "worker/short": time.Minute} {
			if err := p.broker.Put(t.Context(), key, []byte(key), ttl); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.backend.Remove(t.Context(), "pause/removed"); err != nil {
			t.Fatal(err)
		}
		p = p.crash()
		time.Sleep(2 * time.Minute)
		es, _, err := p.broker.Entries(t.Context(), "")
		if err != nil || len(es) != 2 || es[0].Key != "pause/q" || es[1].Key != "worker/long" || string(es[1].Value) != "worker/long" {
			t.Errorf("got %v, %v", es, err)
		}
	})
}

// TestLeaseIsStored refuses another lease after a restart, too.
func TestLeaseIsStored(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil).reopen()
	_, err := p.broker.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: 1, Slots: 1,
		Lease: lease / 2, Queues: []driver.QueueSpec{{Name: "q"}}})
	wantErr(t, "Subscribe", err, driver.ErrLeaseMismatch)
}
