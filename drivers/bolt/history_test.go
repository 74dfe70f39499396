package bolt_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A history is what children said: of each call, that it began where that
// matters, and that it was acknowledged.
type history struct {
	published map[string]bool
	settled   map[string]bool
	onces     map[string]int // starts of at-most-once tasks
	again     int
	refused   int // for want of room

	deleting, deleted map[string]bool // records
	dead              map[string]bool // settled as dead letters
	burying, buried   map[string]bool // dead letters that are deleted
	putting, put      map[string]int  // control keys, whose values rise
}

func newHistory() *history {
	set := func() map[string]bool { return map[string]bool{} }
	return &history{published: set(), settled: set(), onces: map[string]int{}, deleting: set(), deleted: set(),
		dead: set(), burying: set(), buried: set(), putting: map[string]int{}, put: map[string]int{}}
}

func (h *history) read(t testing.TB, said string) {
	t.Helper()
	sets := map[string]map[string]bool{"published": h.published, "settled": h.settled, "deleting": h.deleting,
		"deleted": h.deleted, "dead": h.dead, "burying": h.burying, "buried": h.buried}
	for line := range strings.Lines(said) {
		what, id, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || !strings.HasSuffix(line, "\n") {
			continue // cut off
		}
		if set := sets[what]; set != nil {
			set[id] = true
		}
		switch what {
		case "started":
			if h.settled[id] {
				t.Errorf("%s was settled and started again", id)
			}
		case "again":
			h.again++
		case "refused":
			h.refused++
		case "once":
			if h.onces[id]++; h.onces[id] > 1 {
				t.Errorf("%s started twice", id)
			}
		case "putting", "put":
			key, value, _ := strings.Cut(id, " ")
			n, _ := strconv.Atoi(value)
			map[string]map[string]int{"putting": h.putting, "put": h.put}[what][key] = n
		}
	}
}

// finish works off what is left in p's file, and compares what is there then.
func (h *history) finish(t testing.TB, p *pair) {
	t.Helper()
	h.checkKeys(t, p)
	h.checkDead(t, p)
	for p.left() > 0 {
		for _, d := range p.receive(100) {
			if h.settled[d.ID] {
				t.Errorf("%s was settled and is there again", d.ID)
			}
			if h.onces[d.ID] > 0 && starts(p, d) {
				t.Errorf("%s starts twice", d.ID)
			}
			if d.NoRecord {
				p.settle(driver.Settlement{Delivery: d})
			} else {
				p.succeed(d, time.Hour)
			}
			h.settled[d.ID] = true
		}
	}
	h.checkRecords(t, p)
}

func (p *pair) left() int {
	s := p.stats()
	return s.Ready + s.Leased + s.Delayed
}

// starts reports whether the at-most-once task d may start.
func starts(p *pair, d *driver.Delivery) bool {
	p.t.Helper()
	if d.NoRecord {
		return d.Count == 1
	}
	gs, err := p.backend.Start(p.t.Context(), []driver.Start{start(d)})
	if err != nil {
		p.t.Fatalf("Start: %v", err)
	}
	return gs[0].Err == nil
}

func start(d *driver.Delivery) driver.Start {
	return driver.Start{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq, Attempt: d.Attempt, Copy: d.Copy, Count: d.Count,
		Once: d.Once, Delivery: d}
}

// checkKeys wants of each key the value that was put last, or that was being put.
func (h *history) checkKeys(t testing.TB, p *pair) {
	t.Helper()
	es, _, err := p.broker.Entries(t.Context(), "put-")
	if err != nil {
		t.Fatalf("Entries: %v", err)
	}
	got := map[string]int{}
	for _, e := range es {
		got[e.Key], _ = strconv.Atoi(string(e.Value))
	}
	for key, n := range h.putting {
		if got[key] < h.put[key] || got[key] > n {
			t.Errorf("%s is %d, was put as %d and then as %d", key, got[key], h.put[key], n)
		}
	}
}

// checkDead wants the dead letters that were not deleted.
func (h *history) checkDead(t testing.TB, p *pair) {
	t.Helper()
	for id := range h.dead {
		ms, err := p.broker.DeadLetters("q").Get(t.Context(), id)
		if err != nil {
			t.Fatalf("DeadLetters.Get: %v", err)
		}
		if len(ms) == 0 && !h.burying[id] || len(ms) > 0 && h.buried[id] {
			t.Errorf("%s has %d dead letters; deleting them began: %t, ended: %t", id, len(ms), h.burying[id], h.buried[id])
		}
	}
}

// checkRecords wants a record of all that was published or settled, but for
// those that were deleted.
func (h *history) checkRecords(t testing.TB, p *pair) {
	t.Helper()
	var ids []string
	for id := range h.settled {
		ids = append(ids, id)
	}
	for id := range h.published {
		switch {
		case h.settled[id]:
		case !strings.HasPrefix(id, noRecord):
			ids = append(ids, id)
		case h.onces[id] == 0:
			t.Errorf("%s was published and is gone", id)
		}
	}
	rs, err := p.backend.Get(t.Context(), ids)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	for i, id := range ids {
		h.checkRecord(t, id, rs[i])
	}
}

func (h *history) checkRecord(t testing.TB, id string, r *driver.Record) {
	t.Helper()
	switch {
	case strings.HasPrefix(id, noRecord):
		return
	case r == nil:
		if !h.deleting[id] {
			t.Errorf("%s was published and has no record", id)
		}
	case h.deleted[id]:
		t.Errorf("%s was deleted and is %s", id, r.State)
	case !r.State.Terminal():
		t.Errorf("%s was published and is %s in the end", id, r.State)
	case h.dead[id] && r.State != driver.DeadLettered:
		t.Errorf("%s is a dead letter and is %s", id, r.State)
	case r.State == driver.Success && string(r.Body) != "result of "+id:
		t.Errorf("%s has result %q", id, r.Body)
	}
}
