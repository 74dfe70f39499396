package bolt_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/drivers/bolt"
)

var (
	cuts      = flag.Int("bolt.cuts", 60, "how often TestPowerLoss cuts the power")
	powerSeed = flag.Uint64("bolt.seed", rand.Uint64(), "seed of where it cuts, and of what it loses; the run is another")
)

// TestPowerLoss cuts the power of a process that publishes and works, at random
// places of one run. The run is recorded as the system calls that wrote, resized
// and synced the file, among them the lines by which the process acknowledged
// what it did. At a cut, what a sync has confirmed is on the disk; of all that
// was written since then each sector of 512 bytes, and each new size, is there or
// not, at random. The file that is left must open, and hold what had been
// acknowledged by then. A long run is
//
//	go test -run TestPowerLoss -timeout 0 -v ./drivers/bolt -args -bolt.cuts=1000
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "jobs.db")
	syncs := 0
	events := trace(t, "BOLT_TEST_WORK="+path, path, func(e event) bool {
		if e.what == synced {
			syncs++
		}
		return syncs == 600
	})
	for _, e := range events {
		if e.what == wrote && e.at == 0 && len(e.data) > 4096 {
			t.Error("the file was made in place, so that it may be torn")
		}
	}
	// The file was made whole, under another name.
	if err := bolt.Create(path + ".empty"); err != nil {
		t.Fatal(err)
	}
	empty, err := os.ReadFile(path + ".empty")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("Synced", func(t *testing.T) {
		t.Parallel()
		l := losses{events: events, empty: empty, dir: dir}
		l.cut(t, *cuts)
		for _, f := range l.failures {
			t.Error(f)
		}
		t.Logf("seed %d, %d cuts in %d events: %d torn; %d opened at the last commit that was synced, %d at the one in progress; %d are bad",
			*powerSeed, l.n, len(events), l.torn, l.last, l.next, l.bad)
		if l.torn < *cuts/10 {
			t.Errorf("only %d cuts tore anything", l.torn)
		}
	})
	// Without either of the two syncs of a commit, the same must find losses.
	for name, pages := range map[string]bool{"NoSyncOfPages": true, "NoSyncOfMeta": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := losses{events: without(events, pages), empty: empty, dir: dir, enough: 1}
			l.cut(t, 500)
			if l.bad == 0 {
				t.Errorf("%d cuts found nothing", l.n)
			} else {
				t.Logf("cut %d finds: %s", l.n, l.failures[0])
			}
		})
	}
}

// An event is one thing that a process did to its file, or said.
type event struct {
	what what
	at   int64 // where it wrote, or the new size
	data []byte
}

// what an event is.
type what int

const (
	wrote what = iota
	resized
	syncing // a sync begins
	synced  // it ends
	said
	renamed   // it renamed any file
	dirSynced // it synced the directory
)

// without returns events without the syncs of pages, or of meta pages.
func without(events []event, pages bool) (left []event) {
	meta := false
	for _, e := range events {
		if e.what == wrote {
			meta = e.at < 2*4096
		}
		if sync := e.what == syncing || e.what == synced; !sync || pages == meta {
			left = append(left, e)
		}
	}
	return left
}

// A content is what is in a file: data, and zeros up to its size.
type content struct {
	data []byte
	size int64
}

// A disk is a file whose last writes may be lost.
type disk struct {
	safe    content
	pending []event
	covered int // of pending, by the sync in progress
}

func (d *disk) do(e event) {
	switch e.what {
	case wrote, resized:
		d.pending = append(d.pending, e)
	case syncing:
		d.covered = len(d.pending)
	case synced:
		for _, e := range d.pending[:d.covered] {
			d.safe = e.on(d.safe)
		}
		d.pending, d.covered = d.pending[d.covered:], 0
	}
}

// on returns c after e.
func (e event) on(c content) content {
	if e.what == resized {
		return content{c.data, e.at}
	}
	end := e.at + int64(len(e.data))
	if more := end - int64(len(c.data)); more > 0 {
		c.data = append(c.data, make([]byte, more)...)
	}
	copy(c.data[e.at:], e.data)
	return content{c.data, max(c.size, end)}
}

// sectors returns what may be lost of e by itself.
func (e event) sectors() (parts []event) {
	if e.what == resized {
		return []event{e}
	}
	for i := 0; i < len(e.data); i += 512 {
		parts = append(parts, event{wrote, e.at + int64(i), e.data[i:min(i+512, len(e.data))]})
	}
	return parts
}

