package bolt_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
)

var smallDir = flag.String("bolt.small", "", "directory on a file system of 8 MiB, for TestFullDisk to fill; it makes one where it may")

// TestFullDisk runs on a small file system, which it mounts in a process of its
// own.
func TestFullDisk(t *testing.T) {
	if *smallDir == "" {
		t.Parallel()
		inSmallDisk(t)
		return
	}
	for name, test := range map[string]func(*testing.T, *smallDisk){
		"Full":     func(t *testing.T, d *smallDisk) { checkFull(t, openPair(t, d.path, nil)) },
		"LastPage": func(t *testing.T, d *smallDisk) { checkLastPage(t, openPair(t, d.path, nil)) },
		"Taken":    testTaken,
		"Small":    testSmallFile,
		"NewFile":  testNewFile,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newDisk(t)) })
		})
	}
	t.Run("Killed", func(t *testing.T) { testKilledFull(t, newDisk(t)) })
}

// inSmallDisk runs t once more, on a small file system.
func inSmallDisk(t *testing.T) {
	t.Helper()
	if err := onSmallDisk(t); err != nil {
		t.Skipf("NOT TESTED: a full disk. No small file system can be mounted here (%v); say -bolt.small=DIR", err)
	}
}

// A smallDisk is a small file system, with a file that belongs to somebody else.
type smallDisk struct {
	t     *testing.T
	path  string // of the driver's file
	other string
}

func newDisk(t *testing.T) *smallDisk {
	d := &smallDisk{t, filepath.Join(*smallDir, "jobs.db"), filepath.Join(*smallDir, "other")}
	t.Cleanup(func() { os.Remove(d.path); d.giveBack() })
	return d
}

// take has the other file grow until there is only room for left bytes.
func (d *smallDisk) take(left int64) {
	d.t.Helper()
	f, err := os.OpenFile(d.other, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4<<10))
	}
	wantErr(d.t, "Write", err, syscall.ENOSPC)
	info, err := f.Stat()
	if err == nil {
		err = f.Truncate(info.Size() - left)
	}
	wantErr(d.t, "Truncate", err, nil)
}

func (d *smallDisk) giveBack() { os.Remove(d.other) }

// testTaken has somebody else take the space, and give it back.
func testTaken(t *testing.T, d *smallDisk) {
	p := openPair(t, d.path, nil)
	stored := publishMany(p, 100)
	d.take(0)
	stored = append(stored, fillUp(p, 16<<10, 1)...)
	p.succeed(p.one(), time.Hour)
	d.giveBack()
	time.Sleep(2 * time.Second)
	stored = append(stored, publishMany(p, 100)...) // although nearly nothing was worked off
	d.take(0)
	stored = append(stored, fillUp(p, 16<<10, 1)...)
	p = p.crash().reopen()
	want(t, "worked off", 1+len(drain(p)), len(stored))
	for _, id := range stored {
		want(t, id, p.state(id), driver.Success)
	}
	time.Sleep(2 * time.Second)
	publishMany(p, 10) // in the room of those that were worked off
}

func publishMany(p *pair, n int) (ids []string) {
	p.t.Helper()
	for range n {
		m := tracked(fmt.Sprint("other-", serial.Add(1)))
		m.Envelope = make([]byte, 16<<10)
		p.publish(m)
		ids = append(ids, m.ID)
	}
	return ids
}

// testSmallFile has the space taken from a file with next to nothing in it.
func testSmallFile(t *testing.T, d *smallDisk) {
	p := openPair(t, d.path, nil)
	publishMany(p, 3)
	d.take(0)
	n := 3 + len(fillUp(p, 16<<10, 1000, 100, 1))
	p = p.reopen().crash()
	want(t, "worked off", len(drain(p)), n)
	time.Sleep(2 * time.Second)
	publishMany(p, 1)
}

// testNewFile finds no room, or not enough, for a new file.
func testNewFile(t *testing.T, d *smallDisk) {
	for pages := range 8 {
		d.take(int64(pages) * 4 << 10)
		s, err := bolt.Open(t.Context(), d.path, nil)
		if err == nil {
			s.Close()
		} else {
			wantErr(t, "Open", err, syscall.ENOSPC)
		}
		d.giveBack()
		p := openPair(t, d.path, nil)
		publishMany(p, 1)
		p.close()
		os.Remove(d.path)
	}
}

// testKilledFull kills processes that publish and work on a disk that is full,
// or nearly.
func testKilledFull(t *testing.T, d *smallDisk) {
	d.take(512 << 10)
	p := openPair(t, d.path, nil)
	fillUp(p, 100)
	p.close()
	d.giveBack()
	d.take(64 << 10)
	h := newHistory()
	for range 5 {
		h.read(t, killed(t, "BOLT_TEST_WORK", d.path))
	}
	d.giveBack()
	h.finish(t, openPair(t, d.path, nil))
	t.Logf("%d published, %d refused, %d settled", len(h.published), h.refused, len(h.settled))
	if h.refused == 0 || len(h.settled) == 0 {
		t.Errorf("%d refused, %d settled, want some", h.refused, len(h.settled))
	}
}
