package bench_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// around is what a block of docs/migration.md stands in, by what is in it: a function's
// head with what it uses, and its end.
var around = map[string][2]string{
	"asynq.": {`package before

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
)

type ResizeArgs struct {
	URL   string
	Width int
}

func before(url string, resize func(context.Context, ResizeArgs) (string, error)) error {
`, `
	_ = info
	return err
}
`},
	"machinery.": {`package before

import (
	"time"

	"github.com/RichardKnop/machinery/v2"
	backends "github.com/RichardKnop/machinery/v2/backends/iface"
	brokers "github.com/RichardKnop/machinery/v2/brokers/iface"
	"github.com/RichardKnop/machinery/v2/config"
	locks "github.com/RichardKnop/machinery/v2/locks/iface"
	"github.com/RichardKnop/machinery/v2/tasks"
)

func before(url string, cnf *config.Config, broker brokers.Broker, backend backends.Backend, lock locks.Lock,
	resize func(string, int64) (string, error)) error {
`, `
	_ = results
	return err
}
`},
}

var block = regexp.MustCompile("(?s)```go before\n(.*?)```")

// TestMigration compiles what the guide shows of other libraries.
func TestMigration(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := block.FindAllStringSubmatch(string(text), -1)
	if len(blocks) != len(around) {
		t.Fatalf("%d blocks, want %d", len(blocks), len(around))
	}
	for library, code := range around {
		for _, b := range blocks {
			if !strings.Contains(b[1], library) {
				continue
			}
			dir, err := os.MkdirTemp(".", ".docs-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.WriteFile(filepath.Join(dir, "before.go"), []byte(code[0]+b[1]+code[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "go", "vet", "./"+dir).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", library, err, out)
			}
		}
	}
}
