package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	goredis "github.com/redis/go-redis/v9"
)

// Servers are a private rabbitmq-server and a private redis-server.
type servers struct {
	amqp, redis string // addresses
	dir         string
	commands    []*exec.Cmd
}

func startServers(ctx context.Context) (s *servers, err error) {
	s = &servers{}
	if s.dir, err = os.MkdirTemp("", "chicory-bench"); err != nil {
		return nil, err
	}
	if err = s.startRedis(ctx); err == nil {
		err = s.startRabbit(ctx)
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *servers) stop() {
	for _, c := range s.commands {
		c.Process.Kill()
		c.Wait()
	}
	os.RemoveAll(s.dir)
}

// pid is of RabbitMQ, which starts last.
func (s *servers) pid() int { return s.commands[len(s.commands)-1].Process.Pid }

func (s *servers) start(name string, env []string, args ...string) error {
	c := exec.Command(name, args...)
	c.Dir, c.Env = s.dir, append(os.Environ(), env...)
	if err := c.Start(); err != nil {
		return err
	}
	s.commands = append(s.commands, c)
	return nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// await waits until a server answers.
func await(ctx context.Context, answers func() error) error {
	for begin := time.Now(); ; {
		err := answers()
		if err == nil || time.Since(begin) > time.Minute {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *servers) startRedis(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s.redis = "127.0.0.1:" + port
	if err := s.start("redis-server", nil, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir); err != nil {
		return err
	}
	c := goredis.NewClient(&goredis.Options{Addr: s.redis})
	defer c.Close()
	return await(ctx, func() error { return c.Ping(ctx).Err() })
}

func (s *servers) startRabbit(ctx context.Context) error {
	found, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	if len(found) == 0 {
		return errors.New("there is no rabbitmq-server on this machine (Debian's package is rabbitmq-server)")
	}
	var ports [3]string
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return err
		}
	}
	s.amqp = "127.0.0.1:" + ports[0]
	at := func(name string) string { return filepath.Join(s.dir, name) }
	for name, text := range map[string]string{"rabbitmq.conf": "listeners.tcp.local = " + s.amqp + "\ndisk_free_limit.absolute = 50MB\n",
		"plugins": "[].", ".erlang.cookie": "CHICORYBENCH"} {
		if err := os.WriteFile(at(name), []byte(text), 0o400); err != nil {
			return err
		}
	}
	if err := s.start("epmd", nil, "-port", ports[2], "-address", "127.0.0.1"); err != nil {
		return err
	}
	env := []string{"HOME=" + s.dir, fmt.Sprintf("RABBITMQ_NODENAME=bench%s@localhost", ports[0]),
		"RABBITMQ_MNESIA_BASE=" + at("data"), "RABBITMQ_LOG_BASE=" + at("log"), "RABBITMQ_CONFIG_FILE=" + at("rabbitmq"),
		"RABBITMQ_CONF_ENV_FILE=" + at("none"), "RABBITMQ_ENABLED_PLUGINS_FILE=" + at("plugins"), "RABBITMQ_PID_FILE=" + at("pid"),
		"RABBITMQ_DIST_PORT=" + ports[1], "ERL_EPMD_PORT=" + ports[2], "ERL_EPMD_ADDRESS=127.0.0.1",
		"detached=yes", // the script becomes the server, instead of waiting for it
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"}
	if err := s.start(found[len(found)-1], env); err != nil {
		return err
	}
	return await(ctx, func() error {
		c, err := amqp091.Dial(urlOf(s.amqp))
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

func urlOf(addr string) string { return "amqp://guest:guest@" + addr + "/" }
