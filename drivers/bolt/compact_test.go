package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
)

// furnish puts something of everything into p's file.
func furnish(p *pair) {
	p.t.Helper()
	ctx := p.t.Context()
	late, dead := tracked("late"), tracked("dead")
	late.Delay, dead.Priority = time.Hour, 9
	p.publish(dead)
	p.settle(deadLetter(p.one()))
	p.publish(tracked("done"))
	p.succeed(p.one(), time.Hour)
	p.publish(tracked("a"), message("b"), late)
	if err := p.broker.Put(ctx, "key", []byte("value"), 0); err != nil {
		p.t.Fatal(err)
	}
}

// checkFurnished finds all of it in the file of path.
func checkFurnished(t *testing.T, path string) {
	t.Helper()
	p := openPair(t, path, nil)
	defer p.close()
	s := p.stats()
	if s.Ready != 2 {
		t.Fatalf("%d messages are ready, want 2", s.Ready)
	}
	want(t, "delayed", s.Delayed, 1)
	for id, w := range map[string]driver.State{"a": driver.Pending, "late": driver.Pending, "done": driver.Success, "dead": driver.DeadLettered} {
		want(t, "state of "+id, p.state(id), w)
	}
	rs, err := p.backend.Get(t.Context(), []string{"done"})
	if err != nil || rs[0] == nil || string(rs[0].Body) != "result of done" {
		t.Errorf("got record %+v, %v", rs, err)
	}
	dead, err := p.broker.DeadLetters("q").Get(t.Context(), "dead")
	if err != nil || len(dead) != 1 || dead[0].Dead.Message != "no" {
		t.Errorf("got dead letters %v, %v", dead, err)
	}
	es, _, err := p.broker.Entries(t.Context(), "")
	if err != nil || len(es) == 0 || es[0].Key != "key" || string(es[0].Value) != "value" {
		t.Errorf("got keys %v, %v", es, err)
	}
	for i, d := range p.receive(2) {
		want(t, "in line", d.ID, []string{"a", "b"}[i])
		p.settle(driver.Settlement{Delivery: d, Action: driver.Release})
	}
}

// pass has n tasks done and deleted.
func pass(p *pair, n int) {
	p.t.Helper()
	const batch = 1000
	for i := 0; i < n; i += batch {
		msgs, ids := make([]*driver.Message, batch), make([]string, batch)
		for j := range msgs {
			ids[j] = fmt.Sprint("passed-", i+j)
			msgs[j] = tracked(ids[j])
			msgs[j].Envelope = make([]byte, 200)
		}
		p.publish(msgs...)
		var ss []driver.Settlement
		for len(ss) < batch {
			for _, d := range p.receive(batch) {
				ss = append(ss, driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, State: driver.Success, TTL: time.Hour}})
			}
		}
		p.settle(ss...)
		if _, err := p.backend.Delete(p.t.Context(), ids); err != nil {
			p.t.Fatal(err)
		}
	}
}

func compact(t *testing.T, path string) {
	t.Helper()
	if err := bolt.Compact(t.Context(), path); err != nil {
		t.Fatal(err)
	}
}

// TestCompact makes a file small that was large, through a symbolic link, and
// loses nothing of it.
func TestCompact(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "jobs.db")
		p := openPair(t, path, nil)
		pass(p, 20000)
		furnish(p)
		if !clean {
			bolt.Abandon(path)
		}
		p.close()
		before := used(t, path)
		os.Chmod(path, 0o640)
		link := filepath.Join(t.TempDir(), "link.db")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		compact(t, link)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > before*2/3 {
			t.Errorf("the file has %d bytes, of which %d were in use before", info.Size(), before)
		}
		t.Logf("%d bytes in use before, the file has %d", before, info.Size())
		want(t, "mode", info.Mode(), 0o640)
		if to, err := os.Readlink(link); err != nil || to != path {
			t.Errorf("the link: got %s, %v", to, err)
		}
		checkFurnished(t, path)
		compact(t, path)
		checkFurnished(t, path)
	}
}

