package amqp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// A server is a RabbitMQ of the tests' own, on free ports of the loopback, with an
// epmd of its own.
type server struct {
	addr string
	dir  string
	env  []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	epmd   *exec.Cmd
}

// notTested is what is said loudly where there is no RabbitMQ.
const notTested = "NOT TESTED: there is no rabbitmq-server on this machine (Debian's package is rabbitmq-server)"

// errNoServer says that notTested applies.
var errNoServer = errors.New(notTested)

// program returns the script that starts RabbitMQ as whoever runs it: the one in the
// path is for root.
func program() (string, error) {
	found, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	if len(found) == 0 {
		return "", errNoServer
	}
	return found[len(found)-1], nil
}

// newServer starts a server with conf in its configuration. It is stopped with tb.
func newServer(tb testing.TB, conf ...string) *server {
	tb.Helper()
	if _, err := program(); err != nil {
		tb.Skip(notTested)
	}
	s, err := startServer(tb.TempDir(), conf...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.close)
	return s
}

func startServer(dir string, conf ...string) (*server, error) {
	ports := make([]string, 3)
	for i := range ports {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = net.SplitHostPort(addr)
	}
	s := &server{addr: "127.0.0.1:" + ports[0], dir: dir}
	at := func(name string) string { return filepath.Join(dir, name) }
	s.env = append(os.Environ(), "HOME="+dir, "RABBITMQ_NODENAME=chicory"+ports[0]+"@localhost",
		"RABBITMQ_MNESIA_BASE="+at("data"), "RABBITMQ_LOG_BASE="+at("log"), "RABBITMQ_CONFIG_FILE="+at("rabbitmq"),
		"RABBITMQ_CONF_ENV_FILE="+at("none"), "RABBITMQ_ENABLED_PLUGINS_FILE="+at("plugins"), "RABBITMQ_PID_FILE="+at("pid"),
		"RABBITMQ_DIST_PORT="+ports[1], "ERL_EPMD_PORT="+ports[2], "ERL_EPMD_ADDRESS=127.0.0.1",
		"detached=yes", // the script becomes the server, instead of waiting for it
		// What a queue of delays could not pass on it tries again after three minutes, of
		// which tests wait for fewer.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"+
			" -rabbit dead_letter_worker_publisher_confirm_timeout 3000 -rabbit channel_tick_interval 500")
	for name, text := range map[string]string{"rabbitmq.conf": s.text(conf...), "plugins": "[].", ".erlang.cookie": "CHICORYTESTS"} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(at(".erlang.cookie"), 0o400); err != nil {
		return nil, err
	}
	s.epmd = exec.Command("epmd", "-port", ports[2], "-address", "127.0.0.1")
	s.epmd.SysProcAttr = endWithParent()
	if err := s.epmd.Start(); err != nil {
		return nil, err
	}
	if err := s.start(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// text is the configuration of s, with more lines.
func (s *server) text(more ...string) string {
	lines := append([]string{"listeners.tcp.local = " + s.addr, "disk_free_limit.absolute = 50MB", "log.file.level = warning"}, more...)
	return strings.Join(lines, "\n") + "\n"
}

// configure adds lines to the configuration of a server that is down.
func (s *server) configure(tb testing.TB, more ...string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "rabbitmq.conf"), []byte(s.text(more...)), 0o600); err != nil {
		tb.Fatal(err)
	}
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
	path, err := program()
	if err != nil {
		return err
	}
	s.cmd = exec.Command(path)
	s.cmd.Env, s.cmd.Dir, s.cmd.SysProcAttr = s.env, s.dir, endWithParent()
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait()
		close(exited)
	}(s.cmd, s.exited)
	for begin := time.Now(); time.Since(begin) < 90*time.Second && s.runs(50*time.Millisecond); {
		if c, err := amqp091.Dial(s.url("guest:guest", "/")); err == nil {
			c.Close()
			return nil
		}
	}
	logs, _ := filepath.Glob(filepath.Join(s.dir, "log", "*.log"))
	var text []byte
	for _, name := range logs {
		log, _ := os.ReadFile(name)
		text = append(text, log...)
	}
	return fmt.Errorf("rabbitmq-server does not serve:\n%s", text)
}

// runs reports, after d, whether the server has not ended.
func (s *server) runs(d time.Duration) bool {
	select {
	case <-s.exited:
		return false
	case <-time.After(d):
		return true
	}
}

// url is where the server is found.
func (s *server) url(user, vhost string) string {
	return "amqp://" + user + "@" + s.addr + "/" + strings.ReplaceAll(vhost, "/", "%2F")
}

// kill ends the server as a crash would.
func (s *server) kill() { s.signal(syscall.SIGKILL) }

// stop has the server end by itself.
func (s *server) stop() { s.signal(syscall.SIGTERM) }

func (s *server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exited != nil {
		s.cmd.Process.Signal(sig)
		<-s.exited
	}
}

// close ends the server and its epmd.
func (s *server) close() {
	s.kill()
	s.epmd.Process.Kill()
	s.epmd.Wait()
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
		if _, shared.err = program(); shared.err != nil {
			return
		}
		var dir string
		if dir, shared.err = os.MkdirTemp("", "chicory-amqp"); shared.err == nil {
			shared.server, shared.err = startServer(dir)
		}
	})
	if errors.Is(shared.err, errNoServer) {
		tb.Skip(notTested)
	}
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.server
}

// TestMain stops the shared server, and says loudly if there was none.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.close()
		os.RemoveAll(shared.dir)
	}
	if errors.Is(shared.err, errNoServer) {
		fmt.Fprintln(os.Stderr, notTested)
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
