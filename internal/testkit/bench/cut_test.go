//go:build bench

package bench

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/conntrack"
	"quaywall/internal/testkit/netns"
)

// TestEndConnections applies a policy on a host that knows 100,000 connections, of which it denies none, or all. Beside it
// is the same apply on a host that knows none.
func TestEndConnections(t *testing.T) {
	const before = "version: 1\ninbound:\n  - allow: 1-1000\n"
	const after = "version: 1\ninbound:\n  - allow: [22, 80]\n    from: [10.0.0.0/8, 192.0.2.0/24]\n"
	for _, backend := range backends {
		for what, port := range map[string]uint16{"none": 80, "all": 81} {
			change := func(entries int) float64 {
				n := newNetwork(t)
				h := newHost(t, n.host, backend)
				h.apply(t, before)
				adopt(t, n.host, entries, port)
				return h.apply(t, after).ms()
			}
			row := compare(Row{What: fmt.Sprintf("apply with 100,000 connections, %s of them denied, %s", what, backend), Unit: "ms",
				Beside: "without connections, ms", Target: "at most 1,000 ms more"}, 3,
				func() float64 { return change(100_000) }, func() float64 { return change(0) })
			row.Met = row.Ours-row.Theirs <= 1000
			report.Add(row)
		}
	}
}

// adopt makes connections with a port of the host known to connection tracking.
func adopt(t *testing.T, host *netns.NS, entries int, port uint16) {
	t.Helper()
	to := netip.AddrPortFrom(netip.MustParseAddr(hostAddr), port)
	var flows []conntrack.Flow
	for i := range entries {
		client := netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i >> 6), byte(i<<2) | 1})
		flows = append(flows, conntrack.Flow{Proto: unix.IPPROTO_TCP, Local: netip.AddrPortFrom(client, uint16(20_000+i%1000)), Remote: to})
	}
	host.Do(t, func() {
		if n, err := conntrack.Adopt(flows); err != nil || n != entries {
			t.Fatalf("%d of %d connections: %v", n, entries, err)
		}
	})
}
