package chicory_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]+))?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	marks   = regexp.MustCompile(`[^\p{L}\p{N} _-]`) // that anchors leave out
	console = regexp.MustCompile("(?m)^```console$")
	quoted  = regexp.MustCompile("(?ms)^```.*?^```|`[^`\n]*`")
)

// TestDocsWhole: no link leads nowhere, the index names every page, and a test
// runs every transcript.
func TestDocsWhole(t *testing.T) {
	t.Parallel()
	read := func(files ...string) (all string) {
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all += string(b)
		}
		return all
	}
	index := read("docs/README.md")
	examples, _ := filepath.Glob("examples/*/main_test.go")
	tests := read(append(examples, "conformance/guide_test.go")...)
	pages, _ := filepath.Glob("docs/*.md")
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md") {
		text := read(page)
		for _, m := range link.FindAllStringSubmatch(quoted.ReplaceAllString(text, ""), -1) {
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			} else if m[2] != "" && !slices.Contains(anchors(read(to)), m[2]) {
				t.Errorf("%s: %s has no heading %s", page, to, m[2])
			}
		}
		if name := filepath.Base(page); strings.HasPrefix(page, "docs/") && name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
		if console.MatchString(text) && !strings.Contains(tests, page) {
			t.Errorf("no test runs the transcript of %s", page)
		}
	}
}

// anchors are those of a page's headings.
func anchors(text string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		all = append(all, strings.ReplaceAll(strings.ToLower(marks.ReplaceAllString(m[1], "")), " ", "-"))
	}
	return all
}

// TestShort keeps short what a reader sees first: the first program, and the first
// two tests, of a handler and of sending.
func TestShort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		page, begin string
		first, most int
	}{
		{"README.md", "", 1, 25},
		{"docs/testing.md", "func Test", 2, 15},
	} {
		b, err := os.ReadFile(tt.page)
		if err != nil {
			t.Fatal(err)
		}
		var blocks []string
		for _, m := range goBlock.FindAllStringSubmatch(string(b), -1) {
			if strings.HasPrefix(m[2], tt.begin) {
				blocks = append(blocks, m[2])
			}
		}
		if len(blocks) < tt.first {
			t.Fatalf("%s has %d blocks that begin with %q, want at least %d", tt.page, len(blocks), tt.begin, tt.first)
		}
		for _, code := range blocks[:tt.first] {
			if n := strings.Count(code, "\n"); n > tt.most {
				t.Errorf("%s: %d lines, want at most %d:\n%s", tt.page, n, tt.most, code)
			}
		}
	}
}
