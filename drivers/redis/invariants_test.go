package redis_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	goredis "github.com/redis/go-redis/v9"
)

// A checker looks at everything that is kept in a namespace, while nobody changes
// it.
type checker struct {
	t      testing.TB
	c      *goredis.Client
	known  func(q, id string) string // the key of what is known of an ID
	places map[string]int            // messages and dead letters, by that key
}

// checkInvariants finds, under a prefix, what is in two places, in none, or left
// behind.
func checkInvariants(t testing.TB, s *server, prefix string) {
	t.Helper()
	c := goredis.NewClient(client(s))
	defer c.Close()
	namespaces := map[string][]string{}
	for _, key := range must(c.Keys(context.Background(), prefix+":*").Result())(t) {
		ns, _, _ := strings.Cut(strings.TrimPrefix(key, prefix+":"), ":")
		namespaces[ns] = append(namespaces[ns], key)
	}
	for ns, keys := range namespaces {
		k := &checker{t: t, c: c, places: map[string]int{}}
		k.known = func(_, id string) string { return prefix + ":" + ns + ":r:{" + id + "}" }
		if s.IsCluster {
			k.known = func(q, id string) string { return q + ":r:{" + id + "}" }
		}
		k.namespace(prefix+":"+ns+":", keys)
	}
}

func (k *checker) namespace(prefix string, keys []string) {
	t := k.t
	t.Helper()
	queues := map[string]bool{}
	var records []string
	for _, key := range keys {
		rest := strings.TrimPrefix(strings.TrimPrefix(key, prefix), "{:}:")
		switch {
		case strings.Contains(key, ":r:{"):
			records = append(records, key)
		case strings.HasPrefix(rest, "{"):
			queues[key[:strings.LastIndex(key, ":")]] = true
		case rest != "queues" && rest != "watching" && rest != "c" && rest != "cr" && rest != "cn":
			t.Errorf("key %s is an orphan", key)
		}
	}
	for q := range queues {
		k.queue(q)
	}
	for _, key := range records {
		b := []byte(must(k.c.Get(context.Background(), key).Result())(t))
		if b[0] == 255 { // brief
			b = append([]byte{1}, make([]byte, 74)...)
		}
		if int(b[0]) != k.places[key] {
			t.Errorf("%s is said to be in %d places, and is in %d", key, b[0], k.places[key])
		}
		delete(k.places, key)
		ttl := must(k.c.PTTL(context.Background(), key).Result())(t)
		if state := b[9]; b[0] == 0 && ttl < 0 && binary.BigEndian.Uint64(b[35:]) != 0 {
			t.Errorf("%s, in state %d, never goes", key, state)
		}
	}
	for key := range k.places {
		t.Errorf("%s is not there, but its message is", key)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// message counts a message of q that is known by its ID.
func (k *checker) message(q, blob string) {
	var d driver.Delivery
	if err := redis.DecodeMessage([]byte(blob), &d); err != nil {
		k.t.Errorf("a message is damaged: %v", err)
	}
	if !d.NoRecord || d.Once {
		k.places[k.known(q, d.ID)]++
	}
}

// queue looks at one queue.
func (k *checker) queue(q string) {
	ctx := context.Background()
	leased, given := map[string]bool{}, map[string]bool{}
	for level := range 3 {
		stream := fmt.Sprint(q, ":s", level)
		entries := map[string]bool{}
		for _, entry := range must(k.c.XRange(ctx, stream, "-", "+").Result())(k.t) {
			entries[entry.ID] = true
			k.message(q, entry.Values["m"].(string))
		}
		pending, err := k.c.XPendingExt(ctx, &goredis.XPendingExtArgs{Stream: stream, Group: "g", Start: "-", End: "+", Count: 1 << 20}).Result()
		if err != nil && !strings.HasPrefix(err.Error(), "NOGROUP") {
			k.t.Fatal(err)
		}
		for _, p := range pending {
			if !entries[p.ID] {
				k.t.Errorf("%s: entry %s is pending, and is not there", stream, p.ID)
			}
			ms, seq, _ := strings.Cut(p.ID, "-")
			name := fmt.Sprintf("%d%s-%012s", 2-level, ms, seq)
			if p.Consumer == "f" {
				given[name] = true
			} else {
				leased[name] = true
			}
		}
	}
	for _, name := range must(k.c.ZRange(ctx, q+":f", 0, -1).Result())(k.t) {
		if !given[name] {
			k.t.Errorf("%s: %s is said to be given back", q, name)
		}
		delete(given, name)
		leased[name] = true // so it may have a generation
	}
	for name := range given {
		k.t.Errorf("%s: %s was given back, and is not claimed by anybody ever", q, name)
	}
	for _, name := range must(k.c.HKeys(ctx, q+":x").Result())(k.t) {
		if !leased[name] {
			k.t.Errorf("%s: the generation of %s was left behind", q, name)
		}
	}
	k.same(q+":z", q+":zm", func(blob string) { k.message(q, blob) })
	k.same(q+":d", q+":dm", func(blob string) {
		m, err := redis.DecodeDead([]byte(blob))
		if err != nil {
			k.t.Errorf("a dead letter is damaged: %v", err)
			return
		}
		k.places[k.known(q, m.ID)]++
		epochs := must(k.c.HGet(ctx, q+":di", m.ID).Result())(k.t)
		if !strings.Contains(epochs, fmt.Sprintf("%010d", m.Epoch)) {
			k.t.Errorf("%s: the dead letter of %s in epoch %d is not listed", q, m.ID, m.Epoch)
		}
	})
}

// same wants a sorted set and a hash to have the same members, and calls f with
// the values.
func (k *checker) same(set, hash string, f func(blob string)) {
	ctx := context.Background()
	values := must(k.c.HGetAll(ctx, hash).Result())(k.t)
	members := must(k.c.ZRange(ctx, set, 0, -1).Result())(k.t)
	for _, m := range members {
		if _, ok := values[m]; !ok {
			k.t.Errorf("%s has %s, and %s has not", set, m, hash)
		}
	}
	if len(values) != len(members) {
		k.t.Errorf("%s has %d members, %s has %d", set, len(members), hash, len(values))
	}
	for _, blob := range values {
		f(blob)
	}
}
