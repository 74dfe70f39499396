package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

// newCluster starts three servers that share the slots.
func newCluster(t *testing.T, args ...string) (servers []*server, nodes []*goredis.Client) {
	t.Helper()
	ctx := t.Context()
	for i := range 3 {
		s, err := startServer(t.TempDir(), slices.Concat(clusterArgs, args)...)
		ok(t, err)
		t.Cleanup(s.kill)
		c := goredis.NewClient(client(s))
		t.Cleanup(func() { c.Close() })
		servers, nodes = append(servers, s), append(nodes, c)
		if i == 0 {
			continue
		}
		// All three were given all slots, to be ready; each is to have a third.
		ok(t, c.ClusterResetHard(ctx).Err())
		host, port, _ := net.SplitHostPort(s.addr)
		from, to := i*16384/3, (i+1)*16384/3-1
		ok(t, nodes[0].ClusterDelSlotsRange(ctx, from, to).Err())
		ok(t, c.ClusterAddSlotsRange(ctx, from, to).Err())
		ok(t, nodes[0].ClusterMeet(ctx, host, port).Err())
	}
	for _, c := range nodes {
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			info, links := must(c.ClusterInfo(ctx).Result())(t), must(c.ClusterNodes(ctx).Result())(t)
			if strings.Contains(info, "cluster_state:ok") && strings.Count(links, " connected") == 3 && !strings.Contains(links, "handshake") {
				break
			}
			if time.Since(begin) > time.Minute {
				t.Fatalf("the nodes do not become a cluster:\n%s\n%s", info, links)
			}
		}
	}
	return servers, nodes
}

// queueOn returns a queue of the i-th node, and its slot.
func queueOn(t *testing.T, c *goredis.Client, i int) (string, int) {
	t.Helper()
	for n := range 1000 {
		q := fmt.Sprint("q", n)
		slot := int(must(c.ClusterKeySlot(t.Context(), "chicory:ns:{"+q+"}").Result())(t))
		if slot*3/16384 == i {
			return q, slot
		}
	}
	t.Fatal("no queue is of that node")
	return "", 0
}

// queued is a message of a queue, without its record.
func queued(id, q string) *driver.Message {
	m := message(id)
	m.Queue, m.Record = q, nil
	return m
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
	servers, _ := newCluster(t)
	cfg, d := config(t, "redis://"+servers[0].addr)
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
		if told += len(rs); len(rs) == 0 {
			break // there was a gap: all is read
		}
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

// TestClusterOfNone refuses a cluster client for a server that is of no cluster: other
// clients would not find its keys.
func TestClusterOfNone(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	many := goredis.NewClusterClient(&goredis.ClusterOptions{ClusterSlots: func(context.Context) ([]goredis.ClusterSlot, error) {
		return []goredis.ClusterSlot{{Start: 0, End: 16383, Nodes: []goredis.ClusterNode{{Addr: s.addr}}}}, nil
	}})
	defer many.Close()
	if _, err := redis.NewBroker(t.Context(), many, "ns", nil); err == nil {
		t.Error("a cluster client is taken for a server that is of no cluster")
	}
}

// TestClusterRights works with the rights that the documentation names.
func TestClusterRights(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	args := append([]string{"--user", "user", "on", ">password"}, append(rights(t), clusterRights(t)...)...)
	s := newServer(t, append(args, "--cluster-enabled", "yes")...)
	cfg, d := config(t, "redis://user:password@"+s.addr)
	b := must(d.OpenBroker(t.Context(), cfg))(t)
	defer b.Close(context.Background())
	sub := must(b.Subscribe(t.Context(), &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: "q"}}, Prefetch: 8, Slots: 8, Lease: 30 * time.Second}))(t)
	defer sub.Close(context.Background())
	ok(t, b.Publish(t.Context(), []*driver.Message{queued("a", "q")}))
	ds := must(sub.Receive(t.Context(), 1))(t)
	ok(t, sub.Settle(t.Context(), []driver.Settlement{{Delivery: ds[0], Then: []*driver.Message{queued("b", "other")}}}))
	admin := goredis.NewClient(client(s))
	defer admin.Close()
	for _, entry := range must(admin.ACLLog(t.Context(), 100).Result())(t) {
		t.Errorf("refused: %s of %s", entry.Reason, entry.Object)
	}
}

