package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
)

// TestWeights takes from queues by their weights, whatever is asked for at once. A
// queue that is empty leaves its part to the others, by theirs.
func TestWeights(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	queues := []driver.QueueSpec{{Name: "a", Weight: 5}, {Name: "b", Weight: 3}, {Name: "c", Weight: 1}}
	for name, test := range map[string]struct {
		full  []string
		total int
		want  map[string]int
	}{
		"all":         {[]string{"a", "b", "c"}, 180, map[string]int{"a": 100, "b": 60, "c": 20}},
		"one empty":   {[]string{"b", "c"}, 160, map[string]int{"b": 120, "c": 40}},
		"other empty": {[]string{"a", "c"}, 180, map[string]int{"a": 150, "c": 30}},
		"two empty":   {[]string{"c"}, 100, map[string]int{"c": 100}},
	} {
		for _, limit := range []int{1, 7, 20} {
			t.Run(fmt.Sprint(name, " by ", limit), func(t *testing.T) {
				t.Parallel()
				o := &redis.Options{Prefix: fmt.Sprint("test", prefixes.Add(1))}
				b := must(redis.OpenBroker(t.Context(), client(s), "ns", o))(t)
				t.Cleanup(func() { b.Close(context.Background()) })
				for _, queue := range test.full {
					var msgs []*driver.Message
					for i := range 200 {
						m := next(fmt.Sprint(queue, "-", i))
						m.Queue = queue
						msgs = append(msgs, m)
					}
					if err := b.Publish(t.Context(), msgs); err != nil {
						t.Fatal(err)
					}
				}
				sub := must(b.Subscribe(t.Context(), &driver.SubscribeOptions{Prefetch: 1000, Slots: 1000, Lease: 30 * time.Second, Queues: queues}))(t)
				got := map[string]int{}
				for n := 0; n < test.total; {
					ds := must(sub.Receive(t.Context(), min(limit, test.total-n)))(t)
					for _, d := range ds {
						got[d.Queue]++
					}
					n += len(ds)
				}
				for queue, want := range test.want {
					if off := got[queue] - want; off < -limit || off > limit {
						t.Errorf("got %v, want %v", got, test.want)
						break
					}
				}
				t.Log(got)
			})
		}
	}
}
