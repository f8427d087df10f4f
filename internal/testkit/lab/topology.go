package lab

import (
	"fmt"
	"net/netip"
)

// Topology is what a lab is made of.
type Topology struct {
	Nodes []NodeSpec
}

// NodeSpec is a machine.
type NodeSpec struct {
	Name    string
	Links   []Link
	Routes  []Route
	Engine  *Engine           // nil: no Docker
	Serve   []string          // servers on it: "22/tcp", "127.0.0.1:53/udp", "ip:47"
	Forward bool              // routes IPv4 and IPv6 (an Engine turns IPv4 forwarding on by itself)
	NoLo    bool              // loopback stays down, so that 127.0.0.0/8 can be routed elsewhere
	Sysctls map[string]string // "net.ipv4.conf.all.route_localnet": "1"; with "eth0" in the name of an interface
}

// Link is a network interface, joined to all others that name the same segment.
type Link struct {
	Segment string
	Name    string         // "eth0"
	Addrs   []netip.Prefix // addresses with the length of their network
}

// Route leads to a network by way of a neighbour. The zero To is not a default route: write 0.0.0.0/0 or ::/0.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // a link-local one needs Dev; the zero value with Dev: directly on the link
	Dev string
}

// Engine says how a node's dockerd runs. The zero value is the installed one with Docker's defaults.
type Engine struct {
	Dir         string   // look here first for dockerd, containerd, runc, docker-proxy: an unpacked release
	NoProxy     bool     // userland-proxy off
	IPv6        bool     // docker0 has IPv6: 2001:db8:d0c::/64
	IP6Tables   bool     // ip6tables (with experimental, which 20.10 to 26 need for it)
	NoIPTables  bool     // "iptables": false
	NoIPForward bool     // "ip-forward": false
	Legacy      bool     // iptables-legacy, by a PATH of dockerd's own
	LiveRestore bool     // containers outlive dockerd
	Args        []string // more flags of dockerd
}

// Addresses of the standard topology.
const (
	HostWAN4, HostWAN6           = "203.0.113.1", "2001:db8:1::1"
	HostLAN4, HostLAN6           = "192.168.50.1", "fd00:50::1"
	OutsideAddr4, OutsideAddr6   = "203.0.113.2", "2001:db8:1::2"
	LANAddr4, LANAddr6           = "192.168.50.2", "fd00:50::2"
	NeighbourAddr4, NeighbourIP6 = "203.0.113.3", "2001:db8:1::3"
)

// OneHost is a host with Docker on two networks, and three clients: "outside" and "neighbour" on its eth0, "lan" on its
// eth1. The neighbour routes Docker's usual subnets and 127.0.0.1 by way of the host.
func OneHost(e Engine) Topology {
	return Topology{Nodes: []NodeSpec{
		{Name: "host", Engine: &e, Links: []Link{
			NewLink("wan", "eth0", HostWAN4+"/24", HostWAN6+"/64"), NewLink("lan", "eth1", HostLAN4+"/24", HostLAN6+"/64"),
		}, Routes: defaults(OutsideAddr4, OutsideAddr6)},
		{Name: "outside", Links: []Link{NewLink("wan", "eth0", OutsideAddr4+"/24", OutsideAddr6+"/64")},
			Routes: defaults(HostWAN4, HostWAN6), Serve: []string{"80/tcp", "80/udp"}},
		{Name: "lan", Links: []Link{NewLink("lan", "eth0", LANAddr4+"/24", LANAddr6+"/64")},
			Routes: defaults(HostLAN4, HostLAN6), Serve: []string{"80/tcp", "80/udp"}},
		Neighbour("neighbour", "wan", HostWAN4, HostWAN6, NeighbourAddr4+"/24", NeighbourIP6+"/64"),
	}}
}

// Neighbour is a machine on a host's link that sends it what it should not get: packets for Docker's usual subnets, for
// 127.0.0.1, and from a link-local source. It has no loopback.
func Neighbour(name, segment, host4, host6 string, addrs ...string) NodeSpec {
	n := NodeSpec{Name: name, Links: []Link{NewLink(segment, "eth0", addrs...)}, NoLo: true,
		Sysctls: map[string]string{"net.ipv4.conf.eth0.route_localnet": "1", "net.ipv4.conf.all.route_localnet": "1"}}
	for _, to := range []string{"127.0.0.1/32", "172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"} {
		n.Routes = append(n.Routes, Route{To: netip.MustParsePrefix(to), Via: netip.MustParseAddr(host4)})
	}
	for _, to := range []string{"2001:db8:d0c::/48", "fd00::/8"} {
		n.Routes = append(n.Routes, Route{To: netip.MustParsePrefix(to), Via: netip.MustParseAddr(host6)})
	}
	return n
}

// Cluster is scenario S1: the servers "s1" to "s3", 192.168.0.1 to 3, each with Docker, on one link with a "neighbour"
// (192.168.0.9), and "outside" (203.0.113.2) behind a router. IPv6 likewise: fd00:0::/64 and 2001:db8:1::/64.
func Cluster(e Engine) Topology {
	t := Topology{Nodes: []NodeSpec{
		{Name: "router", Forward: true, Links: []Link{
			NewLink("cluster", "eth0", "192.168.0.254/24", "fd00::fe/64"), NewLink("wan", "eth1", "203.0.113.254/24", "2001:db8:1::fe/64"),
		}},
		{Name: "outside", Links: []Link{NewLink("wan", "eth0", OutsideAddr4+"/24", OutsideAddr6+"/64")},
			Routes: defaults("203.0.113.254", "2001:db8:1::fe"), Serve: []string{"80/tcp", "80/udp"}},
		Neighbour("neighbour", "cluster", "192.168.0.1", "fd00::1", "192.168.0.9/24", "fd00::9/64"),
	}}
	for i := 1; i <= 3; i++ {
		engine := e
		t.Nodes = append(t.Nodes, NodeSpec{Name: fmt.Sprintf("s%d", i), Engine: &engine,
			Links:  []Link{NewLink("cluster", "eth0", fmt.Sprintf("192.168.0.%d/24", i), fmt.Sprintf("fd00::%d/64", i))},
			Routes: defaults("192.168.0.254", "fd00::fe")})
	}
	return t
}

// NewLink is a link with addresses as text. It panics on one that is none: that is a mistake in the test.
func NewLink(segment, name string, addrs ...string) Link {
	l := Link{Segment: segment, Name: name}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
	}
	return l
}

func defaults(via4, via6 string) []Route {
	return []Route{
		{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(via4)},
		{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr(via6)},
	}
}

// segments lists the names of the segments in the order of their first use.
func (t Topology) segments() []string {
	var names []string
	seen := map[string]bool{}
	for _, n := range t.Nodes {
		for _, l := range n.Links {
			if !seen[l.Segment] {
				seen[l.Segment] = true
				names = append(names, l.Segment)
			}
		}
	}
	return names
}
