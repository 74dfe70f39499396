package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/chicory-go/chicory/internal/testserver"
)

// Servers are a private rabbitmq-server and a private redis-server.
type servers struct {
	rabbit *testserver.RabbitMQ
	redis  *testserver.Redis
	dir    string
}

func startServers() (s *servers, err error) {
	s = &servers{}
	if s.dir, err = os.MkdirTemp("", "chicory-bench"); err != nil {
		return nil, err
	}
	dirs := [2]string{filepath.Join(s.dir, "rabbitmq"), filepath.Join(s.dir, "redis")}
	err = errors.Join(os.Mkdir(dirs[0], 0o700), os.Mkdir(dirs[1], 0o700))
	if err == nil {
		s.rabbit, err = testserver.StartRabbitMQ(dirs[0])
	}
	if err == nil {
		s.redis, err = testserver.StartRedis(dirs[1], "--appendonly", "no")
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *servers) stop() {
	if s.rabbit != nil {
		s.rabbit.Close()
	}
	if s.redis != nil {
		s.redis.Kill()
	}
	os.RemoveAll(s.dir)
}

func urlOf(addr string) string { return "amqp://guest:guest@" + addr + "/" }
