package amqp_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/drivers/amqp"
)

// TestNames keeps names and keys within what the server takes, and apart.
func TestNames(t *testing.T) {
	t.Parallel()
	prefix, namespace := strings.Repeat("p", 32), strings.Repeat("n", 64)
	seen := map[string]string{}
	for _, queue := range []string{"q", "q.low", "low", "q.dlq", "#", "*", "a.#", "amq.", "é", strings.Repeat("é", 100),
		strings.Repeat("é", 99) + "ab", strings.Repeat("n", 200)} {
		for _, name := range amqp.Names(prefix, namespace, queue) {
			if len(name) > 255 {
				t.Errorf("%q: %q has %d bytes, the server takes 255", queue, name, len(name))
			}
			if other := seen[name]; other != "" && !strings.Contains(name, ".delay.") {
				t.Errorf("%q and %q share %q", queue, other, name)
			}
			if strings.ContainsAny(name, "#*") {
				t.Errorf("%q: %q has a wildcard", queue, name)
			}
			seen[name] = queue
		}
	}
	for queue, want := range map[string]bool{"q": true, "q.low": true, "ü#": true, strings.Repeat("é", 100): false} {
		name := amqp.Names("p", "ns", queue)[2]
		if got, ok := amqp.QueueOf("p", "ns", name); ok != want || ok && got != queue {
			t.Errorf("%q: %q is the queue %q, %v", queue, name, got, ok)
		}
	}
	for _, other := range []string{"p.ns.dead.q", "p.n.q.q.low", "q", "p.ns.q.q"} {
		if got, ok := amqp.QueueOf("p", "ns", other); ok {
			t.Errorf("%q is no queue of tasks, got %q", other, got)
		}
	}
}

// TestDigits adds up what a delay waits for in the queues that its key leads to.
func TestDigits(t *testing.T) {
	t.Parallel()
	for _, ms := range []int64{1, 2, 15, 16, 17, 255, 256, 4095, 65536, 1 << 31, 1<<32 - 1} {
		if got := amqp.Waits(ms); got != ms {
			t.Errorf("%d ms wait for %d", ms, got)
		}
	}
	for range 1000 {
		ms := 1 + rand.Int64N(1<<32-1)
		if got := amqp.Waits(ms); got != ms {
			t.Errorf("%d ms wait for %d", ms, got)
		}
	}
	if got := amqp.Waits(1 << 40); got != 1<<32-1 {
		t.Errorf("a longer delay waits for %d at once, want the longest", got)
	}
}

// TestDefinitions looks at what is exported for servers of several versions.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	for version, known := range map[string]bool{"3.10.8": false, "3.12": true, "4.0.5": true} {
		var d struct {
			Queues              []struct{ Arguments map[string]any }
			Exchanges, Bindings []struct{}
		}
		text := must(amqp.Definitions("/", "ns", []string{"q"}, version, &amqp.Options{ConsumerTimeout: time.Hour}))(t)
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		if len(d.Queues) != 120+3+1 || len(d.Exchanges) != 9 || len(d.Bindings) != 120+8+3 {
			t.Errorf("%d queues, %d exchanges, %d bindings", len(d.Queues), len(d.Exchanges), len(d.Bindings))
		}
		timeouts := 0
		for _, q := range d.Queues {
			if q.Arguments["x-consumer-timeout"] == 3.6e6 {
				timeouts++
			}
		}
		if want := map[bool]int{false: 0, true: 3}[known]; timeouts != want {
			t.Errorf("RabbitMQ %s: %d queues have a time-out of their own, want %d", version, timeouts, want)
		}
	}
	for _, bad := range []string{"", "4", "x.y"} {
		if _, err := amqp.Definitions("/", "ns", nil, bad, nil); err == nil {
			t.Errorf("version %q is none", bad)
		}
	}
}
