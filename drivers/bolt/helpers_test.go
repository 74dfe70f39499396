package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
	bbolt "go.etcd.io/bbolt"
)

const lease = 30 * time.Second

// A pair is a broker that covers its backend, on one file, with a subscription
// to q.
type pair struct {
	t       testing.TB
	path    string
	store   *bolt.Store
	broker  *bolt.Broker
	backend *bolt.Backend
	sub     driver.Subscription
}

func newPair(t testing.TB, o *bolt.Options) *pair {
	return openPair(t, filepath.Join(t.TempDir(), "jobs.db"), o)
}

func openPair(t testing.TB, path string, o *bolt.Options) *pair {
	t.Helper()
	s, err := bolt.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, path: path, store: s, broker: s.Broker("ns"), backend: s.Backend("ns")}
	t.Cleanup(p.close)
	p.sub, err = p.broker.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: 1000, Slots: 1000,
		Lease: lease, Queues: []driver.QueueSpec{{Name: "q"}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) close() {
	p.broker.Close(context.Background())
	p.backend.Close(context.Background())
	if err := p.store.Close(); err != nil {
		p.t.Errorf("Close: %v", err)
	}
}

// crash closes the file as a crash would, and opens it again.
func (p *pair) crash() *pair {
	p.t.Helper()
	bolt.Abandon(p.path)
	return openPair(p.t, p.path, nil)
}

// reopen closes the file, and opens it again.
func (p *pair) reopen() *pair {
	p.t.Helper()
	p.close()
	return openPair(p.t, p.path, nil)
}

func message(id string) *driver.Message {
	return &driver.Message{ID: id, Queue: "q", Attempt: 1, Envelope: []byte("envelope of " + id)}
}

// tracked is message with its PENDING record.
func tracked(id string) *driver.Message {
	m := message(id)
	m.Record = &driver.Update{ID: id, Attempt: 1, State: driver.Pending}
	return m
}

func (p *pair) publish(msgs ...*driver.Message) {
	p.t.Helper()
	if err := p.broker.Publish(p.t.Context(), msgs); err != nil {
		p.t.Fatalf("Publish: %v", err)
	}
}

// receive waits for a delivery, and returns up to n.
func (p *pair) receive(n int) []*driver.Delivery {
	p.t.Helper()
	ds, err := p.sub.Receive(p.t.Context(), n)
	if err != nil {
		p.t.Fatalf("Receive: %v", err)
	}
	return ds
}

func (p *pair) one() *driver.Delivery {
	p.t.Helper()
	return p.receive(1)[0]
}

func (p *pair) none() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 50*time.Millisecond)
	defer cancel()
	if ds, err := p.sub.Receive(ctx, 10); !errors.Is(err, context.DeadlineExceeded) {
		p.t.Fatalf("received %v, %v, want nothing", ds, err)
	}
}

func (p *pair) settle(ss ...driver.Settlement) {
	p.t.Helper()
	if err := p.sub.Settle(p.t.Context(), ss); err != nil {
		p.t.Fatalf("Settle: %v", err)
	}
}

// succeed acknowledges d with its SUCCESS.
func (p *pair) succeed(d *driver.Delivery, ttl time.Duration) {
	p.t.Helper()
	p.settle(driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq,
		Attempt: d.Attempt, State: driver.Success, Body: []byte("result of " + d.ID), TTL: ttl}})
}

func (p *pair) state(id string) driver.State {
	p.t.Helper()
	rs, err := p.backend.Get(p.t.Context(), []string{id})
	if err != nil {
		p.t.Fatalf("Get: %v", err)
	}
	if rs[0] == nil {
		return ""
	}
	return rs[0].State
}

func (p *pair) stats() driver.QueueStats {
	p.t.Helper()
	ss, err := p.broker.Inspect(p.t.Context(), []string{"q"})
	if err != nil {
		p.t.Fatalf("Inspect: %v", err)
	}
	return ss[0]
}

func name(i int) string { return fmt.Sprintf("task-%d", i) }

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// countKeys counts the keys of a bucket in a file that is closed.
func countKeys(t testing.TB, path, bucket string) (n int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(bucket)); b != nil {
			return b.ForEach(func(_, _ []byte) error { n++; return nil })
		}
		return nil
	})
	return n
}
