package amqp

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/driver"
)

const (
	driverName     = "amqp"
	maxMessage     = 4 << 20 // bytes of an envelope
	maxPrefix      = 32      // bytes
	maxHeld        = 30 * time.Minute
	goodbye        = time.Second // within which a connection that is closed is answered
	leastMajor     = 3
	leastMinor     = 10
	defaultPrefix  = "chicory"
	publishingName = "publish"
	consumingName  = "consume"
	declaringName  = "declare"
)

// Options configure a broker. The zero value is ready.
type Options struct {
	// Prefix begins the names of all queues and exchanges, "chicory" if empty: 32
	// bytes at most of [A-Za-z0-9_-]. Two applications that share a virtual host need
	// different prefixes or namespaces.
	Prefix string
	// Classic has the queues of tasks be classic ones, which are not replicated. Those
	// of delays and dead letters are quorum queues always. It cannot be changed for a
	// queue that exists.
	Classic bool
	// Passive has the driver declare nothing, for accounts without the right to
	// configure: all it needs must be there, see [Definitions].
	Passive bool
	// ConsumerTimeout is how long the server lets a delivery be held: its setting
	// consumer_timeout. Zero is the server's default, 30 minutes. Another one is asked
	// for with each quorum queue that is declared, which servers before 3.12 ignore:
	// there it must be configured.
	ConsumerTimeout time.Duration
	// Management is the URL of the server's management API, with user and password:
	// http://user:password@host:15672. It tells Inspect what is leased, and Queues what
	// other processes declared, both some seconds late. Empty is none.
	Management string
	// TLS is for amqps and https URLs. Nil is the system's authorities.
	TLS *tls.Config
	// Logger is told of connections that are lost. Nil is none.
	Logger *slog.Logger
}

func (o *Options) check() error {
	if len(o.Prefix) > maxPrefix || strings.ContainsFunc(o.Prefix, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}) {
		return fmt.Errorf("amqp: prefix %q: want at most %d bytes of [A-Za-z0-9_-]", o.Prefix, maxPrefix)
	}
	if o.ConsumerTimeout < 0 {
		return fmt.Errorf("amqp: consumer timeout is %v, want 0 or more", o.ConsumerTimeout)
	}
	if o.Management == "" {
		return nil
	}
	if u, err := url.Parse(o.Management); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("amqp: the management API is not at an http:// or https:// URL")
	}
	return nil
}

// A Broker is a [driver.Broker] on RabbitMQ, and a [driver.Inspector]. It is safe for
// concurrent use.
type Broker struct {
	opts       Options
	names      names
	nonce      string // of this broker, for names of copies
	serial     atomic.Uint64
	longest    int64 // ms that are waited for at once
	log        *slog.Logger
	publishing *link
	consuming  *link
	topology   *topology
	management *management     // nil: there is none
	ending     context.Context // ends with the broker
	end        context.CancelFunc
	closed     atomic.Bool

	mu   sync.Mutex
	subs map[*subscription]struct{}
}

var (
	_ driver.Broker    = (*Broker)(nil)
	_ driver.Inspector = (*Broker)(nil)
)

// Open connects to RabbitMQ and returns a broker. Each of urls, one at least, is an
// address of the same cluster and virtual host, tried in order; amqp:// or amqps://.
// Nil options are the zero value. Whatever is wrong at first is returned: an address
// that does not answer, credentials, a virtual host. Later the broker connects again
// by itself, for ever.
func Open(ctx context.Context, urls []string, namespace string, o *Options) (*Broker, error) {
	b := &Broker{nonce: rand.Text()[:12], longest: maxDelay, subs: map[*subscription]struct{}{}}
	if o != nil {
		b.opts = *o
	}
	if err := cmp.Or(b.opts.check(), driver.CheckNamespace(namespace)); err != nil {
		return nil, err
	}
	if len(urls) == 0 {
		return nil, errors.New("amqp: no address")
	}
	for i, u := range urls {
		if err := checkURL(u); err != nil {
			return nil, fmt.Errorf("amqp: address %d of %d: %w", i+1, len(urls), err)
		}
	}
	b.log = b.opts.Logger
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.names = newNames(cmp.Or(b.opts.Prefix, defaultPrefix), namespace)
	b.ending, b.end = context.WithCancel(context.Background())
	d := &dialer{urls: urls, tls: b.opts.TLS, name: b.names.base}
	b.publishing = newLink(publishingName, d, b.log)
	b.consuming = newLink(consumingName, d, b.log)
	b.topology = newTopology(b)
	b.management = newManagement(urls[0], &b.opts)
	for _, l := range []*link{b.publishing, b.consuming} {
		if err := l.open(ctx); err != nil {
			b.publishing.close()
			b.consuming.close()
			return nil, err
		}
	}
	return b, nil
}

// Info implements [driver.Broker].
func (b *Broker) Info() driver.BrokerInfo {
	return driver.BrokerInfo{Name: driverName, Contract: driver.Contract, Settle: driver.SettlePublishFirst,
		Acks: driver.AcksUnconfirmed, Lease: driver.LeaseSession, Durable: true, Priorities: levels,
		MaxLease: cmp.Or(b.opts.ConsumerTimeout, maxHeld), MaxMessage: maxMessage}
}

// check reports why a call cannot be made.
func (b *Broker) check(ctx context.Context) error {
	if b.closed.Load() {
		return driver.ErrClosed
	}
	return driver.Transient(ctx.Err())
}

// over is err, or ErrClosed if that is why it came.
func (b *Broker) over(err error) error {
	if err != nil && b.closed.Load() {
		return driver.ErrClosed
	}
	return err
}

// copyName names a stored message.
func (b *Broker) copyName() string { return fmt.Sprintf("%s%08x", b.nonce, b.serial.Add(1)) }

// Close implements [driver.Broker]. It is bounded by ctx and by a few seconds.
func (b *Broker) Close(ctx context.Context) error {
	if !b.closed.CompareAndSwap(false, true) {
		return nil
	}
	b.end()
	b.mu.Lock()
	subs := b.subs
	b.subs = nil
	b.mu.Unlock()
	for s := range subs {
		s.Close(ctx)
	}
	b.publishing.close()
	b.consuming.close()
	b.management.close()
	return nil
}

// enter keeps s, to be closed with b.
func (b *Broker) enter(s *subscription) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil {
		return driver.ErrClosed
	}
	b.subs[s] = struct{}{}
	return nil
}

func (b *Broker) leave(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}
