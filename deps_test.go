package chicory_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/chicory-go/chicory"

// TestDependencies keeps client libraries out of what every user links.
func TestDependencies(t *testing.T) {
	t.Parallel()
	core := slices.Clip([]string{module, module + "/driver", module + "/codec", module + "/worker", module + "/internal",
		"github.com/google/uuid", "google.golang.org/protobuf"})
	tests := []struct {
		packages []string
		allowed  []string
	}{
		{[]string{"./driver"}, []string{module + "/driver"}},
		{[]string{"./codec"}, []string{module + "/codec"}},
		{[]string{"./codec/cbor"}, []string{module + "/codec", "github.com/fxamacker/cbor", "github.com/x448/float16"}},
		{[]string{"./codec/msgpack"}, []string{module + "/codec", "github.com/vmihailenco"}},
		{[]string{"./codec/zstd"}, []string{module + "/codec", "github.com/klauspost/compress"}},
		{[]string{"./codec/gob", "./codec/aesgcm"}, []string{module + "/codec"}},
		{[]string{"./drivers/memory"}, []string{module + "/driver", module + "/drivers/memory", module + "/internal/store"}},
		{[]string{"./drivers/bolt"}, []string{module + "/driver", module + "/drivers/bolt", module + "/internal/store",
			module + "/internal/wire", "go.etcd.io/bbolt", "golang.org/x/sys"}},
		{[]string{"./drivers/redis"}, []string{module + "/driver", module + "/drivers/redis", module + "/internal/location", module + "/internal/wire",
			"github.com/redis/go-redis", "github.com/cespare/xxhash", "go.uber.org/atomic", "golang.org/x/sys"}},
		{[]string{"./drivers/amqp"}, []string{module + "/driver", module + "/drivers/amqp", module + "/internal/location", module + "/internal/wire",
			"github.com/rabbitmq/amqp091-go", "golang.org/x/sync"}},
		{[]string{".", "./worker", "./drivers/memory"}, append(core, module+"/drivers/memory")},
		{[]string{"./validate"}, []string{module + "/validate", "github.com/go-playground", "github.com/gabriel-vasile/mimetype",
			"github.com/leodido/go-urn", "golang.org/x/crypto", "golang.org/x/text", "golang.org/x/sys"}},
		{[]string{"./health"}, append(core, module+"/health")},
		{[]string{"./config"}, append(core, module+"/config", "github.com/pelletier/go-toml")},
		{[]string{"./chicorytest"}, append(core, module+"/chicorytest", module+"/drivers/memory")},
	}
	for _, tt := range tests {
		args := append([]string{"list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}"}, tt.packages...)
		for path := range strings.FieldsSeq(goTool(t, args...)) {
			if !slices.ContainsFunc(tt.allowed, func(a string) bool { return path == a || a != module && strings.HasPrefix(path, a+"/") }) {
				t.Errorf("%v links %s; allowed is %v and the standard library", tt.packages, path, tt.allowed)
			}
		}
	}
}

// TestDocumentation wants a comment on every exported name and every package.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{".", "driver", "codec", "worker", "drivers/memory", "drivers/bolt", "drivers/redis", "drivers/amqp", "internal/store", "internal/location", "internal/wire", "drivers/all",
		"validate", "codec/cbor", "codec/msgpack", "codec/gob", "codec/zstd", "codec/aesgcm", "health", "metrics", "tracing", "config", "internal/settings", "internal/testserver", "chicorytest"} {
		p := documented(t, dir)
		if p.Doc == "" {
			t.Errorf("package %s has no comment", dir)
		}
		for _, f := range p.Funcs {
			wantComment(t, dir, f.Name, f.Doc)
		}
		for _, v := range append(p.Consts, p.Vars...) {
			checkValues(t, dir, v)
		}
		for _, typ := range p.Types {
			wantComment(t, dir, typ.Name, typ.Doc)
			for _, f := range append(typ.Funcs, typ.Methods...) {
				wantComment(t, dir, f.Name, f.Doc)
			}
			for _, v := range append(typ.Consts, typ.Vars...) {
				checkValues(t, dir, v)
			}
		}
	}
}

func documented(t *testing.T, dir string) *doc.Package {
	t.Helper()
	set := token.NewFileSet()
	noTests := func(i fs.FileInfo) bool { return !strings.HasSuffix(i.Name(), "_test.go") }
	//lint:ignore SA1019 the package's files are all there is to see; no types are needed
	parsed, err := parser.ParseDir(set, dir, noTests, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parsed {
		var files []*ast.File
		for _, f := range p.Files {
			files = append(files, f)
		}
		d, err := doc.NewFromFiles(set, files, module+"/"+dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	t.Fatalf("no package in %s", dir)
	return nil
}

// checkValues wants a comment on a group or on each of its names.
func checkValues(t *testing.T, dir string, v *doc.Value) {
	t.Helper()
	for _, spec := range v.Decl.Specs {
		s := spec.(*ast.ValueSpec)
		if ast.IsExported(s.Names[0].Name) {
			wantComment(t, dir, s.Names[0].Name, v.Doc+s.Doc.Text()+s.Comment.Text())
		}
	}
}

func wantComment(t *testing.T, dir, name, comment string) {
	t.Helper()
	if strings.TrimSpace(comment) == "" {
		t.Errorf("%s: %s has no comment", dir, name)
	}
}
