package judge

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/testkit/netns"
)

// card is an interface of the host: a veth pair by itself, or a bridge with one port behind it.
type card struct {
	name   string
	port   string // of a bridge
	addrs  []string
	behind []string // networks that routes lead to by it, beside those of its addresses
	late   bool     // it came after the policy was compiled: the inventory doesn't have it
}

var cards = []card{
	{name: "br-000000005eed", port: "port2", addrs: []string{"172.30.0.1/24", "fd00:30::1/64"}},
	{name: "br-00000000bace", port: "port1", addrs: []string{"172.18.0.1/16"}},
	{name: "docker0", port: "port0", addrs: []string{"172.17.0.1/16", "fd00:17::1/64", "fe80::17/64"}},
	{name: "eth0", addrs: []string{"192.0.2.1/24", "2001:db8:2::1/64", "fe80::a/64"}},
	{name: "eth1", addrs: []string{"198.51.100.1/24", "2001:db8:51::1/64"}},
	{name: "wg0", addrs: []string{"10.9.0.1/24", "fd09::1/64"}},
	{name: "virbr0", port: "port3", addrs: []string{"192.168.122.1/24", "fd00:122::1/64"}},
	{name: "br-dmz", port: "port4", behind: []string{"10.77.0.0/24", "fd77::/64"}, late: true},
	{name: freshBridge, port: "port5", behind: []string{"172.31.0.0/16", "fd00:31::/64"}, late: true},
}

// freshBridge is one that Docker made after the policy was compiled. The evaluator doesn't know of it.
const freshBridge = "br-fedcba987654"

// end is the interface at the other side: for a bridge, of its port.
func (c card) end() string {
	if c.port != "" {
		return c.port
	}
	return c.name
}

// inventoryOf is what the host has.
func inventoryOf() *inventory.Inventory {
	inv := &inventory.Inventory{Docker: inventory.Docker{Reachable: true, Version: "20.10.24"}}
	for _, c := range cards {
		if c.late {
			continue
		}
		i := inventory.Interface{Name: c.name, Up: true, Addrs: prefixes(c.addrs...)}
		if c.port != "" {
			i.Kind = "bridge"
		}
		inv.Interfaces = append(inv.Interfaces, i)
	}
	inv.Interfaces = append(inv.Interfaces, inventory.Interface{Name: "lo", Up: true, Addrs: prefixes("127.0.0.1/8", "::1/128")})
	inv.Networks = []inventory.Network{
		{Name: "backend", Bridge: "br-00000000bace", Subnets: prefixes("172.18.0.0/16")},
		{Name: "bridge", Bridge: "docker0", Subnets: prefixes("172.17.0.0/16", "fd00:17::/64")},
		{Name: "routed", Bridge: "br-000000005eed", Subnets: prefixes("172.30.0.0/24", "fd00:30::/64"), Mode4: "routed", Mode6: "routed"},
	}
	for _, p := range published {
		inv.Published = append(inv.Published, p.Published)
	}
	return inv
}

// withoutDocker is what the host has as far as it is known while Docker doesn't answer: networks are called as their bridges
// are, and who publishes what isn't known.
func withoutDocker() *inventory.Inventory {
	inv := inventoryOf()
	inv.Docker, inv.Published = inventory.Docker{Problem: "it does not answer"}, nil
	for i := range inv.Networks {
		inv.Networks[i].Name = inv.Networks[i].Bridge
	}
	return inv
}

// atBoot is what the host has before Docker is started.
func atBoot() *inventory.Inventory {
	inv := withoutDocker()
	inv.Networks = nil
	inv.Interfaces = slices.DeleteFunc(inv.Interfaces, func(i inventory.Interface) bool { return i.Kind == "bridge" })
	return inv
}

