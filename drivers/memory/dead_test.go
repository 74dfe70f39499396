package memory_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func (p *pair) listDead(limit int) (all []string, pages int) {
	p.t.Helper()
	for cursor := ""; ; pages++ {
		ms, next, err := p.broker.DeadLetters("q").List(p.t.Context(), cursor, limit)
		if err != nil {
			p.t.Fatalf("List: %v", err)
		}
		all = append(all, strings.Fields(ids(ms))...)
		if cursor = next; cursor == "" {
			return all, pages + 1
		}
	}
}

func (p *pair) lenDead() int {
	p.t.Helper()
	n, err := p.broker.DeadLetters("q").Len(p.t.Context())
	if err != nil {
		p.t.Fatalf("Len: %v", err)
	}
	return n
}

func TestDeadRoundTrip(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	m := fullMessage()
	m.Dead = &driver.DeadInfo{Reason: driver.ReasonPoison, Name: "n", Kind: "k", Message: "m", Stack: "s", Worker: "w",
		Attempts: 1, Deliveries: 2, FirstAt: 3, LastAt: 4, History: []driver.FailedAttempt{{Attempt: 1, At: 3, Kind: "k"}}}
	sent := m.Clone()
	p.publish(m)
	m.Envelope[0], m.Dead.History[0].Kind = 'X', "X"
	p.publish(m) // the second of one (id, epoch): as if it were not there
	ms, err := p.broker.DeadLetters("q").Get(t.Context(), "full")
	if err != nil || len(ms) != 1 || !reflect.DeepEqual(ms[0], sent) {
		t.Errorf("Get: got %+v, %v, want %+v", ms, err, sent)
	}
	want(t, "dead", p.stats("q").Dead, 1)
	p.none()
}

func TestDeadList(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	var order []string
	for i := range 200 { // i*7 % 50 is when; equal ones in order of arrival
		p.publish(dead(fmt.Sprintf("%02d-%03d", i*7%50, i), 0, int64(i*7%50)))
		order = append(order, fmt.Sprintf("%02d-%03d/0", i*7%50, i))
	}
	slices.Sort(order)
	for _, limit := range []int{1, 7, 100, 200, 1000} {
		got, pages := p.listDead(limit)
		if !slices.Equal(got, order) || pages != (199+limit)/limit {
			t.Errorf("limit %d: got %d in %d pages", limit, len(got), pages)
		}
	}
	want(t, "Len", p.lenDead(), 200)

	// A cursor survives what happens before and after it.
	dl := p.broker.DeadLetters("q")
	page, cursor, _ := dl.List(t.Context(), "", 100)
	var keys []driver.DeadKey
	for _, m := range page {
		keys = append(keys, m.Key())
	}
	n, err := dl.Delete(t.Context(), append(keys, keys[0], driver.DeadKey{ID: "?"}))
	want(t, "deleted", n, 100)
	wantErr(t, "Delete", err, nil)
	p.publish(dead("early", 0, 0), dead("late", 0, 99))
	rest, _, _ := dl.List(t.Context(), cursor, 1000)
	want(t, "rest", len(rest), 101)
	want(t, "last", rest[100].ID, "late")
	if _, _, err := dl.List(t.Context(), "nonsense", 1); err == nil {
		t.Error("a bad cursor is accepted")
	}
}

func TestDeadPurge(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	for i := range int64(10) {
		p.publish(dead(fmt.Sprint(i), 0, 1000*i))
	}
	n, err := p.broker.DeadLetters("q").Purge(t.Context(), time.UnixMilli(4000))
	want(t, "purged", n, 4)
	wantErr(t, "Purge", err, nil)
	got, _ := p.listDead(100)
	want(t, "left", strings.Join(got, " "), "4/0 5/0 6/0 7/0 8/0 9/0")
	n, _ = p.broker.DeadLetters("q").Purge(t.Context(), time.Time{})
	want(t, "purged", n, 6)
	want(t, "left", p.lenDead(), 0)
}

