package config_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/internal/settings"
)

var update = flag.Bool("update", false, "write the table of docs/configuration.md")

const (
	document = "../docs/configuration.md"
	begin    = "<!-- written by: go generate ./config -->\n"
	end      = "<!-- end -->\n"
)

// TestTable compares docs/configuration.md with the keys, and writes it with -update.
func TestTable(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", document)
	}
	want := before + begin + table() + end + after
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s is not what the keys say; write it with: go generate ./config", document)
	}
}

// table is the keys in Markdown.
func table() string {
	var b strings.Builder
	b.WriteString("| key | variable | flag | value | default | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, k := range settings.Keys {
		var byFlag, byDefault string
		if k.HasFlag {
			byFlag = "`--" + k.Flag() + "`"
		}
		if k.Default != "" {
			byDefault = "`" + k.Default + "`"
		}
		variable := "`" + k.Variable() + "`"
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", k.Name, variable, byFlag, k.Want(), byDefault, k.Doc)
	}
	return b.String()
}
