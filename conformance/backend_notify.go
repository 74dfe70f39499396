package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

const noNotifier = "the backend is no Notifier: waiters read"

var notifyCases = []Case{
	{Name: "Notify/Watch", Contract: "a watched record is pushed when it becomes terminal, whole, at once", Denied: noNotifier, run: notifyWatch},
	{Name: "Notify/Race", Contract: "watching, then reading, misses no end, however they race", Denied: noNotifier, run: notifyRace},
	{Name: "Notify/Reply", Contract: "a terminal record is pushed to the address it replies to, watched or not", Denied: noNotifier, run: notifyReply},
	{Name: "Notify/Many", Contract: "everyone who watches a record is told, each once per end at least", Denied: noNotifier, run: notifyMany},
	{Name: "Notify/Terminal", Contract: "only terminal records are pushed", Denied: noNotifier, run: notifyTerminal},
	{Name: "Notify/Close", Contract: "Next obeys its context, and Close ends it with ErrClosed", Denied: noNotifier, run: notifyClose},
	{Name: "Notify/Namespaces", Contract: "records of another namespace are not pushed", Denied: noNotifier, run: notifyNamespaces},
}

// stream is a stream of notifications, read in the background.
type stream struct {
	driver.Notifications
	c   *C
	mu  sync.Mutex
	got []*driver.Record
	gap int
	any chan struct{}
}

// listen opens a stream on be, nil if it has none.
func (c *C) listen(be driver.Backend) *stream {
	c.TB.Helper()
	n, ok := driver.As[driver.Notifier](be)
	if !ok {
		return nil
	}
	ns, err := n.Notify(c.Context())
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	c.must(err, "notify")
	s := &stream{Notifications: ns, c: c, any: make(chan struct{}, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			rs, err := ns.Next(context.Background())
			if err != nil {
				if !isClosed(err) {
					c.Errorf("next: %v", err)
				}
				return
			}
			s.mu.Lock()
			s.got = append(s.got, rs...)
			if rs == nil {
				s.gap++
			}
			s.mu.Unlock()
			select {
			case s.any <- struct{}{}:
			default:
			}
		}
	}()
	c.Cleanup(func() { ns.Close(); <-ended })
	return s
}

func (s *stream) watch(ids ...string) {
	s.c.TB.Helper()
	s.c.must(s.Watch(s.c.Context(), ids), "watch")
}

// find returns the pushed record of id, within d, nil if there is none.
func (s *stream) find(id string, d time.Duration) *driver.Record {
	end := time.NewTimer(d)
	defer end.Stop()
	for {
		s.mu.Lock()
		for _, r := range s.got {
			if r.ID == id {
				s.mu.Unlock()
				return r
			}
		}
		s.mu.Unlock()
		select {
		case <-s.any:
		case <-end.C:
			return nil
		}
	}
}

func notifyWatch(c *C) {
	be, other := c.backend(), c.backend()
	s := c.listen(be)
	if s == nil {
		return
	}
	for i, state := range terminals {
		id := fmt.Sprint("task-", i)
		s.watch(id)
		u := update(id, state)
		u.Body, u.ContentType, u.Error, u.TTL = []byte("result\x00"), "x/y", fullUpdate("").Error, time.Hour
		c.sleep(c.lease / 20)
		begin := time.Now()
		c.apply(other, u)
		r := s.find(id, c.patience())
		if r == nil {
			c.Fatalf("%s is not pushed", state)
		}
		c.expect(time.Since(begin) <= c.slack, "%s was pushed after %v", state, time.Since(begin))
		c.sameUpdate(r.Update, u)
	}
}

func notifyRace(c *C) {
	be, other := c.backend(), c.backend()
	s := c.listen(be)
	if s == nil {
		return
	}
	for i := range 300 {
		id := fmt.Sprint("task-", i)
		var wg sync.WaitGroup
		wg.Go(func() { c.apply(other, update(id, driver.Success)) })
		var read *driver.Record
		wg.Go(func() {
			s.watch(id)
			read = c.record(be, id)
		})
		wg.Wait()
		if read == nil && s.find(id, c.lease) == nil {
			c.Fatalf("round %d: not terminal when read after the watch, and not pushed", i)
		}
		s.Unwatch([]string{id})
	}
}