func prefixes(list ...string) (ps []netip.Prefix) {
	for _, s := range list {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// publishedPort is a published port and how Docker would lead to the container: by DNAT, or where dnat is empty by a
// proxy process of the host.
type publishedPort struct {
	inventory.Published
	dnat string
}

// published are sorted as an inventory is.
var published = []publishedPort{
	{port("0.0.0.0", policy.TCP, 8080, "bridge"), "172.17.0.2:80"},
	{port("::", policy.TCP, 8080, "bridge"), ""},
	{port("192.0.2.1", policy.TCP, 8081, "backend"), "172.18.0.2:22"},
	{port("::", policy.TCP, 8082, "bridge", "routed"), "[fd00:17::3]:80"},
	{port("127.0.0.1", policy.TCP, 8083, "bridge"), "172.17.0.2:83"},
	{port("0.0.0.0", policy.UDP, 53, "backend"), "172.18.0.3:5353"},
	{port("198.51.100.1", policy.UDP, 8080, "bridge"), ""},
	{port("0.0.0.0", policy.SCTP, 8084, "bridge"), "172.17.0.4:84"},
}

func port(addr string, proto uint8, number uint16, networks ...string) inventory.Published {
	return inventory.Published{Addr: netip.MustParseAddr(addr), Proto: proto, Port: number, Container: "c", Networks: networks}
}

// socketAddrs are where the host listens. Only those on one address make a packet "of a socket".
var socketAddrs = []string{"192.0.2.1:7000", "[2001:db8:2::1]:7000", ":7001"}

// world is a host in a namespace, cut off from everything but its observer, and the far ends of its interfaces.
type world struct {
	host, peers *netns.NS
	mac         map[string]net.HardwareAddr // of the host's interfaces
	index       map[string]uint32           // of the host's interfaces
	inject      map[string]int              // packet sockets at the far ends, by the host's interface
	raw4, raw6  int                         // raw sockets of the host
	seen        *observer
	tracker     *tracker
}

// newWorld builds the host, observed by a table.
func newWorld(t testing.TB, observed string) *world {
	w := &world{host: netns.New(t), peers: netns.New(t), mac: map[string]net.HardwareAddr{}, index: map[string]uint32{},
		inject: map[string]int{}}
	for _, ns := range []*netns.NS{w.host, w.peers} {
		ns.Sysctl(t, "net/ipv6/conf/default/addr_gen_mode", "1")
	}
	w.peers.Sysctl(t, "net/ipv6/conf/all/disable_ipv6", "1")
	w.sysctls(t)
	for _, c := range cards {
		w.join(t, c)
	}
	w.routes(t)
	w.dnat(t)
	w.host.Feed(t, notrackTable, "nft", "-f", "-")
	w.seen = newObserver(t, w.host, observed)
	w.tracker = newTracker(t, w.host)
	w.listen(t)
	w.openSockets(t)
	return w
}

// sysctls make the host take what the kernel would throw away before or after the gate, and answer without limits.
func (w *world) sysctls(t testing.TB) {
	for _, s := range []struct{ name, value string }{
		{"net/ipv4/ip_forward", "1"}, {"net/ipv6/conf/all/forwarding", "1"}, {"net/ipv6/conf/default/forwarding", "1"},
		{"net/ipv4/icmp_ratemask", "0"}, {"net/ipv6/icmp/ratelimit", "0"}, {"net/ipv4/icmp_echo_ignore_broadcasts", "0"},
		{"net/ipv4/icmp_msgs_per_sec", "1000000"}, {"net/ipv4/icmp_msgs_burst", "1000000"},
		{"net/netfilter/nf_conntrack_tcp_be_liberal", "1"}, {"net/bridge/bridge-nf-call-iptables", "1"}, {"net/bridge/bridge-nf-call-ip6tables", "1"},
	} {
		w.host.Sysctl(t, s.name, s.value)
	}
	for _, which := range []string{"all", "default"} {
		for name, value := range map[string]string{"rp_filter": "0", "accept_local": "1", "route_localnet": "1", "send_redirects": "0"} {
			w.host.Sysctl(t, "net/ipv4/conf/"+which+"/"+name, value)
		}
	}
}

// join makes one interface with its far end. Nothing asks for neighbours: nobody would answer.
func (w *world) join(t testing.TB, c card) {
	netns.Veth(t, w.host, c.end(), w.peers, c.end())
	if c.port != "" {
		other := c.port + "b" // so that the bridge has somewhere to bridge to
		netns.Veth(t, w.host, other, w.peers, other)
		w.host.Bridge(t, c.name, c.port, other)
	}
	w.host.Output(t, "ip", "link", "set", c.name, "arp", "off")
	w.host.Addr(t, c.name, c.addrs...)
	w.host.Do(t, func() {
		i, err := net.InterfaceByName(c.name)
		if err != nil {
			t.Fatal(err)
		}
		w.mac[c.name], w.index[c.name] = i.HardwareAddr, uint32(i.Index)
	})
	w.peers.Do(t, func() {
		i, err := net.InterfaceByName(c.end())
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0: it receives nothing
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index})
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		w.inject[c.name] = fd
	})
}

