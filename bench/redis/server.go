package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A server is a private redis-server.
type server struct {
	addr string
	dir  string
	cmd  *exec.Cmd
	rdb  *redis.Client
}

func startServer(ctx context.Context) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{addr: l.Addr().String()}
	l.Close()
	if s.dir, err = os.MkdirTemp("", "chicory-bench"); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(s.addr)
	args := []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir}
	if *fsync != "" {
		args = append(args, "--appendonly", "yes", "--appendfsync", *fsync)
	}
	s.cmd = exec.Command("redis-server", args...)
	if err := s.cmd.Start(); err != nil {
		os.RemoveAll(s.dir)
		return nil, err
	}
	s.rdb = redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
	for range 500 {
		if err = s.rdb.Ping(ctx).Err(); err == nil {
			return s, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.stop()
	return nil, err
}

func (s *server) stop() {
	s.rdb.Close()
	s.cmd.Process.Kill()
	s.cmd.Wait()
	os.RemoveAll(s.dir)
}

func (s *server) flush(ctx context.Context) error { return s.rdb.FlushAll(ctx).Err() }

// cpu is what the server has taken so far.
func (s *server) cpu(ctx context.Context) (time.Duration, error) {
	sys, err := s.number(ctx, "cpu", "used_cpu_sys")
	if err != nil {
		return 0, err
	}
	user, err := s.number(ctx, "cpu", "used_cpu_user")
	return time.Duration((sys + user) * float64(time.Second)), err
}

// memory is what the server holds, in bytes.
func (s *server) memory(ctx context.Context) (float64, error) {
	return s.number(ctx, "memory", "used_memory")
}

// number reads a field of a section of INFO.
func (s *server) number(ctx context.Context, section, name string) (float64, error) {
	text, err := s.field(ctx, section, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(text, 64)
}

func (s *server) field(ctx context.Context, section, name string) (string, error) {
	info, err := s.rdb.Info(ctx, section).Result()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(text), nil
		}
	}
	return "", fmt.Errorf("INFO %s has no %s", section, name)
}

// latency is the median round trip of a PING to addr.
func latency(ctx context.Context, addr string) (time.Duration, error) {
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer rdb.Close()
	var took []time.Duration
	for range 201 {
		begin := time.Now()
		if err := rdb.Ping(ctx).Err(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
	}
	return quantile(took, 0.5), nil
}

// quietMemory is what the server holds with no connection but the one that asks.
func (s *server) quietMemory(ctx context.Context) (float64, error) {
	for {
		n, err := s.number(ctx, "clients", "connected_clients")
		if err != nil {
			return 0, err
		}
		if n == 1 {
			return s.memory(ctx)
		}
		time.Sleep(time.Millisecond)
	}
}
