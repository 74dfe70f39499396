package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/internal/testserver"
)

const want = "At once, each at its second attempt: [1 4 9 16]\nA moment later: 144\n"

// TestSwap builds the program once and runs it on every driver: what differs is the
// configuration, what it prints does not.
func TestSwap(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "swap")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	here, err := filepath.Abs("chicory.toml")
	if err != nil {
		t.Fatal(err)
	}
	redis := func(t *testing.T) string { return "redis://" + testserver.NewRedis(t).Addr }
	tests := []struct {
		name string
		env  func(t *testing.T) []string
	}{
		{"memory", func(*testing.T) []string { return []string{"CHICORY_URL=memory:"} }},
		{"bolt", func(*testing.T) []string { return []string{"CHICORY_URL=bolt:jobs.db"} }},
		{"redis", func(t *testing.T) []string { return []string{"CHICORY_URL=" + redis(t)} }},
		{"amqp and redis", func(t *testing.T) []string {
			rabbitMQ := testserver.NewRabbitMQ(t).URL("guest:guest", "/")
			return []string{"CHICORY_URL=" + rabbitMQ, "CHICORY_BACKEND_URL=" + redis(t)}
		}},
		{"a file", func(*testing.T) []string { return []string{"CHICORY_CONFIG=" + here} }},
		{"a file and the environment", func(*testing.T) []string {
			return []string{"CHICORY_CONFIG=" + here, "CHICORY_URL=bolt:jobs.db"}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(program)
			cmd.Dir, cmd.Env = t.TempDir(), tt.env(t)
			out, err := cmd.Output()
			if err != nil || string(out) != want {
				t.Errorf("%v printed %q, %v; want %q", cmd.Env, out, err, want)
			}
			_, err = os.Stat(filepath.Join(cmd.Dir, "jobs.db"))
			if asked := strings.Contains(strings.Join(cmd.Env, " "), "bolt:jobs.db"); asked != (err == nil) {
				t.Errorf("%v: its file: %v", cmd.Env, err)
			}
		})
	}
}

// TestSwapWithoutStore wants an error that says what is missing, not a store of its own.
func TestSwapWithoutStore(t *testing.T) {
	t.Setenv("CHICORY_URL", "")
	if err := run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "CHICORY_URL") {
		t.Errorf("got %v, want the variable that is missing", err)
	}
}
