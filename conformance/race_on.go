//go:build race

package conformance

// raceStride is how many times fewer pairs of faults are tried, as the race
// detector makes each cost several times as much.
const raceStride = 40