// TestCompactExpired leaves out results that have expired, but not their
// skeletons.
func TestCompactExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.publish(tracked("done"), tracked("old"))
		for _, d := range p.receive(2) {
			p.succeed(d, time.Hour)
		}
		time.Sleep(2 * time.Hour)
		p.publish(tracked("kept"))
		p.succeed(p.one(), time.Hour)
		p.close()
		compact(t, p.path)
		file, err := os.ReadFile(p.path)
		if err != nil {
			t.Fatal(err)
		}
		for id, there := range map[string]bool{"done": false, "old": false, "kept": true} {
			want(t, "result of "+id, bytes.Contains(file, []byte("result of "+id)), there)
		}
		p = openPair(t, p.path, nil)
		err = driver.ItemError(p.broker.Publish(t.Context(), []*driver.Message{tracked("done")}), 0, 1)
		wantErr(t, "an id whose skeleton is there", err, driver.ErrDuplicate)
		time.Sleep(2 * time.Hour)
		p.publish(tracked("done"))
	})
}

// TestCompactRefuses leaves alone what it cannot compact.
func TestCompactRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"missing":      {func(*testing.T, string) {}, "no such file"},
		"open":         {func(t *testing.T, path string) { openPair(t, path, nil) }, "in use by this process"},
		"not bbolt":    {func(t *testing.T, path string) { fill(t, path, strings.Repeat("text", 10000)) }, "not a bbolt file"},
		"another's":    {foreign("settings"), "not one of Chicory"},
		"newer layout": {newer, "newer version of Chicory"},
		"cut off":      {cutOff, "cut off"},
		"damaged":      {damaged, "damaged"},
		"hard link":    {linked, "2 hard links"},
		"blocked":      {blocked, "not empty"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "jobs.db")
			tt.make(t, path)
			before, _ := os.ReadFile(path)
			err := bolt.Compact(t.Context(), path)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that names the file and says %q", err, tt.want)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
			if name != "blocked" {
				noCopy(t, path)
			}
		})
	}
}

func noCopy(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path + ".compacting"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy is there, or %v", err)
	}
}

// damaged makes a file that was closed, so that opening it looks at no page, and
// whose root page is rubbish.
func damaged(t *testing.T, path string) {
	written(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, size := bolt.Root(t, path)
	if _, err := f.WriteAt([]byte(strings.Repeat("rubbish!", 8)), root*size); err != nil {
		t.Fatal(err)
	}
}

func linked(t *testing.T, path string) {
	written(t, path)
	if err := os.Link(path, path+".link"); err != nil {
		t.Fatal(err)
	}
}

func blocked(t *testing.T, path string) {
	written(t, path)
	if err := os.MkdirAll(filepath.Join(path+".compacting", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestCompactInUse names a file that another process has open.
func TestCompactInUse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	end := held(t, path)
	defer end()
	err := bolt.Compact(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v, want that %s is in use by another process", err, path)
	}
	noCopy(t, path)
}

// A failing context ends after some questions.
type failing struct {
	context.Context
	left atomic.Int64
}

func (c *failing) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// TestCompactFails fails at each of its steps in turn: the file stays, and the
// copy goes.
func TestCompactFails(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	p := openPair(t, path, nil)
	furnish(p)
	p.close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(0); ; n++ {
		ctx := &failing{Context: t.Context()}
		ctx.left.Store(n)
		if err = bolt.Compact(ctx, path); err == nil {
			break
		}
		wantErr(t, "Compact", err, context.Canceled)
		after, _ := os.ReadFile(path)
		want(t, "the file is as it was", string(after) == string(before), true)
		noCopy(t, path)
		if n == 100 {
			t.Fatal("it never ends")
		}
	}
	checkFurnished(t, path)
}

// TestCompactFullDisk has no room for the copy. See TestFullDisk.
func TestCompactFullDisk(t *testing.T) {
	if *smallDir == "" {
		t.Parallel()
		inSmallDisk(t)
		return
	}
	path := filepath.Join(*smallDir, "compact.db")
	defer os.Remove(path)
	p := openPair(t, path, nil)
	stored := len(fillUp(p, 16<<10))
	for p.stats().Ready > stored/3*2 {
		p.settle(driver.Settlement{Delivery: p.one()})
	}
	left := p.stats().Ready
	p.close()
	err := bolt.Compact(t.Context(), path)
	wantErr(t, "Compact", err, syscall.ENOSPC)
	noCopy(t, path)
	p = openPair(t, path, nil)
	want(t, "messages", len(drain(p)), left)
	p.close()
}
