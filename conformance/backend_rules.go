package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var ruleCases = []Case{
	{Name: "Rules/Pending", Contract: "PENDING is the lowest rank of its version: late is harmless", run: rulesPending},
	{Name: "Rules/Versions", Contract: "a record only moves up in (epoch, seq, rank)", run: rulesVersions},
	{Name: "Rules/Terminal", Contract: "a terminal state absorbs its epoch, and a newer epoch opens it again", run: rulesTerminal},
	{Name: "Rules/Retry", Contract: "RETRY closes its seq: only SUCCESS or CANCELLED may follow it there", run: rulesRetry},
	{Name: "Rules/Fencing", Contract: "an update of an older run is stale; only its SUCCESS may still win", run: rulesFencing},
	{Name: "Rules/Outside", Contract: "a verdict given without starting passes over absent, PENDING and STARTED, never over RETRY or a terminal state", run: rulesOutside},
	{Name: "Rules/ParkOnce", Contract: "parking an at-most-once task that has started is ErrStarted and changes nothing", run: rulesParkOnce},
	{Name: "Start/Grant", Contract: "a start of an absent, PENDING or older record is granted, and reads STARTED", run: startGrant},
	{Name: "Start/Runs", Contract: "each grant has a higher run than those before", run: startRuns},
	{Name: "Start/Stale", Contract: "a start is ErrStale where a verdict or a newer version stands, and the record comes with the refusal", run: startStale},
	{Name: "Start/Superseded", Contract: "an equal start from another copy, or from a delivery with a lower count, is ErrSuperseded", run: startSuperseded},
	{Name: "Start/Once", Contract: "an at-most-once task is granted once: found STARTED, or redelivered without a record, it is ErrStarted", run: startOnce},
	{Name: "Start/Refusal", Contract: "a refused start changes nothing", run: startRefusal},
	{Name: "Rules/Absent", Contract: "an update of an absent record writes it anew", run: rulesAbsent},
	{Name: "Rules/Model", Contract: "any sequence of starts and updates is decided as package driver's rules decide it", run: rulesModel},
}

func version(u driver.Update, epoch, seq uint32) driver.Update {
	u.Epoch, u.Seq = epoch, seq
	if u.State == driver.Retry {
		u.Next = &driver.Message{ID: u.ID, Queue: q, Epoch: epoch, Seq: seq + 1, Attempt: 2}
	}
	return u
}

func rulesPending(c *C) {
	be := c.backend()
	late := update("a", driver.Pending)
	run := c.grant(be, start("a", "c"))
	c.stales(be, late, "PENDING over STARTED")
	u := version(update("a", driver.Retry), 0, 0)
	u.Run = run
	c.apply(be, u)
	c.stales(be, late, "PENDING over RETRY")
	c.apply(be, version(update("a", driver.Success), 0, 1))
	c.stales(be, late, "PENDING over SUCCESS")
	c.stales(be, version(update("a", driver.Pending), 0, 9), "PENDING of a later seq over SUCCESS")
	c.state(be, "a", driver.Success)
	c.apply(be, update("b", driver.Pending))
	c.stales(be, update("b", driver.Pending), "PENDING over PENDING")
	provisional := update("p", driver.Pending)
	provisional.Provisional = true
	c.apply(be, provisional)
	c.stales(be, provisional, "a second claim of an id")
	c.apply(be, update("p", driver.Pending)) // confirmed
	c.stales(be, provisional, "a claim of an id that is alive")
	c.expect(!c.record(be, "p").Provisional, "a confirmed record is not provisional")
}

func rulesVersions(c *C) {
	be := c.backend()
	steps := []driver.Update{
		version(update("a", driver.Pending), 0, 0), version(update("a", driver.Retry), 0, 0), version(update("a", driver.Pending), 0, 1),
		version(update("a", driver.Retry), 0, 2), version(update("a", driver.Failure), 0, 3), version(update("a", driver.Pending), 1, 0),
		version(update("a", driver.Retry), 1, 4), version(update("a", driver.Success), 1, 5), version(update("a", driver.Pending), 3, 0),
	}
	for i, u := range steps {
		c.apply(be, u)
		for _, old := range steps[:i+1] {
			c.stales(be, old, fmt.Sprintf("%s of %v after %s of %v", old.State, old.Version(), u.State, u.Version()))
		}
		r := c.record(be, "a")
		c.expect(r.Version() == u.Version() && r.State == u.State, "the record is %s of %v, want %s of %v", r.State, r.Version(), u.State, u.Version())
	}
}

