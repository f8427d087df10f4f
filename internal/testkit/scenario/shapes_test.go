package scenario

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quaywall/internal/testkit/frame"
	"quaywall/internal/testkit/lab"
)

// TestTrap15NothingStays: rules for networks and containers that are gone are gone with the next apply, whatever came and
// went before.
func TestTrap15NothingStays(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		plain := lines("version: 1", "inbound:", "  - allow: [ssh, published]")
		w.apply(plain)
		clean := w.rules().Own()
		if clean.Diff(w.found.Own()) == "" {
			t.Fatal("what is in force does not show: nothing is proved")
		}
		for i := range 3 {
			name := fmt.Sprintf("net%d", i%2)
			w.network(lab.Network{Name: name, Subnets: []string{fmt.Sprintf("172.3%d.0.0/24", i)}})
			web := w.run(lab.Container{Name: "web", Networks: []string{name}, Publish: []string{fmt.Sprintf("808%d:80", i)}, Serve: []string{"80/tcp"}})
			w.mark()
			w.apply(lines("version: 1", "inbound:", "  - allow: published", "    network: "+name, "  - allow: 443",
				"    to: {network: "+name+"}", "egress:", "  - deny: any", "    network: "+name))
			w.check(open(w.outside, fmt.Sprintf("203.0.113.1:808%d", i), "web", "policy.yaml:3"), denied(web, lab.OutsideAddr4+":80", "policy.yaml:8"))
			if err := web.RemoveContainer(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := w.host.RemoveNetwork(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			w.mark()
			w.apply(plain)
			if diff := w.rules().Own().Diff(clean); diff != "" {
				t.Fatalf("round %d left something behind:\n%s", i+1, diff)
			}
		}
	})
}

// TestTrap16Unseen: no rule of the host sees what goes to a container on a macvlan or ipvlan network. It is open before and
// after, and whoever asks is told so.
func TestTrap16Unseen(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.network(lab.Network{Name: "street", Driver: "macvlan", Subnets: []string{"203.0.113.0/24"}, Options: map[string]string{"parent": "eth0"}})
		w.network(lab.Network{Name: "alley", Driver: "ipvlan", Subnets: []string{"192.168.50.0/24"}, Options: map[string]string{"parent": "eth1"}})
		w.run(lab.Container{Name: "mac", Networks: []string{"street"}, IP: "203.0.113.77", Serve: []string{"80/tcp"}})
		rows := []lab.Row{open(w.outside, "203.0.113.77:80", "mac", "an interface of its own on that link")}
		_, err := w.host.Run(t.Context(), lab.Container{Name: "ip", Networks: []string{"alley"}, IP: "192.168.50.77", Serve: []string{"80/tcp"}})
		switch {
		case err == nil:
			rows = append(rows, open(w.lan, "192.168.50.77:80", "ip", "an interface of its own on that link"))
		case !strings.Contains(err.Error(), "not supported"):
			t.Errorf("a container on an ipvlan network: %v; want it to run, or a kernel that has no ipvlan", err)
		}
		w.mark()
		w.try(rows...)
		ran := w.apply(lines("version: 1", "inbound: []"))
		w.try(append(rows, denied(w.outside, "203.0.113.1:22", "default"))...)
		for command, out := range map[string]string{"apply": ran.Stderr, "plan": w.quaywall(0, "plan").Stderr, "status": w.quaywall(0, "status").Stderr} {
			for _, want := range []string{`"street" is macvlan on eth0`, `"alley" is ipvlan on eth1`} {
				if !strings.Contains(out, want) {
					t.Errorf("%s does not say that network %s:\n%s", command, want, out)
				}
			}
		}
		w.stop()
	})
}

