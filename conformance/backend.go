package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func backendCases() []Case {
	return suite("Backend", recordCases, ruleCases, ageCases, notifyCases, backendLifeCases)
}

var recordCases = []Case{
	{Name: "Record/Fields", Contract: "a record reads as the update that won, every field kept", run: recordFields},
	{Name: "Record/Absent", Contract: "Get answers in the order of the ids, nil for those without a record", run: recordAbsent},
	{Name: "Record/Times", Contract: "a record tells when it was first published, started, retried and finished", run: recordTimes},
	{Name: "Record/Batch", Contract: "Apply, Start, Get and Delete work on batches of any size, with answers per item", run: recordBatch},
	{Name: "Record/PerItem", Contract: "a refused update of a batch leaves the others written, and errors are in their place", run: recordPerItem},
	{Name: "Record/Twice", Contract: "updates of one task in one batch are applied in order", run: recordTwice},
	{Name: "Record/Retention", Contract: "a driver copies what it keeps, and a record that was returned never changes", run: recordRetention},
	{Name: "Record/Oversize", Contract: "a result up to MaxBody is stored, a larger one is ErrTooLarge and leaves its batch-mates written",
		Denied: "without a limit, four mebibytes are stored", run: recordOversize},
	{Name: "Record/Data", Contract: "results are stored byte by byte, and nil apart from nothing is not asked for", run: recordData},
	{Name: "Record/Concurrent", Contract: "of concurrent updates of one record exactly those win that the order of versions lets win", run: recordConcurrent},
	{Name: "Record/Delete", Contract: "Delete removes terminal records only, and returns how many", run: recordDelete},
}

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

func recordFields(c *C) {
	be := c.backend()
	u := fullUpdate("full")
	c.apply(be, u)
	c.sameUpdate(c.record(c.backend(), "full").Update, u)
	for i, s := range terminals {
		id := fmt.Sprint("terminal-", i)
		u := update(id, s)
		u.TTL, u.ContentType, u.Body, u.Error = time.Hour, "x/y", []byte("result"), fullUpdate("").Error
		c.apply(be, u)
		c.sameUpdate(c.record(be, id).Update, u)
	}
	p := update("pending", driver.Pending)
	p.Due, p.ReplyTo = time.Now().Add(time.Hour).UnixMilli(), "r"
	c.apply(be, p)
	c.sameUpdate(c.record(be, "pending").Update, p)
	c.grant(be, driver.Start{ID: "pending", Attempt: 3, Copy: "copy", Count: 4, Once: true})
	r := c.record(be, "pending")
	c.expect(r.State == driver.Started && r.Attempt == 3 && r.Copy == "copy" && r.Count == 4 && r.Once && r.ReplyTo == "r",
		"a started record says what started: got %+v", r)
	done := update("pending", driver.Success)
	done.Run = r.Run
	c.apply(be, done)
	c.expect(c.record(be, "pending").ReplyTo == "r", "ReplyTo stays with the record")
}

func recordAbsent(c *C) {
	be := c.backend()
	c.apply(be, update("a", driver.Pending), update("b", driver.Success))
	rs, err := be.Get(c.Context(), []string{"none", "b", "a", "none", "b"})
	c.must(err, "get")
	var got []string
	for _, r := range rs {
		if r == nil {
			got = append(got, "nil")
		} else {
			got = append(got, r.ID)
		}
	}
	c.expect(slices.Equal(got, []string{"nil", "b", "a", "nil", "b"}), "got %v", got)
	rs, err = be.Get(c.Context(), nil)
	c.expect(err == nil && len(rs) == 0, "no ids: got %v, %v", rs, err)
	c.must(be.Apply(c.Context(), nil), "no updates")
	gs, err := be.Start(c.Context(), nil)
	c.expect(err == nil && len(gs) == 0, "no starts: got %v, %v", gs, err)
}