func rulesTerminal(c *C) {
	be := c.backend()
	for i, s := range terminals {
		id := fmt.Sprint("task-", i)
		c.apply(be, update(id, s))
		for _, other := range append([]driver.State{driver.Pending, driver.Retry}, terminals...) {
			c.stales(be, version(update(id, other), 0, 0), fmt.Sprintf("%s over %s", other, s))
			c.stales(be, version(update(id, other), 0, 5), fmt.Sprintf("%s of a later seq over %s", other, s))
		}
		g := c.try(be, driver.Start{ID: id, Seq: 5, Attempt: 1, Copy: "c", Count: 1})
		c.expect(errors.Is(g.Err, driver.ErrStale), "a start over %s: got %v, want ErrStale", s, g.Err)
		c.state(be, id, s)
		c.apply(be, version(update(id, driver.Pending), 1, 0))
		r := c.state(be, id, driver.Pending)
		c.expect(r.Epoch == 1 && len(r.Body) == 0 && r.Error == nil && r.FinishedAt == 0, "a new epoch starts from scratch: got %+v", r)
	}
}

func rulesRetry(c *C) {
	be := c.backend()
	for _, s := range []driver.State{driver.Pending, driver.Retry, driver.Failure, driver.DeadLettered, driver.Expired} {
		id := "after-" + string(s)
		run := c.grant(be, start(id, "c"))
		u := version(update(id, driver.Retry), 0, 0)
		u.Run = run
		c.apply(be, u)
		again := version(update(id, s), 0, 0)
		again.Run = run
		c.stales(be, again, string(s)+" over RETRY of the same seq")
		c.state(be, id, driver.Retry)
		g := c.try(be, start(id, "c"))
		c.expect(errors.Is(g.Err, driver.ErrStale) && g.Record != nil && g.Record.Next != nil, "a start over RETRY finishes it: got %+v", g)
	}
	for _, s := range []driver.State{driver.Success, driver.Cancelled} {
		id := "closed-" + string(s)
		c.apply(be, version(update(id, driver.Retry), 0, 0))
		c.apply(be, update(id, s))
		c.state(be, id, s)
	}
}

func rulesFencing(c *C) {
	be := c.backend()
	for _, s := range []driver.State{driver.Retry, driver.Failure, driver.DeadLettered, driver.Expired} {
		id := "zombie-" + string(s)
		old := c.grant(be, start(id, "c"))
		second := start(id, "c")
		second.Count = 2
		run := c.grant(be, second)
		u := version(update(id, s), 0, 0)
		u.Run = old
		c.stales(be, u, string(s)+" of an older run")
		r := c.state(be, id, driver.Started)
		c.expect(r.Run == run, "the newer run stands: got %d, want %d", r.Run, run)
		u.Run = run
		c.apply(be, u)
		c.state(be, id, s)
	}
	old := c.grant(be, start("a", "c"))
	second := start("a", "c")
	second.Count = 2
	run := c.grant(be, second)
	u := update("a", driver.Success)
	u.Run, u.Body = old, []byte("older")
	c.apply(be, u)
	u.Run, u.Body = run, []byte("newer")
	c.stales(be, u, "a second SUCCESS")
	c.expect(string(c.record(be, "a").Body) == "older", "the first SUCCESS stands")
}

func rulesOutside(c *C) {
	be := c.backend()
	for _, s := range []driver.State{driver.Retry, driver.DeadLettered, driver.Failure, driver.Cancelled} {
		for _, over := range []string{"absent", "PENDING", "STARTED", "RETRY", "SUCCESS"} {
			id := string(s) + "-over-" + over
			switch over {
			case "PENDING":
				c.apply(be, update(id, driver.Pending))
			case "STARTED":
				c.grant(be, start(id, "c"))
			case "RETRY":
				c.apply(be, version(update(id, driver.Retry), 0, 0))
			case "SUCCESS":
				c.apply(be, update(id, driver.Success))
			}
			u := version(update(id, s), 0, 0)
			refused := over == "SUCCESS" || over == "RETRY" && s != driver.Cancelled
			if refused {
				c.stales(be, u, fmt.Sprintf("%s without a run over %s", s, over))
				continue
			}
			c.apply(be, u)
			c.state(be, id, s)
		}
	}
}

