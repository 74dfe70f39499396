package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/chicory-go/chicory/internal/testserver"
	amqp091 "github.com/rabbitmq/amqp091-go"
)

// A server is a RabbitMQ of the tests' own.
type server struct {
	*testserver.RabbitMQ
	addr string
	dir  string
	env  []string
}

// newServer starts a server with conf in its configuration. It is stopped with tb.
func newServer(tb testing.TB, conf ...string) *server {
	tb.Helper()
	return serverOf(testserver.NewRabbitMQ(tb, conf...))
}

func startServer(dir string, conf ...string) (*server, error) {
	s, err := testserver.StartRabbitMQ(dir, conf...)
	if err != nil {
		return nil, err
	}
	return serverOf(s), nil
}

func serverOf(s *testserver.RabbitMQ) *server { return &server{s, s.Addr, s.Dir, s.Env} }

func (s *server) start() error { return s.Start() }

// kill ends the server as a crash would.
func (s *server) kill() { s.Kill() }

// stop has the server end by itself.
func (s *server) stop() { s.Stop() }

// url is where the server is found.
func (s *server) url(user, vhost string) string { return s.URL(user, vhost) }

// Of package testserver.
var (
	program       = testserver.Program
	freeAddr      = testserver.FreeAddr
	endWithParent = testserver.EndWithParent
)

// alarm has the server say that it is out of memory, or no longer.
func (s *server) alarm(tb testing.TB, on bool) {
	tb.Helper()
	s.ctl(tb, "eval", fmt.Sprintf("vm_memory_monitor:set_vm_memory_high_watermark(%v).", map[bool]string{true: "0.00001", false: "0.4"}[on]))
}

// configure adds lines to the configuration of a server that is down.
func (s *server) configure(tb testing.TB, more ...string) {
	tb.Helper()
	s.Configure(tb, more...)
}

var shared struct {
	once sync.Once
	*server
	err error
}

// sharedServer returns the server that most cases share, each with a prefix of
// its own.
func sharedServer(tb testing.TB) *server {
	tb.Helper()
	shared.once.Do(func() {
		var dir string
		if dir, shared.err = os.MkdirTemp("", "chicory-amqp"); shared.err == nil {
			shared.server, shared.err = startServer(dir)
		}
	})
	return testserver.Must(tb, shared.server, shared.err)
}

// TestMain stops the shared server, and says loudly if there was none.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.Close()
		os.RemoveAll(shared.dir)
	}
	if errors.Is(shared.err, testserver.ErrNoRabbitMQ) {
		fmt.Fprintln(os.Stderr, shared.err)
	}
	os.Exit(code)
}

// TestServer proves the tests' own tools: a server starts, ends and starts again.
func TestServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dial := func() error {
		c, err := amqp091.Dial(s.url("guest:guest", "/"))
		if err == nil {
			err = c.Close()
		}
		return err
	}
	for _, end := range []func(){s.kill, s.stop} {
		if err := dial(); err != nil {
			t.Fatal(err)
		}
		end()
		if err := dial(); err == nil {
			t.Error("a server that was ended serves")
		}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
	}
}

// background is for what ends with a test, when its own context has ended.
var background = context.Background()
