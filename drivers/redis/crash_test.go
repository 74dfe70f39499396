package redis_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	"github.com/chicory-go/chicory/internal/testserver"
)

const childEnv = "REDIS_TEST_HOLD"

// hold is a worker, in a process of its own, that takes n messages and keeps them
// until it is killed. Arg is address, prefix, n and lease.
func hold(arg string) error {
	var addr, prefix string
	var n int
	var lease time.Duration
	if _, err := fmt.Sscan(arg, &addr, &prefix, &n, &lease); err != nil {
		return err
	}
	ctx := context.Background()
	b, err := redis.OpenBroker(ctx, client(&server{addr: addr}), "ns", &redis.Options{Prefix: prefix})
	if err != nil {
		return err
	}
	sub, err := b.Subscribe(ctx, &driver.SubscribeOptions{Prefetch: n, Slots: n, Lease: lease, Queues: []driver.QueueSpec{{Name: "q"}}})
	if err != nil {
		return err
	}
	var held []*driver.Delivery
	for len(held) < n {
		ds, err := sub.Receive(ctx, n-len(held))
		if err != nil {
			return err
		}
		held = append(held, ds...)
	}
	if err := sub.Extend(ctx, held); err != nil {
		return err
	}
	fmt.Println("held")
	time.Sleep(time.Hour)
	return nil
}

// TestKill kills a worker that holds a thousand messages. All of them come back
// within its lease and five seconds, and not before.
func TestKill(t *testing.T) {
	t.Parallel()
	const n, lease = 1000, 5 * time.Second
	s := sharedServer(t)
	prefix := fmt.Sprint("test", prefixes.Add(1))
	b, err := redis.OpenBroker(t.Context(), client(s), "ns", &redis.Options{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	for i := 0; i < n; i += 100 {
		var msgs []*driver.Message
		for j := range 100 {
			msgs = append(msgs, message(fmt.Sprint("task-", i+j)))
		}
		if err := b.Publish(t.Context(), msgs); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d", childEnv, s.addr, prefix, n, lease))
	cmd.SysProcAttr, cmd.Stderr = testserver.EndWithParent(), os.Stderr
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	cmd.Process.Kill()
	killed := time.Now()
	cmd.Wait()
	if err != nil || strings.TrimSpace(line) != "held" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	sub, err := b.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: n, Slots: n, Lease: lease, Queues: []driver.QueueSpec{{Name: "q"}}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(seen) < n {
		ds, err := sub.Receive(ctx, n)
		if err != nil {
			t.Fatalf("%d of %d came back, then %v", len(seen), n, err)
		}
		if took := time.Since(killed); len(seen) == 0 && took < lease-time.Second {
			t.Errorf("the first came back after %v", took)
		}
		var ss []driver.Settlement
		for _, d := range ds {
			if seen[d.ID] || d.Count != 2 {
				t.Errorf("%s came back with count %d, before that: %v", d.ID, d.Count, seen[d.ID])
			}
			seen[d.ID] = true
			ss = append(ss, driver.Settlement{Delivery: d})
		}
		if err := sub.Settle(ctx, ss); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the last of %d came back %v after the kill, with a lease of %v", n, time.Since(killed).Round(time.Millisecond), lease)
	checkInvariants(t, s, prefix)
}

// A load publishes and consumes while its server is restarted.
type load struct {
	t       *testing.T
	broker  *redis.Broker
	mu      sync.Mutex
	acked   map[string]bool // published, and confirmed
	handed  map[string]int  // at-most-once ones that were handed out as a first delivery
	settled map[string]int

	progress chan struct{} // is told of what is confirmed, while somebody waits
}

// await waits until n messages more are confirmed.
func (l *load) await(n int) {
	for range n {
		select {
		case <-l.progress:
		case <-time.After(time.Minute):
			l.t.Fatal("nothing is published any more")
		}
	}
}

// publish publishes one message after another until ctx ends. What has an
// unknown outcome is not repeated.
func (l *load) publish(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		m := message(fmt.Sprint("task-", i))
		m.Record = nil
		m.Once, m.NoRecord = i%2 == 1, i%2 == 1
		if err := l.broker.Publish(ctx, []*driver.Message{m}); err == nil {
			l.mu.Lock()
			l.acked[m.ID] = true
			l.mu.Unlock()
			select {
			case l.progress <- struct{}{}:
			default:
			}
		} else {
			time.Sleep(10 * time.Millisecond) // the server is away
		}
	}
}

// consume settles what it gets until nothing more comes.
func (l *load) consume(ctx context.Context, sub driver.Subscription) {
	for ctx.Err() == nil {
		ds, err := sub.Receive(ctx, 20)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		for _, d := range ds {
			if d.Once && d.Count == 1 {
				l.mu.Lock()
				l.handed[d.ID]++
				l.mu.Unlock()
			}
			l.settle(ctx, sub, d)
		}
	}
}

// settle settles d, also if the server is away for a while.
func (l *load) settle(ctx context.Context, sub driver.Subscription, d *driver.Delivery) {
	for ctx.Err() == nil {
		err := driver.ItemError(sub.Settle(ctx, []driver.Settlement{{Delivery: d}}), 0, 1)
		if err == nil || errors.Is(err, driver.ErrLeaseLost) { // done, or lost
			l.mu.Lock()
			l.settled[d.ID]++
			l.mu.Unlock()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestRestartUnderLoad kills and restarts a server that syncs every write, once
// for longer than a lease. What was confirmed is done, and no at-most-once message
// is handed out twice as if it were the first time.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	s := newServer(t)
	prefix := fmt.Sprint("test", prefixes.Add(1))
	b, err := redis.OpenBroker(t.Context(), client(s), "ns", &redis.Options{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	sub, err := b.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: 50, Slots: 50, Lease: 2 * time.Second,
		Queues: []driver.QueueSpec{{Name: "q"}}})
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, broker: b, acked: map[string]bool{}, handed: map[string]int{}, settled: map[string]int{},
		progress: make(chan struct{})}
	publishing, stop := context.WithCancel(t.Context())
	consuming, end := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { l.publish(publishing) })
	wg.Go(func() { l.consume(consuming, sub) })
	for _, down := range []time.Duration{0, 3 * time.Second, 0} {
		l.await(100)
		s.kill()
		time.Sleep(down)
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
	}
	l.await(100)
	stop()
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(50 * time.Millisecond) {
		if stats, err := b.Inspect(t.Context(), []string{"q"}); err == nil && stats[0].Ready+stats[0].Leased+stats[0].Delayed == 0 {
			break
		}
	}
	end()
	wg.Wait()
	for id := range l.acked {
		if l.settled[id] == 0 {
			t.Errorf("%s was confirmed, and was lost", id)
		}
	}
	for id, n := range l.handed {
		if n > 1 {
			t.Errorf("%s, at most once, was handed out %d times", id, n)
		}
	}
	t.Logf("%d published, %d settled", len(l.acked), len(l.settled))
	checkInvariants(t, s, prefix)
}
