package redis_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

// newCluster starts three servers that share the slots, and returns the first.
func newCluster(t *testing.T) *server {
	t.Helper()
	var nodes []*goredis.Client
	var first *server
	for i := range 3 {
		s, err := startServer(t.TempDir(), clusterArgs...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.kill)
		c := goredis.NewClient(client(s))
		defer c.Close()
		nodes = append(nodes, c)
		if i == 0 {
			first = s
			continue
		}
		// All three were given all slots, to be ready; each is to have a third.
		ok(t, c.ClusterResetHard(t.Context()).Err())
		host, port, _ := net.SplitHostPort(s.addr)
		from, to := i*16384/3, (i+1)*16384/3-1
		ok(t, nodes[0].ClusterDelSlotsRange(t.Context(), from, to).Err())
		ok(t, c.ClusterAddSlotsRange(t.Context(), from, to).Err())
		ok(t, nodes[0].ClusterMeet(t.Context(), host, port).Err())
	}
	for _, c := range nodes {
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			info := must(c.ClusterInfo(t.Context()).Result())(t)
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") {
				break
			}
			if time.Since(begin) > time.Minute {
				t.Fatalf("the nodes do not become a cluster:\n%s", info)
			}
		}
	}
	return first
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestClusterNodes works on queues and records of three nodes, which are found through
// one of them.
func TestClusterNodes(t *testing.T) {
	t.Parallel()
	sharedServer(t) // or there is none
	s := newCluster(t)
	cfg, d := config(t, "redis://"+s.addr)
	b := must(d.OpenBroker(t.Context(), cfg))(t)
	defer b.Close(context.Background())
	cfg.Broker = b
	be := must(d.OpenBackend(t.Context(), cfg))(t)
	defer be.Close(context.Background())
	n := must(be.(driver.Notifier).Notify(t.Context()))(t)
	defer n.Close()

	var specs []driver.QueueSpec
	var names, ids []string
	var msgs []*driver.Message
	var pending []driver.Update
	for i := range 100 {
		m := message(fmt.Sprint("task-", i))
		if m.Queue = fmt.Sprint("queue-", i%10); i < 10 {
			specs = append(specs, driver.QueueSpec{Name: m.Queue})
			names = append(names, m.Queue)
		}
		m.Record = nil
		msgs, ids = append(msgs, m), append(ids, m.ID)
		pending = append(pending, driver.Update{ID: m.ID, Attempt: 1, State: driver.Pending, ReplyTo: n.Address()})
	}
	sub := must(b.Subscribe(t.Context(), &driver.SubscribeOptions{Queues: specs, Prefetch: 10, Slots: 10, Lease: 30 * time.Second}))(t)
	defer sub.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { // while somebody waits
		if err := b.Publish(ctx, msgs); err != nil {
			t.Errorf("Publish: %v", err)
		}
	}()
	ok(t, be.Apply(ctx, pending))
	seen := map[string]int{}
	for len(seen) < len(msgs) {
		var ss []driver.Settlement
		var done []driver.Update
		for _, d := range must(sub.Receive(ctx, 10))(t) {
			if seen[d.ID]++; seen[d.ID] > 1 {
				t.Errorf("%s comes twice", d.ID)
			}
			ss = append(ss, driver.Settlement{Delivery: d})
			done = append(done, driver.Update{ID: d.ID, Attempt: 1, State: driver.Success, TTL: time.Hour})
		}
		ok(t, be.Apply(ctx, done))
		ok(t, sub.Settle(ctx, ss))
	}
	for told := 0; told < len(ids); {
		rs := must(n.Next(ctx))(t)
		told += len(rs)
	}
	for i, r := range must(be.Get(ctx, ids))(t) {
		if r == nil || r.State != driver.Success {
			t.Errorf("the record of %s: got %+v, want a success", ids[i], r)
		}
	}
	for _, stats := range must(b.(driver.Inspector).Inspect(ctx, names))(t) {
		if stats.Ready+stats.Leased+stats.Delayed+stats.Dead > 0 {
			t.Errorf("something is left: %+v", stats)
		}
	}
	if listed := must(b.(driver.Inspector).Queues(ctx))(t); len(listed) != len(specs) {
		t.Errorf("listed are %q, want %d queues", listed, len(specs))
	}
}

// TestClusterClients refuses clients that are for one server, and a database that a
// cluster does not have.
func TestClusterClients(t *testing.T) {
	t.Parallel()
	s := sharedCluster.get(t, clusterArgs...)
	one := goredis.NewClient(client(s))
	defer one.Close()
	if _, err := redis.NewBroker(t.Context(), one, "ns", nil); err == nil || !strings.Contains(err.Error(), "cluster client") {
		t.Errorf("a client of one server: got %v, want an error that says what is wanted", err)
	}
	cfg, d := config(t, "redis://"+s.addr+"/3")
	if _, err := d.OpenBroker(t.Context(), cfg); err == nil {
		t.Error("database 3 of a cluster was opened")
	}
	many := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: []string{s.addr}})
	defer many.Close()
	b := must(redis.NewBroker(t.Context(), many, "ns", nil))(t)
	ok(t, b.Close(t.Context()))
}
