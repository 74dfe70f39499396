package testserver

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

// A Redis is a redis-server that syncs every write. It is safe for concurrent use.
type Redis struct {
	Addr, Dir string
	IsCluster bool // it is the only node of one

	args []string
	mu   sync.Mutex
	cmd  *exec.Cmd
}

// NewRedis starts a server, with args besides its own. It is killed with tb.
func NewRedis(tb testing.TB, args ...string) *Redis {
	tb.Helper()
	s, err := StartRedis(tb.TempDir(), args...)
	s = Must(tb, s, err)
	tb.Cleanup(s.Kill)
	return s
}

// StartRedis starts a server whose files are in dir. The error matches ErrNoRedis where
// there is none.
func StartRedis(dir string, args ...string) (*Redis, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, ErrNoRedis
	}
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	s := &Redis{Addr: addr, Dir: dir, args: args, IsCluster: slices.Contains(args, "--cluster-enabled")}
	if err := s.Start(); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// Start starts the server, and waits until it serves.
func (s *Redis) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, port, _ := net.SplitHostPort(s.Addr)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.Dir, "--appendonly", "yes",
		"--appendfsync", "always", "--save", "", "--logfile", filepath.Join(s.Dir, "log"), "--maxclients", "5000"}, s.args...)
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.SysProcAttr = EndWithParent()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	c := goredis.NewClient(&goredis.Options{Addr: s.Addr, MaxRetries: -1})
	defer c.Close()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(10 * time.Millisecond) {
		err := c.Ping(context.Background()).Err()
		if err == nil && s.IsCluster {
			err = s.join(c)
		}
		if err == nil || strings.HasPrefix(err.Error(), "NOAUTH") {
			return nil
		}
	}
	log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	return fmt.Errorf("redis-server does not serve:\n%s", log)
}

// join gives the node all slots, and reports whether the cluster takes writes. That of
// one which is started again takes its time.
func (s *Redis) join(c *goredis.Client) error {
	ctx := context.Background()
	c.ClusterAddSlotsRange(ctx, 0, 16383) // an error says that it has them
	info, err := c.ClusterInfo(ctx).Result()
	if err == nil && !strings.Contains(info, "cluster_state:ok") {
		err = errors.New("the cluster is not ready")
	}
	return err
}

// Kill ends the server as a crash would.
func (s *Redis) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
}

// Signal sends sig to the server's process.
func (s *Redis) Signal(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return os.ErrProcessDone
	}
	return s.cmd.Process.Signal(sig)
}
