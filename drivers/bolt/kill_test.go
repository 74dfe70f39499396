package bolt_test

import (
	"bufio"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var kills = flag.Int("bolt.kills", 20, "how often TestKill kills a process")

// TestKill kills a process that publishes and works, again and again. In the
// end, what was acknowledged as published has been run, and nothing that was
// settled before it was said to be settled has run again. A long run is
//
//	go test -run TestKill -timeout 0 ./drivers/bolt -args -bolt.kills=500
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	h := newHistory()
	for range *kills {
		h.read(t, killed(t, "BOLT_TEST_WORK", path))
	}
	h.finish(t, openPair(t, path, nil))
	t.Logf("%d published, %d settled, %d at-most-once starts, %d started again", len(h.published), len(h.settled), len(h.onces), h.again)
	if len(h.published) < 10**kills {
		t.Errorf("only %d messages were published", len(h.published))
	}
}

// killed runs a child for a moment, kills it and returns what it said.
func killed(t *testing.T, what, path string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), what+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if first, err := r.ReadString('\n'); err != nil {
		t.Fatalf("the child says %q, %v", first, err)
	}
	go func() {
		time.Sleep(time.Duration(30+rand.IntN(300)) * time.Millisecond)
		cmd.Process.Kill()
	}()
	said, _ := io.ReadAll(r)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		t.Errorf("the child ended by itself: exit code %d", code)
	}
	return string(said)
}
