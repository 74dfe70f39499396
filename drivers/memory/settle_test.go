package memory_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func TestThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		p.publish(tracked("x"))
		retry, other, later := message("x"), message("other"), message("later")
		retry.Seq, retry.Attempt = 1, 2
		other.Queue = "elsewhere"
		later.Delay = time.Minute
		lost := dead("lost", 0, 1)
		lost.Queue = "third"
		d := p.one()
		err := p.settle(driver.Settlement{Delivery: d, Then: []*driver.Message{retry, other, later, lost},
			Record: &driver.Update{ID: "x", State: driver.Retry, Next: retry}})
		wantErr(t, "Settle", err, nil)
		want(t, "q", fmt.Sprint(p.stats("q")), "{q 1 0 1 0 0s}")
		want(t, "elsewhere", p.stats("elsewhere").Ready, 1)
		want(t, "third", p.stats("third").Dead, 1)
		want(t, "state", p.state("x"), driver.Retry)
		next := p.one()
		want(t, "retry", next.Seq, 1)
		if next.Copy == d.Copy {
			t.Error("a republish has the Copy of what it follows")
		}
		want(t, "state of the retry", p.state("x"), driver.Started)
	})
}

// TestThenOfSameVersion checks that a republish of the very message that it
// settles is no duplicate, with or without a record.
func TestThenOfSameVersion(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	p.publish(tracked("x"))
	for _, again := range []*driver.Message{message("x"), tracked("x")} {
		err := p.settle(driver.Settlement{Delivery: p.one(), Then: []*driver.Message{again}})
		wantErr(t, "Settle", err, nil)
		want(t, "ready", p.stats("q").Ready, 1)
	}
	want(t, "ID", p.one().ID, "x")
}

// TestThenTwice checks that a verdict finished twice makes one message.
func TestThenTwice(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	next := message("x")
	next.Seq = 1
	p.publish(message("x"), message("y"))
	for _, d := range receive(t, p.sub, 2) {
		wantErr(t, "Settle", p.settle(driver.Settlement{Delivery: d, Then: []*driver.Message{next, dead("z", 0, 1)}}), nil)
	}
	want(t, "ready", p.stats("q").Ready, 1)
	want(t, "dead", p.stats("q").Dead, 1)
}

func TestInvalidThenChangesNothing(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	p.publish(tracked("x"))
	d := p.one()
	err := p.settle(driver.Settlement{Delivery: d, Then: []*driver.Message{message("ok"), message("not ok")},
		Record: &driver.Update{ID: "x", State: driver.Success}})
	wantErr(t, "Settle", err, driver.ErrName)
	want(t, "state", p.state("x"), driver.Started)
	want(t, "leased", p.stats("q").Leased, 1)
	p.ack(d)
}

// TestThenAcrossQueues moves messages between two queues in both directions
// at once: no lock is taken in the wrong order, and none is ever in neither
// or both.
func TestThenAcrossQueues(t *testing.T) {
	t.Parallel()
	const n, hops = 8, 200
	p := open(t, true)
	var wg sync.WaitGroup
	for i := range n {
		from, to := "a", "b"
		if i%2 == 1 {
			from, to = to, from
		}
		m := message(fmt.Sprint("from-", i))
		m.Queue = from
		p.publish(m)
		for _, q := range []string{from, to} {
			sub := subscribe(t, p.broker, 1, q)
			wg.Go(func() {
				for range hops / 2 {
					ds, err := sub.Receive(t.Context(), 1)
					if err != nil {
						t.Error(err)
						return
					}
					next := ds[0].Message.Clone()
					next.Seq++
					next.Queue = map[string]string{"a": "b", "b": "a"}[next.Queue]
					err = sub.Settle(t.Context(), []driver.Settlement{{Delivery: ds[0], Then: []*driver.Message{next}}})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	want(t, "left", p.stats("a").Ready+p.stats("b").Ready, n)
}
