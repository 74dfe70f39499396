//go:build !linux || !(amd64 || arm64)

package bolt_test

import "testing"

func trace(t *testing.T, _, _ string, _ func(event) bool) []event {
	t.Skip("NOT TESTED: a loss of power, which is simulated on 64-bit Linux")
	return nil
}
