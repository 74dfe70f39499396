package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/config"
	"github.com/chicory-go/chicory/internal/settings"
	"github.com/chicory-go/chicory/worker"
)

// environment has nothing of Chicory but what is in vars, until the test ends.
func environment(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, settings.Prefix) {
			t.Setenv(name, "")
		}
	}
	for name, value := range vars {
		t.Setenv(name, value)
	}
}

func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "chicory.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// code are the fields that no text can be.
var code = []string{"Config.Validator", "Config.Codecs", "Config.Middleware", "Config.Logger", "Config.Registry",
	"Options.Middleware", "Options.OnSettled", "Options.Logger"}

// TestEveryFieldHasAKey fails for a new field that is neither a key's nor code.
func TestEveryFieldHasAKey(t *testing.T) {
	t.Parallel()
	known := slices.Clone(code)
	for _, k := range settings.Keys {
		known = append(known, k.Fields...)
	}
	var fields []string
	for _, typ := range []reflect.Type{reflect.TypeFor[chicory.Config](), reflect.TypeFor[worker.Options]()} {
		for f := range typ.Fields() {
			if f.IsExported() {
				fields = append(fields, typ.Name()+"."+f.Name)
			}
		}
	}
	slices.Sort(known)
	slices.Sort(fields)
	if !slices.Equal(known, fields) {
		t.Errorf("keys and code are of %v\nbut the fields are %v", known, fields)
	}
}

// sample is a value of each key, and what it makes of its field.
var samples = map[string]struct {
	text string
	want any
}{
	"url":              {"redis://:pw@host:1/2", "redis://:pw@host:1/2"},
	"broker":           {"amqp", chicory.BrokerAMQP},
	"broker_url":       {"amqp://host", "amqp://host"},
	"backend":          {"none", chicory.BackendNone},
	"backend_url":      {"bolt:x.db", "bolt:x.db"},
	"namespace":        {"mine", "mine"},
	"queue":            {"q", "q"},
	"delivery":         {"at-most-once", chicory.AtMostOnceDelivery},
	"max_retries":      {"0", chicory.NoRetries},
	"backoff":          {"linear 1s 9s", chicory.Linear(time.Second, 9*time.Second)},
	"timeout":          {"none", chicory.NoTimeout},
	"result_ttl":       {"forever", chicory.Forever},
	"dlq":              {"false", true},
	"max_payload":      {"17", 17},
	"max_result":       {"18", 18},
	"result_sweep":     {"none", chicory.NoSweep},
	"validation":       {"strict", chicory.ValidationStrict},
	"codec":            {"application/json", codec.JSON},
	"concurrency":      {"3", 3},
	"queues":           {"images=3, mail", []worker.Queue{{Name: "images", Weight: 3}, {Name: "mail"}}},
	"strict":           {"true", true},
	"prefetch":         {"9", 9},
	"lease":            {"12s", 12 * time.Second},
	"max_deliveries":   {"2", 2},
	"shutdown_timeout": {"0", worker.NoGrace},
	"dead_letter_age":  {"1h30m", 90 * time.Minute},
	"worker_name":      {"w1", "w1"},
	"log_level":        {"debug", nil},
}

// field returns a field by its name with its type, as in a key.
func field(t *testing.T, c *config.Config, name string) any {
	t.Helper()
	for _, v := range []reflect.Value{reflect.ValueOf(c.App), reflect.ValueOf(c.Worker)} {
		if f, ok := strings.CutPrefix(name, v.Type().Name()+"."); ok {
			return v.FieldByName(f).Interface()
		}
	}
	t.Fatalf("no field %s", name)
	return nil
}

