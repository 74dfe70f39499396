// Package conformance proves that a driver keeps the contract of package
// driver, and that core and worker lose nothing on it. It is for authors of
// drivers; the drivers of this module are held to the same suite.
//
// # From nothing to green
//
// Write one function that returns a [Harness] on a store of its own, and one
// test for each part that your driver has:
//
//	func newHarness(tb testing.TB) *conformance.Harness {
//		store := startOrAttach(tb) // its own directory, key prefix or namespace
//		return &conformance.Harness{
//			OpenBroker: func(tb testing.TB, namespace string) driver.Broker {
//				b, err := open(tb.Context(), store, namespace)
//				if err != nil {
//					tb.Fatal(err)
//				}
//				return b
//			},
//		}
//	}
//
//	func TestConformance(t *testing.T) {
//		conformance.RunBroker(t, newHarness)
//		conformance.RunBackend(t, newHarness)
//		conformance.RunApp(t, newHarness)
//	}
//
// Then go from the first failure to the next, one group at a time:
//
//	go test -run Conformance/Broker/Publish
//	go test -run Conformance/Broker/Receive
//
// in the order Publish, Receive, Settle, Lease, Delay, Dead, Once, Life, and so
// on. A failure prints what was seen and the sentence of the contract that does
// not hold. [Cases] lists all sentences.
//
// # What is asked for
//
// Every case runs on every driver: none is skipped. What Info does not claim,
// an optional interface that is not there, a store that is not durable, is
// proved to be absent, as Case.Denied says. A driver that claims more must
// provide more: Restart where Info says durable, Cut where the lease is a
// session.
//
// The function is called once more than there are cases, to read its settings:
// open what is dear only when a client is opened. Where Info claims a
// MaxMessage, a message of that size is published, many cases beside each other:
// claim what the store takes in its stride.
//
// A store that lives in the test's process should set Harness.Bubble: each case
// then runs in a bubble of testing/synctest, where time is virtual and waiting
// is free, and goroutines that never end are found. What harnesses share must
// then hold no channel, timer or condition variable of a case. Other stores run in real
// time; cases wait in units of Harness.Lease, many at once. A case that fails there
// while the whole process stood still, as on a busy machine, has proved nothing: it
// runs again, up to five times, and says so.
//
// Nothing may be left: goroutines that a case started, or that a driver started
// for it, must have ended once the clients were closed.
//
// # Faults
//
// RunApp also runs core and worker on clients that fail: each call to the
// stores can crash its process before or after it took effect, lose its reply,
// be refused, or stall for longer than a lease. For the life of one task every
// single fault and every pair of faults is tried in a bubble (of the pairs some,
// see Harness.PairStride), a few single faults in real time; then random schedules
// of many tasks and workers. A violation prints the calls in their order. The long
// form runs every pair, as many random schedules as are asked for, and in real
// time every single fault:
//
//	go test -run Conformance/App/Faults -timeout 0 -args -conformance.all -conformance.random=1000000
//
// A random schedule is repeated with -conformance.seed.
//
// # The suite itself
//
// The suite is tested with drivers that are broken on purpose, each in one way;
// see TestMutants. It asks for nothing beyond the interfaces: a driver of a few
// hundred lines without any optional interface passes, see TestMinimal.
package conformance