// TestClusterNodeAway receives from a node while another one is away.
func TestClusterNodeAway(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	servers, nodes := newCluster(t, "--cluster-require-full-coverage", "no")
	cfg, d := config(t, "redis://"+servers[0].addr)
	b := must(d.OpenBroker(t.Context(), cfg))(t)
	defer b.Close(context.Background())
	here, _ := queueOn(t, nodes[0], 0)
	away, _ := queueOn(t, nodes[0], 1)
	sub := must(b.Subscribe(t.Context(), &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: away}, {Name: here}}, Strict: true,
		Prefetch: 8, Slots: 8, Lease: 30 * time.Second}))(t)
	defer sub.Close(context.Background())
	ok(t, b.Publish(t.Context(), []*driver.Message{queued("a", here), queued("b", away)}))
	servers[1].kill()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if ds := must(sub.Receive(ctx, 8))(t); ds[0].ID != "a" {
		t.Fatalf("got %s, want a", ds[0].ID)
	}
	if _, err := sub.Receive(ctx, 8); err == nil || ctx.Err() != nil {
		t.Errorf("only a node that is away has more: got %v, want its error", err)
	}
	ok(t, servers[1].start())
	for {
		ds, err := sub.Receive(ctx, 8)
		if ctx.Err() != nil {
			t.Fatalf("the node is back: got %v", err)
		}
		if err == nil {
			if ds[0].ID != "b" {
				t.Errorf("got %s, want b", ds[0].ID)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestClusterMove moves a queue to another node while it is used: calls fail as if nobody
// were there, and nothing is made anew on the other side.
func TestClusterMove(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	servers, nodes := newCluster(t)
	cfg, d := config(t, "redis://"+servers[0].addr)
	b := must(d.OpenBroker(t.Context(), cfg))(t)
	defer b.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	q, slot := queueOn(t, nodes[0], 0)
	sub := must(b.Subscribe(ctx, &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: q}}, Prefetch: 8, Slots: 8, Lease: 30 * time.Second}))(t)
	defer sub.Close(context.Background())
	ok(t, b.Publish(ctx, []*driver.Message{queued("a", q), queued("b", q)}))
	held := must(sub.Receive(ctx, 1))(t)
	moving := func() {
		t.Helper()
		if err := b.Publish(ctx, []*driver.Message{queued("c", q)}); !errors.Is(err, driver.ErrTransient) {
			t.Errorf("Publish while the slot is moved: got %v, want a transient error", err)
		}
		if err := sub.Settle(ctx, []driver.Settlement{{Delivery: held[0]}}); !errors.Is(err, driver.ErrTransient) {
			t.Errorf("Settle while the slot is moved: got %v, want a transient error", err)
		}
	}
	id := func(i int) string { return must(nodes[i].Do(ctx, "cluster", "myid").Text())(t) }
	ok(t, nodes[1].Do(ctx, "cluster", "setslot", slot, "importing", id(0)).Err())
	ok(t, nodes[0].Do(ctx, "cluster", "setslot", slot, "migrating", id(1)).Err())
	moving()
	host, port, _ := net.SplitHostPort(servers[1].addr)
	for _, key := range must(nodes[0].ClusterGetKeysInSlot(ctx, slot, 100).Result())(t) {
		ok(t, nodes[0].Migrate(ctx, host, port, key, 0, 5*time.Second).Err())
		moving()
	}
	for _, i := range []int{1, 0, 2} {
		ok(t, nodes[i].Do(ctx, "cluster", "setslot", slot, "node", id(1)).Err())
	}
	ok(t, sub.Settle(ctx, []driver.Settlement{{Delivery: held[0]}}))
	ok(t, b.Publish(ctx, []*driver.Message{queued("c", q)}))
	var got []string
	for len(got) < 2 {
		for _, d := range must(sub.Receive(ctx, 8))(t) {
			got = append(got, d.ID)
		}
	}
	if want := []string{"b", "c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A tap sees the commands of a client, and sends each with next.
type tap func(cmd goredis.Cmder, next func() error) error

func (tap) DialHook(next goredis.DialHook) goredis.DialHook { return next }
func (tap) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}
func (f tap) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		return f(cmd, func() error { return next(ctx, cmd) })
	}
}

