package memory_test

import (
	"log/slog"
	"net/url"
	"testing"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

func config(t *testing.T, raw string) (*driver.Config, driver.Driver) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	name, d, err := driver.Default.Lookup("memory")
	if err != nil || name != "memory" {
		t.Fatalf("Lookup: got %q, %v", name, err)
	}
	return &driver.Config{URL: u, Namespace: "ns", Logger: slog.New(slog.DiscardHandler)}, d
}

func openURL(t *testing.T, raw, namespace string, with driver.Broker) (driver.Broker, driver.Backend) {
	t.Helper()
	cfg, d := config(t, raw)
	cfg.Namespace = namespace
	broker, err := d.OpenBroker(t.Context(), cfg)
	if err != nil {
		t.Fatalf("OpenBroker: %v", err)
	}
	if cfg.Broker = with; with == nil {
		cfg.Broker = broker
	}
	backend, err := d.OpenBackend(t.Context(), cfg)
	if err != nil {
		t.Fatalf("OpenBackend: %v", err)
	}
	t.Cleanup(func() {
		broker.Close(t.Context())
		backend.Close(t.Context())
	})
	return broker, backend
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for raw, ok := range map[string]bool{
		"memory:": true, "memory://": true, "memory:name": true, "memory:a.b-c?max=10": true, "memory:?max=1": true, "": true,
		"memory://host": false, "memory:///path": false, "memory:a/b": false, "memory:?unknown=1": false, "memory:?max=": false,
		"memory:?max=0": false, "memory:?max=1&max=2": false, "memory:x#f": false, "memory:a%20b": false, "redis:": false,
		"memory://u:secret@": false,
	} {
		cfg, d := config(t, raw)
		if err := d.Check(cfg); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", raw, err, ok)
		}
	}
	cfg, d := config(t, "memory:")
	cfg.Namespace = "Not OK"
	wantErr(t, "namespace", d.Check(cfg), driver.ErrName)
}

func TestSharing(t *testing.T) {
	t.Parallel()
	covers := func(a driver.Broker, b driver.Backend) bool { return a.(driver.Coverer).Covers(b) }
	private1, ofPrivate1 := openURL(t, "memory:", "ns", nil)
	private2, ofPrivate2 := openURL(t, "memory:", "ns", nil)
	named1, ofNamed1 := openURL(t, "memory:sharing", "ns", nil)
	named2, ofNamed2 := openURL(t, "memory:sharing", "ns", private1)
	named3, _ := openURL(t, "memory:sharing", "other", nil)
	_, ofOther := openURL(t, "memory:other", "ns", named1)
	_, foreign := openURL(t, "memory:", "other", private1)
	tests := []struct {
		name    string
		broker  driver.Broker
		backend driver.Backend
		want    bool
	}{
		{"private", private1, ofPrivate1, true},
		{"other private", private1, ofPrivate2, false},
		{"second private", private2, ofPrivate2, true},
		{"named", named1, ofNamed1, true},
		{"named, of another client", named2, ofNamed1, true},
		{"named, of another broker", named1, ofNamed2, true},
		{"other namespace", named3, ofNamed1, false},
		{"other name", named1, ofOther, false},
		{"private of another namespace", private1, foreign, false},
	}
	for _, tt := range tests {
		want(t, tt.name, covers(tt.broker, tt.backend), tt.want)
	}
}

func TestNamedStoreEndsWithLastClient(t *testing.T) {
	t.Parallel()
	cfg, d := config(t, "memory:ends")
	openBroker := func() driver.Broker {
		b, err := d.OpenBroker(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	store := func(b driver.Broker) *memory.Store { m, _ := driver.As[*memory.Broker](b); return m.Store() }
	a, b := openBroker(), openBroker()
	want(t, "shared", store(a) == store(b), true)
	a.Close(t.Context())
	a.Close(t.Context())
	c := openBroker()
	want(t, "still shared", store(b) == store(c), true)
	b.Close(t.Context())
	c.Close(t.Context())
	last := openBroker()
	defer last.Close(t.Context())
	want(t, "new", store(last) != store(b), true)
}
