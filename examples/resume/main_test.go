//go:build unix

package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

// TestTranscript runs what docs/bolt.md shows.
func TestTranscript(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "resume"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	exampletest.Transcript(t, "../../docs/bolt.md", dir)
}
