package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestEscapeIsInjectiveAndSafe(t *testing.T) {
	t.Parallel()
	names := []string{"a", "a.b", ".", "..", "#", "*", "amq.", "}", "{a}", ":", "a:b", "%23", "a b", "ä", "\x00", "A", "a/b", "%", "-"}
	seen := map[string]string{}
	for _, n := range names {
		e := Escape(n)
		if other, ok := seen[e]; ok {
			t.Errorf("%q and %q both escape to %q", n, other, e)
		}
		seen[e] = n
		if strings.ContainsAny(e, "#*{}:/ \x00") || strings.HasPrefix(e, ".") {
			t.Errorf("Escape(%q) = %q is not safe", n, e)
		}
	}
}

func TestEscapeMax(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, n := range []string{"a", "ä", strings.Repeat("a", 40), strings.Repeat("a", 41), strings.Repeat("a", 42),
		strings.Repeat("ä", 100), strings.Repeat("ä", 99) + "ö", strings.Repeat("#", 200)} {
		e := EscapeMax(n, 40)
		if other, ok := seen[e]; ok || len(e) > 40 {
			t.Errorf("%q becomes %q, %d bytes; so does %q", n, e, len(e), other)
		}
		if seen[e] = n; len(Escape(n)) <= 40 && e != Escape(n) {
			t.Errorf("%q is short and becomes %q", n, e)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a", "%61")
	f.Fuzz(func(t *testing.T, a, b string) {
		if a != b && Escape(a) == Escape(b) {
			t.Errorf("%q and %q both escape to %q", a, b, Escape(a))
		}
	})
}

func TestNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 201)
	tests := []struct {
		name  string
		check func(string) error
		in    string
		ok    bool
	}{
		{"id", CheckID, "A-z0.9_:", true}, {"id empty", CheckID, "", false}, {"id long", CheckID, long, false},
		{"id space", CheckID, "a b", false}, {"id umlaut", CheckID, "ä", false},
		{"queue", CheckQueue, "} # *", true}, {"queue empty", CheckQueue, "", false}, {"queue long", CheckQueue, long, false},
		{"queue not UTF-8", CheckQueue, "\xff", false},
		{"namespace", CheckNamespace, "a-b_9", true}, {"namespace upper", CheckNamespace, "A", false},
		{"namespace empty", CheckNamespace, "", false}, {"namespace long", CheckNamespace, long, false},
	}
	for _, tt := range tests {
		err := tt.check(tt.in)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("%s: got %v, want ok=%v", tt.name, err, tt.ok)
		}
	}
}

func TestSubscribeOptionsCheck(t *testing.T) {
	queues := []QueueSpec{{Name: "a"}, {Name: "b", Weight: 2}}
	for name, tt := range map[string]struct {
		o  SubscribeOptions
		ok bool
	}{
		"good":             {SubscribeOptions{Queues: queues, Prefetch: 1, Lease: time.Second}, true},
		"longest lease":    {SubscribeOptions{Queues: queues, Prefetch: 1, Lease: MaxLease}, true},
		"no queues":        {SubscribeOptions{Prefetch: 1, Lease: time.Second}, false},
		"no prefetch":      {SubscribeOptions{Queues: queues, Lease: time.Second}, false},
		"no lease":         {SubscribeOptions{Queues: queues, Prefetch: 1}, false},
		"lease too long":   {SubscribeOptions{Queues: queues, Prefetch: 1, Lease: MaxLease + time.Second}, false},
		"part of a ms":     {SubscribeOptions{Queues: queues, Prefetch: 1, Lease: time.Second + 1}, false},
		"queue of no name": {SubscribeOptions{Queues: []QueueSpec{{}}, Prefetch: 1, Lease: time.Second}, false},
		"negative weight":  {SubscribeOptions{Queues: []QueueSpec{{Name: "a", Weight: -1}}, Prefetch: 1, Lease: time.Second}, false},
		"queue twice":      {SubscribeOptions{Queues: append(queues, queues[0]), Prefetch: 1, Lease: time.Second}, false},
	} {
		if err := tt.o.Check(); (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want ok=%v", name, err, tt.ok)
		}
	}
	if err := CheckQueues(nil); err != nil {
		t.Errorf("no queues to set: got %v, want nil", err)
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	var r Registry
	open := func(context.Context, *Config) (Broker, error) { return nil, nil }
	r.Register("one", Driver{Schemes: []string{"uno"}, OpenBroker: open})
	if name, _, err := r.Lookup("uno"); name != "one" || err != nil {
		t.Errorf("Lookup(uno) = %q, %v", name, err)
	}
	_, _, err := r.Lookup("redis")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "one") || !strings.Contains(err.Error(), "drivers/redis") {
		t.Errorf("Lookup(redis) = %v, want the registered names and the missing import", err)
	}
	for _, f := range []func(){
		func() { r.Register("one", Driver{OpenBroker: open}) },
		func() { r.Register("two", Driver{Schemes: []string{"uno"}, OpenBroker: open}) },
		func() { r.Register("", Driver{OpenBroker: open}) },
		func() { r.Register("three", Driver{}) },
	} {
		mustPanic(t, f)
	}
}

func mustPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("Register did not panic")
		}
	}()
	f()
}

type wrapped struct{ inner any }

func (w wrapped) Unwrap() any { return w.inner }

type inspected struct{ Inspector }

func TestAsWalksUnwrap(t *testing.T) {
	t.Parallel()
	if _, ok := As[Inspector](wrapped{wrapped{inspected{}}}); !ok {
		t.Error("As did not find the Inspector behind two wrappers")
	}
	if _, ok := As[Inspector](wrapped{}); ok {
		t.Error("As found what is not there")
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	if err := Transient(cause); !errors.Is(err, ErrTransient) || !errors.Is(err, cause) || Transient(nil) != nil {
		t.Errorf("Transient: %v", err)
	}
	if Batch([]error{nil, nil}) != nil {
		t.Error("Batch of nils is not nil")
	}
	err := fmt.Errorf("publish: %w", Batch([]error{nil, ErrTooLarge}))
	if ItemError(err, 0, 2) != nil || ItemError(err, 1, 2) != ErrTooLarge || !errors.Is(err, ErrTooLarge) {
		t.Errorf("ItemError: %v, %v", ItemError(err, 0, 2), ItemError(err, 1, 2))
	}
	if ItemError(cause, 5, 9) != cause {
		t.Error("an error for the whole batch is every item's")
	}
}
