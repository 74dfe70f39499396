package amqp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/driver"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	heartbeat   = 10 * time.Second
	dialTimeout = 10 * time.Second
	openTimeout = 30 * time.Second // of a server that answers
)

// A dialer connects to one of several addresses.
type dialer struct {
	urls []string
	tls  *tls.Config
	name string
}

// A session is one connection, from when it is open until it ends. It never comes
// back: the next connection is another session, so that nothing of the old one can be
// mistaken for the new one's.
type session struct {
	conn    *amqp.Connection
	raw     *conn
	version version
	done    chan struct{} // closed when the connection has ended

	mu      sync.Mutex
	blocked chan struct{} // closed when the server takes messages again; nil if it does
	pub     *publisher
	ended   bool
	users   sync.WaitGroup // goroutines that end with the session
}

// A version is that of a server.
type version struct{ major, minor int }

func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

// dial connects to the first address that answers.
func (d *dialer) dial(ctx context.Context, what string) (*session, error) {
	var errs []error
	for _, u := range d.urls {
		s, err := d.dialOne(ctx, u, what)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (d *dialer) dialOne(ctx context.Context, u, what string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var raw atomic.Pointer[conn]
	config := amqp.Config{Heartbeat: heartbeat, Locale: "en_US", Properties: amqp.NewConnectionProperties()}
	config.Properties.SetClientConnectionName(d.name + " " + what)
	if config.TLSClientConfig = d.tls.Clone(); d.tls == nil {
		config.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config.Dial = func(network, addr string) (net.Conn, error) {
		nd := net.Dialer{Timeout: dialTimeout}
		c, err := nd.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		w := newConn(c)
		raw.Store(w)
		deadline, _ := ctx.Deadline()
		return w, w.SetDeadline(deadline) // the library takes it away once the connection is open
	}
	conn, err := call(ctx, func() (*amqp.Connection, error) { return amqp.DialConfig(u, config) },
		func(conn *amqp.Connection) { conn.Close() }) // its deadline ends it
	if err != nil {
		if w := raw.Load(); w != nil {
			w.Close()
		}
		return nil, connectError(ctx, u, err)
	}
	s := &session{conn: conn, raw: raw.Load(), done: make(chan struct{})}
	if err := s.look(); err != nil {
		conn.Close()
		return nil, err
	}
	s.watch()
	return s, nil
}

// connectError says what failed, where, without a password.
func connectError(ctx context.Context, u string, err error) error {
	at := "?"
	if parsed, e := url.Parse(u); e == nil {
		at = parsed.Redacted()
	}
	var ae *amqp.Error
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("amqp: connect to %s: %w: name the server's CA with ca_file", at, err)
	case errors.Is(err, amqp.ErrCredentials), errors.As(err, &ae) && ae.Code == amqp.AccessRefused:
		return fmt.Errorf("amqp: connect to %s: %w", at, &AccessError{Err: err})
	case errors.Is(err, amqp.ErrVhost), errors.As(err, &ae) && ae.Code == amqp.NotAllowed:
		return fmt.Errorf("amqp: connect to %s: %w", at, &AccessError{Vhost: true, Err: err})
	case ctx.Err() != nil:
		return driver.Transient(fmt.Errorf("amqp: connect to %s: %w", at, ctx.Err()))
	}
	return driver.Transient(fmt.Errorf("amqp: connect to %s: %w", at, err))
}

// An AccessError says that the server does not let a client in.
type AccessError struct {
	Vhost bool // the virtual host is not there or not the user's; else user and password are wrong
	Err   error
}

// Error implements error.
func (e *AccessError) Error() string {
	if e.Vhost {
		return "the virtual host does not exist, or the user has no access to it: " + e.Err.Error()
	}
	return "the server refuses user and password: " + e.Err.Error()
}

// Unwrap returns the client library's error.
func (e *AccessError) Unwrap() error { return e.Err }

// parseVersion reads a version such as 3.10.8.
func parseVersion(text string) (v version, err error) {
	major, rest, _ := strings.Cut(text, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if v.major, err = strconv.Atoi(major); err == nil {
		v.minor, err = strconv.Atoi(minor)
	}
	if err != nil {
		return v, fmt.Errorf("amqp: %q is no version of RabbitMQ", text)
	}
	return v, nil
}

// look looks at what the server says of itself.
func (s *session) look() error {
	text, _ := s.conn.Properties["version"].(string)
	product, _ := s.conn.Properties["product"].(string)
	if product != "RabbitMQ" {
		return fmt.Errorf("amqp: the server is %q %q, want RabbitMQ", product, text)
	}
	v, err := parseVersion(text)
	if err != nil {
		return err
	}
	s.version = v
	if !s.version.atLeast(leastMajor, leastMinor) {
		return fmt.Errorf("amqp: the server is RabbitMQ %s, want %d.%d or newer", text, leastMajor, leastMinor)
	}
	return nil
}

// watch follows the connection until it ends.
func (s *session) watch() {
	closes := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	blocks := s.conn.NotifyBlocked(make(chan amqp.Blocking, 16))
	go func() {
		for {
			select {
			case b, ok := <-blocks:
				if !ok {
					blocks = nil
					continue
				}
				s.setBlocked(b.Active)
			case <-closes:
				s.setBlocked(false)
				close(s.done)
				return
			}
		}
	}()
}

func (s *session) setBlocked(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case on && s.blocked == nil:
		s.blocked = make(chan struct{})
	case !on && s.blocked != nil:
		close(s.blocked)
		s.blocked = nil
	}
}

func (s *session) isBlocked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocked != nil
}

// gate waits until the server takes messages.
func (s *session) gate(ctx context.Context) error {
	for {
		s.mu.Lock()
		blocked := s.blocked
		s.mu.Unlock()
		if blocked == nil {
			return nil
		}
		select {
		case <-blocked:
		case <-ctx.Done():
			return driver.Transient(fmt.Errorf("amqp: the server is out of memory or disk space and takes no messages: %w: %w", driver.ErrFull, ctx.Err()))
		}
	}
}

func (s *session) alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// channel opens a channel, within ctx.
func (s *session) channel(ctx context.Context) (*amqp.Channel, error) {
	return call(ctx, s.conn.Channel, func(ch *amqp.Channel) { ch.Close() })
}

// rpc makes a call of the library, within ctx. What f is to tell it must return, for it
// goes on if ctx ends: see call.
func rpc(ctx context.Context, f func() error) error {
	_, err := call(ctx, func() (struct{}, error) { return struct{}{}, f() }, nil)
	return err
}

// call makes a call of the library, which obeys no context. One that is left behind ends
// with its answer or with the connection; what it returns then is undone.
func call[T any](ctx context.Context, f func() (T, error), undo func(T)) (T, error) {
	if ctx.Done() == nil {
		return f()
	}
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		v, err := f()
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		if undo != nil {
			go func() {
				if a := <-answers; a.err == nil {
					undo(a.value)
				}
			}()
		}
		var none T
		return none, ctx.Err()
	}
}

// spawn runs f apart, or at once if the session has ended, after which f does not block.
func (s *session) spawn(f func()) {
	s.mu.Lock()
	ended := s.ended
	if !ended {
		s.users.Add(1)
	}
	s.mu.Unlock()
	if ended {
		f()
		return
	}
	go func() {
		defer s.users.Done()
		f()
	}()
}

// end closes the connection: with a goodbye, unless the server would not answer.
func (s *session) end(politely bool) {
	if politely && !s.isBlocked() {
		s.conn.CloseDeadline(time.Now().Add(goodbye))
	}
	s.raw.Close()
	<-s.done
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.users.Wait()
}