func recordTimes(c *C) {
	be := c.backend()
	begin := time.Now().UnixMilli()
	u := update("t", driver.Pending)
	c.apply(be, u)
	c.sleep(c.lease / 20)
	run := c.grant(be, start("t", "c"))
	c.sleep(c.lease / 20)
	u.State, u.Run, u.Next = driver.Retry, run, &driver.Message{ID: "t", Queue: q, Seq: 1, Attempt: 2}
	c.apply(be, u)
	c.sleep(c.lease / 20)
	s := start("t", "d")
	s.Seq = 1
	run = c.grant(be, s)
	u = update("t", driver.Success)
	u.Seq, u.Run = 1, run
	c.apply(be, u)
	r := c.record(be, "t")
	gap := (c.lease / 40).Milliseconds()
	const skew = 2000 // the store's clock may be another machine's
	c.expect(r.PendingAt >= begin-skew && r.PendingAt <= time.Now().UnixMilli()+skew, "PendingAt is %d, it is now %d", r.PendingAt, begin)
	c.expect(r.RetriedAt >= r.PendingAt+gap && r.StartedAt >= r.RetriedAt+gap && r.FinishedAt >= r.StartedAt,
		"times in order: pending %d, retried %d, started %d, finished %d", r.PendingAt, r.RetriedAt, r.StartedAt, r.FinishedAt)
}

func recordBatch(c *C) {
	be := c.backend()
	const n = 300
	var us []driver.Update
	var ss []driver.Start
	var want []string
	for i := range n {
		id := fmt.Sprint("task-", i)
		want = append(want, id)
		us = append(us, update(id, driver.Pending))
		ss = append(ss, start(id, fmt.Sprint("copy-", i)))
	}
	c.apply(be, us...)
	gs, err := be.Start(c.Context(), ss)
	c.must(err, "start")
	if len(gs) != n {
		c.Fatalf("%d grants for %d starts", len(gs), n)
	}
	for i := range us {
		c.expect(gs[i].Err == nil && gs[i].Run > 0, "start %d: got %+v", i, gs[i])
		us[i].State, us[i].Run, us[i].Body = driver.Success, gs[i].Run, []byte(fmt.Sprint(i))
	}
	c.apply(be, us...)
	rs, err := be.Get(c.Context(), want)
	c.must(err, "get")
	for i, r := range rs {
		c.expect(r != nil && r.State == driver.Success && r.ID == want[i] && string(r.Body) == fmt.Sprint(i) && r.Copy == fmt.Sprint("copy-", i), "record %d: got %+v", i, r)
	}
	deleted, err := be.Delete(c.Context(), want)
	c.expect(err == nil && deleted == n, "delete: got %d, %v", deleted, err)
	for i, r := range mustGet(c, be, want) {
		c.expect(r == nil, "record %d is there after Delete", i)
	}
}

func mustGet(c *C, be driver.Backend, ids []string) []*driver.Record {
	c.TB.Helper()
	rs, err := be.Get(c.Context(), ids)
	c.must(err, "get")
	return rs
}

func recordPerItem(c *C) {
	be := c.backend()
	const n = 140
	c.apply(be, update("task-110", driver.Success))
	var us []driver.Update
	for i := range n {
		us = append(us, update(fmt.Sprint("task-", i), driver.Pending))
	}
	err := be.Apply(c.Context(), us)
	var be2 *driver.BatchError
	if !errors.As(err, &be2) || len(be2.Errs) != n {
		c.Fatalf("got %v, want a *BatchError of %d", err, n)
	}
	for i, err := range be2.Errs {
		c.expect(errors.Is(err, driver.ErrStale) == (i == 110), "item %d: got %v", i, err)
	}
	for i, r := range mustGet(c, be, []string{"task-109", "task-110", "task-139"}) {
		c.expect(r != nil && (r.State == driver.Success) == (i == 1), "record %d: got %+v", i, r)
	}
	gs, err := be.Start(c.Context(), []driver.Start{start("task-109", "c"), start("task-110", "c"), start("task-111", "c")})
	c.must(err, "start")
	c.expect(gs[0].Err == nil && errors.Is(gs[1].Err, driver.ErrStale) && gs[2].Err == nil, "grants: got %+v", gs)
}

func recordTwice(c *C) {
	be := c.backend()
	next := update("a", driver.Pending)
	next.Seq = 1
	err := be.Apply(c.Context(), []driver.Update{update("a", driver.Pending), update("a", driver.Success), update("a", driver.Failure), next})
	c.expect(driver.ItemError(err, 0, 4) == nil && driver.ItemError(err, 1, 4) == nil, "the first two are written: got %v", err)
	c.expect(errors.Is(driver.ItemError(err, 2, 4), driver.ErrStale) && errors.Is(driver.ItemError(err, 3, 4), driver.ErrStale), "the others are stale: got %v", err)
	c.state(be, "a", driver.Success)
	gs, err := be.Start(c.Context(), []driver.Start{start("b", "x"), start("b", "x"), start("b", "y")})
	c.must(err, "start")
	c.expect(gs[0].Err == nil && gs[1].Err == nil && gs[1].Run > gs[0].Run && errors.Is(gs[2].Err, driver.ErrSuperseded), "starts of one task: got %+v", gs)
}

