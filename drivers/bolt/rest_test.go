package bolt_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// TestRecordsRest completes more tasks than there are records in RAM, and finds
// all of them; in the end all expire.
func TestRecordsRest(t *testing.T) {
	t.Parallel()
	const n, batch = 80000, 1000
	p := newPair(t, nil)
	for i := 0; i < n; i += batch {
		msgs := make([]*driver.Message, batch)
		for j := range msgs {
			msgs[j] = tracked(name(i + j))
		}
		p.publish(msgs...)
		ss := make([]driver.Settlement, 0, batch)
		for len(ss) < batch {
			for _, d := range p.receive(batch) {
				ss = append(ss, driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, Attempt: 1,
					State: driver.Success, TTL: time.Hour, Body: fmt.Append(nil, "result of ", d.ID)}})
			}
		}
		p.settle(ss...)
	}
	for _, open := range []func(*pair) *pair{same, (*pair).reopen, (*pair).crash} {
		p = open(p)
		for _, i := range []int{0, 1, n / 2, n - 1} {
			rs, err := p.backend.Get(t.Context(), []string{name(i)})
			if err != nil || rs[0] == nil || string(rs[0].Body) != "result of "+name(i) {
				t.Errorf("%s: got %+v, %v", name(i), rs[0], err)
			}
		}
		err := p.broker.Publish(t.Context(), []*driver.Message{tracked(name(7))})
		wantErr(t, "an ID that is alive", driver.ItemError(err, 0, 1), driver.ErrDuplicate)
	}
	deleted, err := p.backend.Delete(t.Context(), []string{name(5), name(n)})
	want(t, "deleted", deleted, 1)
	wantErr(t, "Delete", err, nil)
	want(t, "state of a deleted record", p.state(name(5)), "")
}

func same(p *pair) *pair { return p }