func rulesParkOnce(c *C) {
	be := c.backend()
	s := start("a", "c")
	s.Once = true
	run := c.grant(be, s)
	park := version(update("a", driver.Retry), 0, 0)
	park.Once = true
	err := c.applyOne(be, park)
	c.expect(errors.Is(err, driver.ErrStarted), "got %v, want ErrStarted", err)
	c.state(be, "a", driver.Started)
	park.Run = run // what the run itself says is no park
	c.apply(be, park)
	c.state(be, "a", driver.Retry)
	fresh := version(update("b", driver.Retry), 0, 0)
	fresh.Once = true
	c.apply(be, update("b", driver.Pending))
	c.apply(be, fresh) // not started: parked
}

func startGrant(c *C) {
	be := c.backend()
	c.expect(c.grant(be, start("absent", "c")) > 0, "a run is above zero")
	c.apply(be, update("pending", driver.Pending))
	c.grant(be, start("pending", "c"))
	provisional := update("provisional", driver.Pending)
	provisional.Provisional = true
	c.apply(be, provisional)
	c.grant(be, start("provisional", "c"))
	c.apply(be, version(update("retry", driver.Retry), 0, 0))
	s := start("retry", "d")
	s.Seq, s.Attempt = 1, 2
	c.grant(be, s)
	c.apply(be, update("done", driver.DeadLettered))
	s = start("done", "e")
	s.Epoch = 1
	c.grant(be, s)
	for _, id := range []string{"absent", "pending", "provisional", "retry", "done"} {
		r := c.state(be, id, driver.Started)
		c.expect(r.StartedAt > 0 && !r.Provisional && r.Count == 1, "a started record: got %+v", r)
	}
	c.expect(c.record(be, "retry").Attempt == 2 && c.record(be, "done").Epoch == 1, "the record says which attempt and epoch started")
}

func startRuns(c *C) {
	be := c.backend()
	last := uint64(0)
	for i := range 8 {
		s := start("a", "c")
		s.Count = 1 + i/2
		run := c.grant(be, s)
		c.expect(run > last, "run %d after run %d", run, last)
		last = run
	}
	next := start("a", "d")
	next.Seq = 1
	c.expect(c.grant(be, next) > last, "runs rise over versions of an epoch")
}

func startStale(c *C) {
	be := c.backend()
	c.apply(be, update("done", driver.Success))
	c.apply(be, version(update("retry", driver.Retry), 0, 0))
	newer := version(update("newer", driver.Pending), 0, 2)
	c.apply(be, newer)
	c.apply(be, version(update("epoch", driver.Pending), 1, 0))
	for _, id := range []string{"done", "retry", "newer", "epoch"} {
		g := c.try(be, start(id, "c"))
		c.expect(errors.Is(g.Err, driver.ErrStale), "%s: got %v, want ErrStale", id, g.Err)
		c.expect(g.Record != nil && g.Record.ID == id, "%s: the refusing record comes along: got %+v", id, g.Record)
	}
	g := c.try(be, start("retry", "c"))
	c.expect(g.Record != nil && g.Record.Next != nil && g.Record.Next.Seq == 1, "a stored RETRY holds the next message: got %+v", g.Record)
}

func startSuperseded(c *C) {
	be := c.backend()
	s := start("a", "c")
	s.Count = 2
	c.grant(be, s)
	other := start("a", "d")
	other.Count = 3
	g := c.try(be, other)
	c.expect(errors.Is(g.Err, driver.ErrSuperseded), "another copy: got %v, want ErrSuperseded", g.Err)
	late := start("a", "c")
	g = c.try(be, late)
	c.expect(errors.Is(g.Err, driver.ErrSuperseded), "an older delivery: got %v, want ErrSuperseded", g.Err)
	late.Count = 3
	c.grant(be, late) // a later delivery of the same copy
}

