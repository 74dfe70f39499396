package redis

import (
	"context"
	"crypto/x509"
	"errors"
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
	_, err := parse(cfg)
	return err
}

// A location is what a URL says.
type location struct {
	client *redis.Options
	own    *Options
	pems   pems
}

func parse(cfg *driver.Config) (*location, error) {
	l, err := parseURL(cfg.URL)
	if err == nil {
		err = driver.CheckNamespace(cfg.Namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("redis: url %s: %w", cfg.Redacted(), err)
	}
	l.own.Logger = cfg.Logger
	return l, nil
}

func parseURL(u *url.URL) (*location, error) {
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, err
	}
	l := &location{own: &Options{}}
	for name, value := range map[string]*string{"prefix": &l.own.Prefix,
		"ca_file": &l.pems.ca, "cert_file": &l.pems.cert, "key_file": &l.pems.key} {
		if *value, err = take(params, name); err != nil {
			return nil, err
		}
	}
	if strings.ContainsAny(l.own.Prefix, "{} ") {
		return nil, fmt.Errorf("parameter prefix is %q, want a text without braces and spaces", l.own.Prefix)
	}
	if params.Has("max_retries") {
		return nil, fmt.Errorf("max_retries cannot be set: a command that is repeated is carried out twice")
	}
	bare := *u
	bare.RawQuery = params.Encode()
	if bare.Scheme == "" {
		bare.Scheme = "redis"
	}
	ro, err := redis.ParseURL(bare.String())
	if err == nil {
		err = l.pems.check(ro.TLSConfig != nil)
	}
	if err != nil {
		return nil, err
	}
	ro.MaxRetries, ro.DialerRetries = -1, 1
	ro.ContextTimeoutEnabled = true
	if ro.ReadTimeout == 0 {
		ro.ReadTimeout = readTimeout
	}
	l.client = ro
	return l, nil
}

// take takes a parameter out, which may be there once.
func take(params url.Values, name string) (string, error) {
	values, ok := params[name]
	if !ok {
		return "", nil
	}
	if len(values) != 1 || values[0] == "" {
		return "", fmt.Errorf("parameter %s is %q, want one text", name, values)
	}
	params.Del(name)
	return values[0], nil
}

func open(ctx context.Context, cfg *driver.Config) (*conn, error) {
	l, err := parse(cfg)
	if err == nil {
		err = driver.Transient(ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	if err := l.pems.load(l.client.TLSConfig); err != nil {
		return nil, fmt.Errorf("redis: %w (%s)", err, cfg.Redacted())
	}
	c, err := dial(ctx, l.client, l.own, cfg.Namespace)
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return nil, fmt.Errorf("%w: name the server's CA with ca_file (%s)", err, cfg.Redacted())
	case err != nil:
		return nil, fmt.Errorf("%w (%s)", err, cfg.Redacted())
	}
	c.url = cfg.URL.String()
	return c, nil
}

// dial connects to a server, or to the cluster that it is of.
func dial(ctx context.Context, ro *redis.Options, o *Options, ns string) (*conn, error) {
	c, err := connect(ctx, redis.NewClient(ro), true, o, ns)
	if !errors.Is(err, errCluster) {
		return c, err
	}
	if ro.DB != 0 {
		return nil, fmt.Errorf("redis: the server is a node of a cluster, which has no database %d", ro.DB)
	}
	return connect(ctx, redis.NewClusterClient(clusterOptions(ro)), true, o, ns)
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
