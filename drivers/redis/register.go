package redis

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/redis/go-redis/v9"
)

// readTimeout is how long a reply may take, unless the URL says otherwise.
const readTimeout = 10 * time.Second

func init() {
	driver.Register(driverName, driver.Driver{
		Schemes:     []string{"redis", "rediss", "unix"},
		Check:       check,
		OpenBroker:  openBroker,
		OpenBackend: openBackend,
	})
}

func check(cfg *driver.Config) error {
	_, _, err := parse(cfg)
	return err
}

// parse returns what the URL says of the connection, and of us.
func parse(cfg *driver.Config) (*redis.Options, *Options, error) {
	ro, o, err := parseURL(cfg.URL)
	if err == nil {
		err = driver.CheckNamespace(cfg.Namespace)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("redis: url %s: %w", cfg.Redacted(), err)
	}
	o.Logger = cfg.Logger
	return ro, o, nil
}

func parseURL(u *url.URL) (*redis.Options, *Options, error) {
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, nil, err
	}
	o := &Options{}
	if prefix, ok := params["prefix"]; ok {
		if len(prefix) != 1 || prefix[0] == "" || strings.ContainsAny(prefix[0], "{} ") {
			return nil, nil, fmt.Errorf("parameter prefix is %q, want one text without braces and spaces", prefix)
		}
		o.Prefix = prefix[0]
	}
	if params.Has("max_retries") {
		return nil, nil, fmt.Errorf("max_retries cannot be set: a command that is repeated is carried out twice")
	}
	params.Del("prefix")
	bare := *u
	bare.RawQuery = params.Encode()
	if bare.Scheme == "" {
		bare.Scheme = "redis"
	}
	ro, err := redis.ParseURL(bare.String())
	if err != nil {
		return nil, nil, err
	}
	ro.MaxRetries, ro.DialerRetries = -1, 1
	ro.ContextTimeoutEnabled = true
	if ro.ReadTimeout == 0 {
		ro.ReadTimeout = readTimeout
	}
	return ro, o, nil
}

func open(ctx context.Context, cfg *driver.Config) (*conn, error) {
	ro, o, err := parse(cfg)
	if err == nil {
		err = driver.Transient(ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	c, err := connect(ctx, redis.NewClient(ro), true, o, cfg.Namespace)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, cfg.Redacted())
	}
	c.url = cfg.URL.String()
	return c, nil
}

func openBroker(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	c, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return newBroker(c), nil
}

// openBackend shares the connection of cfg.Broker if that has the same URL.
func openBackend(ctx context.Context, cfg *driver.Config) (driver.Backend, error) {
	if b, ok := driver.As[*Broker](cfg.Broker); ok && b.conn.url == cfg.URL.String() && b.conn.ns == cfg.Namespace && b.conn.share() {
		return newBackend(b.conn), nil
	}
	c, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return newBackend(c), nil
}
