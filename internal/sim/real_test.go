package sim_test

import (
	"net/netip"
	"strings"
	"testing"

	"quaywall/internal/inventory"
	nf "quaywall/internal/netfilter"
	"quaywall/internal/snapshot"
)

// TestSeenWithRealPackets are ways that real hosts with Docker were seen to take, and that follow from no rule.
func TestSeenWithRealPackets(t *testing.T) {
	c1 := netip.MustParseAddr("172.17.0.2")
	udp := func(version string) func(h *snapshot.Host) {
		return func(h *snapshot.Host) {
			h.Inventory.Docker.Version = version
			h.Sockets = append(h.Sockets, snapshot.Socket{Proto: 17, Addr: netip.IPv4Unspecified(), Port: 5353, Process: "docker-proxy", To: netip.AddrPortFrom(c1, 53)})
		}
	}
	idle := func(h *snapshot.Host) {
		h.Rules.Tables = nil
		h.Sockets = []snapshot.Socket{{Proto: 6, Addr: netip.IPv4Unspecified(), Port: 8080, Process: "dockerd", Idle: true}}
	}
	gateways := func(list ...netip.Addr) func(h *snapshot.Host) {
		return func(h *snapshot.Host) { h.Containers[0].Networks[0].Gateways = append([]netip.Addr{}, list...) }
	}
	macvlan := func(h *snapshot.Host) {
		h.Inventory.Unseen = []inventory.Unseen{{Name: "street", Driver: "macvlan", Parent: "eth0"}}
		h.Containers = append(h.Containers, snapshot.Container{Name: "c3", Mode: "street", Networks: []snapshot.Endpoint{{Network: "street",
			Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.77")}, Gateways: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}}})
	}
	second := func(h *snapshot.Host) {
		h.Containers[0].Networks = append(h.Containers[0].Networks, snapshot.Endpoint{Network: "bridge", Addrs: []netip.Addr{netip.MustParseAddr("172.17.0.9")}})
	}
	for _, c := range []struct {
		what string
		edit func(h *snapshot.Host)
		text string
		want string
		why  string
	}{
		{"docker-proxy of old answers UDP from another address", udp("27.5.1"), "udp 203.0.113.2 -> 192.168.50.1:5353 in eth0", "accept proxy c1 unanswered", "comes from 203.0.113.1:5353 and not from 192.168.50.1:5353"},
		{"the same, where that is the address", udp("20.10.24+dfsg1"), "udp 203.0.113.2 -> 203.0.113.1:5353 in eth0", "accept proxy c1 answered", ""},
		{"a newer one", udp("28.0.0"), "udp 203.0.113.2 -> 192.168.50.1:5353 in eth0", "accept proxy c1 answered", ""},
		{"one that isn't known", udp(""), "udp 203.0.113.2 -> 192.168.50.1:5353 in eth0", "accept proxy c1 perhaps", "the version of Docker isn't known"},
		{"dockerd holds a port and serves nobody", idle, "tcp 203.0.113.2 -> 203.0.113.1:8080 in eth0", "accept host dockerd unanswered", "userland-proxy is off"},
		{"a network that leads nowhere", gateways(), "tcp -> 203.0.113.1:22 from container c1", "drop none unanswered", "none of its networks leads out"},
		{"but to its own addresses", gateways(), "tcp -> 172.17.0.1:22 from container c1", "accept host sshd answered", ""},
		{"one with a gateway", gateways(netip.MustParseAddr("172.17.0.1")), "tcp -> 203.0.113.1:22 from container c1", "accept host sshd answered", ""},
		{"a container's own address", second, "tcp -> 172.17.0.9:80 from container c1", "accept container c1 answered", "never leaves it"},
		{"its loopback", second, "tcp -> 127.0.0.1:99 from container c1", "accept container c1 perhaps", "never leaves it"},
		{"its address, as the source of what comes to another of its own", func(h *snapshot.Host) { second(h); h.Rules.Tables = nil },
			"tcp 172.17.0.9 -> 172.17.0.2:80 in docker0", "accept none unanswered", "its own address, 172.17.0.9"},
		{"an address whose route leads elsewhere", func(h *snapshot.Host) {
			h.Rules.Tables = nil
			h.Inventory.Networks = append(h.Inventory.Networks, inventory.Network{Name: "sealed", Bridge: "br-123456789abc"})
			h.Containers[1].Networks = []snapshot.Endpoint{{Network: "sealed", Addrs: []netip.Addr{netip.MustParseAddr("172.31.20.1")}}}
		}, "tcp -> 172.31.20.1:80 from host", "accept remote eth0 unanswered", "the routes lead out of eth0, where it isn't"},
		{"a macvlan container, from its link", macvlan, "tcp 203.0.113.2 -> 203.0.113.77:80 in eth0", "accept container c3 perhaps", "no other rule of this host sees it"},
		{"from the host", macvlan, "tcp -> 203.0.113.77:80 from host", "accept remote eth0 unanswered", "where it isn't"},
		{"out of it", macvlan, "tcp -> 203.0.113.2:80 from container c3", "accept remote eth0 perhaps", "No rule of this host sees it"},
		{"out of it to its host", macvlan, "tcp -> 203.0.113.1:22 from container c3", "drop none unanswered", "keeps the two apart"},
		{"out of it by its host", macvlan, "tcp -> 192.0.2.1:22 from container c3", "drop none unanswered", "keeps the two apart"},
		{"routes that lack an address of the host", func(h *snapshot.Host) {
			h.Routes = h.Routes[2:] // of docker0
		}, "tcp -> 172.17.0.1:22 from container c1", "accept host sshd answered", ""},
	} {
		h := host(docker()...)
		c.edit(h)
		tr := explain(t, h, c.text)
		got := string(tr.Verdict) + " " + strings.TrimSpace(tr.DeliveredTo.Kind+" "+tr.DeliveredTo.Name) + " perhaps"
		if tr.Reachable != nil {
			got = strings.TrimSuffix(got, "perhaps") + map[bool]string{true: "answered", false: "unanswered"}[*tr.Reachable]
		}
		if got != c.want || !strings.Contains(tr.Why, c.why) {
			t.Errorf("%s: %s: %s, want %s; %s", c.what, c.text, got, c.want, tr.Why)
		}
	}
}

// TestIPv6Loopback: an answer that comes by another interface than lo finds no route to ::1, whatever rules make of it.
func TestIPv6Loopback(t *testing.T) {
	nat := table("nat", base("OUTPUT", nf.NAT, nf.Output, -100, nf.Accept, do(dnat("2001:db8:113::9", 80), num(nf.DstPort, 8080))),
		base("POSTROUTING", nf.NAT, nf.Postrouting, 100, nf.Accept, do(nf.Translate{Kind: nf.Masquerade}, iface(nf.OutIface, "eth0"))))
	for to, want := range map[string]string{"2001:db8:113::1": "isn't known", "::1": "goes astray"} {
		tr := explain(t, host(nat), "tcp -> ["+to+"]:8080 from host")
		if tr.DeliveredTo.Source != "2001:db8:113::1" || !strings.Contains(tr.Why, want) {
			t.Errorf("%s: %+v %s", to, tr.DeliveredTo, tr.Why)
		}
	}
}

// TestWayBack: what a rule makes of the way back to a packet's source.
func TestWayBack(t *testing.T) {
	h := host(table("raw", base("PREROUTING", nf.Filter, nf.Prerouting, -290, nf.Accept, do(drop, num(nf.ReverseRoute, 0)))))
	for text, want := range map[string]string{
		"tcp -> [::1]:22 from host":                             "accept",
		"tcp -> 203.0.113.1:22 from host":                       "accept",
		"tcp [2001:db8:113::2] -> [2001:db8:113::1]:22 in eth0": "accept",
		"tcp [2001:db8:113::2] -> [2001:db8:113::1]:22 in eth1": "drop",
		"tcp [fe80::2] -> [fe80::1]:22 in eth0":                 "accept",
		"tcp 192.168.50.2 -> 203.0.113.1:22 in eth0":            "drop",
	} {
		if tr := explain(t, h, text); string(tr.Verdict) != want {
			t.Errorf("%s: %s, want %s; %s", text, tr.Verdict, want, tr.Why)
		}
	}
}
