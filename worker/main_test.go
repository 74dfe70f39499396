package worker

import (
	"errors"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/internal/settings"
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

func TestFlagBeatsProgramBeatsEnvironmentBeatsDefault(t *testing.T) {
	clean(t)
	type want struct {
		concurrency int
		queues      []Queue
		grace       time.Duration
		noDLQ       bool
		level       slog.Level
		strict      bool
	}
	program := Options{Concurrency: 3, Queues: []Queue{{"program", 0}}, ShutdownTimeout: 3 * time.Second, NoDeadLetters: true, Strict: true}
	fromProgram := want{3, []Queue{{"program", 0}}, 3 * time.Second, true, slog.LevelInfo, true}
	fromEnv := want{4, []Queue{{"env", 2}}, 4 * time.Second, false, slog.LevelWarn, false}
	overEnv := want{3, []Queue{{"program", 0}}, 3 * time.Second, false, slog.LevelWarn, true}
	fromFlags := want{5, []Queue{{"flag", 0}, {"b", 9}}, 5 * time.Second, true, slog.LevelDebug, true}
	env := map[string]string{"CHICORY_CONCURRENCY": "4", "CHICORY_QUEUES": "env=2", "CHICORY_SHUTDOWN_TIMEOUT": "4s",
		"CHICORY_DLQ": "true", "CHICORY_LOG_LEVEL": "warn", "CHICORY_STRICT": "false"}
	args := []string{"--concurrency", "5", "--queues=flag, b=9", "--shutdown-timeout=5s", "--no-dlq", "--log-level=debug", "--strict"}
	but := func(w want, change func(*want)) want { change(&w); return w }
	tests := []struct {
		name    string
		program Options
		env     map[string]string
		args    []string
		want    want
	}{
		{"default", Options{}, nil, nil, want{}},
		{"environment", Options{}, env, nil, fromEnv},
		{"program", program, nil, nil, fromProgram},
		{"program over environment, but for dead letters", program, env, nil, overEnv},
		{"flags over all", program, env, args, fromFlags},
		{"flags over environment", Options{}, env, args, fromFlags},
		{"--dlq over the program", program, nil, []string{"--dlq"}, but(fromProgram, func(w *want) { w.noDLQ = false })},
		{"--no-dlq=false over the program", program, nil, []string{"--no-dlq=false"}, but(fromProgram, func(w *want) { w.noDLQ = false })},
		{"--no-dlq over the environment", Options{}, env, []string{"--no-dlq"}, but(fromEnv, func(w *want) { w.noDLQ = true })},
		{"--strict=false over the program", program, nil, []string{"--strict=false"}, but(fromProgram, func(w *want) { w.strict = false })},
		{"--strict=false over the environment", Options{}, map[string]string{"CHICORY_STRICT": "true"}, []string{"--strict=false"}, want{}},
		{"no grace", Options{}, nil, []string{"--shutdown-timeout=0"}, want{grace: NoGrace}},
		{"no grace in the environment", Options{}, map[string]string{"CHICORY_SHUTDOWN_TIMEOUT": "0s"}, nil, want{grace: NoGrace}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			f, err := parseFlags(tt.program, "w", tt.args, os.Stderr)
			if err != nil {
				t.Fatal(err)
			}
			opts, err := f.opts.filled()
			if err != nil {
				t.Fatal(err)
			}
			noDLQ := opts.deadLetters != nil && !*opts.deadLetters
			got := want{f.opts.Concurrency, f.opts.Queues, f.opts.ShutdownTimeout, noDLQ, f.level, f.opts.Strict}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestDefaultsAreThoseOfTheTable compares what the table of keys says with what a worker
// does.
func TestDefaultsAreThoseOfTheTable(t *testing.T) {
	t.Parallel()
	said := Options{Name: "w"}
	if err := settings.Defaults().Fill(&said, true); err != nil {
		t.Fatal(err)
	}
	got, err := said.filled()
	want, err2 := Options{Name: "w"}.filled()
	if err := errors.Join(err, err2); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ntable  %+v\nworker %+v", err, got, want)
	}
}

func TestURLIsTrimmed(t *testing.T) {
	clean(t)
	f, err := parseFlags(Options{}, "w", []string{"--url", " memory: "}, os.Stderr)
	if err != nil || !f.storeSaid || f.url != "memory:" {
		t.Errorf("got %+v, %v; want the URL without spaces", f, err)
	}
}

func TestBadFlags(t *testing.T) {
	clean(t)
	for _, args := range []string{"--concurrency=0", "--concurrency=x", "--shutdown-timeout=-1s", "--queues=a=0", "--queues=,",
		"--queues=a=b", "--log-level=loud", "--dlq --no-dlq", "--nonsense", "leftover", "--url="} {
		var out strings.Builder
		if code := runMain(nil, Options{}, "w", strings.Fields(args), &out, nil, nil); code != exitUsage || !strings.Contains(out.String(), "--help") {
			t.Errorf("%s: exit %d, %q; want %d and a hint", args, code, out.String(), exitUsage)
		}
	}
	for _, args := range []string{"redis://:s3cret@host", "--url= redis://:s3cret@host", "---url=redis://:s3cret@host", "--redis://:s3cret@host",
		"--no-dlq=redis://:s3cret@host", "--concurrency=redis://:s3cret@host", "--url=redis://:pass s3cret@host"} {
		var out strings.Builder
		if code := runMain(nil, Options{}, "w", strings.Fields(args), &out, nil, nil); code != exitUsage || strings.Contains(out.String(), "s3cret") {
			t.Errorf("%s: exit %d, %q; want %d and no password", args, code, out.String(), exitUsage)
		}
	}
	for name, value := range map[string]string{"CHICORY_CONCURRENCY": "lots", "CHICORY_SHUTDOWN_TIMEOUT": "-1s", "CHICORY_DLQ": "perhaps",
		"CHICORY_CONCURENCY": "4", "CHICORY_CONFIG": "worker.toml"} {
		t.Setenv(name, value)
		var out strings.Builder
		if code := runMain(nil, Options{}, "w", nil, &out, nil, nil); code != exitUsage || !strings.Contains(out.String(), name) {
			t.Errorf("%s=%s: exit %d, %q", name, value, code, out.String())
		}
	}
}

func TestHelp(t *testing.T) {
	clean(t)
	var out strings.Builder
	if code := runMain(nil, Options{}, "w", []string{"--help"}, &out, nil, nil); code != exitOK {
		t.Errorf("exit %d", code)
	}
	wants := []string{"--dlq, --no-dlq", "Exit codes"}
	for _, k := range settings.Keys {
		if k.HasFlag {
			wants = append(wants, "--"+k.Flag(), k.Variable())
		}
	}
	for _, want := range wants {
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
