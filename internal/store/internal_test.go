package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func TestRing(t *testing.T) {
	t.Parallel()
	var r ring
	var out []*task // taken, not put back
	next, in := uint64(0), []uint64{}
	for range 20000 {
		switch n := rand.IntN(10); {
		case n < 4:
			next++
			r.push(&task{order: next})
			in = append(in, next)
		case n < 8 && r.n > 0:
			got := r.pop()
			if got.order != in[0] {
				t.Fatalf("pop: got %d, want %d", got.order, in[0])
			}
			in, out = in[1:], append(out, got)
		case n == 8 && len(out) > 0:
			i := rand.IntN(len(out))
			r.insert(out[i])
			in = append(in, out[i].order)
			slices.Sort(in)
			out = slices.Delete(out, i, i+1)
		}
	}
}

func TestHeap(t *testing.T) {
	t.Parallel()
	var h dueHeap
	var last dueTask
	for i := range 5000 {
		h.push(dueTask{due: rand.Int64N(100), order: uint64(i), task: &task{}})
	}
	for len(h) > 0 {
		top := h[0]
		if h.pop() != top.task || top.before(last) {
			t.Fatalf("popped %v after %v", top, last)
		}
		last = top
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var tab table
	all := map[string]*entry{}
	for range 50000 {
		id := fmt.Sprint(rand.IntN(3000))
		h := uint64(len(id)) * 0x9e3779b97f4a7c15 * uint64(id[0]+id[len(id)-1]) // collides a lot
		if got := tab.find(h, id); got != all[id] {
			t.Fatalf("find %s: got %v, want %v", id, got, all[id])
		}
		switch e := all[id]; {
		case e == nil:
			e = &entry{id: id, hash: h}
			tab.add(e)
			all[id] = e
		case rand.IntN(2) == 0:
			tab.remove(e)
			delete(all, id)
		}
	}
	tab.each(func(e *entry) {
		if e.hash%2 == 0 {
			tab.remove(e)
			delete(all, e.id)
		}
	})
	for _, e := range all {
		if tab.find(e.hash, e.id) != e {
			t.Errorf("%s is lost", e.id)
		}
	}
	tab.each(func(e *entry) {
		tab.remove(e)
		delete(all, e.id)
	})
	if tab.shrink(); tab.n != 0 || len(all) != 0 || len(tab.slots) != minSlots {
		t.Errorf("left: %d entries, %d unseen, %d slots", tab.n, len(all), len(tab.slots))
	}
}

func (sp *space) size() (n int) {
	for i := range sp.shards {
		sh := &sp.shards[i]
		sh.mu.Lock()
		n += sh.entries.n
		sh.mu.Unlock()
	}
	return n
}

// TestSweep checks that memory is freed though nobody looks, and that no timer
// is armed when nothing is left.
func TestSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := New(Options{Driver: "test"})
		b := store.Backend("ns")
		defer b.Close(t.Context())
		var us []driver.Update
		for i := range 1000 {
			ttl := time.Duration(1+i%10) * time.Hour
			us = append(us, driver.Update{ID: fmt.Sprint(i), State: driver.Success, Run: 1, TTL: ttl})
		}
		if err := b.Apply(t.Context(), us); err != nil {
			t.Fatal(err)
		}
		sp := b.space
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{2 * time.Hour, 1000}, {time.Hour + 2*time.Minute, 900}, {5 * time.Hour, 400}, {4 * time.Hour, 0}} {
			time.Sleep(step.after)
			synctest.Wait()
			if got := sp.size(); got != step.want {
				t.Errorf("after %v: got %d entries, want %d", step.after, got, step.want)
			}
		}
		if at := sp.sweeper.at.Load(); at != 0 {
			t.Errorf("a sweep is planned for %v", time.Duration(at))
		}
	})
}

// TestEntriesGo checks that an id leaves nothing behind once all is over.
func TestEntriesGo(t *testing.T) {
	t.Parallel()
	store := New(Options{Driver: "test"})
	b := store.Broker("ns")
	defer b.Close(t.Context())
	backend := store.Backend("ns")
	defer backend.Close(t.Context())
	n, err := backend.Notify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.Watch(t.Context(), []string{"watched", "ended"})
	n.Unwatch([]string{"watched"})
	n.Close()
	msgs := []*driver.Message{{ID: "acked", Queue: "q", NoRecord: true},
		{ID: "dead", Queue: "q", Dead: &driver.DeadInfo{}}, {ID: "purged", Queue: "q2"}}
	if err := b.Publish(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
	s, err := b.Subscribe(t.Context(), &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: "q"}}, Prefetch: 1, Lease: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ds, _ := s.Receive(t.Context(), 1)
	s.Settle(t.Context(), []driver.Settlement{{Delivery: ds[0]}})
	b.DeadLetters("q").Delete(t.Context(), []driver.DeadKey{{ID: "dead"}})
	b.PurgeQueue(t.Context(), "q2")
	backend.Start(t.Context(), []driver.Start{{ID: "refused", Once: true, Count: 2}})
	if got := b.space.size(); got != 0 {
		t.Errorf("%d entries are left", got)
	}
}

// TestLastCloseStopsTimers checks what keeps a closed store from living on.
func TestLastCloseStopsTimers(t *testing.T) {
	t.Parallel()
	store := New(Options{Driver: "test"})
	b, backend := store.Broker("ns"), store.Backend("ns")
	msgs := []*driver.Message{{ID: "x", Queue: "q", Delay: time.Hour, Record: &driver.Update{ID: "x", State: driver.Pending}}}
	if err := b.Publish(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
	q := b.space.lookup("q")
	if q.timer == nil || b.space.sweeper.timer == nil {
		t.Fatal("timers are not armed")
	}
	b.Close(t.Context())
	if q.timer == nil {
		t.Error("the first Close stops the timer")
	}
	backend.Close(t.Context())
	if q.timer != nil || b.space.sweeper.timer != nil {
		t.Error("the last Close leaves timers")
	}
	again := store.Broker("ns")
	defer again.Close(t.Context())
	if q.timer == nil || b.space.sweeper.timer == nil {
		t.Error("the next client does not arm the timers")
	}
}

// What is due is never due earlier for being written down in milliseconds and
// read again, in another process whose clock began elsewhere.
func TestMomentWritten(t *testing.T) {
	t.Parallel()
	for _, written := range []int64{0, 1, 350_000, 999_999} {
		for _, read := range []int64{0, 1, 650_000, 999_999} {
			const ms = int64(time.Millisecond)
			before := instant{at: 7, unix: 1000*ms + written}
			due := before.after(4 * time.Second)
			after := instant{at: 11, unix: 2000*ms + read}
			got := after.moment(before.unixMilli(due))
			late := (got - after.at) - (due - before.at) + (after.unix - before.unix)
			if late < 0 || late >= ms {
				t.Errorf("written %d ns past a millisecond, read %d ns past one: %d ns late", written, read, late)
			}
		}
	}
}
