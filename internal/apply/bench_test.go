package apply_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/conntrack"
)

// BenchmarkConnections applies a policy on a host whose connection tracking knows 100,000 connections, of which the policy
// denies none, or all.
func BenchmarkConnections(b *testing.B) {
	for _, port := range []uint16{80, 81} {
		for _, backend := range []string{"nft", "iptables-nft"} {
			b.Run(fmt.Sprintf("%s/port %d", backend, port), func(b *testing.B) { benchConnections(b, backend, port) })
		}
	}
}

func benchConnections(b *testing.B, backend string, port uint16) {
	for range b.N {
		b.StopTimer()
		s := newStreet(b)
		h := local(b, b.TempDir())
		s.host.Do(b, func() {
			applyText(b, h, backend, "version: 1\ninbound:\n  - allow: 1-1000\n")
			fillTable(b, netip.MustParseAddr(s.host.v4), port)
			b.StartTimer()
			r := applyText(b, h, backend, "version: 1\ninbound:\n  - allow: [22, 80]\n    from: [10.0.0.0/8, 192.0.2.0/24]\n")
			b.StopTimer()
			for _, step := range r.Steps {
				b.ReportMetric(float64(step.Took)/float64(time.Millisecond), step.Name+"-ms")
			}
			b.ReportMetric(float64(r.Ended.Connections), "ended")
		})
	}
}

func fillTable(b *testing.B, host netip.Addr, port uint16) {
	_ = os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_max", []byte("300000"), 0)
	var flows []conntrack.Flow
	for i := range 100_000 {
		client := netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i >> 6), byte(i<<2) | 1})
		flows = append(flows, conntrack.Flow{Proto: unix.IPPROTO_TCP, Local: netip.AddrPortFrom(client, uint16(20000+i%1000)), Remote: netip.AddrPortFrom(host, port)})
	}
	n, err := conntrack.Adopt(flows)
	if err != nil || n != len(flows) {
		b.Fatal(n, err)
	}
}