// runs reports whether cmd is one of the scripts.
func runs(cmd goredis.Cmder, script string) bool {
	return len(cmd.Args()) > 1 && cmd.Args()[1] == redis.Scripts[script].Digest()
}

// tapped returns a broker on the shared cluster, whose commands f sees.
func tapped(t *testing.T, f tap) (*redis.Broker, driver.Subscription) {
	t.Helper()
	s := sharedCluster.get(t, clusterArgs...)
	rdb := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: []string{s.addr}, ContextTimeoutEnabled: true})
	rdb.AddHook(f)
	t.Cleanup(func() { rdb.Close() })
	b := must(redis.NewBroker(t.Context(), rdb, "ns", &redis.Options{Prefix: fmt.Sprint("test", prefixes.Add(1))}))(t)
	t.Cleanup(func() { b.Close(context.Background()) })
	sub := must(b.Subscribe(t.Context(), &driver.SubscribeOptions{Queues: []driver.QueueSpec{{Name: "q"}}, Prefetch: 1, Slots: 1, Lease: 30 * time.Second}))(t)
	t.Cleanup(func() { sub.Close(context.Background()) })
	ok(t, b.Publish(t.Context(), []*driver.Message{queued("a", "q")}))
	return b, sub
}

func ready(t *testing.T, b *redis.Broker, q string) int {
	t.Helper()
	return must(b.Inspect(t.Context(), []string{q}))(t)[0].Ready
}

// TestClusterRivals settles a delivery while another settlement of it publishes first: it
// waits, and loses.
func TestClusterRivals(t *testing.T) {
	t.Parallel()
	var rival func()
	var once sync.Once
	b, sub := tapped(t, func(cmd goredis.Cmder, next func() error) error {
		if rival != nil && runs(cmd, "publish") {
			once.Do(rival)
		}
		return next()
	})
	d := must(sub.Receive(t.Context(), 1))(t)[0]
	lost := make(chan error, 1)
	rival = func() {
		go func() { lost <- sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Action: driver.Release}}) }()
	}
	ok(t, sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Then: []*driver.Message{queued("b", "other")}}}))
	if err := <-lost; !errors.Is(err, driver.ErrLeaseLost) {
		t.Errorf("the rival: got %v, want ErrLeaseLost", err)
	}
	if n := ready(t, b, "other"); n != 1 {
		t.Errorf("%d messages follow, want 1", n)
	}
}

// TestClusterPartly gives up a settlement when what follows is published: that is no
// transient error.
func TestClusterPartly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var settles atomic.Bool
	b, sub := tapped(t, func(cmd goredis.Cmder, next func() error) error {
		err := next()
		if settles.Load() && runs(cmd, "publish") {
			cancel()
		}
		return err
	})
	d := must(sub.Receive(t.Context(), 1))(t)[0]
	settles.Store(true)
	err := sub.Settle(ctx, []driver.Settlement{{Delivery: d, Then: []*driver.Message{queued("b", "other")}}})
	if n := ready(t, b, "other"); n != 1 || err == nil || errors.Is(err, driver.ErrTransient) {
		t.Errorf("%d messages follow, want 1, and the error is %v, want one that is not transient", n, err)
	}
}

// TestClusterLost says of a delivery that is not held that it is lost, publishes nothing,
// and has its credit back.
func TestClusterLost(t *testing.T) {
	t.Parallel()
	b, sub := tapped(t, func(_ goredis.Cmder, next func() error) error { return next() })
	d := must(sub.Receive(t.Context(), 1))(t)[0]
	ok(t, sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Action: driver.Release}}))
	again := must(sub.Receive(t.Context(), 1))(t)[0]
	err := sub.Settle(t.Context(), []driver.Settlement{{Delivery: d, Then: []*driver.Message{queued("b", "other")}}})
	if !errors.Is(err, driver.ErrLeaseLost) || ready(t, b, "other") > 0 {
		t.Errorf("a stale delivery: got %v, want ErrLeaseLost, and nothing published", err)
	}
	many := make([]*driver.Message, 9000)
	for i := range many {
		many[i] = queued(fmt.Sprint("many-", i), "other")
	}
	ok(t, sub.Settle(t.Context(), []driver.Settlement{{Delivery: again, Then: many}}))
	if n := ready(t, b, "other"); n != len(many) {
		t.Errorf("%d messages follow, want %d", n, len(many))
	}
}
