package bolt_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
	bbolt "go.etcd.io/bbolt"
)

// children are the programs that tests run as processes of their own: by the
// variable that asks for each, and gives it its argument.
var children = map[string]func(arg string){
	"BOLT_TEST_HOLD":    hold,
	"BOLT_TEST_WORK":    workUntilKilled,
	"BOLT_TEST_COMPACT": compactForEver,
	"BOLT_TEST_POISON": func(args string) {
		if err := workPoisoned(args); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	},
}

// TestMain makes the test program a child process of its own tests, if asked.
func TestMain(m *testing.M) {
	for name, run := range children {
		if arg := os.Getenv(name); arg != "" {
			go endWith(os.Getppid())
			run(arg)
			return
		}
	}
	os.Exit(m.Run())
}

// endWith ends the process once its parent has ended, so that no child is left of
// tests that panic.
func endWith(parent int) {
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	os.Exit(3)
}

// hold has path open until its input ends.
func hold(path string) {
	s, err := bolt.Open(context.Background(), path, nil)
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("open\n")
	io.Copy(io.Discard, os.Stdin)
	s.Close()
}

// held has another process have path open until end is called.
func held(t *testing.T, path string) (end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BOLT_TEST_HOLD="+path)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != "open\n" {
		t.Fatalf("the child says %q, %v", buf, err)
	}
	return func() {
		t.Helper()
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOtherProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	end := held(t, path)
	begin := time.Now()
	_, err := bolt.Open(t.Context(), path, nil)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v, want that %s is in use by another process", err, path)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	end()
	openPair(t, path, nil).publish(message("a"))
}

// TestShared opens one file under three names: it is one store.
func TestShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := openPair(t, filepath.Join(dir, "jobs.db"), nil)
	if err := os.Link(p.path, filepath.Join(dir, "hard.db")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p.path, filepath.Join(dir, "soft.db")); err != nil {
		t.Fatal(err)
	}
	p.publish(message("a"))
	for _, other := range []string{"jobs.db", "hard.db", "soft.db", "../" + filepath.Base(dir) + "/jobs.db"} {
		q := openPair(t, filepath.Join(dir, other), nil)
		want(t, other, q.stats().Ready, 1)
		q.close()
	}
	if _, err := bolt.Open(t.Context(), p.path, &bolt.Options{MaxSize: 1 << 20}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("another limit: got %v, want that it differs", err)
	}
	if _, err := bolt.Open(t.Context(), p.path, &bolt.Options{MaxPending: 5}); err == nil || !strings.Contains(err.Error(), "asked for 5") {
		t.Errorf("another limit: got %v, want that it differs", err)
	}
	p.publish(message("b"))
	want(t, "messages", p.reopen().stats().Ready, 2)
}

// TestSharedNew opens a new file under two names at once: it is one store.
func TestSharedNew(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	for i := range 20 {
		dir := t.TempDir()
		os.Remove(link)
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		opened := make(chan *bolt.Store)
		for _, path := range []string{filepath.Join(dir, "new.db"), filepath.Join(link, "new.db")} {
			go func() {
				s, err := bolt.Open(t.Context(), path, nil)
				if err != nil {
					t.Errorf("round %d: %v", i, err)
				}
				opened <- s
			}()
		}
		for _, s := range []*bolt.Store{<-opened, <-opened} {
			if s != nil {
				s.Close()
			}
		}
	}
}

// TestNamespace refuses a name that would not do for a key of the file.
func TestNamespace(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	b := p.store.Broker(strings.Repeat("x", 40000))
	defer b.Close(t.Context())
	wantErr(t, "Publish", b.Publish(t.Context(), []*driver.Message{message("a")}), driver.ErrName)
	wantErr(t, "Put", b.Put(t.Context(), "key", nil, 0), driver.ErrName)
	p.publish(message("a"))
}

// TestCannotOpen names the file and what is wrong with it.
func TestCannotOpen(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"missing directory": {func(t *testing.T, path string) { os.Remove(filepath.Dir(path)) }, "no such file"},
		"a directory":       {func(t *testing.T, path string) { os.Mkdir(path, 0o700) }, "no regular file"},
		"not bbolt":         {func(t *testing.T, path string) { fill(t, path, strings.Repeat("text", 10000)) }, "not a bbolt file"},
		"short":             {func(t *testing.T, path string) { fill(t, path, "x") }, "not a bbolt file"},
		"another's":         {foreign("settings"), "not one of Chicory"},
		"newer layout":      {newer, "newer version of Chicory"},
		"cut off":           {cutOff, "cut off"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "dir", "jobs.db")
			os.Mkdir(filepath.Dir(path), 0o700)
			tt.make(t, path)
			_, err := bolt.Open(t.Context(), path, nil)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that names the file and says %q", err, tt.want)
			}
			if _, again := bolt.Open(t.Context(), path, nil); again == nil {
				t.Errorf("the second time it opens")
			}
		})
	}
}

func fill(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// edit changes a file with bbolt alone.
func edit(t *testing.T, path string, f func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(f); err != nil {
		t.Fatal(err)
	}
}

func foreign(bucket string) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		edit(t, path, func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte(bucket))
			return err
		})
	}
}

// written makes a file with a few tasks.
func written(t *testing.T, path string) {
	t.Helper()
	p := openPair(t, path, nil)
	for i := range 200 {
		p.publish(tracked(name(i)))
	}
	p.close()
}

func newer(t *testing.T, path string) {
	written(t, path)
	edit(t, path, func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("chicory")).Put([]byte("version"), []byte{0, 0, 0, 0, 0, 0, 0, 2})
	})
}

func cutOff(t *testing.T, path string) {
	written(t, path)
	if err := os.Truncate(path, 16<<10); err != nil {
		t.Fatal(err)
	}
}

// TestReadOnly finds a file that cannot be written. The superuser can.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	written(t, path)
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(t.Context(), path, nil)
	if os.Geteuid() == 0 {
		if err != nil {
			t.Fatalf("the superuser: %v", err)
		}
		s.Close()
		return
	}
	wantErr(t, "Open", err, os.ErrPermission)
}

// TestDamagedValue passes over a value whose checksum is wrong.
func TestDamagedValue(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	written(t, path)
	edit(t, path, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("ns/t"))
		key, value := b.Cursor().First()
		changed := append([]byte{}, value...)
		changed[len(changed)-1] ^= 1
		return b.Put(key, changed)
	})
	p := openPair(t, path, nil)
	want(t, "messages", p.stats().Ready, 199)
	want(t, "first", p.one().ID, name(1))
}

// TestOpenAtOnce opens one file under two names at the same time.
func TestOpenAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	written(t, path)
	if err := os.Symlink(path, path+".link"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		var wg sync.WaitGroup
		var stores [2]*bolt.Store
		for i, name := range []string{path, path + ".link"} {
			wg.Go(func() {
				var err error
				if stores[i], err = bolt.Open(t.Context(), name, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, s := range stores {
			if s != nil {
				s.Close()
			}
		}
	}
}

func TestOpenCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	_, err := bolt.Open(ctx, path, nil)
	wantErr(t, "Open", err, context.Canceled)
	wantErr(t, "Open", err, driver.ErrTransient)
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a file")
	}
}
