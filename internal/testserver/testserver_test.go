package testserver

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
)

// TestFreeAddr finds ports that no client of the machine is given to connect from.
func TestFreeAddr(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Skip("not Linux")
	}
	var first uint16
	if _, err := fmt.Sscan(string(text), &first); err != nil {
		t.Fatal(err)
	}
	if first < 32000 {
		t.Skipf("this machine gives clients ports from %d", first)
	}
	for range 100 {
		addr, err := FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		if port := netip.MustParseAddrPort(addr).Port(); port >= first-10000 {
			t.Errorf("got %s; clients connect from %d and above", addr, first)
		}
	}
}
