// Package contract holds tests only: the delivery contract, proved on the real
// core and worker with faults injected at every call of a store.
//
// A process is a client of the stores whose calls can crash it before or after
// they took effect, lose their reply, fail, or stall past the lease. Time is
// that of testing/synctest, so that leases of half a minute cost nothing.
package contract