func TestEveryKeySetsItsFields(t *testing.T) {
	for _, k := range settings.Keys {
		sample, ok := samples[k.Name]
		if !ok {
			t.Errorf("no sample for %s", k.Name)
			continue
		}
		environment(t, map[string]string{k.Variable(): sample.text})
		fromEnv, err := config.Load("")
		t.Setenv(k.Variable(), "")
		fromFile, err2 := config.Load(write(t, k.Name+" = '"+sample.text+"'"))
		if err := errors.Join(err, err2); err != nil {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		for _, name := range k.Fields {
			for _, c := range []config.Config{fromEnv, fromFile} {
				if got := field(t, &c, name); !reflect.DeepEqual(got, sample.want) {
					t.Errorf("%s = %s: %s is %v, want %v", k.Name, sample.text, name, got, sample.want)
				}
			}
		}
	}
}

func TestEnvironmentBeatsFile(t *testing.T) {
	file := write(t, "queue = 'file' # a comment\nconcurrency = 4\ndlq = false\nstrict = true\nqueues = ['a,b', 'c=2']\ntimeout = '1m'\n")
	other := write(t, "queue = 'other'\n")
	environment(t, map[string]string{"CHICORY_CONFIG": file, "CHICORY_CONCURRENCY": "5", "CHICORY_STRICT": "false", "CHICORY_LOG_LEVEL": "error"})
	c, err := config.Load(other)
	if err != nil {
		t.Fatal(err)
	}
	if c.App.Queue != "file" || c.App.Timeout != time.Minute || !c.App.NoDeadLetters || !c.Worker.NoDeadLetters {
		t.Errorf("the file that CHICORY_CONFIG names says something else than %+v", c)
	}
	if c.Worker.Concurrency != 5 || c.Worker.Strict {
		t.Errorf("the environment says something else than %+v", c.Worker)
	}
	if want := []worker.Queue{{Name: "a,b"}, {Name: "c", Weight: 2}}; !slices.Equal(c.Worker.Queues, want) {
		t.Errorf("got %v, want the list %v", c.Worker.Queues, want)
	}
	if c.Worker.Logger == nil || c.Worker.Logger.Enabled(t.Context(), 4) {
		t.Errorf("got %v, want a logger of errors", c.Worker.Logger)
	}
	t.Setenv("CHICORY_CONFIG", "")
	if c, err = config.Load(other); err != nil || c.App.Queue != "other" || c.Worker.Concurrency != 5 {
		t.Errorf("got %+v, %v; want the file that the program names", c, err)
	}
}

// TestStoresAreAllOfOneSource: a variable of a store beats all keys of stores in the file.
func TestStoresAreAllOfOneSource(t *testing.T) {
	file := write(t, "broker_url = 'redis://file'\nbackend = 'none'\nqueue = 'q'\n")
	environment(t, map[string]string{"CHICORY_URL": "memory:"})
	c, err := config.Load(file)
	if err != nil || c.App.URL != "memory:" || c.App.BrokerURL != "" || c.App.Backend != "" || c.App.Queue != "q" {
		t.Errorf("got %+v, %v; want the environment's store", c.App, err)
	}
	t.Setenv("CHICORY_URL", "")
	c, err = config.Load(file)
	if err != nil || c.App.URL != "" || c.App.BrokerURL != "redis://file" || c.App.Backend != chicory.BackendNone {
		t.Errorf("got %+v, %v; want the file's store", c.App, err)
	}
}

// TestMistakesAreToldAtOnce wants every mistake of environment and file, with its place.
func TestMistakesAreToldAtOnce(t *testing.T) {
	file := write(t, `# what is wrong here is all of it
url = "://admin:s3cret@host"
broker = "redis://admin:s3cret@host"
time-out = "1m"
timeout = 30

backoff = "random"
max_payload = "1MiB"
queues = ["images=0"]
validation = ["none"]
delivery = "exactly-once"
namespace = "Mine!"
codec = "application/x-nothing"
lease = 2020-01-01
nonsense = 1
"redis://:s3cret@host" = 1
log_level = "loud"
[worker]
concurrency = 3
`)
	environment(t, map[string]string{"CHICORY_CONCURRENCY": "lots", "CHICORY_BACKEND_URL": "s3cret", "CHICORY_TIMEOUT": "1m", "CHICORY_LOG_LEVEL": "info", "CHICORY_SPEED": "s3cret"})
	_, err := config.Load(file)
	if !errors.Is(err, chicory.ErrValidation) {
		t.Fatalf("got %v, want all mistakes", err)
	}
	for _, want := range []string{
		file + ":2: url is wrong: want a URL",
		file + ":3: broker is wrong: want the name of a driver",
		file + ":4: time-out is unknown; did you mean timeout?",
		file + `:5: timeout is "30": want a duration such as 90s`,
		file + `:7: backoff is "random": want `,
		file + `:8: max_payload is "1MiB": want a whole number`,
		file + `:9: queues is "images=0": want names with weights`,
		file + ":10: validation is a list: want none, inputs, outputs or strict",
		file + `:11: delivery is "exactly-once": want at-least-once or at-most-once`,
		file + `:12: namespace is "Mine!": want `,
		file + `:13: codec is "application/x-nothing": want the content type`,
		"known: application/json",
		file + ":14: lease is no text, number or list of them: want a duration of whole milliseconds from 1s to 30m0s",
		file + ":15: nonsense is unknown\n",
		file + ":16: a key that may be a URL is unknown\n",
		file + `:17: log_level is "loud": want debug`,
		file + ":18: worker is unknown\nknown are backend, ",
		`CHICORY_CONCURRENCY is "lots": want a whole number from 1`,
		"CHICORY_BACKEND_URL is wrong: want a URL, such as redis://localhost:6379: has no scheme",
		"CHICORY_SPEED is unknown\n",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it is not said that %s", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a password is told: %v", err)
	}
}

