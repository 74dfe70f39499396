package conformance

import "testing"

// Execute runs one case in a bubble and reports whether it failed, and what it
// said.
func Execute(t *testing.T, c *Case, newHarness NewHarness) (failed bool, lines []string) {
	r := (&stage{parent: t, newHarness: newHarness, stride: 1}).execute(c)
	return r.failed, r.lines
}
