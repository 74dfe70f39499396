package bolt_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// TestCrossing has many calls name the same few ids in any order, at once: none
// waits for another for ever, and each id is stored once.
func TestCrossing(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	const ids, callers, calls = 12, 8, 40
	var mu sync.Mutex
	published := map[string]int{}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range calls {
				var msgs []*driver.Message
				for _, i := range rand.Perm(ids)[:6] {
					msgs = append(msgs, tracked(name(i)))
				}
				msgs = append(msgs, tracked(msgs[0].ID)) // twice in one call
				err := p.broker.Publish(t.Context(), msgs)
				for i, m := range msgs {
					switch err := driver.ItemError(err, i, len(msgs)); {
					case err == nil:
						mu.Lock()
						published[m.ID]++
						mu.Unlock()
					case !errors.Is(err, driver.ErrDuplicate):
						t.Errorf("%s: %v", m.ID, err)
					}
				}
				p.backend.Apply(t.Context(), []driver.Update{{ID: name(rand.IntN(ids)), State: driver.Pending}, {ID: name(rand.IntN(ids)), State: driver.Pending}})
			}
		})
	}
	wg.Wait()
	for i := range ids {
		if published[name(i)] > 1 {
			t.Errorf("%s was stored %d times", name(i), published[name(i)])
		}
	}
}

// TestRacingSettles settles each delivery from two goroutines: one wins, and the
// other is told so.
func TestRacingSettles(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	for i := range 50 {
		p.publish(tracked(name(i)))
		d := p.one()
		errs := make(chan error, 2)
		for n := range 2 {
			go func() {
				next := message(fmt.Sprint("next-", i, "-", n))
				errs <- p.sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Then: []*driver.Message{next},
					Record: &driver.Update{ID: d.ID, Attempt: 1, State: driver.Success, TTL: time.Hour}}})
			}()
		}
		a, b := <-errs, <-errs
		if (a == nil) == (b == nil) {
			t.Fatalf("got %v and %v, want one nil", a, b)
		}
		wantErr(t, "the loser", errors.Join(a, b), driver.ErrLeaseLost)
		p.settle(driver.Settlement{Delivery: p.one()})
	}
	want(t, "left", p.stats().Ready, 0)
}

// TestInvalidIDs are refused, and never reach the file.
func TestInvalidIDs(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	err := p.backend.Apply(t.Context(), []driver.Update{{State: driver.Success}, {ID: "fine", State: driver.Success}})
	wantErr(t, "no id", driver.ItemError(err, 0, 2), driver.ErrName)
	wantErr(t, "fine", driver.ItemError(err, 1, 2), nil)
	gs, err := p.backend.Start(t.Context(), []driver.Start{{ID: ""}})
	if wantErr(t, "Start", err, nil); err == nil {
		wantErr(t, "no id", gs[0].Err, driver.ErrName)
	}
	if p.broker.Put(t.Context(), "", nil, 0) == nil {
		t.Error("a control key without a name is put")
	}
	want(t, "state", p.reopen().state("fine"), driver.Success)
}
