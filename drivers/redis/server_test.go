package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// A server is a redis-server of the tests' own, on a free port of the loopback.
type server struct {
	addr string
	dir  string
	args []string

	cluster bool // it is the only node of one

	mu  sync.Mutex
	cmd *exec.Cmd
}

// notTested is what is said loudly where there is no redis-server.
const notTested = "NOT TESTED: there is no redis-server on this machine (Debian's package is redis-server)"

// newServer starts a server that syncs every write. It is stopped with tb.
func newServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	s, err := startServer(tb.TempDir(), args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.kill)
	return s
}

func startServer(dir string, args ...string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &server{addr: addr, dir: dir, args: args, cluster: slices.Contains(args, "--cluster-enabled")}
	return s, s.start()
}

// freeAddr finds an address that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start starts the server, and waits until it serves.
func (s *server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, port, _ := net.SplitHostPort(s.addr)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--appendonly", "yes",
		"--appendfsync", "always", "--save", "", "--logfile", filepath.Join(s.dir, "log"), "--maxclients", "5000"}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.SysProcAttr = endWithParent()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	c := goredis.NewClient(&goredis.Options{Addr: s.addr, MaxRetries: -1})
	defer c.Close()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(10 * time.Millisecond) {
		err := c.Ping(context.Background()).Err()
		if err == nil && s.cluster {
			err = s.join(c)
		}
		if err == nil || strings.HasPrefix(err.Error(), "NOAUTH") {
			return nil
		}
	}
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return fmt.Errorf("redis-server does not serve:\n%s", log)
}

// join gives the node all slots, and reports whether the cluster takes writes. That of
// one which is started again takes its time.
func (s *server) join(c *goredis.Client) error {
	ctx := context.Background()
	c.ClusterAddSlotsRange(ctx, 0, 16383) // an error says that it has them
	info, err := c.ClusterInfo(ctx).Result()
	if err == nil && !strings.Contains(info, "cluster_state:ok") {
		err = errors.New("the cluster is not ready")
	}
	return err
}

// age waits until the server is up for a lease of the suite and a second: before, it takes
// nothing back.
func (s *server) age() error {
	c := goredis.NewClient(client(s))
	defer c.Close()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
		up := 0
		info, _ := c.Info(context.Background(), "server").Result()
		for line := range strings.Lines(info) {
			fmt.Sscanf(line, "uptime_in_seconds:%d", &up)
		}
		if time.Duration(up)*time.Second >= suiteLease+time.Second {
			return nil
		}
	}
	return errors.New("redis-server does not grow older")
}

// kill ends the server as a crash would.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

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
		if sh.err == nil {
			sh.err = sh.server.age()
		}
	})
	if errors.Is(sh.err, exec.ErrNotFound) {
		tb.Skip(notTested)
	}
	if sh.err != nil {
		tb.Fatal(sh.err)
	}
	return sh.server
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
	if errors.Is(shared.err, exec.ErrNotFound) {
		fmt.Fprintln(os.Stderr, notTested)
	}
	os.Exit(code)
}
