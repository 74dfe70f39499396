package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// A server is a private redis-server without persistence.
type server struct {
	addr string
	cmd  *exec.Cmd
	rdb  *redis.Client
}

func startServer() (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{addr: l.Addr().String()}
	l.Close()
	_, port, _ := net.SplitHostPort(s.addr)
	s.cmd = exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", os.TempDir())
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.rdb = redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1})
	for range 500 {
		if err = s.rdb.Ping(context.Background()).Err(); err == nil {
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
}

func (s *server) flush(ctx context.Context) error { return s.rdb.FlushAll(ctx).Err() }

var cpuLine = regexp.MustCompile(`used_cpu_(?:sys|user):([0-9.]+)`)

// cpu is what the server has taken so far.
func (s *server) cpu() (d time.Duration) {
	info, err := s.rdb.Info(context.Background(), "cpu").Result()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	for _, m := range cpuLine.FindAllStringSubmatch(info, -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		d += time.Duration(v * float64(time.Second))
	}
	return d
}