// cut returns what is left of d, and whether that is some of what was written
// and not all.
func (d *disk) cut(rnd *rand.Rand) (left content, torn bool) {
	left = content{bytes.Clone(d.safe.data), d.safe.size}
	share, kept, lost := []float64{0, 1, 0.5, rnd.Float64(), rnd.Float64()}[rnd.IntN(5)], false, false
	for _, e := range d.pending {
		for _, part := range e.sectors() {
			if rnd.Float64() < share {
				left, kept = part.on(left), true
			} else {
				lost = true
			}
		}
	}
	return left, kept && lost
}

// losses cut the power in a run, and check what is left.
type losses struct {
	events []event
	empty  []byte
	dir    string
	enough int // bad ones end it, if not 0

	mu                       sync.Mutex
	n, torn, last, next, bad int
	failures                 []string
}

// cut cuts the power n times.
func (l *losses) cut(t *testing.T, n int) {
	rnd := rand.New(rand.NewPCG(*powerSeed, 0))
	at := make([]int, n)
	for i := range at {
		at[i] = rnd.IntN(len(l.events) + 1)
	}
	slices.Sort(at)
	d := &disk{safe: content{bytes.Clone(l.empty), int64(len(l.empty))}}
	done, lines := 0, strings.Builder{}
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan bool, 4)
	for _, at := range at {
		for ; done < at; done++ {
			e := l.events[done]
			d.do(e)
			if e.what == said {
				lines.Write(e.data)
			}
		}
		left, torn := d.cut(rnd)
		said, next := lines.String(), bolt.Transaction(left.data) > bolt.Transaction(d.safe.data)
		slots <- true
		if l.isEnough() {
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			l.check(t, at, left, said, torn, next)
		})
	}
}

func (l *losses) isEnough() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.enough > 0 && l.bad >= l.enough
}

// check opens what is left after a cut.
func (l *losses) check(t *testing.T, at int, left content, said string, torn, next bool) {
	f, err := os.CreateTemp(l.dir, "cut")
	if err != nil {
		t.Error(err)
		return
	}
	path := f.Name()
	defer os.Remove(path)
	if _, err := f.Write(left.data); err != nil {
		t.Error(err)
	}
	if err := f.Truncate(left.size); err != nil {
		t.Error(err)
	}
	f.Close()
	failures := attempt(t, func(tb testing.TB) {
		h := newHistory()
		h.read(tb, said)
		h.finish(tb, openPair(tb, path, nil))
	})
	if len(failures) > 0 && l.enough == 0 {
		os.WriteFile(filepath.Join(t.ArtifactDir(), fmt.Sprint("cut-", at)), left.data, 0o600)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	if torn {
		l.torn++
	}
	switch {
	case len(failures) > 0:
		l.bad++
	case next:
		l.next++
	default:
		l.last++
	}
	for _, f := range failures {
		l.failures = append(l.failures, fmt.Sprintf("seed %d, cut after event %d: %s", *powerSeed, at, f))
	}
}

// An attempted is a test whose failures are told to who asked for it.
type attempted struct {
	testing.TB
	ctx      context.Context
	mu       sync.Mutex
	failures []string
	cleanups []func()
}

// attempt runs f and returns how it failed.
func attempt(t testing.TB, f func(tb testing.TB)) []string {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := &attempted{TB: t, ctx: ctx}
	var wg sync.WaitGroup
	wg.Go(func() { f(a) })
	wg.Wait()
	for _, f := range slices.Backward(a.cleanups) {
		wg.Go(f)
		wg.Wait()
	}
	return a.failures
}

func (a *attempted) Helper()                  {}
func (a *attempted) Context() context.Context { return a.ctx }
func (a *attempted) Cleanup(f func())         { a.cleanups = append(a.cleanups, f) }

func (a *attempted) Errorf(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = append(a.failures, fmt.Sprintf(format, args...))
}

func (a *attempted) Fatalf(format string, args ...any) {
	a.Errorf(format, args...)
	runtime.Goexit()
}

func (a *attempted) Fatal(args ...any) { a.Fatalf("%s", fmt.Sprint(args...)) }
func (a *attempted) Error(args ...any) { a.Errorf("%s", fmt.Sprint(args...)) }
