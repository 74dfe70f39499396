package exampletest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// Run runs an example on a memory store and checks that its output holds every
// line of want, in that order. It returns the output.
func Run(t *testing.T, run func(context.Context, io.Writer) error, want ...string) string {
	t.Helper()
	t.Setenv("CHICORY_URL", "")
	slog.SetDefault(slog.New(slog.DiscardHandler))
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v\noutput:\n%s", err, out.String())
	}
	rest := out.String()
	for _, line := range want {
		_, after, found := strings.Cut(rest, line)
		if !found {
			t.Errorf("output lacks %q, or has it too early:\n%s", line, out.String())
			continue
		}
		rest = after
	}
	return out.String()
}
