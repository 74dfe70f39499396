// Package testserver starts servers of the tests' own, on free ports of the loopback: a
// redis-server, a RabbitMQ. Only tests and benchmarks import it.
package testserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Errors that say that there is no server to be started. Tests skip then.
var (
	ErrNoRedis    = errors.New("NOT TESTED: there is no redis-server on this machine (Debian's package is redis-server)")
	ErrNoRabbitMQ = errors.New("NOT TESTED: there is no rabbitmq-server on this machine (Debian's package is rabbitmq-server)")
)

// given are the ports that FreeAddr has returned.
var given sync.Map

// FreeAddr finds an address that nobody listens on, another one each time. Neither its
// port nor the one 10,000 above, which a node of a cluster of Redis takes too, is one of
// those from which clients of the machine connect (on Linux from 32768): such a client
// could take it while a server is down.
func FreeAddr() (string, error) {
	for tries := 1; ; tries++ {
		addr := fmt.Sprint("127.0.0.1:", 10000+rand.N(12000))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			if _, before := given.LoadOrStore(addr, true); !before {
				return addr, l.Close()
			}
			l.Close()
		}
		if err != nil && tries == 100 {
			return "", err
		}
	}
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
