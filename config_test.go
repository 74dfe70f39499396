package chicory

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/settings"
)

// TestDefaultsAreThoseOfTheTable compares what the table of keys says with what New does.
func TestDefaultsAreThoseOfTheTable(t *testing.T) {
	t.Parallel()
	said := Config{}
	if err := settings.Defaults().Fill(&said, true); err != nil {
		t.Fatal(err)
	}
	if said.ResultSweep != 5*time.Second {
		t.Errorf("result_sweep is %v, want what the engine takes for 0", said.ResultSweep)
	}
	said.ResultSweep = 0
	unsaid := Config{}
	for _, c := range []*Config{&said, &unsaid} {
		if err := c.fill(); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(said, unsaid) {
		t.Errorf("table %+v\nNew   %+v", said, unsaid)
	}
}

// stores returns the URLs of an app's broker and backend.
func stores(a *App) [2]string {
	got := [2]string{a.broker.cfg.URL.String(), "none"}
	if a.back.name != "" {
		got[1] = a.back.cfg.URL.String()
	}
	return got
}

func TestStoresAreAllOfOneSource(t *testing.T) {
	for name, value := range map[string]string{"CHICORY_URL": "memory:env", "CHICORY_BROKER_URL": "memory:envbroker", "CHICORY_BACKEND_URL": "memory:envbackend"} {
		t.Setenv(name, value)
	}
	for want, cfg := range map[[2]string]Config{
		{"memory:envbroker", "memory:envbackend"}: {Queue: "q"},
		{"memory:code", "memory:code"}:            {URL: "memory:code"},
		{"memory:code", "memory:b"}:               {BrokerURL: "memory:code", BackendURL: "memory:b"},
		{"memory:", "memory:"}:                    {Broker: BrokerMemory},
		{"memory:envbroker", "none"}:              {Backend: BackendNone},
	} {
		a, err := New(cfg)
		if err != nil || stores(a) != want {
			t.Errorf("%+v: got %+v, %v; want %v", cfg, a, err, want)
		}
	}
	if _, err := New(Config{BackendURL: "memory:"}); err == nil || !strings.Contains(err.Error(), "neither URL nor Broker") {
		t.Errorf("a backend alone: got %v, want that the broker is missing", err)
	}
}

func TestSecretsAreReadWhereNeeded(t *testing.T) {
	t.Setenv("CHICORY_URL_FILE", "none/such")
	a, err := New(Config{URL: "memory:code"})
	if err != nil || a.cfg.URL != "memory:code" {
		t.Errorf("got %v, want that the file is passed over", err)
	}
	if _, err := NewWith(struct{ driver.Broker }{}, nil, Config{}); err != nil {
		t.Errorf("NewWith: got %v, want that the file is passed over", err)
	}
	if _, err := New(Config{}); !errors.Is(err, os.ErrNotExist) || !errors.Is(err, ErrValidation) {
		t.Errorf("got %v, want that the file is missing", err)
	}
}

func TestOverrideIsTheWholeStore(t *testing.T) {
	t.Parallel()
	_, memory, err := driver.Default.Lookup("memory")
	if err != nil {
		t.Fatal(err)
	}
	drivers := &driver.Registry{}
	drivers.Register("memory", memory)
	drivers.Register("other", driver.Driver{OpenBackend: memory.OpenBackend})
	for want, cfg := range map[[2]string]Config{
		{"memory:flag", "memory:flag"}: {URL: "memory:a", Backend: "other", BackendURL: "other:b", Registry: drivers},
		{"memory:flag", "none"}:        {BrokerURL: "memory:a", Backend: BackendNone},
	} {
		a, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.override("memory:flag"); err != nil || stores(a) != want {
			t.Errorf("%+v: got %v, %v; want %v", cfg, stores(a), err, want)
		}
	}
}

func TestBackoffReadsText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Backoff{
		"fixed 30s":                           Fixed(30 * time.Second),
		" linear  10s 5m ":                    Linear(10*time.Second, 5*time.Minute),
		"exponential 1s 5m":                   Exponential(time.Second, 5*time.Minute),
		"exponential 1s 5m jitter=0 factor=3": Exponential(time.Second, 5*time.Minute).Jitter(0).Factor(3),
		"fixed 1s jitter=0.5":                 Fixed(time.Second).Jitter(0.5),
	} {
		var got Backoff
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "fixed", "random 1s", "linear 1s", "fixed soon", "fixed -1s", "fixed 1s 2s", "fixed 1s factor=2",
		"exponential 1s 5m factor=0.5", "exponential 1s 5m jitter=2", "exponential 1s 5m jitter", "fixed 1s jitter=NaN"} {
		got := Fixed(time.Hour)
		if err := got.UnmarshalText([]byte(text)); err == nil || got != Fixed(time.Hour) {
			t.Errorf("%q: got %+v, %v; want an error, and nothing changed", text, got, err)
		}
	}
}
