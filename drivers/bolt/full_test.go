package bolt_test

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
)

var serial atomic.Int64 // of messages that fill a file

// fillUp publishes messages of each size until the file takes no more, and
// returns the IDs that were acknowledged.
func fillUp(p *pair, sizes ...int) (ids []string) {
	p.t.Helper()
	for i, size := range sizes {
		if i > 0 {
			time.Sleep(2 * time.Second) // the file is tried again
		}
		for {
			m := tracked(fmt.Sprint("full-", serial.Add(1)))
			m.Envelope = make([]byte, size)
			if err := driver.ItemError(p.broker.Publish(p.t.Context(), []*driver.Message{m}), 0, 1); err != nil {
				wantErr(p.t, "Publish", err, driver.ErrFull)
				wantErr(p.t, "Publish", err, driver.ErrTransient)
				want(p.t, "the record of the refused", p.state(m.ID), "")
				break
			}
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// drain works off what is there, and returns the IDs.
func drain(p *pair) (ids []string) {
	p.t.Helper()
	for p.stats().Ready > 0 {
		for _, d := range p.receive(50) {
			p.succeed(d, time.Hour)
			ids = append(ids, d.ID)
		}
	}
	return ids
}

// checkFull fills p's file. What was acknowledged is there, also after a crash;
// it can be worked off, and then there is room again.
func checkFull(t *testing.T, p *pair) {
	t.Helper()
	stored := fillUp(p, 16<<10)
	if len(stored) < 100 {
		t.Fatalf("only %d messages fit", len(stored))
	}
	want(t, "messages", p.stats().Ready, len(stored))
	p = p.crash()
	want(t, "messages after a crash", p.stats().Ready, len(stored))
	got := drain(p)
	want(t, "worked off", len(got), len(stored))
	for i, id := range got {
		want(t, "order", id, stored[i])
		want(t, "state", p.state(id), driver.Success)
	}
	time.Sleep(2 * time.Second) // new messages are tried again
	p.publish(message("again"))
	want(t, "published again", p.one().ID, "again")
}

// checkLastPage fills p's file until not even the smallest message fits. Still
// it opens and closes, and can be worked off in one call.
func checkLastPage(t *testing.T, p *pair) {
	t.Helper()
	stored := fillUp(p, 16<<10, 2000, 100, 1)
	p = p.reopen().crash()
	var ss []driver.Settlement
	for len(ss) < min(len(stored), 1000) {
		for _, d := range p.receive(1000) {
			ss = append(ss, driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq,
				Attempt: d.Attempt, State: driver.Success, TTL: time.Hour}})
		}
	}
	p.settle(ss...)
	want(t, "the others worked off", len(drain(p)), len(stored)-len(ss))
	time.Sleep(2 * time.Second)
	p.publish(message("again"))
}

func TestMaxSize(t *testing.T) {
	t.Parallel()
	for name, check := range map[string]func(*testing.T, *pair){"Full": checkFull, "LastPage": checkLastPage} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { check(t, newPair(t, &bolt.Options{MaxSize: 32 << 20})) })
		})
	}
}

// TestFullSweeps fills a file with results. Soon after they have expired there is
// room again, though their IDs are still known, and though all of them rest.
func TestFullSweeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &bolt.Options{MaxSize: 16 << 20}
		p := newPair(t, o)
		n := len(fillUp(p, 16<<10))
		for range n {
			d := p.one()
			p.settle(driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, Attempt: 1,
				State: driver.Success, TTL: 10 * time.Minute, Body: make([]byte, 15<<10)}})
		}
		p.close()
		p = openPair(t, p.path, o)
		first := fillUp(p, 16<<10)
		if len(first) > n/4 {
			t.Fatalf("%d messages fit beside the results of %d", len(first), n)
		}
		time.Sleep(11 * time.Minute)
		fillUp(p, 16<<10)
		time.Sleep(3 * time.Minute)
		if more := len(fillUp(p, 16<<10)); more < n/2 {
			t.Errorf("%d messages fit where the results of %d have expired", more, n)
		}
	})
}

// TestFullOfText takes a file that could not grow for one that is full.
func TestFullOfText(t *testing.T) {
	t.Parallel()
	for err, w := range map[error]bool{
		fmt.Errorf("file resize error: %s", &os.PathError{Op: "truncate", Path: "jobs.db", Err: syscall.ENOSPC}): true,
		&os.PathError{Op: "truncate", Path: "jobs.db", Err: syscall.EIO}:                                         false,
	} {
		want(t, err.Error(), bolt.IsFull(err), w)
	}
}

// TestFullRefusesAtOnce does not try each new message on a file that is full.
func TestFullRefusesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &bolt.Options{MaxSize: 32 << 20})
		fillUp(p, 16<<10)
		err := p.broker.Publish(t.Context(), []*driver.Message{message("small")})
		wantErr(t, "Publish", err, driver.ErrFull)
		p.succeed(p.one(), time.Hour)
		time.Sleep(2 * time.Second)
		p.publish(message("small"))
	})
}

func TestMaxPending(t *testing.T) {
	t.Parallel()
	p := newPair(t, &bolt.Options{MaxPending: 2})
	err := p.broker.Publish(t.Context(), []*driver.Message{message("a"), message("b"), message("c")})
	for i, w := range []error{nil, nil, driver.ErrFull} {
		if got := driver.ItemError(err, i, 3); !errors.Is(got, w) {
			t.Errorf("message %d: got %v, want %v", i, got, w)
		}
	}
	p = p.reopen()
	want(t, "messages", p.stats().Ready, 2)
}

// TestTooLarge refuses what would not fit, and stores the rest.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	m := message("large")
	m.Envelope = make([]byte, p.broker.Info().MaxMessage+1)
	err := p.broker.Publish(t.Context(), []*driver.Message{message("small"), m})
	wantErr(t, "small", driver.ItemError(err, 0, 2), nil)
	wantErr(t, "large", driver.ItemError(err, 1, 2), driver.ErrTooLarge)
	d := p.one()
	u := driver.Update{ID: d.ID, Attempt: 1, State: driver.Success, Body: make([]byte, p.backend.Info().MaxBody+1)}
	err = p.sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Record: &u}})
	wantErr(t, "Settle", driver.ItemError(err, 0, 1), driver.ErrTooLarge)
	u.Body = u.Body[1:]
	p.settle(driver.Settlement{Delivery: d, Record: &u})
}
