package amqp_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/chicory-go/chicory/drivers/amqp"
)

// TestWritesBehind writes from several goroutines: all arrives, each one's in its order.
func TestWritesBehind(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	c := amqp.Behind(client)
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

// TestWritesToNobody has a peer that does not read: writing does not wait for it, until the
// connection ends, at either side.
func TestWritesToNobody(t *testing.T) {
	t.Parallel()
	for _, peer := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			c := amqp.Behind(client)
			defer c.Close()
			some := make([]byte, 1<<20)
			for range 3 {
				if n, err := c.Write(some); n != len(some) || err != nil {
					t.Fatalf("write: %d, %v", n, err)
				}
				synctest.Wait()
			}
			if peer {
				server.Close()
			} else {
				c.Close()
			}
			synctest.Wait()
			if _, err := c.Write(some); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a write to what has ended: got %v, want net.ErrClosed", err)
			}
		})
	}
}

// TestTags adds tags in any order: all are there at the end, and only gaps take room.
func TestTags(t *testing.T) {
	t.Parallel()
	for range 200 {
		tags := make([]uint64, 1+rand.N(200))
		for i := range tags {
			tags[i] = uint64(i) + 1
		}
		rand.Shuffle(len(tags), func(i, j int) { tags[i], tags[j] = tags[j], tags[i] })
		for n := range tags {
			in := map[uint64]bool{0: true}
			for _, tag := range tags[:n+1] {
				in[tag] = true
			}
			want, runs := uint64(0), 1
			for ; in[want+1]; want++ {
			}
			for tag := range in {
				if tag > want && !in[tag-1] {
					runs++
				}
			}
			if last, got := amqp.UpTo(tags[:n+1]...); last != want || got != runs {
				t.Fatalf("after %v: up to %d in %d runs, want %d in %d", tags[:n+1], last, got, want, runs)
			}
		}
	}
}
