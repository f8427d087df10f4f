package compile_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"quaywall/internal/compile"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/rulewalk"
)

// row is a packet and what becomes of it: what the evaluator has no word for, and traps of the design by their number.
type row struct {
	what   string
	packet packet.Packet
	dnat   bool
	over   bool
	want   ruleset.Kind
	line   string
}

func pk(proto uint8, in, src, dst string, dport uint16) packet.Packet {
	p := packet.Packet{Proto: proto, In: in, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), SrcPort: 40_000, DstPort: dport}
	if proto == policy.TCP {
		p.Flags = packet.SYN
	}
	return p
}

func flags(p packet.Packet, f uint8) packet.Packet {
	p.Flags = f
	return p
}

func socket(p packet.Packet) packet.Packet {
	p.Socket = true
	return p
}

func checkRows(t *testing.T, p *policy.Policy, o compile.Options, rows []row) {
	t.Helper()
	inv := testHost()
	rs, list := compile.Compile(p, inv, o)
	if list.HasErrors() {
		t.Fatal(list)
	}
	for _, r := range rows {
		got, err := pass(&rs.Tables[0], inv, r)
		if err != nil {
			t.Fatal(err)
		}
		if got.Kind != r.want || strings.Join(got.Lines, " ") != r.line {
			t.Errorf("%s: %s by %q, want %s by %q; it went %v", r.what, got.Kind, got.Lines, r.want, r.line, got.Path)
		}
	}
}

// pass leads a row's packet through gate and, where it is forwarded, direct.
func pass(table *ruleset.Table, inv *inventory.Inventory, r row) (rulewalk.Result, error) {
	host := rulewalk.Host{AddrType: func(a netip.Addr) ruleset.AddrType { return addrType(inv, a, r.packet.In) }, DNAT: r.dnat, Over: r.over}
	if r.packet.In == "" {
		return rulewalk.Walk(table, ruleset.Output, r.packet, host)
	}
	got, err := rulewalk.Walk(table, ruleset.Prerouting, r.packet, host)
	switch {
	case err != nil || got.Kind != ruleset.Accept:
		return got, err
	case r.packet.Out == "":
		return goOn(got, table, ruleset.Input, r.packet, host)
	}
	return goOn(got, table, ruleset.Forward, r.packet, host)
}

func out(p packet.Packet, iface string) packet.Packet {
	p.Out = iface
	return p
}

const (
	tcp    = policy.TCP
	accept = ruleset.Accept
	drop   = ruleset.Drop
)

