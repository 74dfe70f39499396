package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var optionalCases = []Case{
	{Name: "Inspector/Counts", Contract: "ready, leased, delayed and dead messages are counted exactly, and the oldest ready one's age is told",
		Denied: "the broker is no Inspector; where a lease is a session it says -1 of what it does not know, and is exact once what was pushed has settled", run: inspectorCounts},
	{Name: "Inspector/Queues", Contract: "the queues that exist are listed, ordered, as they were named",
		Denied: "the broker is no Inspector", run: inspectorQueues},
	{Name: "Purger/Purge", Contract: "emptying a queue removes what is not leased, delayed messages too, and returns the ids",
		Denied: "the broker is no Purger", run: purgerPurge},
	{Name: "Control/Keys", Contract: "control keys are put, listed in order by prefix, and removed",
		Denied: "the broker serves no Control", run: onBroker(controlKeys)},
	{Name: "Control/TTL", Contract: "a control key lives for its ttl, and with a ttl of zero for ever",
		Denied: "the broker serves no Control", run: onBroker(controlTTL)},
	{Name: "Control/Await", Contract: "Await returns once something changed under its prefix after the revision, and misses nothing",
		Denied: "the broker serves no Control", run: onBroker(controlAwait)},
	{Name: "Control/Namespaces", Contract: "control keys of two namespaces never meet",
		Denied: "the broker serves no Control", run: onBroker(controlNamespaces)},
}

func isClosed(err error) bool { return errors.Is(err, driver.ErrClosed) }

func contextOf(c *C) (context.Context, context.CancelFunc) { return context.WithCancel(c.Context()) }

// inspect returns the counts of queue q.
func (c *C) inspect(i driver.Inspector, queue string) driver.QueueStats {
	c.TB.Helper()
	qs, err := i.Inspect(c.Context(), []string{queue})
	c.must(err, "inspect")
	if len(qs) != 1 || qs[0].Queue != queue {
		c.Fatalf("inspect %s: got %+v", queue, qs)
	}
	return qs[0]
}

// counts compares the counts of queue q. What a broker pushes it may have pushed for
// nothing: then it is counted as ready again soon. What it cannot know is -1.
func (c *C) counts(b driver.Broker, ready, leased, delayed, dead int) {
	c.TB.Helper()
	i, _ := driver.As[driver.Inspector](b)
	session := b.Info().Lease == driver.LeaseSession
	tells := func(got, want int) bool { return got == want || got == -1 && session }
	for end := time.Now().Add(c.patience()); ; c.sleep(c.slack / 10) {
		s := c.inspect(i, q)
		if s.Ready == ready && tells(s.Leased, leased) && tells(s.Delayed, delayed) && s.Dead == dead {
			return
		}
		if !session || time.Now().After(end) {
			c.Errorf("got %d ready, %d leased, %d delayed, %d dead; want %d, %d, %d, %d", s.Ready, s.Leased, s.Delayed, s.Dead, ready, leased, delayed, dead)
			return
		}
	}
}

func inspectorCounts(c *C) {
	b := c.broker()
	i, ok := driver.As[driver.Inspector](b)
	if !ok {
		return
	}
	c.counts(b, 0, 0, 0, 0)
	ms := c.messages(12)
	ms[10].Delay, ms[11].Delay = 24*time.Hour, c.lease
	begin := time.Now()
	c.publish(b, ms[:11]...)
	c.bury(b, 3)
	c.counts(b, 10, 0, 1, 3)
	o := c.options()
	o.Prefetch = 4
	s := c.subscribeAs(b, o)
	ds := c.receive(s, 4)
	c.counts(b, 6, 4, 1, 3)
	c.ack(s, ds[0])
	c.counts(b, 6, 3, 1, 3)
	c.must(c.settleOne(s, driver.Settlement{Delivery: ds[1], Action: driver.Release, Delay: 12 * time.Hour}), "release with a delay")
	c.counts(b, 6, 2, 2, 3)
	c.release(s, ds[2])
	c.counts(b, 7, 1, 2, 3)
	c.publish(b, ms[11])
	c.counts(b, 7, 1, 3, 3)
	for range 8 {
		c.sleep(c.lease/8 + c.slack/8)
		c.must(s.Extend(c.Context(), ds[3:]), "extend")
	}
	c.counts(b, 8, 1, 2, 3)
	age := c.inspect(i, q).Oldest
	c.expect(age == -1 && b.Info().Lease == driver.LeaseSession || age >= c.lease/4 && age <= time.Since(begin)+c.slack, "the oldest ready message is %v old", age)
	c.expect(c.inspect(i, "unused").Ready == 0, "an unused queue is empty")
}

func inspectorQueues(c *C) {
	b := c.broker()
	i, ok := driver.As[driver.Inspector](b)
	if !ok {
		return
	}
	want := []string{"a", "b:c", "ü", "é#"}
	c.fill(b, 1, want...)
	got, err := i.Queues(c.Context())
	c.must(err, "queues")
	slices.Sort(want)
	c.expect(slices.Equal(got, want), "got %q, want %q", got, want)
}

func purgerPurge(c *C) {
	b := c.broker()
	p, ok := driver.As[driver.Purger](b)
	if !ok {
		return
	}
	ms := c.messages(130)
	ms[5].Delay, ms[6].Priority = time.Hour, 9
	c.fill(b, 2, "other")
	s := c.worker()
	held := c.message()
	c.publish(b, held)
	d := c.one(s)
	c.bury(b, 1)
	c.publish(b, ms...)
	got, err := p.PurgeQueue(c.Context(), q)
	c.must(err, "purge")
	c.same(got, messageIDs(ms), "the ids of what was removed")
	c.none(s, c.lease/4, "what was removed does not come")
	c.ack(s, d)
	c.expect(len(c.deadOf(b, q)) == 1, "dead letters stay")
	o := c.worker("other")
	c.ack(o, c.receive(o, 2)...)
	ms[0].Delay = 0
	c.publish(b, ms[0]) // its id is free
	c.ack(s, c.one(s))
}

