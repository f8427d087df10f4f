package lab_test

import (
	"net/netip"
	"testing"

	"quaywall/internal/testkit/agent"
	"quaywall/internal/testkit/frame"
	"quaywall/internal/testkit/lab"
)

// TestCraftedFrames proves the frames right: the kernel answers them, and reassembles the fragments.
func TestCraftedFrames(t *testing.T) {
	l := lab.Start(t, twoNodes())
	host, outside := l.Node("host"), l.Node("outside")
	outside.MustExec(t, "nft", "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; };"+
		"add rule inet quiet out tcp flags rst drop") // its kernel knows nothing of the crafted connections
	for src, dst := range map[string]string{"203.0.113.77": lab.HostWAN4, "2001:db8:1::77": lab.HostWAN6} {
		way := func(port uint16) frame.Way {
			return frame.Way{SrcMAC: outside.MAC("eth0"), DstMAC: host.MAC("eth0"),
				Src: netip.AddrPortFrom(netip.MustParseAddr(src), 4000), Dst: netip.AddrPortFrom(netip.MustParseAddr(dst), port)}
		}
		outside.MustExec(t, "ip", "addr", "add", src, "dev", "eth0", "nodad")
		l.Check(t, []lab.Row{{From: outside, Source: src, To: netip.AddrPortFrom(netip.MustParseAddr(dst), 22).String(), Want: lab.Open,
			SeenAs: src, Why: "the new address is in use"}})
		if _, err := host.Seen(t.Context(), agent.Seen{Forget: true}); err != nil {
			t.Fatal(err)
		}
		frames := append(frame.Fragment(way(53).UDP(make([]byte, 100)), 48), way(53).UDP([]byte("whole")))
		if err := outside.Send(t.Context(), "eth0", frames...); err != nil {
			t.Fatal(err)
		}
		seen, err := host.Seen(t.Context(), agent.Seen{Forget: true})
		if err != nil || len(seen) != 2 || seen[0].Remote != way(53).Src || seen[1].Remote != way(53).Src {
			t.Errorf("%s: the UDP server saw %v, %v; want two datagrams", src, seen, err)
		}
		if flags := answers(t, outside, src, way(22).TCP(frame.SYN)); flags != frame.SYN|frame.ACK {
			t.Errorf("%s: a SYN was answered with flags %#x", src, flags)
		}
		if flags := answers(t, outside, src, way(22).TCP(frame.ACK)); flags != frame.RST {
			t.Errorf("%s: an ACK was answered with flags %#x", src, flags)
		}
	}
}

// answers gives the flags of all TCP segments that come back to an address.
func answers(t *testing.T, client *lab.Node, addr string, crafted []byte) uint8 {
	t.Helper()
	frames, err := client.Watch(t.Context(), "eth0", func() error { return client.Send(t.Context(), "eth0", crafted) })
	if err != nil {
		t.Fatal(err)
	}
	var flags uint8
	for _, f := range frames {
		if p, ok := frame.Parse(f); ok && p.Proto == 6 && p.Dst.Addr().String() == addr {
			flags |= p.Flags
		}
	}
	return flags
}
