package chicory_test

import (
	"fmt"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the Go blocks of README.md and docs/*.md may be is said in
// CONTRIBUTING.md, "Documentation".
var (
	// goBlock has what follows "go" on its first line, the code, and a text
	// block that follows it: what the code prints.
	goBlock  = regexp.MustCompile("(?ms)^```go( [^\n]*)?\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?")
	preamble = regexp.MustCompile(`(?s)<!-- go\n(.*?)-->`)
	imports  = regexp.MustCompile(`^(?:import [^\n]*\n)*\n*`)
)

// known are the packages that fragments use without an import.
var known = []string{"context", "crypto/rand", "errors", "fmt", "log/slog", "net/http", "os", "testing", "time", module,
	module + "/codec", module + "/codec/aesgcm", module + "/codec/cbor", module + "/codec/zstd", module + "/conformance",
	module + "/driver", module + "/drivers/bolt", module + "/drivers/memory", module + "/health", module + "/metrics", module + "/tracing",
	module + "/validate", module + "/worker"}

// A guide is the code of all pages, below one folder of this module.
type guide struct {
	t            *testing.T
	root         string
	heads, calls strings.Builder   // of the program that runs what shows what it prints
	want         map[string]string // what each prints
}

// TestDocs compiles every Go block of the pages, with one go vet, and runs those
// that show what they print, as one program.
func TestDocs(t *testing.T) {
	t.Parallel()
	root, err := os.MkdirTemp(".", ".docs-") // ./... passes over it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	g := &guide{t: t, root: filepath.Base(root), want: map[string]string{}}
	pages, _ := filepath.Glob("docs/*.md")
	for _, page := range append(pages, "README.md") {
		g.page(page)
	}
	if len(g.want) == 0 {
		t.Fatal("no program shows what it prints")
	}
	g.write("all", "main.go", "package main\n\nimport \"fmt\"\n"+g.heads.String()+"\nfunc main() {\n"+g.calls.String()+"}\n")
	dirs, _ := filepath.Glob(filepath.Join(root, "*"))
	for i := range dirs {
		dirs[i] = "./" + dirs[i]
	}
	goTool(t, append([]string{"vet"}, dirs...)...)
	out := goTool(t, "run", "./"+filepath.Join(root, "all"))
	for where, want := range g.want {
		_, after, _ := strings.Cut(out, mark+where+"\n")
		if got, _, _ := strings.Cut(after, mark); got != want {
			t.Errorf("%s prints\n%s\nwant\n%s", where, got, want)
		}
	}
}

const mark = "====> " // before where a block is, and what it prints

// page takes the blocks of a page.
func (g *guide) page(page string) {
	b, err := os.ReadFile(page)
	if err != nil {
		g.t.Fatal(err)
	}
	text, name := string(b), strings.NewReplacer("/", "-", ".md", "").Replace(page)
	for i, m := range preamble.FindAllStringSubmatch(text, -1) {
		g.write(name, fmt.Sprintf("preamble%d.go", i), fragment(m[1], page+":1"))
	}
	for i, m := range goBlock.FindAllStringSubmatchIndex(text, -1) {
		part := func(n int) string { return text[max(0, m[2*n]):max(0, m[2*n+1])] }
		info, code, prints := strings.TrimSpace(part(1)), part(2), part(3)
		where := fmt.Sprintf("%s:%d", page, 1+strings.Count(text[:m[4]], "\n"))
		switch dir := fmt.Sprintf("%s%d", name, i+1); {
		case info == "before": // the code of another library
		case info != "":
			if from, err := os.ReadFile(info); err != nil || !strings.Contains(string(from), code) {
				g.t.Errorf("%s: no excerpt of %s: %v", where, info, err)
			}
		case prints != "":
			g.want[where] = prints
			fmt.Fprintf(&g.heads, "import p%d %q\n", len(g.want), module+"/"+g.root+"/"+dir)
			fmt.Fprintf(&g.calls, "fmt.Print(%q)\np%d.Main()\n", mark+where+"\n", len(g.want))
			code = strings.NewReplacer("package main\n", "package program\n", "\nfunc main() {", "\nfunc Main() {").Replace(code)
			fallthrough
		case strings.Contains("\n"+code, "\npackage "):
			g.formatted(where, code)
			g.write(dir, "block.go", position(where)+code)
		default:
			g.formatted(where, imports.ReplaceAllString(code, ""))
			g.write(name, dir+".go", fragment(code, where))
		}
	}
}

func (g *guide) formatted(where, code string) {
	if pretty, err := format.Source([]byte(code)); err != nil || string(pretty) != code {
		g.t.Errorf("%s: not formatted as gofmt does: %v", where, err)
	}
}

// position has the compiler say where in a page code is.
func position(where string) string {
	path, _ := filepath.Abs(where)
	return "//line " + path + "\n"
}

// fragment makes a file of declarations, or of the statements of a function with
// a context and an app.
func fragment(code, where string) string {
	head := imports.FindString(code)
	code = position(where) + code[len(head):]
	if _, err := parser.ParseFile(token.NewFileSet(), "", "package docs\n"+code, 0); err != nil {
		code = "func _(ctx context.Context, app *chicory.App) error {\nif true {\n" + code + "}\nreturn nil\n}\n"
	}
	for _, path := range known {
		if line := fmt.Sprintf("import %q\n", path); !strings.Contains(head, line) &&
			regexp.MustCompile(`\b`+filepath.Base(path)+`\.[A-Z]`).MatchString(code) {
			head += line
		}
	}
	return "package docs\n\n" + head + code
}

func (g *guide) write(dir, file, code string) {
	dir = filepath.Join(g.root, dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(code), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// goTool runs the go command and returns what it prints to standard output.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("go %s: %v\n%s", args[0], err, stderr.String())
	}
	return string(out)
}
