package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
)

// TestDamage opens files that are damaged at random places, of a clean close
// and of a crash. Opening may fail, and so may working with what it finds; the
// process, which this is, must not die.
func TestDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, kind := range []string{"clean", "crashed"} {
		path := filepath.Join(dir, kind)
		p := openPair(t, path, nil)
		for i := range 600 {
			p.publish(tracked(name(i)))
			if i%3 == 0 {
				p.succeed(p.one(), time.Hour)
			}
		}
		if kind == "crashed" {
			bolt.Abandon(path)
		}
		p.close()
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole = whole[:used(t, path)] // a file has spare room at its end
		seed := rand.Uint64()
		outcomes := map[string]int{}
		for i := range 100 {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			mutant := filepath.Join(dir, fmt.Sprint(kind, i))
			if err := os.WriteFile(mutant, mutate(rnd, whole), 0o600); err != nil {
				t.Fatal(err)
			}
			outcomes[work(t, mutant)]++
			os.Remove(mutant)
		}
		t.Logf("%s, seed %d: %v", kind, seed, outcomes)
	}
}

// mutate damages a copy of whole in one of a few ways.
func mutate(rnd *rand.Rand, whole []byte) []byte {
	b := append([]byte{}, whole...)
	page := 4096 * rnd.IntN(len(b)/4096)
	switch rnd.IntN(6) {
	case 0: // in a header or among the elements
		b[page+rnd.IntN(256)] ^= 1 << rnd.IntN(8)
	case 1: // a sector of rubbish
		for i := range 512 {
			b[page+512*(page/4096%8)+i] = byte(rnd.Uint32())
		}
	case 2: // a page of zeros
		clear(b[page : page+4096])
	case 3: // a page that is another one
		copy(b[page:page+4096], whole[4096*rnd.IntN(len(b)/4096):][:4096])
	case 4: // cut off
		b = b[:page+rnd.IntN(4096)]
	case 5: // some bytes anywhere
		for range 8 {
			b[rnd.IntN(len(b))] = byte(rnd.Uint32())
		}
	}
	return b
}

// work opens the file of path, works with it, and says how far it came.
func work(t *testing.T, path string) string {
	s, err := bolt.Open(t.Context(), path, nil)
	if err != nil {
		return "refused"
	}
	defer s.Close()
	b := s.Broker("ns")
	defer b.Close(context.Background())
	defer s.Backend("ns").Close(context.Background())
	sub, err := b.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: 1000, Slots: 1, Lease: lease,
		Queues: []driver.QueueSpec{{Name: "q"}}})
	if err != nil {
		return "stopped"
	}
	for i := range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		ds, err := sub.Receive(ctx, 100)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return "stopped"
		}
		for _, d := range ds {
			u := &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq, State: driver.Success}
			if sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Record: u}}) != nil {
				return "stopped"
			}
		}
		if b.Publish(t.Context(), []*driver.Message{tracked(fmt.Sprint("new-", i))}) != nil {
			return "stopped"
		}
	}
	return "worked"
}

func used(t *testing.T, path string) int64 {
	t.Helper()
	n, err := bolt.Used(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
