package testserver

import (
	"net/netip"
	"testing"
)

// TestFreeAddr finds ports that no client is given to connect from, on Linux as it comes.
func TestFreeAddr(t *testing.T) {
	t.Parallel()
	for range 100 {
		addr, err := FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		const first = 32768
		if port := netip.MustParseAddrPort(addr).Port(); port+10000 >= first {
			t.Errorf("got %s; clients connect from %d and above", addr, first)
		}
	}
}
