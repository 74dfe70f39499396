package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/chicory-go/chicory/internal/testserver"
	"github.com/redis/go-redis/v9"
)

// A server is a private redis-server.
type server struct {
	*testserver.Redis
	addr string
	rdb  *redis.Client
}

func startServer() (*server, error) {
	dir, err := os.MkdirTemp("", "chicory-bench")
	if err != nil {
		return nil, err
	}
	args := []string{"--appendonly", "no"}
	if *fsync != "" {
		args = []string{"--appendfsync", *fsync}
	}
	started, err := testserver.StartRedis(dir, args...)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &server{started, started.Addr, redis.NewClient(&redis.Options{Addr: started.Addr, MaxRetries: -1})}, nil
}

func (s *server) stop() {
	s.rdb.Close()
	s.Kill()
	os.RemoveAll(s.Dir)
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
