//go:build unix

package redis_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// TestSparedStopped stops the process of the server for longer than a lease. Who lives
// extends afterwards, though somebody looks before; what nobody extends comes back.
func TestSparedStopped(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	s, prefix := newServer(t), fmt.Sprint("test", prefixes.Add(1))
	b, holder := openSpared(t, s, prefix)
	_, other := openSpared(t, s, prefix)
	ok(t, b.Publish(t.Context(), []*driver.Message{message("held"), message("orphan")}))
	ds := must(holder.Receive(t.Context(), 2))(t)
	if len(ds) != 2 {
		t.Fatalf("got %d, want 2", len(ds))
	}
	ok(t, s.Signal(syscall.SIGSTOP))
	time.Sleep(suiteLease + 2*time.Second)
	ok(t, s.Signal(syscall.SIGCONT))
	begin := time.Now()
	nothing(t, other, suiteLease/4)
	stop := extending(t, holder, ds[:1])
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got := must(other.Receive(ctx, 1))(t)
	if took := time.Since(begin); got[0].ID != "orphan" || got[0].Count != 2 || took > suiteLease+5*time.Second {
		t.Errorf("got %s, count %d, after %v, want the orphan within a lease and 5 s", got[0].ID, got[0].Count, took)
	}
	stop()
	ok(t, holder.Settle(t.Context(), []driver.Settlement{{Delivery: ds[0]}}))
}
