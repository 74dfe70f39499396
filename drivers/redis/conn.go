package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/redis/go-redis/v9"
)

const (
	driverName             = "redis"
	maxValue               = 4 << 20 // envelopes and results
	maxText                = 255     // names of stored messages, addresses
	atOnce                 = 250     // items of a script
	bytesAtOnce            = 4 << 20
	idleFor                = time.Second // is a goroutine that makes calls kept
	leastMajor, leastMinor = 6, 2
)

// A conn is what brokers and backends of one process share: a client, and the
// channel on which the server reaches the process.
type conn struct {
	rdb     redis.UniversalClient
	bounded bool   // rdb waits for no reply for ever, nor beyond a deadline
	owned   bool   // rdb is closed with the conn
	url     string // of those that are opened by URL, "" of others
	cluster bool   // keys are on several servers: a script has those of one tag
	prefix  string // of all keys
	ns      string
	nonce   string // of this conn, for names
	serial  atomic.Uint64
	log     *slog.Logger
	hub     *hub
	idle    chan func() // to goroutines that make calls
	silence silence
	listed  sync.Map // names of queues that are known to be listed; forgotten now and then

	mu     sync.Mutex
	refs   int
	closed atomic.Bool
}

// A silence is that of a server that answered nothing for so long that leases may have run
// out. Whoever takes leases calls more often.
type silence struct {
	lease  atomic.Int64 // the shortest one of the process, in ns; 0 if there is none
	answer atomic.Int64 // when the server answered last, in ns from began
	ended  atomic.Uint64
}

var began = time.Now()

// answered notes that the server did.
func (s *silence) answered() {
	now := time.Since(began).Nanoseconds()
	if s.lastsSince(s.answer.Swap(now), now) {
		s.ended.Add(1)
	}
}

func (s *silence) lastsSince(answer, now int64) bool {
	lease := s.lease.Load()
	return lease > 0 && now-answer > lease/2+int64(tick) // who waits calls every tick
}

// after reports whether there was one after the n-th, or is one.
func (s *silence) after(n uint64) bool {
	return s.ended.Load() != n || s.lastsSince(s.answer.Load(), time.Since(began).Nanoseconds())
}

// expects notes a lease.
func (s *silence) expects(lease time.Duration) {
	for {
		old := s.lease.Load()
		if old > 0 && old <= int64(lease) || s.lease.CompareAndSwap(old, int64(lease)) {
			return
		}
	}
}

// connect makes a conn for one client, and reports what is wrong with the
// server.
func connect(ctx context.Context, rdb redis.UniversalClient, owned bool, o *Options, ns string) (*conn, error) {
	c := &conn{rdb: rdb, owned: owned, ns: ns, prefix: o.prefix() + ":" + ns, nonce: rand.Text()[:12], log: o.logger(), idle: make(chan func()), refs: 1}
	err := driver.CheckNamespace(ns)
	_, c.cluster = rdb.(*redis.ClusterClient)
	if strings.ContainsAny(o.prefix(), "{} \t\n") {
		err = fmt.Errorf("redis: prefix %q has braces or spaces", o.prefix())
	}
	if _, ring := rdb.(*redis.Ring); ring {
		err = errors.New("redis: a ring is not supported, for its servers would each have a part of the tasks")
	}
	switch rdb := rdb.(type) {
	case *redis.Client:
		o := rdb.Options()
		c.bounded = o.ContextTimeoutEnabled && o.ReadTimeout > 0 && o.WriteTimeout > 0
	case *redis.ClusterClient:
		o := rdb.Options()
		c.bounded = o.ContextTimeoutEnabled && o.ReadTimeout > 0 && o.WriteTimeout > 0
	}
	if err == nil {
		err = c.look(ctx)
	}
	if err == nil {
		c.hub, err = newHub(ctx, c)
	}
	if err != nil {
		if owned {
			rdb.Close()
		}
		return nil, err
	}
	return c, nil
}

// look looks at the server: what it is, how old it is, how it is configured.
func (c *conn) look(ctx context.Context) error {
	info, err := c.rdb.Info(ctx).Result() // 6.2 takes no list of sections
	if err != nil {
		if ctx.Err() != nil {
			return driver.Transient(ctx.Err())
		}
		return c.classify(err)
	}
	version := field(info, "redis_version")
	major, minor, _ := strings.Cut(version, ".")
	minor, _, _ = strings.Cut(minor, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	switch {
	case errA != nil || errB != nil:
		return errors.New("redis: the server does not say its version; is it a Redis?")
	case a < leastMajor || a == leastMajor && b < leastMinor:
		return fmt.Errorf("redis: the server is Redis %s, want %d.%d or newer", version, leastMajor, leastMinor)
	case field(info, "cluster_enabled") == "1" && !c.cluster:
		return errCluster
	case field(info, "cluster_enabled") != "1" && c.cluster:
		return errors.New("redis: the server is no node of a cluster, so a cluster client is not for it")
	}
	if policy := field(info, "maxmemory_policy"); policy != "" && policy != "noeviction" {
		c.log.Warn("redis: the server evicts keys when it is full, so tasks may be lost; set maxmemory-policy to noeviction", "policy", policy)
	}
	return nil
}

func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// share adds a user of c.
func (c *conn) share() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refs == 0 {
		return false
	}
	c.refs++
	return true
}

// leave takes a user away, and closes c with the last.
func (c *conn) leave() error {
	c.mu.Lock()
	c.refs--
	last := c.refs == 0
	c.mu.Unlock()
	if !last {
		return nil
	}
	c.closed.Store(true)
	c.hub.close()
	if c.owned {
		return c.rdb.Close()
	}
	return nil
}

// queueKey is what the keys of a queue begin with. Its braces have a cluster
// keep them together.
func (c *conn) queueKey(name string) string { return c.prefix + ":{" + driver.Escape(name) + "}" }

// newName names a delayed message. Names sort as they were given.
func (c *conn) newName() string { return fmt.Sprintf("%s%010x", c.nonce, c.serial.Add(1)) }

// batches calls do with spans of n items, few and small enough for a script,
// and returns an error per item.
func batches(n int, size func(i int) int, do func(from, to int) error) []error {
	errs := make([]error, n)
	for from := 0; from < n; {
		to, bytes := from, 0
		for to < n && to-from < atOnce && (to == from || bytes+size(to) <= bytesAtOnce) {
			bytes += size(to)
			to++
		}
		if err := do(from, to); err != nil {
			for i := from; i < to; i++ {
				errs[i] = driver.ItemError(err, i-from, to-from)
			}
		}
		from = to
	}
	return errs
}

// codes are the answers of a script, one byte per item.
func codes(value any, n int) (string, error) {
	s, ok := value.(string)
	if !ok || len(s) != n {
		return "", fmt.Errorf("redis: a script answers %v to %d items", value, n)
	}
	return s, nil
}

// verdicts are what codes mean.
var verdicts = map[byte]error{
	'D': driver.ErrDuplicate,
	'L': driver.ErrLeaseLost,
	'S': driver.ErrStale,
	'P': driver.ErrSuperseded,
	'T': driver.ErrStarted,
	'E': errors.New("redis: what is stored of the task is damaged"),
}
