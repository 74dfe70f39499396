package redis

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/chicory-go/chicory/driver"
	"github.com/redis/go-redis/v9"
)

// A cluster keeps keys with the same tag together, and a script has no others: those of
// a queue, or those of a task. So there what is called with several queues or tasks is
// called for each.

// atATime is how many calls to a cluster are made for one.
const atATime = 16

// errCluster says that a client of one server was given for one of a cluster.
var errCluster = errors.New("redis: the server is a node of a cluster, which wants a cluster client")

// clusterOptions are those of a client of the cluster that the server of o is of.
func clusterOptions(o *redis.Options) *redis.ClusterOptions {
	tls := o.TLSConfig
	if tls != nil { // each node has a name of its own
		tls = tls.Clone()
		tls.ServerName = ""
	}
	return &redis.ClusterOptions{
		Addrs: []string{o.Addr}, ClientName: o.ClientName, Dialer: o.Dialer, OnConnect: o.OnConnect, Protocol: o.Protocol,
		Username: o.Username, Password: o.Password, TLSConfig: tls,
		MaxRetries: o.MaxRetries, MinRetryBackoff: o.MinRetryBackoff, MaxRetryBackoff: o.MaxRetryBackoff, DialerRetries: o.DialerRetries, DialTimeout: o.DialTimeout,
		ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, ContextTimeoutEnabled: o.ContextTimeoutEnabled,
		PoolFIFO: o.PoolFIFO, PoolSize: o.PoolSize, PoolTimeout: o.PoolTimeout, MinIdleConns: o.MinIdleConns,
		MaxIdleConns: o.MaxIdleConns, MaxActiveConns: o.MaxActiveConns,
		ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime, ConnMaxLifetimeJitter: o.ConnMaxLifetimeJitter,
		MaxConcurrentDials: o.MaxConcurrentDials,
	}
}

// shared is what the keys begin with that are of no queue and no task. In a cluster
// their tag, which no queue has, keeps them together.
func (c *conn) shared() string {
	if c.cluster {
		return c.prefix + ":{:}"
	}
	return c.prefix
}

// scope is what scripts of a queue take for the prefix of what is known of its tasks. A
// cluster has that beside the queue: an ID is known in each queue for itself.
func (c *conn) scope(queueKey string) string {
	if c.cluster {
		return queueKey
	}
	return c.prefix
}

// recordKey is the key of the record of a task.
func (c *conn) recordKey(id string) string { return c.prefix + ":r:{" + id + "}" }

// each calls do with those of items that scripts may have together, and returns an error
// per item. That is all of them, or in a cluster those with the same key; of these each
// is served in order, and several at a time.
func each[T any](c *conn, items []T, key func(T) string, do func(key string, items []T) []error) []error {
	if !c.cluster {
		return do("", items)
	}
	places := map[string][]int{}
	for i := range items {
		k := key(items[i])
		places[k] = append(places[k], i)
	}
	errs := make([]error, len(items))
	var calls sync.WaitGroup
	turns := make(chan struct{}, atATime)
	for k, of := range places {
		turns <- struct{}{}
		calls.Go(func() {
			defer func() { <-turns }()
			part := make([]T, len(of))
			for j, i := range of {
				part[j] = items[i]
			}
			for j, err := range do(k, part) {
				errs[of[j]] = err
			}
		})
	}
	calls.Wait()
	return errs
}

// askEach asks one queue after the other. It goes about it as lua/claim.lua does: first
// each is asked for its share, then for all that is wanted; and if all are empty the
// server lets s wait at each. What is taken does not wait for a node that is away.
func (s *subscription) askEach(ctx context.Context, q question, shares []share) (any, error) {
	c := claims{s: s, q: q, shares: shares, asked: make([]bool, len(shares)), out: []any{int64(-1)}}
	short := make([]bool, len(shares)) // they had less than they were asked for
	var failed error
	for round := range 2 {
		for i, sh := range shares {
			n := q.n - c.taken()
			if round == 0 {
				n = min(n, sh.n)
			}
			if n <= 0 || short[i] || failed != nil && c.taken() > 0 {
				continue
			}
			got, err := c.ask(ctx, i, n, false)
			failed = cmp.Or(failed, err)
			short[i] = got < n
		}
	}
	switch {
	case c.taken() > 0:
		c.leave(q.waits, func(i int) bool { return !c.asked[i] })
		return c.out, nil
	case failed != nil:
		return nil, failed
	}
	return c.wait(ctx)
}

// Claims are those that askEach makes.
type claims struct {
	s      *subscription
	q      question
	shares []share
	asked  []bool // of queues: s no longer waits there
	out    []any  // the replies, as one
}

func (c *claims) taken() int { return len(c.out) / perClaim }