func startOnce(c *C) {
	be := c.backend()
	s := start("a", "c")
	s.Once = true
	c.apply(be, update("a", driver.Pending))
	c.grant(be, s)
	for count := 1; count <= 2; count++ {
		s.Count = count
		g := c.try(be, s)
		c.expect(errors.Is(g.Err, driver.ErrStarted), "a second start, count %d: got %v, want ErrStarted", count, g.Err)
	}
	gone := start("none", "c")
	gone.Once, gone.Count = true, 2
	g := c.try(be, gone)
	c.expect(errors.Is(g.Err, driver.ErrStarted), "redelivered, and no record: got %v, want ErrStarted", g.Err)
	c.state(be, "none", "")
	gone.Count = 1
	c.grant(be, gone) // its PENDING is late
	next := start("a", "d")
	next.Once, next.Seq, next.Attempt = true, 1, 2
	c.apply(be, driver.Update{ID: "a", Attempt: 1, State: driver.Retry, Run: c.record(be, "a").Run, Once: true,
		Next: &driver.Message{ID: "a", Queue: q, Seq: 1, Attempt: 2}})
	c.grant(be, next) // an observed failure is retried
}

func startRefusal(c *C) {
	be := c.backend()
	s := start("a", "c")
	s.Count, s.Once = 2, true
	c.apply(be, update("a", driver.Pending))
	c.grant(be, s)
	before := fmt.Sprintf("%+v", *c.record(be, "a"))
	late := s
	late.Count = 1
	other := s
	other.Copy = "d"
	old := s
	old.Attempt = 9
	for _, refused := range []driver.Start{late, other, old} {
		c.expect(c.try(be, refused).Err != nil, "%+v is refused", refused)
	}
	after := fmt.Sprintf("%+v", *c.record(be, "a"))
	c.expect(before == after, "a refusal changed the record from %s to %s", before, after)
}

func rulesAbsent(c *C) {
	be := c.backend()
	for _, s := range append([]driver.State{driver.Retry}, terminals...) {
		u := version(update("fresh-"+string(s), s), 2, 3)
		u.Run = 7
		c.apply(be, u)
		r := c.state(be, u.ID, s)
		c.expect(r.Version() == u.Version() && r.Run == 7, "got %+v", r)
		older := u
		older.Run, older.State, older.Next = 6, driver.Failure, nil
		c.stales(be, older, "an older run after it")
	}
}

// rulesModel runs random sequences against the rules themselves.
func rulesModel(c *C) {
	be := c.backend()
	r := rand.New(rand.NewPCG(3, 4))
	states := append([]driver.State{driver.Pending, driver.Retry}, terminals...)
	for task := range 60 {
		id := fmt.Sprint("task-", task)
		var model *driver.Record
		var trace []string
		for range 14 {
			var want, got error
			if r.IntN(3) == 0 {
				s := driver.Start{ID: id, Epoch: uint32(r.IntN(2)), Seq: uint32(r.IntN(3)), Attempt: 1, Copy: string(rune('a' + r.IntN(2))),
					Count: 1 + r.IntN(2), Once: task%2 == 0}
				want = driver.CheckStart(model, &s)
				g := c.try(be, s)
				if got = g.Err; got == nil && want == nil {
					model = driver.NextStarted(model, &s, g.Run, 1)
				}
				trace = append(trace, fmt.Sprintf("start %d.%d copy %s count %d: %v", s.Epoch, s.Seq, s.Copy, s.Count, got))
			} else {
				u := version(update(id, states[r.IntN(len(states))]), uint32(r.IntN(2)), uint32(r.IntN(3)))
				u.Once, u.TTL = task%2 == 0, time.Hour
				if model != nil && model.Run > 0 && u.State != driver.Pending && r.IntN(2) == 0 {
					u.Run = model.Run - uint64(r.IntN(2))
				}
				want, got = driver.CheckUpdate(model, &u, false), c.applyOne(be, u)
				if want == nil && got == nil {
					model = driver.NextUpdated(model, &u, 1, false)
				}
				trace = append(trace, fmt.Sprintf("%s %d.%d run %d: %v", u.State, u.Epoch, u.Seq, u.Run, got))
			}
			if !sameVerdict(got, want) {
				c.Fatalf("got %v, want %v, after:\n%s", got, want, strings.Join(trace, "\n"))
			}
		}
		if rec := c.record(be, id); model != nil {
			ok := rec != nil && rec.State == model.State && rec.Version() == model.Version() && rec.Run == model.Run && rec.Copy == model.Copy && rec.Count == model.Count
			c.expect(ok, "the record is %+v, want %+v, after:\n%s", rec, model, strings.Join(trace, "\n"))
		}
	}
}

func sameVerdict(got, want error) bool {
	for _, e := range []error{driver.ErrStale, driver.ErrSuperseded, driver.ErrStarted} {
		if errors.Is(got, e) != errors.Is(want, e) {
			return false
		}
	}
	return (got == nil) == (want == nil)
}
