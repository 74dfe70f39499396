//go:build !race

package conformance

// pairStride is which of the pairs of faults are tried: all.
const pairStride = 1