func TestFileThatIsNoTOML(t *testing.T) {
	environment(t, nil)
	for text, place := range map[string]string{
		"queue = 'q'\nurl = redis://:s3cret@host\n": ":2:7:",
		"url = 'redis://:s3cret@host\n":             ":1:",
		"s3cret":                                    ":1:",
		"queue = 'a'\nqueue = 's3cret'\n":           ":",
		"\xff = 's3cret'":                           ":1:",
	} {
		path := write(t, text)
		_, err := config.Load(path)
		if !errors.Is(err, chicory.ErrValidation) || !strings.Contains(err.Error(), path+place) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: got %v, want %s%s and no password", text, err, path, place)
		}
	}
	if _, err := config.Load("none/such.toml"); !errors.Is(err, os.ErrNotExist) || !errors.Is(err, chicory.ErrValidation) {
		t.Errorf("got %v, want a file that is missing", err)
	}
}

// TestFileThatCannotBeRead wants no path that may be a URL, and no wait for its end.
func TestFileThatCannotBeRead(t *testing.T) {
	for path, want := range map[string]string{
		"redis://:s3cret@host": "configuration file: what may be a URL: no such file", "/dev/zero": "no regular file", t.TempDir(): "directory",
		write(t, strings.Repeat("# 16 characters\n", 1<<16)+"#"): "has more than 1024 KiB",
	} {
		environment(t, map[string]string{"CHICORY_CONFIG": path})
		if _, err := config.Load(""); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	environment(t, map[string]string{"CHICORY_CONFIG": write(t, "\ufeffqueue = 'q'")})
	if c, err := config.Load(""); err != nil || c.App.Queue != "q" {
		t.Errorf("got %+v, %v; want the file without its byte order mark", c, err)
	}
}

// TestNewTakesTheEnvironment proves that a program without this package's file has the
// same keys.
func TestNewTakesTheEnvironment(t *testing.T) {
	environment(t, map[string]string{"CHICORY_URL": "memory:", "CHICORY_QUEUE": "q", "CHICORY_MAX_RETRIES": "7"})
	app, err := chicory.New(chicory.Config{Queue: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	if d := app.Core().Defaults; d.Queue != "mine" || d.Retries != 7 {
		t.Errorf("got queue %s and %d retries; want what is explicit, then the environment", d.Queue, d.Retries)
	}
	t.Setenv("CHICORY_TIMEOUT", "soon")
	t.Setenv("CHICORY_QEUE", "q")
	_, err = chicory.New(chicory.Config{})
	if !errors.Is(err, chicory.ErrValidation) || !strings.Contains(err.Error(), "CHICORY_TIMEOUT") || !strings.Contains(err.Error(), "CHICORY_QEUE") {
		t.Errorf("got %v, want both mistakes", err)
	}
}
