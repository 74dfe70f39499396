package bolt

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/chicory-go/chicory/driver"
)

func init() {
	driver.Register(driverName, driver.Driver{
		Schemes:     []string{driverName},
		Check:       check,
		OpenBroker:  openBroker,
		OpenBackend: openBackend,
	})
}

func check(cfg *driver.Config) error {
	_, _, err := parse(cfg)
	return err
}

// parse returns the path of the file, and how to open it.
func parse(cfg *driver.Config) (path string, o *Options, err error) {
	o = &Options{Logger: cfg.Logger}
	if path, err = parseURL(cfg.URL, o); err == nil {
		err = driver.CheckNamespace(cfg.Namespace)
	}
	if err != nil {
		return "", nil, fmt.Errorf("bolt: url %s: %w", cfg.Redacted(), err)
	}
	return path, o, nil
}

func parseURL(u *url.URL, o *Options) (path string, err error) {
	switch {
	case u.Scheme != "" && u.Scheme != driverName:
		return "", fmt.Errorf("scheme is %q, want %q", u.Scheme, driverName)
	case u.Host != "":
		return "", fmt.Errorf("there is no host; for a relative path write bolt:%s%s", u.Host, u.Path)
	case u.User != nil || u.Fragment != "":
		return "", errors.New("want bolt:path")
	}
	if path = u.Path; u.Opaque != "" {
		if path, err = url.PathUnescape(u.Opaque); err != nil {
			return "", err
		}
	}
	if path == "" || strings.HasSuffix(path, "/") {
		return "", errors.New("the file is missing: want bolt:path")
	}
	return path, parseParams(u.RawQuery, o)
}

func parseParams(query string, o *Options) error {
	params, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	for key, values := range params {
		var err error
		switch {
		case len(values) > 1:
			err = errors.New("it is given twice")
		case key == "max":
			o.MaxPending, err = strconv.Atoi(values[0])
			err = errors.Join(err, above(int64(o.MaxPending)))
		case key == "maxsize":
			o.MaxSize, err = parseSize(values[0])
		default:
			return fmt.Errorf("unknown parameter %q, known: max, maxsize", key)
		}
		if err != nil {
			return fmt.Errorf("parameter %s is %q: %w", key, values, err)
		}
	}
	return nil
}

func above(n int64) error {
	if n < 1 {
		return errors.New("want a number above 0")
	}
	return nil
}

// parseSize parses a number of bytes.
func parseSize(s string) (int64, error) {
	unit := int64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = number, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil {
		err = above(n)
	}
	if err == nil && n > (1<<62)/unit {
		err = errors.New("it is too large")
	}
	return n * unit, err
}

// openFile opens the file of cfg.
func openFile(ctx context.Context, cfg *driver.Config) (*Store, error) {
	path, o, err := parse(cfg)
	if err != nil {
		return nil, err
	}
	return Open(ctx, path, o)
}

func openBroker(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	s, err := openFile(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer s.Close() // the broker has it
	return s.Broker(cfg.Namespace), nil
}

func openBackend(ctx context.Context, cfg *driver.Config) (driver.Backend, error) {
	s, err := openFile(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer s.Close() // the backend has it
	return s.Backend(cfg.Namespace), nil
}
