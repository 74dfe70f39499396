package conformance

import (
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
				switch err := c.applyOne(be, u); {
				case err == nil:
					mu.Lock()
					won++
					mu.Unlock()
				default:
					c.expect(errors.Is(err, driver.ErrStale), "a verdict beside others: got %v, want ErrStale", err)
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