// TestTrap16SCTP: a rule for an SCTP port lets its associations in and no others, to the host and to a container. A kernel
// that has no SCTP of its own, as most, says so to whoever got through to it. Docker can't publish such a port there, and so
// the rules are written as it would write them.
func TestTrap16SCTP(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{})
		w.run(lab.Container{Name: "web"})
		if _, err := w.host.Run(t.Context(), lab.Container{Name: "sctp", Publish: []string{"5003:80/sctp"}}); err != nil && !strings.Contains(err.Error(), "not supported") {
			t.Errorf("a container with a published SCTP port: %v; want it to run, or a kernel that has no SCTP", err)
		}
		for _, port := range []string{"5000", "5001"} {
			w.host.MustExec(t, "iptables", "-t", "nat", "-I", "DOCKER", "!", "-i", "docker0", "-p", "sctp", "--dport", port, "-j", "DNAT", "--to-destination", "172.17.0.2:80")
		}
		w.host.MustExec(t, "iptables", "-I", "DOCKER", "-d", "172.17.0.2/32", "!", "-i", "docker0", "-o", "docker0", "-p", "sctp", "--dport", "80", "-j", "ACCEPT")
		w.mark()
		client := crafter{w}
		for _, port := range []uint16{5000, 5001} {
			if !client.answered(t, client.way(lab.OutsideAddr4, lab.HostWAN4, port).SCTP()) {
				t.Errorf("with nothing in force, an association to port %d was not answered: nothing is proved", port)
			}
		}
		w.apply(lines("version: 1", "inbound:", "  - allow: 5000/sctp"))
		for src, dst := range map[string]string{lab.OutsideAddr4: lab.HostWAN4, lab.OutsideAddr6: lab.HostWAN6} {
			for port, want := range map[uint16]bool{5000: true, 5001: false} {
				way := client.way(src, dst, port)
				way.Src = netip.AddrPortFrom(way.Src.Addr(), way.Src.Port()+1) // no association that is known already
				if got := client.answered(t, way.SCTP()); got != want {
					t.Errorf("an association from %s to port %d was answered: %v, want %v", src, port, got, want)
				}
			}
		}
		w.stop()
	})
}

// answered tells whether the host answers a frame, be it by an error of ICMP.
func (c crafter) answered(t *testing.T, crafted []byte) bool {
	t.Helper()
	sent, _ := frame.Parse(crafted)
	frames, err := c.w.outside.Watch(t.Context(), "eth0", func() error { return c.w.outside.Send(t.Context(), "eth0", crafted) })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		p, ok := frame.Parse(f)
		fits := ok && p.Src.Addr() == sent.Dst.Addr() && p.Dst.Addr() == sent.Src.Addr()
		if fits && (p.Proto == sent.Proto || p.Proto == unix.IPPROTO_ICMP && p.Payload[0] == 3 || p.Proto == unix.IPPROTO_ICMPV6 && p.Payload[0] < 128) {
			return true
		}
	}
	return false
}

// TestTrap16IPv6Alone: a container that has IPv6 alone (with engines before 28: that is reached by IPv6 alone).
func TestTrap16IPv6Alone(t *testing.T) {
	onEach(t, func(t *testing.T, v variant) {
		w := oneHost(t, v, lab.Engine{IPv6: true, IP6Tables: true})
		w.network(lab.Network{Name: "six", Subnets: []string{"fd30::/64"}, NoIPv4: true})
		web := w.run(lab.Container{Name: "web", Networks: []string{"six"}, Publish: []string{"[::]:8080:80", "[::]:8081:80"}, Serve: []string{"80/tcp"}})
		addr, err := web.Addr(t.Context(), "six", true)
		if err != nil || !netip.MustParsePrefix("fd30::/64").Contains(addr) {
			t.Fatal(addr, err)
		}
		w.mark()
		w.try(open(w.outside, "[2001:db8:1::1]:8081", "web", "published"))
		w.apply(lines("version: 1", "inbound:", "  - allow: 8080"))
		w.check(open(w.outside, "[2001:db8:1::1]:8080", "web", "policy.yaml:3"), denied(w.outside, "[2001:db8:1::1]:8081", "default"),
			denied(w.neighbour, "["+addr.String()+"]:80", direct), open(web, "["+lab.OutsideAddr6+"]:80", "outside", "default"))
		w.stop()
	})
}