func TestDeadEpochs(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	other := dead("x", 9, 1)
	other.Queue = "other"
	p.publish(dead("x", 1, 1), dead("x", 3, 2), dead("x", 2, 3), dead("y", 0, 4), other)
	ms, _ := p.broker.DeadLetters("q").Get(t.Context(), "x")
	want(t, "newest first", ids(ms), " x/3 x/2 x/1")
	ms, _ = p.broker.DeadLetters("other").Get(t.Context(), "x")
	want(t, "of the other queue", ids(ms), " x/9")
	ms, err := p.broker.DeadLetters("nowhere").Get(t.Context(), "x")
	if len(ms) != 0 || err != nil {
		t.Errorf("of no queue: got %v, %v", ids(ms), err)
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	m := fullMessage()
	m.Dead, m.NoRecord = &driver.DeadInfo{}, false
	plain := dead("plain", 0, 0)
	plain.NoRecord = true
	p.publish(m, plain)
	keys := []driver.DeadKey{m.Key(), m.Key(), plain.Key(), {ID: "?"}, {ID: "plain", Epoch: 7}}
	ms, err := p.broker.DeadLetters("q").Replay(t.Context(), keys)
	wantErr(t, "Replay", err, nil)
	want(t, "replayed", ids(ms), " full/4 plain/1")
	want(t, "Len", p.lenDead(), 0)
	if r := p.record("full"); r == nil || r.State != driver.Pending || r.Epoch != 4 || r.ReplyTo != "me" || !r.Once {
		t.Errorf("record of full: got %+v", r)
	}
	want(t, "record of plain", p.state("plain"), "")
	d := p.one()
	if !reflect.DeepEqual(&d.Message, m.Replayed()) || d.Count != 1 {
		t.Errorf("got %+v, want %+v", d, m.Replayed())
	}
}

func TestReplayOfLivingIsPassedOver(t *testing.T) {
	t.Parallel()
	p := open(t, false)
	m := message("x")
	m.Epoch = 1
	p.publish(dead("x", 0, 0), m)
	ms, err := p.broker.DeadLetters("q").Replay(t.Context(), []driver.DeadKey{{ID: "x"}})
	if len(ms) != 0 || err != nil {
		t.Errorf("got %v, %v, want nothing", ids(ms), err)
	}
	want(t, "Len", p.lenDead(), 1)
}

func TestReplayRace(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	const n = 300
	var keys []driver.DeadKey
	for i := range n {
		m := dead(fmt.Sprint(i), 0, 0)
		p.publish(m)
		keys = append(keys, m.Key())
	}
	var total atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, k := range keys {
				ms, err := p.broker.DeadLetters("q").Replay(t.Context(), []driver.DeadKey{k})
				if err != nil {
					t.Error(err)
				}
				total.Add(int64(len(ms)))
			}
		})
	}
	wg.Wait()
	want(t, "replayed", total.Load(), n)
	want(t, "ready", p.stats("q").Ready, n)
}

// TestDeadWithRecord looks at the dead letter of a task as soon as its record says that
// it has one: both come in one step.
func TestDeadWithRecord(t *testing.T) {
	t.Parallel()
	p := open(t, true)
	for i := range 3000 {
		id := fmt.Sprint("x", i)
		p.publish(tracked(id))
		d := p.one()
		settled := make(chan struct{})
		go func() {
			defer close(settled)
			letter := dead(id, 0, 1)
			err := p.sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Then: []*driver.Message{letter},
				Record: &driver.Update{ID: id, Attempt: 1, State: driver.DeadLettered}}})
			if err != nil {
				t.Errorf("settle: %v", err)
			}
		}()
		for p.state(id) != driver.DeadLettered && !t.Failed() {
		}
		if ms, err := p.broker.DeadLetters("q").Get(t.Context(), id); len(ms) != 1 || err != nil {
			t.Errorf("%s is dead-lettered: got %d dead letters, %v", id, len(ms), err)
		}
		if <-settled; t.Failed() {
			return
		}
	}
}
