package bolt_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
)

// TestFailStop does nothing more after a commit whose outcome is unknown, and
// goes on once the file was opened again.
func TestFailStop(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.publish(tracked("a"), tracked("b"))
	d := p.one()
	ctx := t.Context()
	n, err := p.backend.Notify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	bolt.Break(p.path)
	err = driver.ItemError(p.broker.Publish(ctx, []*driver.Message{message("c")}), 0, 1)
	if err == nil || errors.Is(err, driver.ErrTransient) || errors.Is(err, driver.ErrClosed) {
		t.Fatalf("Publish: got %v, want an error that says that the outcome is unknown", err)
	}
	calls := map[string]func() error{
		"Publish": func() error { return p.broker.Publish(ctx, []*driver.Message{message("d")}) },
		"Receive": func() error { _, err := p.sub.Receive(ctx, 1); return err },
		"Settle":  func() error { return p.sub.Settle(ctx, []driver.Settlement{{Delivery: d}}) },
		"Extend":  func() error { return p.sub.Extend(ctx, []*driver.Delivery{d}) },
		"Get":     func() error { _, err := p.backend.Get(ctx, []string{"a"}); return err },
		"Start":   func() error { _, err := p.backend.Start(ctx, []driver.Start{{ID: "a"}}); return err },
		"Len":     func() error { _, err := p.broker.DeadLetters("q").Len(ctx); return err },
		"Next":    func() error { _, err := n.Next(ctx); return err },
	}
	for name, call := range calls {
		err := call()
		wantErr(t, name, err, driver.ErrTransient)
		if errors.Is(err, driver.ErrClosed) {
			t.Errorf("%s: an outage is no end: %v", name, err)
		}
	}
	p.close()
	p = openPair(t, p.path, nil)
	want(t, "messages", p.stats().Ready, 2)
	want(t, "state", p.state("a"), driver.Pending)
}

// TestFailStopWakes ends a Receive in progress.
func TestFailStopWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		ended := make(chan error)
		go func() {
			_, err := p.sub.Receive(context.Background(), 1)
			ended <- err
		}()
		synctest.Wait() // Receive waits
		bolt.Break(p.path)
		p.broker.Publish(t.Context(), []*driver.Message{message("c")})
		wantErr(t, "Receive", <-ended, driver.ErrTransient)
	})
}