// routes lead everything that isn't near out by eth1.
func (w *world) routes(t testing.TB) {
	for _, c := range cards {
		for _, p := range c.behind {
			w.host.Output(t, "ip", "route", "add", p, "dev", c.name)
		}
	}
	w.host.Output(t, "ip", "route", "add", "default", "dev", "eth1")
	w.host.Output(t, "ip", "-6", "route", "add", "default", "dev", "eth1")
}

// Sources whose packets the host doesn't track, as somebody's NOTRACK rule would have it.
const untracked4, untracked6 = "203.0.113.200", "2001:db8:9::c8"

const notrackTable = `table inet untracked {
 chain prerouting { type filter hook prerouting priority -300;
  ip saddr ` + untracked4 + ` notrack
  ip6 saddr ` + untracked6 + ` notrack
 }
}
`

// dnat leads to containers as Docker does, in nat prerouting.
func (w *world) dnat(t testing.TB) {
	rules := map[bool][]string{}
	for _, p := range published {
		if p.dnat == "" {
			continue
		}
		is4, rule := p.Addr.Is4(), "fib daddr type local "
		switch {
		case p.Addr.IsUnspecified():
		case is4:
			rule += "ip daddr " + p.Addr.String() + " "
		default:
			rule += "ip6 daddr " + p.Addr.String() + " "
		}
		rule += map[uint8]string{policy.TCP: "tcp", policy.UDP: "udp", policy.SCTP: "sctp"}[p.Proto] + " dport " +
			netip.AddrPortFrom(p.Addr, p.Port).String()[strings.LastIndex(netip.AddrPortFrom(p.Addr, p.Port).String(), ":")+1:]
		rules[is4] = append(rules[is4], rule+" dnat to "+p.dnat)
	}
	for is4, family := range map[bool]string{true: "ip", false: "ip6"} {
		w.host.Feed(t, "table "+family+" docker {\n chain prerouting {\n  type nat hook prerouting priority -100;\n  "+
			strings.Join(rules[is4], "\n  ")+"\n }\n}\n", "nft", "-f", "-")
	}
}

// listen opens the host's sockets, and joins groups that packets are sent to.
func (w *world) listen(t testing.TB) {
	w.host.Do(t, func() {
		for _, a := range socketAddrs {
			l, err := net.Listen("tcp", a)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}
		for _, group := range []string{"224.0.0.251", "ff02::fb"} {
			join(t, net.ParseIP(group))
		}
	})
}

func join(t testing.TB, group net.IP) {
	pc, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	for _, c := range cards {
		i, err := net.InterfaceByName(c.name)
		if err == nil && group.To4() != nil {
			err = ipv4.NewPacketConn(pc).JoinGroup(i, &net.UDPAddr{IP: group})
		} else if err == nil {
			err = ipv6.NewPacketConn(pc).JoinGroup(i, &net.UDPAddr{IP: group})
		}
		if err != nil {
			t.Fatalf("joining %s on %s: %v", group, c.name, err)
		}
	}
}

// openSockets opens the raw sockets by which the host itself sends.
func (w *world) openSockets(t testing.TB) {
	w.host.Do(t, func() {
		var err4, err6 error
		w.raw4, err4 = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		w.raw6, err6 = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err4 != nil || err6 != nil {
			t.Fatal(err4, err6)
		}
		if err := unix.SetsockoptInt(w.raw4, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(w.raw4); unix.Close(w.raw6) })
	})
}
