package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A Driver opens brokers and backends. Either function may be nil.
type Driver struct {
	// Schemes are the URL schemes the driver answers to, besides its name.
	Schemes []string
	// Check reports whether cfg can be opened, without I/O: a bad URL, an
	// unknown parameter. It is called before either Open.
	Check func(cfg *Config) error
	// OpenBroker and OpenBackend connect, within ctx.
	OpenBroker  func(ctx context.Context, cfg *Config) (Broker, error)
	OpenBackend func(ctx context.Context, cfg *Config) (Backend, error)
}

// Config is what a driver is opened with.
type Config struct {
	URL       *url.URL // never nil
	Namespace string   // [a-z0-9_-]+; namespaces never see each other
	// Broker, when a backend is opened, is the broker the application uses:
	// where both are the same driver with an equal URL the backend shares its
	// store and connection.
	Broker Broker
	Logger *slog.Logger // never nil
}

// Redacted returns the URL without its password, and without the values of
// parameters that may hold a secret.
func (c *Config) Redacted() string {
	u := *c.URL
	values := u.Query()
	hidden := false
	for key := range values {
		if secret.MatchString(key) {
			values.Set(key, "xxxxx")
			hidden = true
		}
	}
	if hidden {
		u.RawQuery = values.Encode()
	}
	return u.Redacted()
}

var secret = regexp.MustCompile(`(?i)pass|pwd|secret|token|key|auth|cred`)

// A Registry finds drivers by name or scheme. The zero value is ready; it is
// safe for concurrent use.
type Registry struct {
	mu      sync.RWMutex
	drivers map[string]Driver
	schemes map[string]string // scheme → name
}

// Default is the registry that [Register] adds to.
var Default Registry

// Register adds a driver to Default. It panics as Registry.Register does.
func Register(name string, d Driver) { Default.Register(name, d) }

// Register adds a driver under name. It panics if the name or a scheme is
// taken, empty, or if the driver opens nothing: those are programming errors.
func (r *Registry) Register(name string, d Driver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "" || d.OpenBroker == nil && d.OpenBackend == nil {
		panic("driver: Register of an empty driver " + name)
	}
	if r.drivers == nil {
		r.drivers, r.schemes = map[string]Driver{}, map[string]string{}
	}
	if _, ok := r.drivers[name]; ok {
		panic("driver: Register called twice for " + name)
	}
	r.drivers[name] = d
	for _, s := range append([]string{name}, d.Schemes...) {
		if other, ok := r.schemes[s]; ok && other != name {
			panic("driver: scheme " + s + " is taken by " + other)
		}
		r.schemes[s] = name
	}
}

// Names returns the registered names, ordered.
func (r *Registry) Names() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.drivers))
}

// ErrUnknown matches the error of Lookup.
var ErrUnknown = errors.New("driver: unknown driver")

// Lookup finds a driver by its name or by one of its schemes, and returns its
// name. The error lists what is registered and names the import that is
// missing.
func (r *Registry) Lookup(nameOrScheme string) (string, Driver, error) {
	r.mu.RLock()
	name, ok := r.schemes[nameOrScheme]
	d := r.drivers[name]
	r.mu.RUnlock()
	if ok {
		return name, d, nil
	}
	known := "none"
	if names := r.Names(); len(names) > 0 {
		known = strings.Join(names, ", ")
	}
	return "", Driver{}, fmt.Errorf("%w %q (registered: %s); %s", ErrUnknown, nameOrScheme, known, cure(nameOrScheme))
}

// cure names the import that registers a driver of this module.
func cure(name string) string {
	for _, own := range []string{"memory", "bolt", "redis", "amqp"} {
		if name == own || name == own+"s" {
			return fmt.Sprintf("forgotten import? add _ %q", "github.com/chicory-go/chicory/drivers/"+own)
		}
	}
	return "import the package that registers it"
}
