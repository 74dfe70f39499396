package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/chicory-go/chicory/driver"
)

var backendLifeCases = []Case{
	{Name: "Life/Info", Contract: "Info is constant, names the driver and the contract it was written for", run: backendInfo},
	{Name: "Life/Closed", Contract: "after Close every call returns ErrClosed, and Close may be called again", run: backendClosed},
	{Name: "Life/Cancelled", Contract: "a call whose context has ended returns the context's error and writes nothing", run: backendCancelled},
	{Name: "Life/Others", Contract: "clients share records, and closing one leaves the others alone", run: backendOthers},
	{Name: "Life/Namespaces", Contract: "two namespaces never see each other's records", run: backendNamespaces},
	{Name: "Life/Everything", Contract: "all methods may be called at once", run: backendEverything},
	{Name: "Life/Restart", Contract: "what was written survives a restart of the store, skeletons and control keys included",
		Denied: "a store that is not durable says so", restarts: true, run: backendRestart},
	{Name: "Control/Keys", Contract: "control keys are put, listed in order by prefix, and removed",
		Denied: "the backend serves no Control", run: onBackend(controlKeys)},
	{Name: "Control/TTL", Contract: "a control key lives for its ttl, and with a ttl of zero for ever",
		Denied: "the backend serves no Control", run: onBackend(controlTTL)},
	{Name: "Control/Await", Contract: "Await returns once something changed under its prefix after the revision, and misses nothing",
		Denied: "the backend serves no Control", run: onBackend(controlAwait)},
	{Name: "Control/Namespaces", Contract: "control keys of two namespaces never meet",
		Denied: "the backend serves no Control", run: onBackend(controlNamespaces)},
}

func backendInfo(c *C) {
	be := c.backend()
	i := be.Info()
	c.expect(i == be.Info() && i == c.backend().Info(), "Info is constant")
	c.expect(i.Name != "", "a driver has a name")
	c.expect(i.Contract >= 1 && i.Contract <= driver.Contract, "written for contract %d, this is %d", i.Contract, driver.Contract)
	c.expect(i.MaxBody == 0 || i.MaxBody >= 1<<20, "a result may have one mebibyte, MaxBody is %d", i.MaxBody)
}

func backendClosed(c *C) {
	be := c.backend()
	c.apply(be, update("a", driver.Success))
	c.must(be.Close(c.Context()), "close")
	ctx := c.Context()
	_, err := be.Start(ctx, []driver.Start{start("a", "c")})
	c.closed("Start", err)
	c.closed("Apply", driver.ItemError(be.Apply(ctx, []driver.Update{update("b", driver.Success)}), 0, 1))
	_, err = be.Get(ctx, []string{"a"})
	c.closed("Get", err)
	_, err = be.Delete(ctx, []string{"a"})
	c.closed("Delete", err)
	if n, ok := driver.As[driver.Notifier](be); ok {
		_, err = n.Notify(ctx)
		c.closed("Notify", err)
	}
	if k, ok := driver.As[driver.Control](be); ok {
		c.controlClosed(k)
	}
	c.must(be.Close(c.Context()), "close again")
}

func backendCancelled(c *C) {
	be := c.backend()
	c.apply(be, update("done", driver.Success))
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	_, err := be.Start(ctx, []driver.Start{start("a", "c")})
	c.expect(errors.Is(err, context.Canceled), "Start: got %v", err)
	err = driver.ItemError(be.Apply(ctx, []driver.Update{update("b", driver.Success)}), 0, 1)
	c.expect(errors.Is(err, context.Canceled), "Apply: got %v", err)
	_, err = be.Get(ctx, []string{"done"})
	c.expect(errors.Is(err, context.Canceled), "Get: got %v", err)
	_, err = be.Delete(ctx, []string{"done"})
	c.expect(errors.Is(err, context.Canceled), "Delete: got %v", err)
	c.state(be, "a", "")
	c.state(be, "b", "")
	c.state(be, "done", driver.Success)
}

