package conformance

import (
	"errors"
	"time"

	"github.com/chicory-go/chicory/driver"
)

const month = 31 * 24 * time.Hour

var ageCases = []Case{
	{Name: "TTL/FromTheEnd", Contract: "the time to live of a record runs from its terminal state", run: ttlFromTheEnd},
	{Name: "TTL/Zero", Contract: "a time to live of zero is for ever", limit: 2 * month, run: ttlZero},
	{Name: "TTL/Held", Contract: "that of a CANCELLED written from outside runs from the first start or update it refused; a late PENDING does not count", run: ttlHeld},
	{Name: "Skeleton/Refuses", Contract: "after its end or its Delete a record leaves a skeleton, against which every start, PENDING and update of that epoch is stale; that of a dead letter keeps the reason", run: skeletonRefuses},
	{Name: "Skeleton/Age", Contract: "a skeleton lives for an hour and two leases at least, then the id is free", limit: 8 * time.Hour, run: skeletonAge},
	{Name: "Age/Provisional", Contract: "a provisional record lives for ten minutes, unless it is confirmed", run: ageProvisional},
	{Name: "Age/Safety", Contract: "an unfinished record lives as long as its task: thirty days past its due time, renewed by every write", limit: 4 * month, run: ageSafety},
}

func ttlFromTheEnd(c *C) {
	be := c.backend()
	pending := update("a", driver.Pending)
	pending.TTL = c.lease / 2
	c.apply(be, pending, update("b", driver.Pending))
	c.sleep(2 * c.lease) // longer than the result will be kept
	c.state(be, "a", driver.Pending)
	run := c.grant(be, start("a", "c"))
	c.sleep(c.lease)
	done := update("a", driver.Success)
	done.Run, done.TTL = run, 2*c.lease
	c.apply(be, done)
	failed := update("b", driver.Failure)
	failed.TTL = c.lease
	c.apply(be, failed)
	c.sleep(c.lease - c.slack/2)
	c.state(be, "b", driver.Failure)
	c.sleep(c.slack)
	c.state(be, "a", driver.Success)
	c.state(be, "b", "")
	c.sleep(c.lease + c.slack)
	c.state(be, "a", "")
}

func ttlZero(c *C) {
	be := c.backend()
	c.apply(be, update("a", driver.Success))
	if c.h.Bubble {
		c.sleep(month + month/2)
	} else {
		c.sleep(3 * c.lease)
	}
	c.state(be, "a", driver.Success)
}

func ttlHeld(c *C) {
	be := c.backend()
	for _, id := range []string{"started", "updated"} {
		c.apply(be, update(id, driver.Pending))
		cancel := update(id, driver.Cancelled)
		cancel.TTL = c.lease
		c.apply(be, cancel)
		c.expect(c.record(be, id).Held, "a cancellation from outside is held")
	}
	c.stales(be, update("started", driver.Pending), "a late PENDING")
	c.sleep(3 * c.lease)
	c.state(be, "started", driver.Cancelled)
	c.state(be, "updated", driver.Cancelled)
	g := c.try(be, start("started", "c"))
	c.expect(errors.Is(g.Err, driver.ErrStale), "a cancelled task does not start: got %v, want ErrStale", g.Err)
	c.stales(be, update("updated", driver.Success), "a verdict after the cancellation")
	c.sleep(c.lease - c.slack/2)
	c.state(be, "started", driver.Cancelled)
	c.sleep(c.slack)
	c.state(be, "started", "")
	c.state(be, "updated", "")
	g = c.try(be, start("started", "c"))
	c.expect(errors.Is(g.Err, driver.ErrSuperseded), "and never will: got %v, want ErrSuperseded", g.Err)
}

