package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/location"
	amqp "github.com/rabbitmq/amqp091-go"
)

func init() {
	driver.Register(driverName, driver.Driver{
		Schemes:    []string{"amqp", "amqps"},
		Check:      func(cfg *driver.Config) error { _, err := parse(cfg); return err },
		OpenBroker: openBroker,
	})
}

// An address is what a URL says.
type address struct {
	urls []string
	own  *Options
	pem  location.PEM
}

func parse(cfg *driver.Config) (*address, error) {
	l, err := parseURL(cfg.URL)
	if err == nil {
		err = driver.CheckNamespace(cfg.Namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("amqp: url %s: %w", cfg.Redacted(), err)
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
	var queue, passive, timeout string
	for name, value := range map[string]*string{"prefix": &l.own.Prefix, "queue": &queue, "passive": &passive,
		"consumer_timeout": &timeout, "management": &l.own.Management, "ca_file": &l.pem.CA, "cert_file": &l.pem.Cert, "key_file": &l.pem.Key} {
		if *value, err = location.Take(params, name); err != nil {
			return nil, err
		}
	}
	switch queue {
	case "", "quorum":
	case "classic":
		l.own.Classic = true
	default:
		return nil, fmt.Errorf("parameter queue is %q, want quorum or classic", queue)
	}
	switch passive {
	case "", "false":
	case "true":
		l.own.Passive = true
	default:
		return nil, fmt.Errorf("parameter passive is %q, want true or false", passive)
	}
	if timeout != "" {
		if l.own.ConsumerTimeout, err = time.ParseDuration(timeout); err != nil || l.own.ConsumerTimeout <= 0 {
			return nil, fmt.Errorf("parameter consumer_timeout is %q, want a duration above 0", timeout)
		}
	}
	others := params["addr"]
	delete(params, "addr")
	for name := range params {
		return nil, fmt.Errorf("parameter %s is unknown", name)
	}
	return l, l.addresses(u, others)
}

// addresses fills in the URLs to connect to.
func (l *address) addresses(u *url.URL, others []string) error {
	bare := *u
	bare.RawQuery, bare.Fragment = "", ""
	if bare.Scheme == "" {
		bare.Scheme = "amqp"
	}
	for i, host := range append([]string{bare.Host}, others...) {
		one := bare
		one.Host = host
		if i > 0 {
			if _, _, err := net.SplitHostPort(host); err != nil {
				return fmt.Errorf("parameter addr: %w", err)
			}
		}
		if err := checkURL(one.String()); err != nil {
			return fmt.Errorf("address %s: %w", host, err)
		}
		l.urls = append(l.urls, one.String())
	}
	if err := l.own.check(); err != nil {
		return err
	}
	return l.pem.Check(bare.Scheme == "amqps", "amqps")
}

var errURL = errors.New("it is no URL: the port must be a number, and what is special in user, password and virtual host percent-encoded")

// checkURL reports whether the client library takes a URL. What the parsers say has
// parts of it, and these may be of the password.
func checkURL(text string) error {
	_, err := amqp.ParseURI(text)
	var ue *url.Error
	var ne *strconv.NumError
	if errors.As(err, &ue) || errors.As(err, &ne) {
		return errURL
	}
	return err
}

func openBroker(ctx context.Context, cfg *driver.Config) (driver.Broker, error) {
	l, err := parse(cfg)
	if err == nil {
		err = driver.Transient(ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	l.own.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if err := l.pem.Load(l.own.TLS); err != nil {
		return nil, fmt.Errorf("amqp: %w (%s)", err, cfg.Redacted())
	}
	b, err := Open(ctx, l.urls, cfg.Namespace, l.own)
	if err != nil {
		return nil, err
	}
	return b, nil
}
