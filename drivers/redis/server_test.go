package redis_test

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/chicory-go/chicory/internal/testserver"
)

// A server is a redis-server of the tests' own.
type server struct {
	*testserver.Redis
	addr string
	dir  string
}

// newServer starts a server that syncs every write. It is stopped with tb.
func newServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	return serverOf(testserver.NewRedis(tb, args...))
}

func startServer(dir string, args ...string) (*server, error) {
	s, err := testserver.StartRedis(dir, args...)
	if err != nil {
		return nil, err
	}
	return serverOf(s), nil
}

func serverOf(s *testserver.Redis) *server { return &server{s, s.Addr, s.Dir} }

func (s *server) start() error { return s.Start() }

// kill ends the server as a crash would.
func (s *server) kill() { s.Kill() }

// A sharing is a server that cases share, each with a prefix of its own.
type sharing struct {
	once   sync.Once
	server *server
	err    error
}

var shared, sharedCluster sharing

// clusterArgs make a server the only node of a cluster.
var clusterArgs = []string{"--cluster-enabled", "yes"}

// sharedServer returns the server that most cases share.
func sharedServer(tb testing.TB) *server {
	tb.Helper()
	return shared.get(tb)
}

func (sh *sharing) get(tb testing.TB, args ...string) *server {
	tb.Helper()
	sh.once.Do(func() {
		var dir string
		if dir, sh.err = os.MkdirTemp("", "chicory-redis"); sh.err == nil {
			sh.server, sh.err = startServer(dir, args...)
		}
	})
	return testserver.Must(tb, sh.server, sh.err)
}

func (sh *sharing) end() {
	if sh.server != nil {
		sh.server.kill()
		os.RemoveAll(sh.server.dir)
	}
}

// TestMain stops the shared server, and says loudly if there was none. It makes the
// test program a child process of its own tests, if asked.
func TestMain(m *testing.M) {
	if arg := os.Getenv(childEnv); arg != "" {
		fmt.Println(hold(arg))
		os.Exit(1)
	}
	code := m.Run()
	shared.end()
	sharedCluster.end()
	if errors.Is(shared.err, testserver.ErrNoRedis) {
		fmt.Fprintln(os.Stderr, shared.err)
	}
	os.Exit(code)
}
