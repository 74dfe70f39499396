package memory

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/chicory-go/chicory/driver"
)

const driverName = "memory"

func init() {
	driver.Register(driverName, driver.Driver{
		Schemes:     []string{driverName},
		Check:       check,
		OpenBroker:  openBroker,
		OpenBackend: openBackend,
	})
}

// An address is what a URL says.
type address struct {
	name string // empty: a private store
	max  int    // zero: no limit
}

func check(cfg *driver.Config) error {
	_, err := parse(cfg)
	return err
}

func parse(cfg *driver.Config) (address, error) {
	a, err := parseURL(cfg.URL)
	if err == nil {
		err = driver.CheckNamespace(cfg.Namespace)
	}
	if err != nil {
		return a, fmt.Errorf("memory: url %s: %w", cfg.Redacted(), err)
	}
	return a, nil
}

func parseURL(u *url.URL) (a address, err error) {
	switch {
	case u.Scheme != "" && u.Scheme != driverName:
		return a, fmt.Errorf("scheme is %q, want %q", u.Scheme, driverName)
	case u.Host != "":
		return a, fmt.Errorf("there is no host; for a shared store write memory:%s", u.Host)
	case u.User != nil || u.Path != "" || u.Fragment != "":
		return a, errors.New("want memory: or memory:name")
	}
	if a.name = u.Opaque; a.name != "" {
		if err := driver.CheckID(a.name); err != nil {
			return a, fmt.Errorf("name of the store: %w", err)
		}
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return a, err
	}
	for key, values := range params {
		if key != "max" {
			return a, fmt.Errorf("unknown parameter %q, known: max", key)
		}
		if a.max, err = strconv.Atoi(values[0]); err != nil || a.max < 1 || len(values) > 1 {
			return a, fmt.Errorf("parameter max is %q, want one number above 0", values)
		}
	}
	return a, nil
}

// store returns the store of a. named.mu is held.
func (a address) store() *Store {
	s := named.stores[a.name]
	if s == nil {
		s = newStore(a.name)
		if a.name != "" {
			named.stores[a.name] = s
		}
	}
	if a.max > 0 {
		s.SetMax(a.max)
	}
	return s
}

func openBroker(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	a, err := parse(cfg)
	if err == nil {
		err = driver.Transient(ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	named.mu.Lock()
	defer named.mu.Unlock()
	return a.store().Broker(cfg.Namespace), nil
}

// openBackend opens a backend on the store of cfg.Broker if it was opened with
// the same name, private stores included.
func openBackend(ctx context.Context, cfg *driver.Config) (driver.Backend, error) {
	a, err := parse(cfg)
	if err == nil {
		err = driver.Transient(ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	named.mu.Lock()
	defer named.mu.Unlock()
	if b, ok := driver.As[*Broker](cfg.Broker); ok && b.store.name == a.name && b.Namespace() == cfg.Namespace {
		return b.store.Backend(cfg.Namespace), nil
	}
	return a.store().Backend(cfg.Namespace), nil
}
