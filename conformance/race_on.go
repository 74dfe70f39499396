//go:build race

package conformance

// pairStride is which of the pairs of faults are tried: one in so many, others
// in every run, as the race detector makes each cost several times as much.
const pairStride = 10
