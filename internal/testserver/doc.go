// Package testserver starts servers of the tests' own, on free ports of the loopback: a
// redis-server, a RabbitMQ. Only tests and benchmarks import it.
package testserver

import (
	"errors"
	"net"
	"testing"
)

// Errors that say that there is no server to be started. Tests skip then.
var (
	ErrNoRedis    = errors.New("NOT TESTED: there is no redis-server on this machine (Debian's package is redis-server)")
	ErrNoRabbitMQ = errors.New("NOT TESTED: there is no rabbitmq-server on this machine (Debian's package is rabbitmq-server)")
)

// FreeAddr finds an address that nobody listens on.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Must returns the server that was started. It skips tb where there is none.
func Must[S any](tb testing.TB, s S, err error) S {
	tb.Helper()
	if errors.Is(err, ErrNoRedis) || errors.Is(err, ErrNoRabbitMQ) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return s
}