func TestTrap38(t *testing.T) {
	const ack = packet.ACK
	always := []row{
		{"the host's own flow", socket(flags(pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", 22_222), ack)), false, false, accept, ""},
		{"a SYN to a socket bound to one address", socket(pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", 22_222)), false, false, drop, "default"},
		{"an ACK out of nowhere", flags(pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", 22_222), ack), false, false, drop, "default"},
		{"an ACK out of nowhere to an open port", flags(pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", 22), ack), false, false, drop, ""},
		{"a container's flow to the host", socket(flags(pk(tcp, "docker0", "172.17.0.2", "192.0.2.1", 22_222), ack)), false, false, accept, ""},
	}
	restricting := withoutNetworks()
	checkRows(t, restricting, compile.Options{}, append([]row{
		{"a container's flow to outside", flags(pk(tcp, "docker0", "172.17.0.2", "198.51.100.9", 443), ack), false, false, drop, "default"},
		{"a flow to a container's own address", out(flags(pk(tcp, "eth0", "198.51.100.9", "fd00:18::2", 443), ack), "br-0123456789ab"), false, false, drop, ""},
	}, always...))
	checkRows(t, restricting, compile.Options{PickUp: true}, append([]row{
		{"a container's flow to outside", flags(pk(tcp, "docker0", "172.17.0.2", "198.51.100.9", 443), ack), false, false, accept, ""},
		{"a container's new connection", pk(tcp, "docker0", "172.17.0.2", "198.51.100.9", 443), false, false, drop, "default"},
		{"a flow to a container's own address", out(flags(pk(tcp, "eth0", "198.51.100.9", "fd00:18::2", 443), ack), "br-0123456789ab"), false, false, accept, ""},
		{"a new connection to it", out(pk(tcp, "eth0", "198.51.100.9", "fd00:18::2", 443), "br-0123456789ab"), false, false, drop, ""},
	}, always...))
}

// Beyond 2 of the mission: a Docker network made after the policy was compiled is never more open, at most less.
func TestNewBridges(t *testing.T) {
	p := restricted() // egress: no SSH to the host, nothing from network shop
	p.Egress = append([]policy.Rule{{Pos: at(12), Verb: policy.Deny, What: []policy.Traffic{port(tcp, 25)}}}, p.Egress...)
	const known, fresh, lan = "br-0123456789ab", "br-fedcba987654", "br-dmz"
	checkRows(t, p, compile.Options{}, []row{
		{"judged by rules without network", out(pk(tcp, fresh, "172.30.0.2", "198.51.100.9", 25), "eth0"), false, false, drop, "policy.yaml:12"},
		{"and by those that deny something to a network: it may be that", out(pk(tcp, fresh, "172.30.0.2", "198.51.100.9", 443), "eth0"), false, false, drop, "policy.yaml:14"},
		{"a known one is", out(pk(tcp, known, "172.18.0.2", "198.51.100.9", 443), "eth0"), false, false, drop, "policy.yaml:14"},
		{"to the host it is outside", pk(tcp, fresh, "172.30.0.2", "192.0.2.1", 7), false, false, ruleset.TCPReset, "policy.yaml:11"},
		{"its containers' own addresses", out(pk(tcp, "eth0", "198.51.100.9", "172.30.0.2", 80), fresh), false, false, drop, ""},
		{"its published ports", out(pk(tcp, "eth0", "198.51.100.9", "172.30.0.2", 80), fresh), true, false, accept, ""},
		{"within it (trap 47)", out(pk(tcp, fresh, "172.30.0.3", "172.30.0.2", 80), fresh), false, false, accept, ""},
		{"from there to another network", out(pk(tcp, fresh, "172.30.0.3", "172.17.0.2", 80), "docker0"), false, false, drop, ""},
		{"an address like the host's", out(pk(tcp, fresh, "172.30.0.3", "192.0.2.7", 22), "eth0"), false, false, drop, "policy.yaml:14"},
		{"within a known one (trap 47)", out(pk(tcp, known, "172.18.0.3", "172.18.0.2", 80), known), false, false, accept, ""},
		{"from an administrator's bridge", out(pk(tcp, lan, "192.168.7.2", "172.30.0.2", 80), fresh), false, false, drop, ""},
		{"to one", out(pk(tcp, fresh, "172.30.0.2", "192.168.7.2", 25), lan), false, false, drop, "policy.yaml:12"},
	})
}

// What goes to many is judged where this host gets its copy: a bridge may carry it between others. Multicast that is routed
// out of a container's network is judged where it is forwarded.
func TestToMany(t *testing.T) {
	udp := func(in, src, dst string) packet.Packet { return pk(policy.UDP, in, src, dst, 5353) }
	checkRows(t, withoutNetworks(), compile.Options{}, []row{
		{"to the host", udp("eth0", "192.0.2.9", "224.0.0.251"), false, false, drop, "default"},
		{"carried by a bridge of others", out(udp("virbr0", "192.168.122.9", "224.0.0.251"), "virbr0"), false, false, accept, ""},
		{"carried by a bridge of others, to all", out(udp("virbr0", "192.168.122.9", "255.255.255.255"), "virbr0"), false, false, accept, ""},
		{"of a container, to the host", udp("docker0", "172.17.0.2", "224.0.0.251"), false, false, drop, "default"},
		{"of a container, within its network", out(udp("docker0", "172.17.0.2", "224.0.0.251"), "docker0"), false, false, accept, ""},
		{"of a container, IPv6", out(udp("br-0123456789ab", "fd00:18::2", "ff02::fb"), "br-0123456789ab"), false, false, accept, ""},
		{"of a container, routed", out(udp("docker0", "172.17.0.2", "239.1.2.3"), "eth0"), false, false, drop, "default"},
		{"of a container, routed, IPv6", out(udp("br-0123456789ab", "fd00:18::2", "ff0e::1"), "eth0"), false, false, drop, "default"},
	})
}

// Trap 53: an administrator's own bridge isn't Docker's, also when it comes after the policy, as it does at every boot.
func TestBridgesOfOthers(t *testing.T) {
	p := defaultPolicy()
	p.Defaults.Egress.Verb = policy.Deny
	p.Trusted = []string{"br-cafe"}
	both := func(name string, want ruleset.Kind, line string) []row {
		return []row{
			{"routed to " + name, out(pk(tcp, "eth0", "198.51.100.9", "192.168.7.2", 80), name), false, false, want, ""},
			{"routed from " + name, out(pk(tcp, name, "192.168.7.2", "198.51.100.9", 80), "eth0"), false, false, want, line},
		}
	}
	for _, name := range []string{"br-lan", "br-dmz", "br-ex", "br-dev", "br-edge", "br-backend", "br-default", "br-admin", "br-db1", "br-be", "br-0", "br-ext", "br-data", "br-backup", "br-int", "br-tun", "br-eth0", "br-enp3s0",
		"br-bond0", "br-vlan10", "br0", "br-", "br-x0123456789", "br-mgmt", "virbr0", "br-cafe"} {
		checkRows(t, p, compile.Options{}, both(name, accept, ""))
	}
	for _, name := range []string{"br-0a1b2c3d4e5f", "br-fedcba987654", "br-d00000000000", "br-dead00000000"} {
		checkRows(t, p, compile.Options{}, both(name, drop, "default"))
	}
	rs, _ := compile.Compile(p, &inventory.Inventory{}, compile.Options{})
	for _, s := range rs.Tables[0].Sets {
		for _, name := range s.Ifaces {
			digits, glob := strings.CutSuffix(strings.TrimPrefix(name, "br-"), "*")
			if s.Name == "known-bridges" && strings.Trim(digits, "0123456789abcdef") == "" && (glob || len(digits) == 12) && name != "br-cafe" {
				t.Errorf("%s may be a name of Docker's", name)
			}
		}
	}
	// Iptables knows beginnings alone: such names are taken for Docker's until the interface is known or trusted.
	for _, name := range []string{"br-100", "br-face"} {
		checkRows(t, p, compile.Options{}, both(name, drop, "default"))
	}
}

func TestDirectAndLoopback(t *testing.T) {
	checkRows(t, defaultPolicy(), compile.Options{}, []row{
		{"trap 12: a container's own address", out(pk(tcp, "eth0", "192.0.2.9", "172.17.0.2", 80), "docker0"), false, false, drop, ""},
		{"trap 12: after DNAT", out(pk(tcp, "eth0", "192.0.2.9", "172.17.0.2", 80), "docker0"), true, false, accept, ""},
		{"trap 40: an address of the loopback interface", pk(tcp, "eth0", "192.0.2.9", "127.0.0.1", 8080), false, false, drop, ""},
		{"the unspecified address, which the kernel may take for its own", pk(tcp, "eth0", "2001:db8::9", "::", 22), false, false, drop, ""},
		{"trap 40: IPv6", pk(tcp, "eth0", "fe80::9", "::1", 8080), false, false, drop, ""},
		{"trap 23: routed for others", out(pk(tcp, "eth0", "192.0.2.9", "10.9.0.7", 80), "wg0"), false, false, accept, ""},
		{"trap 26: container to a service of the host", pk(tcp, "docker0", "172.17.0.2", "172.17.0.1", 53), false, false, accept, ""},
		{"trap 39: a link-local neighbour", pk(tcp, "eth0", "fe80::9", "2001:db8::1", 8080), false, false, drop, "default"},
	})
}

// Trap 41: a port published on one address answers for that address on any interface.
func TestPublishedOnOneAddress(t *testing.T) {
	p := defaultPolicy()
	p.Inbound = []policy.Rule{{Pos: at(5), Verb: policy.Allow, What: []policy.Traffic{{Published: true}}, On: []string{"eth0"}}}
	checkRows(t, p, compile.Options{}, []row{
		{"its address", pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", 443), false, false, accept, "policy.yaml:5"},
		{"another interface", pk(tcp, "eth1", "198.51.100.9", "192.0.2.1", 443), false, false, drop, "default"},
		{"another address", pk(tcp, "eth0", "198.51.100.9", "10.9.0.1", 443), false, false, drop, "default"},
		{"published on all", pk(tcp, "eth0", "198.51.100.9", "10.9.0.1", 80), false, false, accept, "policy.yaml:5"},
		{"another protocol", pk(policy.UDP, "eth0", "198.51.100.9", "192.0.2.1", 443), false, false, drop, "default"},
		{"IPv4 alone", pk(policy.UDP, "eth0", "2001:db8::9", "2001:db8::1", 53), false, false, drop, "default"},
	})
}

func TestLimit(t *testing.T) {
	p := defaultPolicy()
	p.Inbound = []policy.Rule{
		{Pos: at(5), Verb: policy.Allow, What: []policy.Traffic{port(tcp, 22), port(tcp, 80)}, Limit: rate.Rate{Count: 3, Per: time.Minute, Burst: 5}},
		{Pos: at(6), Verb: policy.Allow, What: []policy.Traffic{{}}},
	}
	checkRows(t, p, compile.Options{}, []row{
		{"within", pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", 22), false, false, accept, "policy.yaml:5"},
		{"over: later rules are not asked", pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", 22), false, true, drop, "policy.yaml:5"},
		{"over, IPv6", pk(tcp, "eth0", "2001:db8::9", "2001:db8::1", 80), false, true, drop, "policy.yaml:5"},
		{"another rule", pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", 23), false, true, accept, "policy.yaml:6"},
	})
	rs, _ := compile.Compile(p, testHost(), compile.Options{})
	if n := strings.Count(rs.String(), "limit rule-5 rate over 3/minute"); n != 2 {
		t.Errorf("the limit stands %d times; its ports share one for each family", n)
	}
}

func TestLog(t *testing.T) {
	p := defaultPolicy()
	long := strings.Repeat("long", 20)
	p.Inbound = nil
	for i, verb := range []policy.Verb{policy.Allow, policy.Deny, policy.Reject} {
		r := policy.Rule{Pos: at(i + 5), Verb: verb, What: []policy.Traffic{port(tcp, uint16(i+1))}, Log: true}
		p.Inbound = append(p.Inbound, r)
	}
	p.Inbound[2].Pos.File = long
	inv := testHost()
	rs, _ := compile.Compile(p, inv, compile.Options{LogGroup: 86})
	for dport, want := range map[uint16][]string{
		1: {"quaywall allow policy.yaml:5"}, 2: {"quaywall deny policy.yaml:6"},
		3: {("quaywall reject " + long)[:16] + (long + ":7")[len(long+":7")-47:]}, 4: {"quaywall denied"},
	} {
		got, err := walk(&rs.Tables[0], inv, pk(tcp, "eth0", "198.51.100.9", "192.0.2.1", dport))
		if err != nil || !slices.Equal(got.Logs, want) {
			t.Errorf("port %d: logged as %q, error %v, want %q", dport, got.Logs, err, want)
		}
	}
}

// A file's set stays a set that rules name, so that its elements can change under them, also where it is empty now.
func TestFileSetsStaySets(t *testing.T) {
	p := defaultPolicy()
	p.Sets = []policy.Set{{Name: "friends", File: "/etc/quaywall/friends.txt", Pos: at(3), Addrs: netset.MustParse("192.0.2.9")}}
	for i := range 10 {
		from := policy.Addresses{Given: true, Sets: []string{"friends"}, Not: i%2 == 1}
		p.Inbound = append(p.Inbound, policy.Rule{Pos: at(5 + i), Verb: policy.Allow, What: []policy.Traffic{port(tcp, 8080)}, From: from, On: []string{"eth0"}})
	}
	rs, _ := compile.Compile(p, testHost(), compile.Options{})
	text := rs.String()
	for _, want := range []string{"ip saddr @friends-4", "ip6 saddr @friends-6", "ip saddr != @friends-4", "ip6 saddr != @friends-6"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestNames(t *testing.T) {
	p := defaultPolicy()
	p.Inbound = nil
	for i, name := range []string{"bridges", "ends-4", strings.Repeat("x", 64), strings.Repeat("x", 63) + "y", "ümlaut"} {
		p.Sets = append(p.Sets, policy.Set{Name: name, Addrs: netset.MustParse("192.0.2.9 2001:db8::9")})
		p.Inbound = append(p.Inbound, policy.Rule{Pos: at(i + 5), Verb: policy.Allow, What: []policy.Traffic{port(tcp, uint16(i+1))},
			From: policy.Addresses{Given: true, Sets: []string{name}}})
	}
	rs, _ := compile.Compile(p, testHost(), compile.Options{})
	if err := rs.Validate(); err != nil {
		t.Error(err)
	}
	var names []string
	for _, s := range rs.Tables[0].Sets {
		names = append(names, s.Name)
	}
	for _, want := range []string{"bridges", "bridges-4", "bridges-6", "ends-4-4", "ends-4-6"} {
		if !slices.Contains(names, want) {
			t.Errorf("no set %s in %v", want, names)
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Errorf("names twice: %v", names)
	}
}

// Sections with runs of rules that look alike keep their verdicts apart.
func TestSectionsAreApart(t *testing.T) {
	p := defaultPolicy()
	run := func(first int, verb policy.Verb) []policy.Rule {
		return manyRules(10, func(i int) policy.Rule {
			to := policy.Addresses{Given: true, Inline: netset.OfAddrs(addrN(first + i))}
			return policy.Rule{Verb: verb, What: []policy.Traffic{port(tcp, 80)}, To: to}
		})
	}
	p.Egress, p.Outbound = run(0, policy.Deny), run(5, policy.Reject)
	checkRows(t, p, compile.Options{}, []row{
		{"a container", pk(tcp, "docker0", "172.17.0.2", addrN(7).String(), 80), false, false, drop, "policy.yaml:17"},
		{"the host", out(pk(tcp, "", "192.0.2.1", addrN(7).String(), 80), "eth0"), false, false, ruleset.TCPReset, "policy.yaml:12"},
		{"the host elsewhere", out(pk(tcp, "", "192.0.2.1", addrN(3).String(), 80), "eth0"), false, false, accept, "default"},
	})
}
