// Package driver defines what a store must do to carry Chicory's tasks: the
// interfaces [Broker] and [Backend], the messages and records that cross them,
// the rules by which records move, the error classes and the registry.
//
// Users of Chicory do not need this package. Authors of drivers do; it imports
// the standard library only, and nothing of core may enter it.
//
// # Writing a driver
//
// A broker moves messages: [Broker.Publish] stores them, a [Subscription]
// hands them out under a lease, counts deliveries and settles them. A backend
// keeps one [Record] per task. A driver may offer either or both; where both
// share a store, the broker says so through [Coverer] and applies records in
// the same atomic step as messages.
//
//  1. Implement [Broker] (with [Subscription] and [DeadLetters]), [Backend],
//     or both. The rules that decide whether a start or an update is accepted
//     are written once, as [CheckStart], [CheckUpdate] and [CheckClaim]; call
//     them under the record's lock, or translate them faithfully.
//  2. State in Info what the store can do. Conformance proves each claim.
//  3. Add what is optional: [Notifier], [Control], [Inspector], [Purger].
//     Callers find it with [As], which walks Unwrap, so wrappers stay
//     transparent.
//  4. Register in init with [Register], once per name.
//
// # Concurrency and retention
//
// Every method may be called from many goroutines, unless it says otherwise.
// A driver copies what it keeps: callers may reuse slices and change bodies
// once a call has returned, and may keep what a call returned.
//
// # Errors
//
// A driver retries nothing whose outcome it does not know. It classifies:
// [Transient] marks an error after which certainly nothing was applied;
// [ErrClosed] ends everything; the other sentinels are verdicts of the store.
// Any other error means that the outcome is unknown. Batches answer with a
// [*BatchError] that holds one error per item.
package driver

// Contract is the number of the contract that this package describes. A driver
// reports the number it was written for; core refuses a feature that is newer
// than the driver.
const Contract = 1
