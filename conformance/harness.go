package conformance

import (
	"cmp"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A Harness opens clients of one store. A driver's author writes one function
// that returns it; every case calls that function and so has a store of its
// own, or a part of a shared server that no other case sees.
type Harness struct {
	// OpenBroker opens another client of the store, as another process would.
	// The suite closes it. It is needed by RunBroker and RunApp.
	OpenBroker func(tb testing.TB, namespace string) driver.Broker
	// OpenBackend opens another client of the store. Broker is the one that
	// the same process uses, nil if it uses none. It is needed by RunBackend;
	// without it, RunApp runs on the broker alone.
	OpenBackend func(tb testing.TB, namespace string, broker driver.Broker) driver.Backend

	// Kill ends a client, a Broker or a Backend, as the death of its process
	// would: nothing is given back, nothing more is taken. Nil is Close.
	Kill func(tb testing.TB, client any)
	// Cut cuts the connection of a broker that lives on and may connect again.
	// It is needed where the lease of a delivery is its session.
	Cut func(tb testing.TB, b driver.Broker)
	// Restart stops the store as a crash would and starts it again, and waits
	// until it serves. It is needed by what Info calls durable; see Restarts.
	Restart func(tb testing.TB)
	// Outage stops the store as a crash would, starts it again after down, and
	// waits until it serves. It is needed where Server is set and leases are
	// timed.
	Outage func(tb testing.TB, down time.Duration)
	// Size returns how much the store keeps, of all namespaces: keys, entries
	// or rows. Nil: what is left behind is not looked at.
	Size func(tb testing.TB) int
	// Server says that the store is a process of its own: clients that were
	// open before Restart go on by themselves after it.
	Server bool

	// Bubble runs each case in a bubble of testing/synctest, where waiting
	// costs nothing. The function is then called inside the bubble. Only for
	// stores that live in the test's process.
	Bubble bool
	// PairStride is which pairs of faults are tried in a bubble: one in so
	// many, others in every run; 0 is all. Under the race detector it is 40
	// times as many, with -conformance.all it is all.
	PairStride int
	// Lease is the lease of deliveries, and the unit of the time that cases
	// take; 0 is 30 s in a bubble, otherwise 1 s.
	Lease time.Duration
	// Slack is how late something may come that is notified or timed by the
	// store, on this machine; 0 is 50 ms in a bubble, otherwise 500 ms.
	Slack time.Duration
	// Parallel is how many cases run at once in real time, where they mostly
	// wait; 0 is 32.
	Parallel int
	// Known holds, for cases that are known to fail, the reason. A known case
	// that passes fails the run.
	Known map[string]string
}

func (h *Harness) lease() time.Duration {
	if h.Bubble {
		return cmp.Or(h.Lease, 30*time.Second)
	}
	return cmp.Or(h.Lease, time.Second)
}

func (h *Harness) slack() time.Duration {
	if h.Bubble {
		return cmp.Or(h.Slack, 50*time.Millisecond)
	}
	return cmp.Or(h.Slack, 500*time.Millisecond)
}

// Restarts reports whether the case for which a NewHarness was called restarts
// its store: only such a case needs a server of its own, others may share one.
func Restarts(tb testing.TB) bool {
	r, ok := tb.(*recorder)
	return ok && r.restarts
}

// A NewHarness returns a harness on a store of its own. What it opens besides
// clients it closes with tb.Cleanup.
type NewHarness func(tb testing.TB) *Harness
