package chicory_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// TestReadme compiles every Go block of the README and runs the first.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := goBlock.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 2 {
		t.Fatalf("%d Go blocks in README.md, want the first program and the definitions", len(blocks))
	}
	first := blocks[0][1]
	if n := strings.Count(strings.TrimSpace(first), "\n") + 1; n > 25 {
		t.Errorf("the first program has %d lines, want at most 25", n)
	}
	for i, b := range blocks {
		vet(t, b[1], i)
	}
	// Inside the module, so that it is this checkout that runs.
	if out := goTool(t, "run", writeBlock(t, first)); !strings.Contains(out, "10 + 32 = 42\n") {
		t.Errorf("the first program printed %q", out)
	}
}

func vet(t *testing.T, code string, i int) {
	t.Helper()
	file := writeBlock(t, code)
	if out := goTool(t, "vet", file); strings.Contains(out, "vet:") {
		t.Errorf("Go block %d: %s", i+1, out)
	}
	if out := run(t, "gofmt", "-l", file); out != "" {
		t.Errorf("Go block %d is not formatted as gofmt does", i+1)
	}
}

// writeBlock writes code to a folder of this module that is gone after the
// test. Its name starts with a dot, so that ./... does not match it.
func writeBlock(t *testing.T, code string) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", ".readme-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "block.go")
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func goTool(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, "go", args...)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
