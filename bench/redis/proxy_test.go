package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// echo answers every connection with what it is sent.
func echo(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func dialed(t *testing.T, delay time.Duration) net.Conn {
	t.Helper()
	p, err := startProxy(echo(t), delay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	c, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestProxyDelays(t *testing.T) {
	const delay = 20 * time.Millisecond
	c := dialed(t, delay)
	begin := time.Now()
	c.Write([]byte{1})
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got := time.Since(begin); got < 2*delay {
		t.Errorf("a round trip took %v, want %v at least", got, 2*delay)
	}
}

// Of many reads under way at once, each waits for its own time only: had each waited
// for the one before, this took minutes.
func TestProxyKeepsOrderAndThroughput(t *testing.T) {
	const delay, size = 500 * time.Millisecond, 32 << 20
	c := dialed(t, delay)
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i ^ i>>8 ^ i>>16)
	}
	go c.Write(sent)
	begin, got := time.Now(), make([]byte, size)
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Error("what came back is not what was sent")
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("%d bytes took %v", size, took)
	}
}
