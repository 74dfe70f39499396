//go:build !race

package bolt_test

// racing is whether the race detector is on.
const racing = false
