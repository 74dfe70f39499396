package testserver

import (
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

// A RabbitMQ is a server with an epmd of its own. It is safe for concurrent use.
type RabbitMQ struct {
	Addr, Dir string
	Env       []string // for rabbitmqctl and the like

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	epmd   *exec.Cmd
}

// Program returns the script that starts RabbitMQ as whoever runs it: the one in the
// path is for root. TEST_RABBITMQ_SERVER names one of another version.
func Program() (string, error) {
	if path := os.Getenv("TEST_RABBITMQ_SERVER"); path != "" {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	if len(found) == 0 {
		return "", ErrNoRabbitMQ
	}
	return found[len(found)-1], nil
}

// NewRabbitMQ starts a server with conf in its configuration. It is killed with tb.
func NewRabbitMQ(tb testing.TB, conf ...string) *RabbitMQ {
	tb.Helper()
	s, err := StartRabbitMQ(tb.TempDir(), conf...)
	s = Must(tb, s, err)
	tb.Cleanup(s.Close)
	return s
}

// StartRabbitMQ starts a server whose files are in dir, with conf in its configuration.
// The error matches ErrNoRabbitMQ where there is none.
func StartRabbitMQ(dir string, conf ...string) (*RabbitMQ, error) {
	ports := make([]string, 3)
	if _, err := Program(); err != nil {
		return nil, err
	}
	for i := range ports {
		addr, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		_, ports[i], _ = net.SplitHostPort(addr)
	}
	s := &RabbitMQ{Addr: "127.0.0.1:" + ports[0], Dir: dir}
	at := func(name string) string { return filepath.Join(dir, name) }
	s.Env = append(os.Environ(), "HOME="+dir, "RABBITMQ_NODENAME=chicory"+ports[0]+"@localhost",
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
	s.epmd.SysProcAttr = EndWithParent()
	if err := s.epmd.Start(); err != nil {
		return nil, err
	}
	if err := s.Start(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// text is the configuration of s, with more lines.
func (s *RabbitMQ) text(more ...string) string {
	lines := append([]string{"listeners.tcp.local = " + s.Addr, "disk_free_limit.absolute = 50MB", "log.file.level = warning"}, more...)
	return strings.Join(lines, "\n") + "\n"
}

// Configure adds lines to the configuration of a server that is down.
func (s *RabbitMQ) Configure(tb testing.TB, more ...string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(s.Dir, "rabbitmq.conf"), []byte(s.text(more...)), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Start starts the server, and waits until it serves.
func (s *RabbitMQ) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, err := Program()
	if err != nil {
		return err
	}
	s.cmd = exec.Command(path)
	s.cmd.Env, s.cmd.Dir, s.cmd.SysProcAttr = s.Env, s.Dir, EndWithParent()
	said, err := os.Create(filepath.Join(s.Dir, "said")) // before there is a log
	if err != nil {
		return err
	}
	defer said.Close()
	s.cmd.Stdout, s.cmd.Stderr = said, said
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait()
		close(exited)
	}(s.cmd, s.exited)
	for begin := time.Now(); time.Since(begin) < 90*time.Second && s.runs(50*time.Millisecond); {
		if c, err := amqp091.Dial(s.URL("guest:guest", "/")); err == nil {
			c.Close()
			return nil
		}
	}
	logs, _ := filepath.Glob(filepath.Join(s.Dir, "log", "*.log"))
	var text []byte
	for _, name := range append(logs, said.Name()) {
		log, _ := os.ReadFile(name)
		text = append(text, log...)
	}
	return fmt.Errorf("rabbitmq-server does not serve:\n%s", text)
}

// runs reports, after d, whether the server has not ended.
func (s *RabbitMQ) runs(d time.Duration) bool {
	select {
	case <-s.exited:
		return false
	case <-time.After(d):
		return true
	}
}

// URL is where the server is found.
func (s *RabbitMQ) URL(user, vhost string) string {
	return "amqp://" + user + "@" + s.Addr + "/" + strings.ReplaceAll(vhost, "/", "%2F")
}

// Pid is of the server, once it was started.
func (s *RabbitMQ) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// Kill ends the server as a crash would.
func (s *RabbitMQ) Kill() { s.signal(syscall.SIGKILL) }

// Stop has the server end by itself.
func (s *RabbitMQ) Stop() { s.signal(syscall.SIGTERM) }

func (s *RabbitMQ) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exited != nil {
		s.cmd.Process.Signal(sig)
		<-s.exited
	}
}

// Close ends the server and its epmd.
func (s *RabbitMQ) Close() {
	s.Kill()
	s.epmd.Process.Kill()
	s.epmd.Wait()
}