func skeletonRefuses(c *C) {
	be := c.backend()
	for _, id := range []string{"deleted", "expired"} {
		done := update(id, driver.Success)
		done.TTL = c.lease
		c.apply(be, done)
	}
	buried := update("dead", driver.DeadLettered)
	buried.TTL, buried.Error = c.lease, &driver.DeadInfo{Reason: driver.ReasonPoison}
	c.apply(be, buried)
	if _, err := be.Delete(c.Context(), []string{"deleted"}); err != nil {
		c.Errorf("delete: %v", err)
	}
	c.sleep(c.lease + c.slack)
	for _, id := range []string{"deleted", "expired"} {
		c.state(be, id, "")
		g := c.try(be, start(id, "c"))
		c.expect(errors.Is(g.Err, driver.ErrSuperseded), "%s: a start: got %v, want ErrSuperseded", id, g.Err)
		later := driver.Start{ID: id, Seq: 4, Attempt: 1, Copy: "c", Count: 1}
		c.expect(errors.Is(c.try(be, later).Err, driver.ErrSuperseded), "%s: a start of a later seq", id)
		for _, s := range []driver.State{driver.Pending, driver.Retry, driver.Success, driver.Cancelled} {
			c.stales(be, version(update(id, s), 0, 0), id+": "+string(s))
			c.stales(be, version(update(id, s), 0, 3), id+": a later "+string(s))
		}
		c.state(be, id, "")
		n, err := be.Delete(c.Context(), []string{id})
		c.expect(err == nil && n == 0, "a skeleton is no record to delete: got %d, %v", n, err)
		s := start(id, "c")
		s.Epoch = 1
		c.grant(be, s) // a replay
		c.state(be, id, driver.Started)
	}
	g := c.try(be, start("dead", "c"))
	c.expect(errors.Is(g.Err, driver.ErrStale), "a start of what was dead-lettered: got %v, want ErrStale", g.Err)
	told := g.Record != nil && g.Record.State == driver.DeadLettered && g.Record.Error != nil && g.Record.Error.Reason == driver.ReasonPoison
	c.expect(told, "with the reason, so that it can be finished: got %+v", g.Record)
	later := driver.Start{ID: "dead", Seq: 1, Attempt: 1, Copy: "c", Count: 1}
	c.expect(errors.Is(c.try(be, later).Err, driver.ErrSuperseded), "another version of it")
}

func skeletonAge(c *C) {
	be := c.backend()
	done := update("a", driver.Success)
	done.TTL = c.lease
	c.apply(be, done)
	life := c.lease
	if c.h.Bubble {
		life = time.Hour + 2*driver.MaxLease
	}
	c.sleep(c.lease + life - c.slack)
	c.stales(be, update("a", driver.Pending), "while the skeleton lives")
	if !c.h.Bubble {
		return
	}
	c.sleep(4 * time.Hour)
	c.apply(be, update("a", driver.Pending))
	c.state(be, "a", driver.Pending)
}

func ageProvisional(c *C) {
	be := c.backend()
	p := update("a", driver.Pending)
	p.Provisional = true
	confirmed := p
	confirmed.ID = "b"
	c.apply(be, p, confirmed)
	c.apply(be, update("b", driver.Pending))
	r := c.state(be, "a", driver.Pending)
	c.expect(r.Provisional, "a provisional record says so")
	if !c.h.Bubble {
		c.sleep(2 * c.lease)
		c.state(be, "a", driver.Pending)
		return
	}
	c.sleep(driver.ProvisionalAge - time.Second)
	c.state(be, "a", driver.Pending)
	c.sleep(2 * time.Second)
	c.state(be, "a", "")
	c.state(be, "b", driver.Pending)
	c.apply(be, p) // the id is free
}

func ageSafety(c *C) {
	be := c.backend()
	due := update("due", driver.Pending)
	due.Due = time.Now().Add(40 * 24 * time.Hour).UnixMilli()
	c.apply(be, update("a", driver.Pending), update("renewed", driver.Pending), due)
	if !c.h.Bubble {
		c.sleep(2 * c.lease)
		c.state(be, "a", driver.Pending)
		return
	}
	c.sleep(driver.SafetyAge - time.Hour)
	c.state(be, "a", driver.Pending)
	c.grant(be, start("renewed", "c"))
	c.sleep(2 * time.Hour)
	c.state(be, "a", "")
	c.state(be, "renewed", driver.Started)
	c.state(be, "due", driver.Pending)
	c.sleep(driver.SafetyAge + time.Hour)
	c.state(be, "renewed", "")
	c.state(be, "due", driver.Pending) // thirty days after it is due
	c.sleep(12 * 24 * time.Hour)
	c.state(be, "due", "")
}
