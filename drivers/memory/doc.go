// Package memory keeps tasks and their records in the memory of the process.
// It is a broker and a backend in one: for tests, for development, and for
// programs whose tasks may die with them.
//
// # URLs
//
//	memory:          a store of its own
//	memory:name      the store of that name, shared by all who open it
//	memory:?max=N    at most N pending messages, see [Store.SetMax]
//
// A backend that is opened with the URL of the application's broker shares its
// store, so that messages and records move in one step. There is no host, no
// path and no other parameter. Programs that need no URL build their parts
// with [New], [Store.Broker] and [Store.Backend].
//
// # Delivery semantics
//
// Nothing survives the process. As long as it lives, the promises are those of
// a durable store:
//
//   - A settlement is atomic with its Then messages, in whatever queue, and
//     with the record if the broker covers the backend.
//   - IDs are unique among living messages and dead letters of a namespace.
//   - Leases are timed. A delivery that was neither settled nor extended comes
//     back when its lease ends, one higher in Count and at its old place.
//   - Each of the ten priorities is first in, first out. A message given back
//     returns to its place; a delayed one queues up when it is due.
//   - Delays and leases run on the monotonic clock, to the moment and never
//     early, and in the fake time of testing/synctest.
//   - Delivery.Lost is nil: a worker learns of a lost lease from Extend.
//
// # Sharing
//
// All clients of a [Store] in one namespace see the same queues and records;
// namespaces never see each other. Brokers and backends behave like processes
// on one server: closing one takes nothing from the others, and what it held
// comes back when its leases end. A store that was opened by URL is gone with
// its last client. One from [New] is kept as long as it is referenced, and
// runs no timer while it has no client. There are no goroutines.
//
// From the moment a namespace has a backend, its brokers cover it. Do not pair
// a broker with the backend of another store if its own has a backend too:
// its records would be obeyed instead.
//
// # As
//
// [driver.As] finds [*Broker] and [*Backend], and through their Store and
// Namespace methods whatever else a test wants to open on the same store.
package memory
