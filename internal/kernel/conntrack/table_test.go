package conntrack_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/conntrack"
	"quaywall/internal/testkit/netns"
)

// Flows of each kind of protocol are listed, and forgotten again. One of them that the kernel refuses to forget keeps none
// of the others.
func TestForget(t *testing.T) {
	netns.Tool(t, "conntrack")
	ns := netns.New(t)
	insert := func(proto, from, to string, more ...string) {
		ns.Output(t, "conntrack", append([]string{"-I", "--protonum", proto, "--src", from, "--dst", to, "--timeout", "600"}, more...)...)
	}
	const a4, b4, a6, b6 = "192.0.2.1", "203.0.113.1", "2001:db8::1", "2001:db8:1::1"
	insert("icmp", a4, b4, "--icmp-type", "8", "--icmp-code", "0", "--icmp-id", "7")
	insert("icmpv6", a6, b6, "--icmpv6-type", "128", "--icmpv6-code", "0", "--icmpv6-id", "7")
	insert("112", a4, b4) // of no protocol that the kernel knows more of
	insert("132", a4, b4, "--sport", "4000", "--dport", "5000", "--state", "ESTABLISHED", "--orig-vtag", "1", "--reply-vtag", "2")
	for _, proto := range []string{"tcp", "udp"} {
		state := []string{}
		if proto == "tcp" {
			state = []string{"--state", "ESTABLISHED"}
		}
		insert(proto, a4, b4, append(state, "--sport", "4000", "--dport", "5000")...)
		insert(proto, a6, b6, append(state, "--sport", "4000", "--dport", "5000")...)
	}
	insert("udp", a4, b4, "--sport", "4000", "--dport", "5001", "--zone", "5")

	ns.Do(t, func() {
		flows, err := conntrack.List()
		if err != nil || len(flows) != 9 {
			t.Fatalf("%d flows, %v: want 9:\n%+v", len(flows), err, flows)
		}
		for _, f := range flows {
			if f.Orig.Proto == unix.IPPROTO_UDP && f.Orig.Dst == netip.MustParseAddrPort("203.0.113.1:5001") && f.Zone != 5 {
				t.Errorf("%+v: want zone 5", f)
			}
		}
		broken := flows[0]
		broken.Key = broken.Key[:8]
		if err := conntrack.Forget(append(flows[:0:0], broken, flows[1])); err == nil {
			t.Error("no word of a flow that the kernel didn't forget")
		}
		if left, err := conntrack.List(); err != nil || len(left) != 8 {
			t.Errorf("%d are left, %v: want 8", len(left), err)
		}
		if err := conntrack.Forget(flows); err != nil {
			t.Error(err)
		}
		if left, err := conntrack.List(); err != nil || len(left) != 0 {
			t.Errorf("%+v are left, %v", left, err)
		}
	})
}