func recordRetention(c *C) {
	be := c.backend()
	u := fullUpdate("a")
	c.apply(be, u)
	u.Body[0], u.Error.Message, u.Error.History[0].Kind, u.Next.Envelope[0] = '!', "changed", "changed", '!'
	before := c.record(be, "a")
	c.sameUpdate(before.Update, fullUpdate("a"))
	kept := before.Clone()
	done := update("a", driver.Success)
	done.Epoch, done.Seq, done.Body = 1, 2, []byte("done")
	c.apply(be, done)
	r := c.record(be, "a")
	c.sameUpdate(before.Update, kept.Update)
	r.Body = append(r.Body[:0:0], r.Body...)
	r.State = driver.Failure
	c.state(be, "a", driver.Success)
}

func recordOversize(c *C) {
	be := c.backend()
	limit := be.Info().MaxBody
	size := limit
	if limit == 0 {
		size = 4 << 20
	}
	u := update("large", driver.Success)
	u.Body = make([]byte, size)
	u.Body[size-1] = 'x'
	c.apply(be, u)
	r := c.record(be, "large")
	c.expect(len(r.Body) == size && r.Body[size-1] == 'x', "%d bytes are read as %d", size, len(r.Body))
	if limit == 0 {
		return
	}
	us := []driver.Update{update("x", driver.Success), update("larger", driver.Success), update("z", driver.Success)}
	us[1].Body = make([]byte, limit+1)
	err := be.Apply(c.Context(), us)
	c.expect(errors.Is(driver.ItemError(err, 1, 3), driver.ErrTooLarge), "%d bytes: got %v, want ErrTooLarge", limit+1, err)
	c.state(be, "x", driver.Success)
	c.state(be, "z", driver.Success)
	c.state(be, "larger", "")
}

func recordData(c *C) {
	be := c.backend()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, body := range [][]byte{nil, {0}, all, []byte("\r\nnull"), []byte("é\xff")} {
		u := update(fmt.Sprint("id:._-", i), driver.Success)
		u.Body, u.ContentType = body, fmt.Sprintf("type/%d; é", i)
		c.apply(be, u)
		r := c.record(be, u.ID)
		c.expect(string(r.Body) == string(body) && r.ContentType == u.ContentType, "got %q of %q, want %q", r.Body, r.ContentType, body)
	}
}

func recordConcurrent(c *C) {
	be, other := c.backend(), c.backend()
	for round := range 12 {
		id := fmt.Sprint("task-", round)
		var wg sync.WaitGroup
		var mu sync.Mutex
		granted := map[uint64]int{}
		won := 0
		for i := range 16 {
			to := be
			if i%2 == 1 {
				to = other
			}
			wg.Go(func() {
				g := c.try(to, start(id, "c"))
				mu.Lock()
				granted[g.Run]++
				mu.Unlock()
			})
		}
		wg.Wait()
		most := slices.Max(keysOf(granted))
		c.expect(len(granted) == 16, "each start is a run of its own: got %v", granted)
		for i := range 16 {
			wg.Go(func() {
				u := update(id, driver.Success)
				u.Run, u.Body = most, []byte(fmt.Sprint(i))
				if c.applyOne(be, u) == nil {
					mu.Lock()
					won++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		c.expect(won == 1, "one of 16 equal verdicts wins: got %d", won)
	}
}

func keysOf[K comparable, V any](m map[K]V) (ks []K) {
	for k := range m {
		ks = append(ks, k)
	}
	return ks
}

func recordDelete(c *C) {
	be := c.backend()
	c.apply(be, update("pending", driver.Pending), update("success", driver.Success), update("cancelled", driver.Cancelled))
	c.grant(be, start("started", "c"))
	retry := update("retry", driver.Retry)
	retry.Next = c.message()
	c.apply(be, retry)
	n, err := be.Delete(c.Context(), []string{"pending", "started", "retry", "success", "unknown", "cancelled"})
	c.expect(err == nil && n == 2, "two are terminal: got %d, %v", n, err)
	c.state(be, "pending", driver.Pending)
	c.state(be, "started", driver.Started)
	c.state(be, "retry", driver.Retry)
	c.state(be, "success", "")
	n, err = be.Delete(c.Context(), []string{"success"})
	c.expect(err == nil && n == 0, "deleting again: got %d, %v", n, err)
}