// ask asks the i-th queue for n messages, and returns how many it had.
func (c *claims) ask(ctx context.Context, i, n int, wait bool) (int, error) {
	q := c.q
	q.n = n
	if c.asked[i] {
		q.waits = 0
	}
	sh := c.shares[i]
	sh.n = n
	value, err := c.s.ask(ctx, q, wait, []share{sh})
	if err != nil {
		return 0, err
	}
	c.asked[i] = true
	vs, _ := value.([]any)
	if len(vs)%perClaim != 1 {
		return 0, fmt.Errorf("redis: a claim is answered by %v", value)
	}
	if due, _ := vs[0].(int64); due >= 0 && (c.out[0].(int64) < 0 || due < c.out[0].(int64)) {
		c.out[0] = due
	}
	for j := 1; j < len(vs); j++ {
		if head, _ := vs[j].(string); j%perClaim == 1 && len(head) == claimHead { // it names the queue by its number
			vs[j] = string(binary.BigEndian.AppendUint16(nil, uint16(i+1))) + head[2:]
		}
	}
	c.out = append(c.out, vs[1:]...)
	return len(vs) / perClaim, nil
}

// wait has the server let s wait at each queue, unless it finds something.
func (c *claims) wait(ctx context.Context) (any, error) {
	for i := range c.shares {
		got, err := c.ask(ctx, i, c.q.n, true)
		if err != nil || got > 0 {
			c.leave(c.q.n, func(j int) bool { return j < i })
			return c.out, err
		}
	}
	return c.out, nil
}

// leave has s wait no more where it has waited for n messages.
func (c *claims) leave(n int, where func(i int) bool) {
	var keys []string
	for i, sh := range c.shares {
		if where(i) {
			keys = append(keys, sh.key)
		}
	}
	if n > 0 && len(keys) > 0 {
		c.s.waitNoMore(n, keys)
	}
}

// settling has no other settlement of the deliveries of ss be made until done is called.
// Those of a delivery that is there twice have lost it; others that have an error in errs
// do not count.
func (s *subscription) settling(ctx context.Context, ss []driver.Settlement, errs []error) (done func(), err error) {
	own := make(chan struct{})
	var hs []*handle
	for i := range ss {
		h := s.handleOf(ss[i].Delivery)
		switch {
		case errs[i] != nil:
		case slices.Contains(hs, h):
			errs[i] = driver.ErrLeaseLost
		default:
			hs = append(hs, h)
		}
	}
	for {
		other := s.enterSettling(hs, own)
		if other == nil {
			break
		}
		select {
		case <-other:
		case <-ctx.Done():
			return nil, driver.Transient(ctx.Err())
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, h := range hs {
			h.settled = nil
		}
		close(own)
	}, nil
}

// enterSettling has hs settled by who closes own, unless one of them is by another, whose
// channel it returns then.
func (s *subscription) enterSettling(hs []*handle, own chan struct{}) (other <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range hs {
		if h.settled != nil {
			return h.settled
		}
	}
	for _, h := range hs {
		h.settled = own
	}
	return nil
}

// publishFirst stores what follows in queues other than key, as no script can in a cluster
// together with a settlement. It returns ss without that, and how many messages of each
// were stored. The errors are in errs, where there are some already.
func (s *subscription) publishFirst(ctx context.Context, key string, ss []driver.Settlement, errs []error) (rest []driver.Settlement, stored []int) {
	rest, stored = slices.Clone(ss), make([]int, len(ss))
	elsewhere := func(m *driver.Message) bool { return s.broker.keyOf(m) != key }
	var with []int // settlements that have some
	for i := range rest {
		if errs[i] == nil && slices.ContainsFunc(ss[i].Then, elsewhere) {
			with = append(with, i)
		}
	}
	s.checkHeld(ctx, key, ss, with, errs)
	var msgs []*driver.Message
	var of []int // settlements, of msgs
	for _, i := range with {
		if errs[i] != nil {
			continue
		}
		rest[i].Then = nil
		for _, m := range ss[i].Then {
			if !elsewhere(m) {
				rest[i].Then = append(rest[i].Then, m)
				continue
			}
			again := *m
			again.Repeat = true
			msgs, of = append(msgs, &again), append(of, i)
		}
	}
	published := s.broker.publishAll(ctx, msgs)
	for j, err := range published {
		if err == nil {
			stored[of[j]]++
		}
	}
	for j, err := range published {
		if err != nil {
			errs[of[j]] = partly(stored[of[j]], err)
		}
	}
	return rest, stored
}

// checkHeld finds those among settlements whose delivery is not held.
func (s *subscription) checkHeld(ctx context.Context, key string, ss []driver.Settlement, which []int, errs []error) {
	if len(which) == 0 {
		return
	}
	hs := make([]*handle, len(which))
	for j, i := range which {
		hs[j] = s.handleOf(ss[i].Delivery)
	}
	answers, err := s.extendHandles(ctx, key, hs)
	var refusal redis.Error
	if err != nil && !errors.Is(err, driver.ErrClosed) && !errors.As(err, &refusal) {
		err = driver.Transient(err) // an extension more does not count
	}
	for j, i := range which {
		if errs[i] = err; err == nil && answers[j] != '0' {
			errs[i] = verdicts[answers[j]]
			s.release(hs[j])
		}
	}
}
