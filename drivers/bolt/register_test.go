package bolt_test

import (
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/chicory-go/chicory/driver"
)

func config(t *testing.T, raw string) (*driver.Config, driver.Driver) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	name, d, err := driver.Default.Lookup("bolt")
	if err != nil || name != "bolt" {
		t.Fatalf("Lookup: got %q, %v", name, err)
	}
	return &driver.Config{URL: u, Namespace: "ns", Logger: slog.New(slog.DiscardHandler)}, d
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for raw, ok := range map[string]bool{
		"bolt:jobs.db": true, "bolt:dir/jobs.db": true, "bolt:./jobs.db": true, "bolt:/abs/jobs.db": true,
		"bolt:///abs/jobs.db": true, "bolt:with%20space.db": true, "bolt:jobs.db?max=10": true,
		"bolt:jobs.db?maxsize=1000000": true, "bolt:jobs.db?maxsize=10GiB&max=1": true,
		"bolt:": false, "": false, "bolt://": false, "bolt://host/jobs.db": false, "bolt:dir/": false, "bolt:/": false,
		"bolt:jobs.db?max=0": false, "bolt:jobs.db?max=": false, "bolt:jobs.db?max=1&max=2": false,
		"bolt:jobs.db?maxsize=10GB": false, "bolt:jobs.db?maxsize=-1": false, "bolt:jobs.db?maxsize=9999999999TiB": false,
		"bolt:jobs.db?unknown=1": false, "bolt:jobs.db#f": false, "bolt:%zz": false, "memory:": false,
		"bolt://u:secret@/jobs.db": false,
	} {
		u, err := url.Parse(raw)
		if err != nil {
			u = &url.URL{Scheme: "bolt", Opaque: "%zz"}
		}
		cfg, d := config(t, "bolt:")
		cfg.URL = u
		if err := d.Check(cfg); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", raw, err, ok)
		}
	}
	cfg, d := config(t, "bolt:jobs.db")
	cfg.Namespace = "Not Valid"
	if d.Check(cfg) == nil {
		t.Error("a bad namespace passes")
	}
}

// TestURL opens a broker and a backend on one file, by two spellings of its
// path. The file is closed with the last of them.
func TestURL(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "with space.db")
	cfg, d := config(t, (&url.URL{Scheme: "bolt", Path: path}).String())
	broker, err := d.OpenBroker(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg, _ = config(t, "bolt:"+url.PathEscape(path))
	backend, err := d.OpenBackend(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := driver.As[driver.Coverer](broker); !ok || !c.Covers(backend) {
		t.Error("the broker does not cover the backend")
	}
	want(t, "name", broker.Info().Name, "bolt")
	want(t, "durable", broker.Info().Durable && backend.Info().Durable, true)
	if err := broker.Publish(t.Context(), []*driver.Message{tracked("a")}); err != nil {
		t.Fatal(err)
	}
	if err := broker.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rs, err := backend.Get(t.Context(), []string{"a"}); err != nil || rs[0] == nil {
		t.Errorf("the backend ends with the broker: %v, %v", rs, err)
	}
	backend.Close(t.Context())
	want(t, "records in the closed file", countKeys(t, path, "ns/r"), 1)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v", info.Mode(), err)
	}
}