func backendOthers(c *C) {
	be, leaving := c.backend(), c.backend()
	c.apply(leaving, update("a", driver.Pending))
	c.state(be, "a", driver.Pending)
	run := c.grant(be, start("a", "c"))
	c.must(leaving.Close(c.Context()), "close")
	c.grant(be, start("b", "c"))
	u := update("a", driver.Success)
	u.Run = run
	c.apply(be, u)
	c.state(c.backend(), "a", driver.Success)
}

func backendNamespaces(c *C) {
	one, two := c.backendIn("one"), c.backendIn("two")
	c.apply(one, update("a", driver.Success))
	c.state(two, "a", "")
	c.apply(two, update("a", driver.Pending)) // stale if they shared it
	n, err := two.Delete(c.Context(), []string{"a"})
	c.expect(err == nil && n == 0, "delete: got %d, %v", n, err)
	c.state(one, "a", driver.Success)
}

func backendEverything(c *C) {
	be := c.backend()
	s := c.listen(be)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				id := fmt.Sprintf("task-%d", (i*7+j)%25)
				be.Info()
				c.staleAtMost(be, update(id, driver.Pending))
				if gs, err := be.Start(c.Context(), []driver.Start{start(id, "c")}); err != nil || len(gs) != 1 {
					c.Errorf("start: %v", err)
				}
				if s != nil {
					s.watch(id)
				}
				if j%3 == 0 {
					c.staleAtMost(be, update(id, driver.Success))
				}
				if _, err := be.Get(c.Context(), []string{id}); err != nil {
					c.Errorf("get: %v", err)
				}
				if _, err := be.Delete(c.Context(), []string{id}); err != nil {
					c.Errorf("delete: %v", err)
				}
				if s != nil {
					s.Unwatch([]string{id})
				}
			}
		})
	}
	wg.Wait()
}

// staleAtMost applies u, which may be stale; there is no other reason to refuse
// it.
func (c *C) staleAtMost(be driver.Backend, u driver.Update) {
	c.TB.Helper()
	err := c.applyOne(be, u)
	c.expect(err == nil || errors.Is(err, driver.ErrStale), "apply: got %v", err)
}

func backendRestart(c *C) {
	be := c.backend()
	if be.Info().Durable && c.h.Restart == nil {
		c.Fatal("Info says durable: the harness must be able to Restart")
	}
	if !be.Info().Durable {
		return
	}
	u := fullUpdate("full")
	done := update("done", driver.Success)
	done.Body = []byte("42")
	c.apply(be, u, done, update("deleted", driver.Success), update("pending", driver.Pending))
	if _, err := be.Delete(c.Context(), []string{"deleted"}); err != nil {
		c.Errorf("delete: %v", err)
	}
	run := c.grant(be, start("started", "copy"))
	control, controls := driver.As[driver.Control](be)
	if controls {
		c.put(control, "paused/q", "by me", 0)
	}
	c.restart()
	be = c.backend()
	c.state(be, "full", u.State)
	c.sameUpdate(c.record(be, "full").Update, u)
	c.sameUpdate(c.state(be, "done", driver.Success).Update, done)
	c.state(be, "pending", driver.Pending)
	r := c.state(be, "started", driver.Started)
	c.expect(r.Run == run && r.Copy == "copy", "a start survives: got %+v", r)
	g := c.try(be, start("deleted", "c"))
	c.expect(errors.Is(g.Err, driver.ErrSuperseded), "a skeleton survives: got %v", g.Err)
	second := start("started", "copy")
	second.Count = 2
	c.expect(c.grant(be, second) > run, "runs go on rising")
	if control, ok := driver.As[driver.Control](be); ok {
		got, _ := c.entries(control, "paused/")
		c.expect(slices.Equal(got, []string{"paused/q=by me"}), "control keys that do not expire survive: got %q", got)
	}
}