func notifyReply(c *C) {
	be, other := c.backend(), c.backend()
	s := c.listen(be)
	if s == nil || s.Address() == "" {
		return
	}
	t := c.listen(other)
	c.expect(s.Address() != t.Address(), "each process has an address of its own")
	u := update("own", driver.Pending)
	u.ReplyTo = s.Address()
	c.apply(other, u)
	c.grant(other, start("own", "c"))
	c.apply(other, update("own", driver.Success)) // the record knows where to
	with := update("with", driver.Failure)
	with.ReplyTo = s.Address()
	c.apply(other, with)
	c.expect(s.find("own", c.patience()) != nil && s.find("with", c.patience()) != nil, "both are pushed to their address")
	c.expect(t.find("own", c.slack) == nil, "and not to another")
	with.ID, with.ReplyTo = "gone", "an-address-that-is-gone"
	c.apply(other, with) // nobody there is no error
}

func notifyMany(c *C) {
	be := c.backend()
	var streams []*stream
	for range 6 {
		s := c.listen(c.backend())
		if s == nil {
			return
		}
		streams = append(streams, s)
	}
	var watched []string
	for i := range 150 {
		watched = append(watched, fmt.Sprint("task-", i))
	}
	for _, s := range streams {
		s.watch(watched...)
		s.watch(watched[0])
	}
	var us []driver.Update
	for _, id := range watched {
		us = append(us, update(id, driver.Success))
	}
	c.apply(be, us...)
	for i, s := range streams {
		for _, id := range watched {
			if s.find(id, c.patience()) == nil {
				c.Fatalf("stream %d is not told of %s", i, id)
			}
		}
	}
}

func notifyTerminal(c *C) {
	be := c.backend()
	s := c.listen(be)
	if s == nil {
		return
	}
	s.watch("a", "other")
	c.apply(be, update("a", driver.Pending))
	run := c.grant(be, start("a", "c"))
	u := version(update("a", driver.Retry), 0, 0)
	u.Run = run
	c.apply(be, u)
	c.expect(s.find("a", c.lease/4) == nil, "nothing is pushed before the end")
	c.apply(be, version(update("a", driver.DeadLettered), 0, 1))
	r := s.find("a", c.patience())
	c.expect(r != nil && r.State == driver.DeadLettered, "the end is pushed: got %+v", r)
	s.Unwatch([]string{"other"})
	s.Unwatch([]string{"never"})
}

func notifyClose(c *C) {
	be := c.backend()
	n, ok := driver.As[driver.Notifier](be)
	if !ok {
		return
	}
	ns, err := n.Notify(c.Context())
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	c.must(err, "notify")
	ctx, cancel := context.WithTimeout(c.Context(), c.lease/8)
	defer cancel()
	begin := time.Now()
	_, err = ns.Next(ctx)
	c.expect(errors.Is(err, context.DeadlineExceeded), "Next obeys its context: got %v", err)
	c.expect(time.Since(begin) <= c.lease/8+c.slack, "after %v", time.Since(begin))
	ended := make(chan error, 1)
	go func() {
		_, err := ns.Next(context.Background())
		ended <- err
	}()
	c.sleep(c.lease / 20)
	c.must(ns.Close(), "close")
	select {
	case err := <-ended:
		c.closed("Next", err)
	case <-time.After(c.patience()):
		c.Fatalf("Close does not end Next")
	}
	c.must(ns.Close(), "close again")
	c.expect(ns.Watch(c.Context(), []string{"x"}) != nil, "Watch after Close is an error")
	ns.Unwatch([]string{"x"})
}

func notifyNamespaces(c *C) {
	one, two := c.backendIn("one"), c.backendIn("two")
	s := c.listen(one)
	if s == nil {
		return
	}
	s.watch("a")
	c.apply(two, update("a", driver.Success))
	c.expect(s.find("a", c.lease/4) == nil, "another namespace's record is pushed")
	c.apply(one, update("a", driver.Failure))
	r := s.find("a", c.patience())
	c.expect(r != nil && r.State == driver.Failure, "its own is: got %+v", r)
}
