package bolt_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
)

var kills = flag.Int("bolt.kills", 20, "how often TestKill kills a process")

// TestKill kills a process that publishes and works, again and again. In the
// end, what was acknowledged as published has been run, and nothing that was
// settled before it was said to be settled has run again. A long run is
//
//	go test -run TestKill -timeout 0 ./drivers/bolt -args -bolt.kills=500
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "jobs.db")
	h := history{published: map[string]bool{}, settled: map[string]bool{}, onces: map[string]int{}}
	for range *kills {
		h.read(t, killed(t, "BOLT_TEST_WORK", path))
	}
	h.finish(t, path)
	t.Logf("%d published, %d settled, %d at-most-once starts, %d started again", len(h.published), len(h.settled), len(h.onces), h.again)
	if len(h.published) < 10**kills {
		t.Errorf("only %d messages were published", len(h.published))
	}
}

// killed runs a child for a moment, kills it and returns what it said.
func killed(t *testing.T, what, path string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), what+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if first, err := r.ReadString('\n'); err != nil {
		t.Fatalf("the child says %q, %v", first, err)
	}
	go func() {
		time.Sleep(time.Duration(30+rand.IntN(300)) * time.Millisecond)
		cmd.Process.Kill()
	}()
	said, _ := io.ReadAll(r)
	cmd.Wait()
	return string(said)
}

// A history is what the children said.
type history struct {
	published map[string]bool
	settled   map[string]bool
	onces     map[string]int // starts of at-most-once tasks
	again     int
}

func (h *history) read(t *testing.T, said string) {
	t.Helper()
	for line := range strings.Lines(said) {
		what, id, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || !strings.HasSuffix(line, "\n") {
			continue // cut off
		}
		switch what {
		case "published":
			h.published[id] = true
		case "settled":
			h.settled[id] = true
		case "started":
			if h.settled[id] {
				t.Errorf("%s was settled and started again", id)
			}
		case "again":
			h.again++
		case "once":
			if h.onces[id]++; h.onces[id] > 1 {
				t.Errorf("%s started twice", id)
			}
		}
	}
}

// finish works off what is left.
func (h *history) finish(t *testing.T, path string) {
	t.Helper()
	p := openPair(t, path, nil)
	for _, id := range drainAll(p) {
		if h.settled[id] {
			t.Errorf("%s was settled and is there again", id)
		}
		h.settled[id] = true
	}
	for id := range h.published {
		if state := p.state(id); !state.Terminal() {
			t.Errorf("%s was published and is %q in the end", id, state)
		}
	}
}

// drainAll settles all that is left, the delayed included.
func drainAll(p *pair) (ids []string) {
	p.t.Helper()
	for {
		if s := p.stats(); s.Ready+s.Leased+s.Delayed == 0 {
			return ids
		}
		for _, d := range p.receive(100) {
			p.succeed(d, time.Hour)
			ids = append(ids, d.ID)
		}
	}
}

// A child publishes and works until it is killed, and says what it did.
type child struct {
	broker  *bolt.Broker
	backend *bolt.Backend
	sub     driver.Subscription
	mu      sync.Mutex
}

// work is the main function of the child.
func workUntilKilled(path string) {
	s, err := bolt.Open(context.Background(), path, nil)
	if err != nil {
		panic(err)
	}
	c := &child{broker: s.Broker("ns"), backend: s.Backend("ns")}
	c.sub, err = c.broker.Subscribe(context.Background(), &driver.SubscribeOptions{Prefetch: 64, Slots: 64,
		Lease: lease, Queues: []driver.QueueSpec{{Name: "q"}}})
	if err != nil {
		panic(err)
	}
	c.say("open", path)
	for i := range 4 {
		go c.produce(i)
	}
	c.consume()
}

// say writes a line at once, so that it is out before anything that follows.
func (c *child) say(what, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Println(what, id)
}

func (c *child) produce(i int) {
	for n := 0; ; n++ {
		m := tracked(fmt.Sprintf("%x-%d-%d", os.Getpid(), i, n))
		switch rand.IntN(6) {
		case 0:
			m.Delay = time.Duration(rand.IntN(50)) * time.Millisecond
		case 1:
			m.Once, m.Record.Once = true, true
		case 2:
			m.Priority = uint8(rand.IntN(10))
		}
		if err := c.broker.Publish(context.Background(), []*driver.Message{m}); err != nil {
			panic(err)
		}
		c.say("published", m.ID)
	}
}

func (c *child) consume() {
	for {
		ds, err := c.sub.Receive(context.Background(), 64)
		if err != nil {
			panic(err)
		}
		for _, d := range ds {
			go c.run(d)
		}
	}
}

// run runs one delivery as core would.
func (c *child) run(d *driver.Delivery) {
	u := &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq, Attempt: d.Attempt, State: driver.Success, TTL: time.Hour, Once: d.Once}
	s := driver.Settlement{Delivery: d, Record: u}
	what := "started"
	if d.Count > 1 {
		what = "again"
	}
	if d.Once {
		gs, err := c.backend.Start(context.Background(), []driver.Start{{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq,
			Attempt: d.Attempt, Copy: d.Copy, Count: d.Count, Once: true, Delivery: d}})
		if err != nil {
			panic(err)
		}
		if gs[0].Err != nil {
			what, u.State = "lost", driver.Failure
		} else {
			what, u.Run = "once", gs[0].Run
		}
	} else if rand.IntN(10) == 0 && d.Seq < 3 { // fails, to be tried again
		next := d.Message.Clone()
		next.Seq++
		u.State, u.Next, s.Then = driver.Retry, next, []*driver.Message{next}
	}
	c.say(what, d.ID)
	if err := c.sub.Settle(context.Background(), []driver.Settlement{s}); err != nil {
		panic(err)
	}
	if u.State != driver.Retry {
		c.say("settled", d.ID)
	}
}
