package memory_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func entries(t *testing.T, c driver.Control, prefix string) (string, uint64) {
	t.Helper()
	es, rev, err := c.Entries(t.Context(), prefix)
	if err != nil {
		t.Fatalf("Entries: %v", err)
	}
	s := ""
	for _, e := range es {
		s += fmt.Sprintf(" %s=%s", e.Key, e.Value)
	}
	return s, rev
}

func TestControl(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		value := []byte("1")
		p.broker.Put(t.Context(), "w/b", value, time.Minute)
		value[0] = 'X'
		p.backend.Put(t.Context(), "w/a", []byte("2"), 0)
		p.backend.Put(t.Context(), "other", nil, 0)
		got, _ := entries(t, p.backend, "w/")
		want(t, "entries", got, " w/a=2 w/b=1")
		time.Sleep(time.Minute)
		got, _ = entries(t, p.broker, "w/")
		want(t, "after a minute", got, " w/a=2")
		wantErr(t, "Remove", p.broker.Remove(t.Context(), "w/a", "nothing"), nil)
		got, _ = entries(t, p.broker, "")
		want(t, "after Remove", got, " other=")
		elsewhere := p.store.Broker("elsewhere")
		defer elsewhere.Close(t.Context())
		got, _ = entries(t, elsewhere, "")
		want(t, "in another namespace", got, "")
	})
}

func TestAwait(t *testing.T) {
	t.Parallel()
	changes := map[string]func(p *pair){
		"put":     func(p *pair) { p.backend.Put(p.t.Context(), "a/new", nil, 0) },
		"put old": func(p *pair) { p.backend.Put(p.t.Context(), "a/old", nil, 0) },
		"remove":  func(p *pair) { p.backend.Remove(p.t.Context(), "a/old") },
		"many": func(p *pair) {
			p.backend.Remove(p.t.Context(), "a/old")
			for i := range 3000 {
				p.backend.Put(p.t.Context(), fmt.Sprint("b/", i), nil, 0)
				p.backend.Remove(p.t.Context(), fmt.Sprint("b/", i))
			}
		},
	}
	for what, change := range changes {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := open(t, true)
				p.backend.Put(t.Context(), "a/old", nil, 0)
				_, rev := entries(t, p.broker, "a/")
				ended := make(chan error, 1)
				go func() { ended <- p.broker.Await(t.Context(), "a/", rev) }()
				synctest.Wait()
				p.backend.Put(t.Context(), "b/other", nil, 0)
				p.backend.Remove(t.Context(), "b/other")
				synctest.Wait()
				want(t, "returned", len(ended), 0)
				change(p)
				wantErr(t, "Await", <-ended, nil)
				wantErr(t, "Await from the past", p.broker.Await(t.Context(), "a/", rev), nil)
			})
		})
	}
}

func TestAwaitEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, true)
		ended := make(chan error)
		await := func(ctx context.Context) { ended <- p.broker.Await(ctx, "", 0) }
		ctx, cancel := context.WithCancel(t.Context())
		go await(ctx)
		synctest.Wait()
		cancel()
		wantErr(t, "cancelled", <-ended, context.Canceled)
		go await(t.Context())
		synctest.Wait()
		p.broker.Close(t.Context())
		wantErr(t, "closed", <-ended, driver.ErrClosed)
	})
}

func TestInspect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		later := message("later")
		later.Delay = time.Hour
		p.publish(message("held"), message("old"), later, dead("dead", 0, 0))
		p.one()
		time.Sleep(10 * time.Second)
		p.publish(message("young"))
		want(t, "stats", p.stats("q"), driver.QueueStats{Queue: "q", Ready: 2, Leased: 1, Delayed: 1, Dead: 1, Oldest: 10 * time.Second})
		want(t, "unknown queue", p.stats("?"), driver.QueueStats{Queue: "?"})
	})
}

func TestPurge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := open(t, false)
		p.store.SetMax(4)
		later := message("later")
		later.Delay = time.Hour
		p.publish(message("held"), message("a"), message("b"), later, dead("dead", 0, 0))
		held := p.one()
		got, err := p.broker.PurgeQueue(t.Context(), "q")
		want(t, "purged", fmt.Sprint(got), "[a b later]")
		wantErr(t, "PurgeQueue", err, nil)
		want(t, "stats", p.stats("q"), driver.QueueStats{Queue: "q", Leased: 1, Dead: 1})
		p.ack(held)
		p.publish(message("a"), message("b"), message("held"), later) // all ids are free, and so is the room
		got, err = p.broker.PurgeQueue(t.Context(), "?")
		if len(got) > 0 || err != nil {
			t.Errorf("unknown queue: got %v, %v", got, err)
		}
	})
}
