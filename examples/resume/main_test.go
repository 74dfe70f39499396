//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

// TestTranscript runs what docs/bolt.md shows.
func TestTranscript(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "resume"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	exampletest.Transcript(t, "../../docs/bolt.md", dir)
}

// TestUsage wants a word on usage, and no file, where there is nothing to do.
func TestUsage(t *testing.T) {
	t.Setenv("CHICORY_URL", "")
	t.Chdir(t.TempDir())
	for _, args := range [][]string{nil, {"send"}, {"work", "one", "two"}, {"help"}} {
		if err := run(t.Context(), args); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v, want %v", args, err, errUsage)
		}
	}
	if _, err := os.Stat("jobs.db"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("jobs.db: got %v, want none", err)
	}
}
