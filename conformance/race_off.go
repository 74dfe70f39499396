//go:build !race

package conformance

const raceStride = 1
