package redis

import (
	"cmp"
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/chicory-go/chicory/driver"
	"github.com/redis/go-redis/v9"
)

// Options configure brokers and backends. The zero value is ready.
type Options struct {
	// Prefix begins all keys, "chicory" if empty. Two applications that share a
	// server need different prefixes or namespaces.
	Prefix string
	// Logger is told what is wrong with the server's configuration. Nil is none.
	Logger *slog.Logger
}

func (o *Options) prefix() string {
	if o == nil {
		return "chicory"
	}
	return cmp.Or(o.Prefix, "chicory")
}

func (o *Options) logger() *slog.Logger {
	if o == nil || o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// A Broker is a [driver.Broker] on a Redis server. It also is a
// [driver.Coverer], [driver.Control], [driver.Inspector] and [driver.Purger].
type Broker struct {
	client
	settles  driver.SettleMode // not atomic in a cluster
	covering atomic.Bool       // it has a backend: records are applied and obeyed
}

// A Backend is a [driver.Backend] on a Redis server. It also is a
// [driver.Notifier] and [driver.Control].
type Backend struct {
	client
}

var (
	_ driver.Broker    = (*Broker)(nil)
	_ driver.Coverer   = (*Broker)(nil)
	_ driver.Control   = (*Broker)(nil)
	_ driver.Inspector = (*Broker)(nil)
	_ driver.Purger    = (*Broker)(nil)
	_ driver.Backend   = (*Backend)(nil)
	_ driver.Notifier  = (*Backend)(nil)
	_ driver.Control   = (*Backend)(nil)
)

// NewBroker returns a broker on rdb, which stays the caller's: close it after the
// broker. Whatever its MaxRetries is, no script is repeated after a lost reply, for it
// may have been carried out. Several brokers and backends of one process may share
// rdb. It may be a [redis.Client], also one that finds its server through sentinels, or
// a [redis.ClusterClient]; rings are refused. With ContextTimeoutEnabled and a ReadTimeout, as
// clients that are opened by URL have, calls are cheaper: a deadline is the client's
// business then, and a cancellation waits for the reply of a call that was sent.
func NewBroker(ctx context.Context, rdb redis.UniversalClient, namespace string, o *Options) (*Broker, error) {
	c, err := connect(ctx, rdb, false, o, namespace)
	if err != nil {
		return nil, err
	}
	return newBroker(c), nil
}

// NewBackend is like NewBroker, for a backend. One with the same rdb, namespace
// and prefix as a broker is covered by it, but on a cluster.
func NewBackend(ctx context.Context, rdb redis.UniversalClient, namespace string, o *Options) (*Backend, error) {
	c, err := connect(ctx, rdb, false, o, namespace)
	if err != nil {
		return nil, err
	}
	return newBackend(c), nil
}

func newBroker(c *conn) *Broker {
	b := &Broker{}
	b.client.init(c)
	if c.cluster {
		b.settles = driver.SettlePublishFirst
	}
	return b
}

func newBackend(c *conn) *Backend {
	b := &Backend{}
	b.client.init(c)
	return b
}

// A client is what a Broker and a Backend have in common.
type client struct {
	conn   *conn
	closed atomic.Bool
	done   chan struct{} // closed with the client
}

func (c *client) init(conn *conn) { c.conn, c.done = conn, make(chan struct{}) }

// check reports why a call cannot be made.
func (c *client) check(ctx context.Context) error {
	if c.closed.Load() {
		return driver.ErrClosed
	}
	return driver.Transient(ctx.Err())
}

// Close implements [driver.Broker] and [driver.Backend].
func (c *client) Close(context.Context) error {
	if !c.closed.CompareAndSwap(false, true) {
		return nil
	}
	close(c.done)
	return c.conn.leave()
}

// call runs s for c. Once c is closed, the error is ErrClosed.
func (c *client) call(ctx context.Context, s *script, key string, args ...any) (any, error) {
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	value, err := c.conn.run(ctx, s, key, args...)
	if err != nil && c.closed.Load() {
		err = driver.ErrClosed
	}
	return value, err
}

// Info implements [driver.Broker].
func (b *Broker) Info() driver.BrokerInfo {
	return driver.BrokerInfo{Name: driverName, Contract: driver.Contract, Settle: b.settles,
		Acks: driver.AcksStored, Lease: driver.LeaseTimed, Dedup: true, FIFO: true, Durable: true,
		Priorities: 3, MaxMessage: maxValue}
}

// Info implements [driver.Backend].
func (b *Backend) Info() driver.BackendInfo {
	return driver.BackendInfo{Name: driverName, Contract: driver.Contract, Durable: true, MaxBody: maxValue}
}

// Covers implements [driver.Coverer]: b covers the backends that share its
// connection, or that were given the same client with the same prefix and
// namespace. In a cluster it covers none.
func (b *Broker) Covers(backend driver.Backend) bool {
	other, ok := driver.As[*Backend](backend)
	if !ok || b.conn.cluster || other.conn.prefix != b.conn.prefix || other.conn != b.conn && other.conn.rdb != b.conn.rdb {
		return false
	}
	b.covering.Store(true)
	return true
}

func (b *Broker) covers() string {
	if b.covering.Load() {
		return "1"
	}
	return "0"
}
