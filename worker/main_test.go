package worker

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// clean removes every variable that could leak into the tests.
func clean(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "CHICORY_") {
			t.Setenv(name, "")
		}
	}
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	clean(t)
	file := filepath.Join(t.TempDir(), "chicory.json")
	text := `{"concurrency":3,"queues":"file","shutdown_timeout":"3s","dlq":false,"log_level":"error","strict":true}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "list.json")
	if err := os.WriteFile(list, []byte(`{"concurrency":1000000,"queues":["a=3","b"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	type want struct {
		concurrency int
		queues      []Queue
		grace       time.Duration
		noDLQ       bool
		level       slog.Level
		strict      bool
	}
	fromFile := want{3, []Queue{{"file", 0}}, 3 * time.Second, true, slog.LevelError, true}
	fromEnv := want{4, []Queue{{"env", 2}}, 4 * time.Second, false, slog.LevelWarn, false}
	fromFlags := want{5, []Queue{{"flag", 0}, {"b", 9}}, 5 * time.Second, true, slog.LevelDebug, true}
	env := map[string]string{"CHICORY_CONCURRENCY": "4", "CHICORY_QUEUES": "env=2", "CHICORY_SHUTDOWN_TIMEOUT": "4s",
		"CHICORY_DLQ": "true", "CHICORY_LOG_LEVEL": "warn", "CHICORY_STRICT": "false"}
	args := []string{"--concurrency", "5", "--queues=flag, b=9", "--shutdown-timeout=5s", "--no-dlq", "--log-level=debug", "--strict"}
	tests := []struct {
		name string
		file string
		env  map[string]string
		args []string
		want want
	}{
		{"default", "", nil, nil, want{}},
		{"file", file, nil, nil, fromFile},
		{"environment over file", file, env, nil, fromEnv},
		{"flags over all", file, env, args, fromFlags},
		{"--dlq over a file's false", file, nil, []string{"--dlq"}, want{3, []Queue{{"file", 0}}, 3 * time.Second, false, slog.LevelError, true}},
		{"--strict=false over a file's true", file, nil, []string{"--strict=false"}, want{3, []Queue{{"file", 0}}, 3 * time.Second, true, slog.LevelError, false}},
		{"no grace", "", nil, []string{"--shutdown-timeout=0"}, want{grace: NoGrace}},
		{"no grace in the environment", "", map[string]string{"CHICORY_SHUTDOWN_TIMEOUT": "0s"}, nil, want{grace: NoGrace}},
		{"--no-dlq=false over a file's false", file, nil, []string{"--no-dlq=false"}, want{3, []Queue{{"file", 0}}, 3 * time.Second, false, slog.LevelError, true}},
		{"a list of queues", list, nil, nil, want{concurrency: 1000000, queues: []Queue{{"a", 3}, {"b", 0}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CHICORY_CONFIG", tt.file)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			f, err := parseFlags("w", tt.args, os.Stderr)
			if err != nil {
				t.Fatal(err)
			}
			got := want{f.opts.Concurrency, f.opts.Queues, f.opts.ShutdownTimeout, f.opts.deadLetters != nil && !*f.opts.deadLetters, f.level, f.opts.Strict}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestBadFlags(t *testing.T) {
	clean(t)
	for _, args := range []string{"--concurrency=0", "--concurrency=x", "--shutdown-timeout=-1s", "--queues=a=0", "--queues=,",
		"--queues=a=b", "--log-level=loud", "--dlq --no-dlq", "--nonsense", "leftover"} {
		var out strings.Builder
		if code := runMain(nil, "w", strings.Fields(args), &out, nil, nil); code != exitUsage || !strings.Contains(out.String(), "--help") {
			t.Errorf("%s: exit %d, %q; want %d and a hint", args, code, out.String(), exitUsage)
		}
	}
	for name, value := range map[string]string{"CHICORY_CONCURRENCY": "lots", "CHICORY_SHUTDOWN_TIMEOUT": "-1s", "CHICORY_DLQ": "perhaps"} {
		t.Setenv(name, value)
		var out strings.Builder
		if code := runMain(nil, "w", nil, &out, nil, nil); code != exitUsage || !strings.Contains(out.String(), name) {
			t.Errorf("%s=%s: exit %d, %q", name, value, code, out.String())
		}
	}
}

func TestHelp(t *testing.T) {
	clean(t)
	var out strings.Builder
	if code := runMain(nil, "w", []string{"--help"}, &out, nil, nil); code != exitOK {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{"--concurrency", "--queues", "--dlq, --no-dlq", "--shutdown-timeout", "--log-level", "--url", "Exit codes"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %s:\n%s", want, out.String())
		}
	}
	for _, line := range strings.Split(out.String(), "\n") {
		if len(line) > 100 {
			t.Errorf("line of %d columns: %s", len(line), line)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"concurrency": {Concurrency: -1}, "deliveries": {MaxDeliveries: -1}, "lease short": {Lease: time.Millisecond},
		"lease long": {Lease: time.Hour}, "lease odd": {Lease: time.Second + time.Microsecond}, "grace": {ShutdownTimeout: -2},
		"queue": {Queues: []Queue{{Name: ""}}}, "queue twice": {Queues: []Queue{{Name: "a"}, {Name: "a"}}},
		"weight": {Queues: []Queue{{"a", -1}}}, "too many": {Concurrency: 3_000_000_000_000}, "prefetch": {Prefetch: -1},
		"age": {DeadLetterAge: -time.Hour}, "nil middleware": {Middleware: []Middleware{nil}},
	} {
		if _, err := o.filled(); err == nil {
			t.Errorf("%s: accepted %+v", name, o)
		}
	}
	o, err := Options{}.filled()
	if err != nil || o.Concurrency < 1 || o.Prefetch != 2*o.Concurrency || o.Lease != 30*time.Second ||
		o.MaxDeliveries != 5 || o.ShutdownTimeout != 25*time.Second || o.Name == "" {
		t.Errorf("defaults: %+v, %v", o, err)
	}
}
