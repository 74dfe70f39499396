package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/drivers/bolt"
	bbolt "go.etcd.io/bbolt"
)

// compactForEver is the main function of a child that is killed.
func compactForEver(path string) {
	fmt.Println("open")
	for {
		must(compactUnlessInUse(context.Background(), path))
	}
}

func compactUnlessInUse(ctx context.Context, path string) error {
	err := bolt.Compact(ctx, path)
	if err != nil && strings.Contains(err.Error(), "in use by") {
		return nil
	}
	return err
}

// TestCompactKilled kills processes that compact a file.
func TestCompactKilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	p := openPair(t, path, nil)
	furnish(p)
	p.close()
	left := 0
	for range max(1, *kills/2) {
		killed(t, "BOLT_TEST_COMPACT", path)
		if _, err := os.Stat(path + ".compacting"); err == nil {
			left++
		}
		checkFurnished(t, path)
	}
	t.Logf("%d of %d were killed beside their copy", left, max(1, *kills/2))
	compact(t, path)
	noCopy(t, path)
	checkFurnished(t, path)
}

// TestCompactPowerLoss looks at what a disk has of the copy when that takes its
// place, of which there is nothing that a sync has not confirmed; then the
// directory is synced.
func TestCompactPowerLoss(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	p := openPair(t, path, nil)
	furnish(p)
	p.close()
	renames := 0
	events := trace(t, "BOLT_TEST_COMPACT="+path, path+".compacting", func(e event) bool {
		if e.what == renamed {
			renames++
		}
		return renames == 2 || renames == 1 && e.what == dirSynced
	})
	want(t, "renames until the directory is synced", renames, 1)
	var d disk
	for _, e := range events {
		d.do(e)
	}
	want(t, "writes that are not synced", len(d.pending), 0)
	lasting := filepath.Join(t.TempDir(), "jobs.db")
	fill(t, lasting, string(d.safe.data))
	checkFurnished(t, lasting)
}

// TestCompactBesideOpen opens and closes a file while it is compacted, here and
// by another process: what is published is in the file that has the name.
func TestCompactBesideOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	written(t, path)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BOLT_TEST_COMPACT="+path)
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Read(make([]byte, 1)) // it has begun
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		for !done.Load() {
			if err := compactUnlessInUse(t.Context(), path); err != nil {
				t.Error(err)
			}
		}
	})
	const opens = 30
	for i := range opens {
		p := openPatiently(t, path)
		p.publish(message(fmt.Sprint("beside-", i)))
		p.close()
	}
	done.Store(true)
	wg.Wait()
	cmd.Process.Kill()
	cmd.Wait()
	want(t, "messages", openPair(t, path, nil).stats().Ready, 200+opens)
}

// openPatiently opens a file that others use now and then.
func openPatiently(t *testing.T, path string) *pair {
	t.Helper()
	for {
		s, err := bolt.Open(t.Context(), path, nil)
		if err == nil {
			defer s.Close() // the pair has it
			return openPair(t, path, nil)
		}
		if !strings.Contains(err.Error(), "in use by another process") {
			t.Fatal(err)
		}
	}
}

// TestReplacedWhileLocked waits for the lock of a file that is replaced before
// the lock is free: it is the new one that is opened.
func TestReplacedWhileLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, other := filepath.Join(dir, "jobs.db"), filepath.Join(dir, "other.db")
	written(t, other)
	if err := bolt.Create(path); err != nil {
		t.Fatal(err)
	}
	holder, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	replaced := make(chan error)
	go func() {
		time.Sleep(200 * time.Millisecond) // it waits; if not, it finds the new file at once
		replaced <- errors.Join(os.Rename(other, path), holder.Close())
	}()
	p := openPatiently(t, path)
	wantErr(t, "replacing it", <-replaced, nil)
	want(t, "messages", p.stats().Ready, 200)
}
