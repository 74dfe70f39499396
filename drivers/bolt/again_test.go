package bolt_test

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
)

// TestRefusedLarge has a message refused that is too large for the room there
// is: others are accepted as before.
func TestRefusedLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &bolt.Options{MaxSize: 48 << 20})
		p.publish(tracked("a"))
		large := tracked("large")
		large.Envelope = make([]byte, 15<<20)
		err := driver.ItemError(p.broker.Publish(t.Context(), []*driver.Message{large}), 0, 1)
		wantErr(t, "Publish", err, driver.ErrFull)
		time.Sleep(2 * time.Second) // the file is tried again
		p.publish(tracked("b"))
	})
}

// TestClockWentBack opens a file whose messages were published in the future:
// none waits for longer than it was to.
func TestClockWentBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	p := openPair(t, path, nil)
	late := tracked("late")
	late.Delay = time.Hour
	p.publish(tracked("a"), late)
	p.close()
	synctest.Test(t, func(t *testing.T) { // the year is 2000 here
		p := openPair(t, path, nil)
		begin := time.Now()
		d := p.one()
		want(t, "first", d.ID, "a")
		want(t, "waited", time.Since(begin), 0)
		p.succeed(d, time.Hour)
		want(t, "then", p.one().ID, "late")
		want(t, "waited", time.Since(begin).Round(time.Second), time.Hour)
	})
}

// TestReopenFailed opens a file again in the same process after a commit failed,
// several times.
func TestReopenFailed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	for range 3 {
		p := openPair(t, path, nil)
		p.publish(message("a"))
		bolt.Break(path)
		err := driver.ItemError(p.broker.Publish(t.Context(), []*driver.Message{message("b")}), 0, 1)
		if err == nil || errors.Is(err, driver.ErrTransient) {
			t.Fatalf("Publish: got %v, want an error that says that the outcome is unknown", err)
		}
		p.close()
		p = openPair(t, path, nil)
		want(t, "messages", p.stats().Ready, 1)
		for _, d := range p.receive(10) {
			p.settle(driver.Settlement{Delivery: d})
		}
		p.close()
	}
}
