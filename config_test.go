package chicory

import (
	"reflect"
	"testing"
	"time"

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
