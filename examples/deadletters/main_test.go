//go:build unix

package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

// TestTranscripts runs what docs/dead-letters.md and docs/workers.md show.
func TestTranscripts(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "orders"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, page := range []string{"dead-letters.md", "workers.md"} {
		t.Run(page, func(t *testing.T) {
			dir := t.TempDir()
			if err := exec.Command("cp", filepath.Join(bin, "orders"), dir).Run(); err != nil {
				t.Fatal(err)
			}
			exampletest.Transcript(t, "../../docs/"+page, dir)
		})
	}
}
