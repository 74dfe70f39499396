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
	"github.com/chicory-go/chicory/internal/location"
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

// An address is what a URL says.
type address struct {
	client *redis.Options
	own    *Options
	pem    location.PEM
}

func parse(cfg *driver.Config) (*address, error) {
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

func parseURL(u *url.URL) (*address, error) {
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, err
	}
	l := &address{own: &Options{}}
	for name, value := range map[string]*string{"prefix": &l.own.Prefix,
		"ca_file": &l.pem.CA, "cert_file": &l.pem.Cert, "key_file": &l.pem.Key} {
		if *value, err = location.Take(params, name); err != nil {
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
		err = l.pem.Check(ro.TLSConfig != nil, "rediss")
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

func open(ctx context.Context, cfg *driver.Config) (*conn, error) {
	l, err := parse(cfg)
	if err == nil {
		err = driver.Transient(ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	if err := l.pem.Load(l.client.TLSConfig); err != nil {
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
