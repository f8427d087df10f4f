package conntrack_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/conntrack"
	"quaywall/internal/testkit/netns"
)

func TestAdopt(t *testing.T) {
	ns, other := netns.New(t), netns.New(t)
	netns.Veth(t, ns, "eth0", other, "eth0")
	ns.Addr(t, "eth0", "203.0.113.1/24", "2001:db8:1::1/64")
	ns.Do(t, func() {
		for _, peer := range []string{"203.0.113.2:4000", "[2001:db8:1::2]:4000", "127.0.0.1:4000", "[::1]:4000", "203.0.113.1:4000"} {
			c, err := net.Dial("udp", peer)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		unconnected, err := net.ListenPacket("udp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer unconnected.Close()

		flows, err := conntrack.Unseen()
		if err != nil || len(flows) != 2 {
			t.Fatalf("%v, %v: want the flows with the two other addresses", flows, err)
		}
		for i, want := range []int{2, 0} {
			if n, err := conntrack.Adopt(flows); err != nil || n != want {
				t.Errorf("time %d: %d, %v, want %d", i+1, n, err, want)
			}
		}
		for _, f := range flows {
			check(t, f)
		}
	})
}

// check looks for the flow in the kernel's table.
func check(t *testing.T, f conntrack.Flow) {
	t.Helper()
	family := netlink.InetFamily(unix.AF_INET)
	if f.Local.Addr().Is6() {
		family = unix.AF_INET6
	}
	table, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range table {
		src, _ := netip.AddrFromSlice(e.Forward.SrcIP)
		dst, _ := netip.AddrFromSlice(e.Reverse.SrcIP)
		if netip.AddrPortFrom(src.Unmap(), e.Forward.SrcPort) == f.Local && netip.AddrPortFrom(dst.Unmap(), e.Reverse.SrcPort) == f.Remote {
			if e.TimeOut < 500 || e.Forward.Protocol != unix.IPPROTO_UDP {
				t.Errorf("%v is known as %+v", f, e)
			}
			return
		}
	}
	t.Errorf("%v is not known; the table holds %v", f, table)
}
