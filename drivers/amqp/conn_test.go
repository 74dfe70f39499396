package amqp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/drivers/amqp"
)

// TestWritesBehind writes from several goroutines: all arrives, each one's in its order.
func TestWritesBehind(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	c, _ := amqp.Behind(client)
	defer c.Close()
	const writers, each = 8, 500
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := fmt.Fprintf(c, "%d %d\n", w, i); err != nil {
					t.Errorf("write: %v", err)
				}
			}
		})
	}
	in := bufio.NewReader(server)
	var next [writers]int
	for range writers * each {
		var w, i int
		if _, err := fmt.Fscanf(in, "%d %d\n", &w, &i); err != nil {
			t.Fatal(err)
		}
		if i != next[w] {
			t.Errorf("of writer %d came %d, want %d", w, i, next[w])
		}
		next[w]++
	}
	wg.Wait()
}

// TestRoom has a peer that does not read: writing does not wait for it, whoever asks for
// room does, within a context, until the peer reads or the connection ends.
func TestRoom(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"read", "close", "peer"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				c, room := amqp.Behind(client)
				defer c.Close()
				some := make([]byte, 1<<20)
				for range 3 { // one is on its way, two wait
					if _, err := c.Write(some); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := room(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("with 2 MiB waiting: got %v, want the context's error", err)
				}
				waited := make(chan error, 1)
				go func() { waited <- room(t.Context()) }()
				synctest.Wait()
				switch end {
				case "read":
					io.CopyN(io.Discard, server, 1<<20)
				case "close":
					c.Close()
				case "peer":
					server.Close()
				}
				synctest.Wait()
				select {
				case err := <-waited:
					if err != nil {
						t.Errorf("got %v, want room", err)
					}
				default:
					t.Fatal("still waits for room")
				}
				if end == "read" {
					go io.Copy(io.Discard, server)
				} else if _, err := c.Write(some); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a write to what has ended: got %v, want net.ErrClosed", err)
				}
			})
		})
	}
}