// onBroker runs f on the Control of a broker, if there is one.
func onBroker(f func(*C, func(ns string) driver.Control)) func(*C) {
	return func(c *C) { c.control(f, func(ns string) any { return c.brokerIn(ns) }) }
}

// onBackend runs f on the Control of a backend, if there is one.
func onBackend(f func(*C, func(ns string) driver.Control)) func(*C) {
	return func(c *C) { c.control(f, func(ns string) any { return c.backendIn(ns) }) }
}

func (c *C) control(f func(*C, func(ns string) driver.Control), open func(ns string) any) {
	k, ok := driver.As[driver.Control](open(namespace))
	if !ok {
		return
	}
	if _, _, err := k.Entries(c.Context(), ""); errors.Is(err, errors.ErrUnsupported) {
		c.expect(errors.Is(k.Put(c.Context(), "k", nil, 0), errors.ErrUnsupported), "a store without Control refuses all of it")
		return
	}
	f(c, func(ns string) driver.Control {
		k, _ := driver.As[driver.Control](open(ns))
		return k
	})
}

func (c *C) entries(k driver.Control, prefix string) (out []string, rev uint64) {
	c.TB.Helper()
	es, rev, err := k.Entries(c.Context(), prefix)
	c.must(err, "entries")
	for _, e := range es {
		out = append(out, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	return out, rev
}

func (c *C) put(k driver.Control, key, value string, ttl time.Duration) {
	c.TB.Helper()
	c.must(k.Put(c.Context(), key, []byte(value), ttl), "put %s", key)
}

func controlKeys(c *C, open func(ns string) driver.Control) {
	k, other := open(namespace), open(namespace)
	for _, key := range []string{"b/2", "a/1", "b/1", "b", "ba", "b/é"} {
		c.put(k, key, "v"+key, 0)
	}
	c.put(other, "b/1", "again", 0)
	got, _ := c.entries(other, "b/")
	c.expect(slices.Equal(got, []string{"b/1=again", "b/2=vb/2", "b/é=vb/é"}), "under b/: got %q", got)
	got, _ = c.entries(k, "")
	c.expect(len(got) == 6, "all: got %q", got)
	c.must(k.Remove(c.Context(), "b/1", "b/é", "unknown"), "remove")
	got, _ = c.entries(other, "b/")
	c.expect(slices.Equal(got, []string{"b/2=vb/2"}), "after Remove: got %q", got)
	value := []byte("mine")
	c.must(k.Put(c.Context(), "own", value, 0), "put")
	value[0] = '!'
	got, _ = c.entries(k, "own")
	c.expect(slices.Equal(got, []string{"own=mine"}), "a store copies what it keeps: got %q", got)
}

func controlTTL(c *C, open func(ns string) driver.Control) {
	k := open(namespace)
	c.put(k, "short", "", c.lease)
	c.put(k, "renewed", "", c.lease)
	c.put(k, "ever", "", 0)
	c.sleep(c.lease / 2)
	c.put(k, "renewed", "", c.lease)
	got, _ := c.entries(k, "")
	c.expect(len(got) == 3, "none has expired: got %q", got)
	c.sleep(c.lease*3/4 - c.slack/2)
	got, _ = c.entries(k, "")
	c.expect(slices.Equal(got, []string{"ever=", "renewed="}), "one has expired: got %q", got)
	c.sleep(c.lease + c.slack)
	got, _ = c.entries(k, "")
	c.expect(slices.Equal(got, []string{"ever="}), "two have expired: got %q", got)
}

func controlAwait(c *C, open func(ns string) driver.Control) {
	k, other := open(namespace), open(namespace)
	_, rev := c.entries(k, "p/")
	awaited := func(after uint64) chan error {
		done := make(chan error, 1)
		go func() { done <- k.Await(c.Context(), "p/", after) }()
		return done
	}
	woken := func(done chan error, what string) {
		c.TB.Helper()
		select {
		case err := <-done:
			c.must(err, "await")
		case <-time.After(c.lease/2 + c.slack):
			c.Fatalf("%s does not wake Await", what)
		}
	}
	done := awaited(rev)
	c.sleep(c.lease / 8)
	begin := time.Now()
	c.put(other, "p/1", "x", 0)
	woken(done, "a put")
	c.expect(time.Since(begin) <= c.slack, "a put woke Await after %v", time.Since(begin))
	woken(awaited(rev), "a change between Entries and Await")
	_, rev = c.entries(k, "p/")
	done = awaited(rev)
	c.sleep(c.lease / 8)
	c.must(other.Remove(c.Context(), "p/1"), "remove")
	woken(done, "a removal")
	_, rev = c.entries(k, "p/")
	ctx, cancel := context.WithTimeout(c.Context(), c.lease/4)
	defer cancel()
	err := k.Await(ctx, "p/", rev)
	c.expect(errors.Is(err, context.DeadlineExceeded), "Await obeys its context: got %v", err)
}

func controlNamespaces(c *C, open func(ns string) driver.Control) {
	k, other := open("one"), open("two")
	c.put(k, "key", "1", 0)
	got, _ := c.entries(other, "")
	c.expect(len(got) == 0, "another namespace sees %q", got)
	c.must(other.Remove(c.Context(), "key"), "remove")
	got, _ = c.entries(k, "")
	c.expect(len(got) == 1, "another namespace removed it")
}
