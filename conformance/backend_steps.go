package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// backend opens a client of its own.
func (c *C) backend() driver.Backend { return c.backendIn(namespace) }

func (c *C) backendIn(ns string) driver.Backend {
	c.TB.Helper()
	if c.h.OpenBackend == nil {
		c.Fatal("the harness does not open backends")
	}
	be := c.h.OpenBackend(c.TB, ns, nil)
	if be == nil {
		c.Fatal("the harness opened no backend")
	}
	c.Cleanup(func() { be.Close(context.Background()) })
	return be
}

// update is an update in state, of version 0.0.
func update(id string, s driver.State) driver.Update {
	return driver.Update{ID: id, Attempt: 1, State: s}
}

func (c *C) apply(be driver.Backend, us ...driver.Update) {
	c.TB.Helper()
	c.must(be.Apply(c.Context(), us), "apply %s to %s", us[0].State, us[0].ID)
}

// applyOne applies u and returns its error.
func (c *C) applyOne(be driver.Backend, u driver.Update) error {
	return driver.ItemError(be.Apply(c.Context(), []driver.Update{u}), 0, 1)
}

func (c *C) stales(be driver.Backend, u driver.Update, what string) {
	c.TB.Helper()
	err := c.applyOne(be, u)
	c.expect(errors.Is(err, driver.ErrStale), "%s: got %v, want ErrStale", what, err)
}

func (c *C) record(be driver.Backend, id string) *driver.Record {
	c.TB.Helper()
	rs, err := be.Get(c.Context(), []string{id})
	c.must(err, "get %s", id)
	if len(rs) != 1 {
		c.Fatalf("Get of one id returned %d records", len(rs))
	}
	return rs[0]
}

// state fails the case unless the record of id is in state; "" is none.
func (c *C) state(be driver.Backend, id string, want driver.State) *driver.Record {
	c.TB.Helper()
	r := c.record(be, id)
	got := driver.State("")
	if r != nil {
		got = r.State
	}
	if got != want {
		c.Fatalf("the record of %s is %q, want %q", id, got, want)
	}
	return r
}

func start(id, stored string) driver.Start {
	return driver.Start{ID: id, Attempt: 1, Copy: stored, Count: 1}
}

// grant starts s, which must be granted, and returns the run.
func (c *C) grant(be driver.Backend, s driver.Start) uint64 {
	c.TB.Helper()
	g := c.try(be, s)
	c.must(g.Err, "start %s", s.ID)
	return g.Run
}

func (c *C) try(be driver.Backend, s driver.Start) driver.Grant {
	c.TB.Helper()
	gs, err := be.Start(c.Context(), []driver.Start{s})
	c.must(err, "start %s", s.ID)
	if len(gs) != 1 {
		c.Fatalf("one start has %d grants", len(gs))
	}
	return gs[0]
}

// terminal states, and those among them that a worker reports.
var terminals = []driver.State{driver.Success, driver.Failure, driver.DeadLettered, driver.Expired, driver.Cancelled}

func fullUpdate(id string) driver.Update {
	next := &driver.Message{ID: id, Queue: "q:é", Epoch: 1, Seq: 3, Attempt: 2, Deliveries: 1, Deadline: 77, ParkedSince: 66,
		Priority: 9, Delay: 1500 * time.Millisecond, Once: true, NoRecord: false, ReplyTo: "here", Envelope: []byte("\x00\xff")}
	return driver.Update{ID: id, Epoch: 1, Seq: 2, Attempt: 1, State: driver.Retry, Once: true, Next: next, Due: 1_000_000_000_001,
		Error: &driver.DeadInfo{Reason: driver.ReasonFailed, Name: "t", Kind: "k", Message: "m", Stack: "s", Worker: "w", Attempts: 1,
			Deliveries: 1, FirstAt: 5, LastAt: 6, History: []driver.FailedAttempt{{Attempt: 1, At: 5, Kind: "k", Message: "m", Worker: "w"}}},
		ContentType: "application/json", Body: []byte("partial\x00"), TTL: time.Hour, ReplyTo: "reply-to"}
}

// sameUpdate compares all fields of an update but Run.
func (c *C) sameUpdate(got, want driver.Update) {
	c.TB.Helper()
	if (got.Next == nil) != (want.Next == nil) || (got.Error == nil) != (want.Error == nil) {
		c.Fatalf("Next or Error changed: got %+v, want %+v", got, want)
	}
	if got.Next != nil {
		c.sameMessage(got.Next, want.Next)
		c.expect(got.Next.Delay == want.Next.Delay, "Next.Delay: got %v, want %v", got.Next.Delay, want.Next.Delay)
	}
	if got.Error != nil {
		c.expect(fmt.Sprintf("%+v", *got.Error) == fmt.Sprintf("%+v", *want.Error), "Error: got %+v, want %+v", *got.Error, *want.Error)
	}
	c.expect(string(got.Body) == string(want.Body), "Body: got %q, want %q", got.Body, want.Body)
	for _, u := range []*driver.Update{&got, &want} {
		u.Next, u.Error, u.Body, u.Run = nil, nil, nil, 0
	}
	c.expect(fmt.Sprintf("%+v", got) == fmt.Sprintf("%+v", want), "fields: got %+v, want %+v", got, want)
}
