package conformance

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/netset"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/frame"
	"quaywall/internal/testkit/netns"
)

// matchCase is a list of matches with packets for which all of them hold, and packets for which they don't.
type matchCase struct {
	name    string
	hook    ruleset.Hook
	alone   bool // its packets can't come from an address of its own: it gets a ruleset of its own
	matches []ruleset.Match
	sets    []ruleset.Set
	hits    []probe
	misses  []probe
	prepare func(*testing.T, *world)
}

// cases makes the cases. Each is told where its packets come from.
func cases() []func(self) matchCase {
	var all []func(self) matchCase
	fixed := func(list []matchCase) {
		for _, c := range list {
			all = append(all, func(self) matchCase { return c })
		}
	}
	fixed(ifaceCases())
	fixed(protoCases())
	fixed(portCases())
	fixed(icmpCases())
	fixed(flagCases())
	fixed(addrTypeCases())
	fixed(dnatCases())
	fixed(socketCases())
	all = append(all, addrCases()...)
	all = append(all, flowCases()...)
	all = append(all, stateCases()...)
	return append(all, rateCases()...)
}

func one(m ...ruleset.Match) []ruleset.Match { return m }

func ports(text ...uint16) []netset.Ports {
	var all []netset.Ports
	for i := 0; i < len(text); i += 2 {
		all = append(all, netset.Ports{First: text[i], Last: text[i+1]})
	}
	return all
}

func ifaceCases() []matchCase {
	in := func(names ...string) []ruleset.Match { return one(ruleset.IfaceMatch{Field: ruleset.In, Names: names}) }
	not := func(m []ruleset.Match) []ruleset.Match {
		i := m[0].(ruleset.IfaceMatch)
		i.Not = true
		return one(i)
	}
	inSet := func(name string) []ruleset.Match { return one(ruleset.IfaceMatch{Field: ruleset.In, Set: name}) }
	plain := ruleset.Set{Name: "nics", Key: ruleset.Iface, Ifaces: []string{"eth0", "eth1"}}
	wild := ruleset.Set{Name: "wildnics", Key: ruleset.Iface, Ifaces: []string{"lo", "eth0", "eth*", "et*", "wlan0"}}
	eth0, docker0 := both(udp(9)), both(udp(9).fromInside())
	toEth0, toDocker0 := both(udp(9).fromInside()), []probe{udp(9).to("172.17.0.2"), udp(9).to("fd17::2")}
	for i := range toEth0 { // an address behind the client
		toEth0[i].dst = map[bool]netip.Addr{false: client4, true: client6}[toEth0[i].v6]
	}
	out := func(names ...string) []ruleset.Match {
		return one(ruleset.IfaceMatch{Field: ruleset.Out, Names: names})
	}
	return []matchCase{
		{name: "in one", matches: in("eth0"), hits: eth0, misses: docker0},
		{name: "in not one", matches: not(in("eth0")), hits: docker0, misses: eth0},
		{name: "in prefix", matches: in("eth*"), hits: eth0, misses: docker0},
		{name: "in not prefix", matches: not(in("eth*")), hits: docker0, misses: eth0},
		{name: "in any", matches: in("*"), hits: append(eth0, docker0...)},
		{name: "in several", matches: in("lo", "eth0"), hits: eth0, misses: docker0},
		{name: "in not several", matches: not(in("lo", "eth0")), hits: docker0, misses: eth0},
		{name: "in several prefixes", matches: in("lo", "docker*", "br-*"), hits: docker0, misses: eth0},
		{name: "in not several prefixes", matches: not(in("lo", "docker*", "br-*")), hits: eth0, misses: docker0},
		{name: "in a set", matches: inSet("nics"), sets: []ruleset.Set{plain}, hits: eth0, misses: docker0},
		{name: "in not a set", matches: not(inSet("nics")), sets: []ruleset.Set{plain}, hits: docker0, misses: eth0},
		{name: "in a set of prefixes", matches: inSet("wildnics"), sets: []ruleset.Set{wild}, hits: eth0, misses: docker0},
		{name: "in not a set of prefixes", matches: not(inSet("wildnics")), sets: []ruleset.Set{wild}, hits: docker0, misses: eth0},
		{name: "out one", hook: ruleset.Forward, matches: out("docker0"), hits: toDocker0, misses: toEth0},
		{name: "out prefix", hook: ruleset.Forward, matches: out("docker*"), hits: toDocker0, misses: toEth0},
		{name: "out not several", hook: ruleset.Forward, matches: not(out("lo", "docker*")), hits: toEth0, misses: toDocker0},
		{name: "out of the host", hook: ruleset.Output, alone: true, matches: out("eth0"),
			hits:   []probe{udp(9).to("192.0.2.2"), udp(9).to("2001:db8:1::2")},
			misses: []probe{udp(9).to("172.17.0.2"), udp(9).to("fd17::2")}},
	}
}

func protoCases() []matchCase {
	is := func(p uint8) []ruleset.Match { return one(ruleset.ProtoMatch{Proto: p}) }
	not := func(p uint8) []ruleset.Match { return one(ruleset.ProtoMatch{Proto: p, Not: true}) }
	raw := func(p uint8) probe { return probe{proto: p} }
	echo4, echo6 := icmp4(8, 0), icmp6(128, 0)
	t, u := both(tcp(80)), both(udp(80))
	return []matchCase{
		{name: "family ip", matches: one(ruleset.FamilyMatch{Family: ruleset.IPv4}), hits: []probe{udp(1), tcp(1), echo4}, misses: []probe{udp(1).in6(), echo6}},
		{name: "family ip6", matches: one(ruleset.FamilyMatch{Family: ruleset.IPv6}), hits: []probe{udp(1).in6(), tcp(1).in6(), echo6}, misses: []probe{udp(1), echo4}},
		{name: "tcp", matches: is(6), hits: t, misses: append(u, echo4, echo6)},
		{name: "not tcp", matches: not(6), hits: append(u, echo4, echo6), misses: t},
		{name: "udp", matches: is(17), hits: u, misses: append(t, echo4, echo6)},
		{name: "esp", matches: is(50), hits: both(raw(50)), misses: u},
		{name: "sctp", matches: is(132), hits: both(raw(132)), misses: u},
		{name: "icmp", matches: is(1), hits: []probe{echo4}, misses: []probe{echo6, raw(1).in6(), udp(1)}},
		{name: "icmpv6", matches: is(58), hits: []probe{echo6}, misses: []probe{echo4, raw(58), udp(1).in6()}},
		{name: "not icmp", matches: not(1), hits: []probe{echo6, udp(1), udp(1).in6()}, misses: []probe{echo4}},
		{name: "not icmpv6", matches: not(58), hits: []probe{echo4, udp(1), udp(1).in6()}, misses: []probe{echo6}},
	}
}

func portCases() []matchCase {
	of := func(proto uint8, f ruleset.Field, not bool, list ...uint16) []ruleset.Match {
		return one(ruleset.ProtoMatch{Proto: proto}, ruleset.PortMatch{Field: f, Ports: ports(list...), Not: not})
	}
	raw := func(proto uint8, dport uint16) probe { return probe{proto: proto, dport: dport} }
	d, s := ruleset.DstPort, ruleset.SrcPort
	all := []matchCase{
		{name: "one port", matches: of(6, d, false, 80, 80), hits: both(tcp(80)), misses: both(tcp(79), tcp(81), udp(80))},
		{name: "not one port", matches: of(6, d, true, 80, 80), hits: both(tcp(79), tcp(81)), misses: both(tcp(80), udp(81))},
		{name: "a range of ports", matches: of(17, d, false, 80, 90), hits: both(udp(80), udp(85), udp(90)), misses: both(udp(79), udp(91), tcp(85))},
		{name: "not a range of ports", matches: of(17, d, true, 80, 90), hits: both(udp(79), udp(91)), misses: both(udp(80), udp(90), tcp(91))},
		{name: "a list of ports", matches: of(6, d, false, 22, 22, 80, 80, 443, 443), hits: both(tcp(22), tcp(80), tcp(443)), misses: both(tcp(21), tcp(444), udp(80))},
		{name: "not a list of ports", matches: of(6, d, true, 22, 22, 80, 80), hits: both(tcp(21), tcp(443)), misses: both(tcp(22), tcp(80), udp(1))},
		{name: "a list of ranges", matches: of(6, d, false, 1, 1, 80, 90, 60000, 65535), hits: both(tcp(1), tcp(80), tcp(90), tcp(60000), tcp(65535)), misses: both(tcp(0), tcp(2), tcp(79), tcp(91), tcp(59999))},
		{name: "not a list of ranges", matches: of(6, d, true, 0, 1, 80, 90), hits: both(tcp(2), tcp(65535)), misses: both(tcp(0), tcp(1), tcp(85))},
		{name: "every port", matches: of(6, d, false, 0, 65535), hits: both(tcp(0), tcp(65535)), misses: both(udp(1))},
		{name: "twenty ports", matches: of(17, d, false, twenty()...), hits: both(udp(100), udp(138)), misses: both(udp(101), udp(140))},
		{name: "a source port", matches: of(17, s, false, 67, 67), hits: both(udp(68).fromPort(67)), misses: both(udp(67).fromPort(68))},
		{name: "source and destination port", matches: append(of(17, s, false, 67, 67), ruleset.PortMatch{Field: d, Ports: ports(68, 69)}),
			hits: both(udp(68).fromPort(67)), misses: both(udp(70).fromPort(67), udp(68).fromPort(66))},
		{name: "not a list of source ports", matches: of(6, s, true, 1, 9, 20, 20), hits: both(tcp(5).fromPort(10)), misses: both(tcp(5).fromPort(9), tcp(5).fromPort(20))},
	}
	for _, proto := range []uint8{unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_UDPLITE} {
		all = append(all, matchCase{name: fmt.Sprint("ports of protocol ", proto), matches: of(proto, d, false, 80, 90, 100, 100),
			hits: both(raw(proto, 80), raw(proto, 100)), misses: both(raw(proto, 91), udp(80))})
	}
	return all
}

// twenty is more than the 15 ports that one multiport match of iptables takes.
func twenty() []uint16 {
	var list []uint16
	for p := uint16(100); p < 140; p += 2 {
		list = append(list, p, p)
	}
	return list
}

func icmpCases() []matchCase {
	code := uint8(4)
	return []matchCase{
		{name: "an ICMP type", matches: one(ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{8}}), hits: []probe{icmp4(8, 0)}, misses: []probe{icmp4(13, 0), icmp6(8, 0), udp(8)}},
		{name: "ICMP types", matches: one(ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{3, 11, 12}}), hits: []probe{icmp4(3, 1), icmp4(12, 0)}, misses: []probe{icmp4(8, 0), icmp6(3, 0)}},
		{name: "an ICMP type and code", matches: one(ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{3}, Code: &code}), hits: []probe{icmp4(3, 4)}, misses: []probe{icmp4(3, 3), icmp4(11, 4)}},
		{name: "ICMP types and a code", matches: one(ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{3, 12}, Code: &code}), hits: []probe{icmp4(3, 4), icmp4(12, 4)}, misses: []probe{icmp4(3, 3), icmp4(11, 4)}},
		{name: "echo reply", matches: one(ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{0}}), hits: []probe{icmp4(0, 0)}, misses: []probe{icmp4(8, 0)}},
		{name: "an ICMPv6 type", matches: one(ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{128}}), hits: []probe{icmp6(128, 0)}, misses: []probe{icmp6(129, 0), icmp4(128, 0), udp(1).in6()}},
		{name: "ICMPv6 types", matches: one(ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{1, 2, 3, 4}}), hits: []probe{icmp6(1, 0), icmp6(4, 1)}, misses: []probe{icmp6(128, 0), icmp4(3, 0)}},
		{name: "an ICMPv6 type and code", matches: one(ruleset.ProtoMatch{Proto: 58}, ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{1}, Code: &code}), hits: []probe{icmp6(1, 4)}, misses: []probe{icmp6(1, 3), icmp6(2, 4)}},
	}
}

func flagCases() []matchCase {
	of := func(mask, value uint8, not bool) []ruleset.Match {
		return one(ruleset.ProtoMatch{Proto: 6}, ruleset.TCPFlagsMatch{Mask: mask, Value: value, Not: not})
	}
	const syn, ack, fin, rst, psh, urg = frame.SYN, frame.ACK, frame.FIN, frame.RST, frame.PSH, frame.URG
	return []matchCase{
		{name: "a bare SYN", matches: of(syn|ack, syn, false), hits: both(flags(syn), flags(syn|psh)), misses: both(flags(syn|ack), flags(ack), flags(0), udp(80))},
		{name: "no bare SYN", matches: of(syn|ack, syn, true), hits: both(flags(syn|ack), flags(ack), flags(0), flags(rst)), misses: both(flags(syn), udp(80))},
		{name: "no flags", matches: of(0x3f, 0, false), hits: both(flags(0)), misses: both(flags(syn), flags(urg))},
		{name: "SYN and FIN", matches: of(syn|fin, syn|fin, false), hits: both(flags(syn|fin), flags(0x3f)), misses: both(flags(syn), flags(fin|ack))},
		{name: "FIN without ACK", matches: of(fin|ack, fin, false), hits: both(flags(fin), flags(fin|psh|urg)), misses: both(flags(fin|ack), flags(ack))},
		{name: "flags without a protocol", matches: one(ruleset.TCPFlagsMatch{Mask: rst, Value: rst}), hits: both(flags(rst)), misses: both(flags(syn), udp(80))},
	}
}

func addrTypeCases() []matchCase {
	of := func(f ruleset.Field, types ruleset.AddrType, not bool) []ruleset.Match {
		return one(ruleset.AddrTypeMatch{Field: f, Types: types, Not: not})
	}
	local := []probe{udp(1), udp(1).in6(), udp(1).to("172.17.0.1"), udp(1).to("127.0.0.1")}
	others := []probe{udp(1).to("172.17.0.2"), udp(1).to("fd17::2"), udp(1).to("192.0.2.2")}
	multi := []probe{udp(1).to("224.0.0.251"), udp(1).to("ff02::1")}
	broad := []probe{udp(1).to("192.0.2.255"), udp(1).to("255.255.255.255")}
	any := []probe{udp(1).to("2001:db8:1::")}
	every := ruleset.TypeLocal | ruleset.TypeBroadcast | ruleset.TypeMulticast | ruleset.TypeAnycast
	join := func(lists ...[]probe) []probe {
		var all []probe
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	return []matchCase{
		{name: "to local", matches: of(ruleset.Dst, ruleset.TypeLocal, false), hits: local, misses: join(others, multi, broad, any)},
		{name: "to not local", matches: of(ruleset.Dst, ruleset.TypeLocal, true), hits: join(others, multi, broad, any), misses: local},
		{name: "to multicast", matches: of(ruleset.Dst, ruleset.TypeMulticast, false), hits: multi, misses: join(local, others, broad)},
		{name: "to broadcast", matches: of(ruleset.Dst, ruleset.TypeBroadcast, false), hits: broad, misses: join(local, others, multi)},
		{name: "to anycast", matches: of(ruleset.Dst, ruleset.TypeAnycast, false), hits: any, misses: join(local, others, multi)},
		{name: "to this host", matches: of(ruleset.Dst, every, false), hits: join(local, multi, broad, any), misses: others},
		{name: "to elsewhere", matches: of(ruleset.Dst, every, true), hits: others, misses: join(local, multi, broad, any)},
		{name: "from local", alone: true, matches: of(ruleset.Src, ruleset.TypeLocal, false),
			hits:   []probe{udp(1).from(host4), udp(1).from(host6), udp(1).from(netip.MustParseAddr("127.0.0.1"))},
			misses: []probe{udp(1).from(client4), udp(1).from(client6)}},
		{name: "from not local", alone: true, matches: of(ruleset.Src, ruleset.TypeLocal|ruleset.TypeMulticast, true),
			hits:   []probe{udp(1).from(client4), udp(1).from(client6)},
			misses: []probe{udp(1).from(host4), udp(1).from(host6), udp(1).from(netip.MustParseAddr("224.0.0.1"))}},
	}
}

// foreignNAT sends port 8080 of the host on to the container, and leaves UDP to port 999 out of connection tracking.
const foreignNAT = `nft -f - <<'END'
table inet elsewhere {
	chain leave-out { type filter hook prerouting priority raw; udp dport 999 notrack; }
	chain rewrite {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 192.0.2.1 udp dport 8080 dnat ip to 172.17.0.2:80
		ip6 daddr 2001:db8:1::1 udp dport 8080 dnat ip6 to [fd17::2]:80
	}
}
END`

func withForeignNAT(t *testing.T, w *world) {
	netns.Tool(t, "nft")
	w.host.Output(t, "sh", "-ec", foreignNAT)
}

func dnatCases() []matchCase {
	rewritten := both(udp(8080))
	direct := []probe{udp(80).to("172.17.0.2"), udp(80).to("fd17::2")}
	untracked := []probe{udp(999).to("172.17.0.2"), udp(999).to("fd17::2")}
	return []matchCase{
		{name: "DNATed", hook: ruleset.Forward, matches: one(ruleset.DNATMatch{}), prepare: withForeignNAT, hits: rewritten, misses: append(direct, untracked...)},
		{name: "not DNATed", hook: ruleset.Forward, matches: one(ruleset.DNATMatch{Not: true}), prepare: withForeignNAT, hits: append(direct, untracked...), misses: rewritten},
	}
}

func socketCases() []matchCase {
	listen := func(t *testing.T, w *world) {
		w.host.Do(t, func() {
			for _, address := range []string{"192.0.2.1:5001", "[2001:db8:1::1]:5001", ":5002"} {
				conn, err := net.ListenPacket("udp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
			}
		})
	}
	return []matchCase{
		{name: "a socket", matches: one(ruleset.SocketMatch{}), prepare: listen,
			hits: both(udp(5001)), misses: append(both(udp(5002), udp(5003)), udp(5001).to("172.17.0.1"))},
	}
}

func addrCases() []func(self) matchCase {
	src := func(f ruleset.Family, list string, not bool) []ruleset.Match {
		return one(ruleset.AddrMatch{Field: ruleset.Src, Family: f, Addrs: netset.MustParse(list), Not: not})
	}
	type build = func(self) matchCase
	return []build{
		func(me self) matchCase {
			return matchCase{name: "from an address", matches: src(ruleset.IPv4, me.v4(7).String(), false),
				hits: []probe{udp(1).from(me.v4(7))}, misses: []probe{udp(1).from(me.v4(8)), udp(1).in6()}}
		},
		func(me self) matchCase {
			return matchCase{name: "not from an address", matches: src(ruleset.IPv4, me.v4(7).String(), true),
				hits: []probe{udp(1).from(me.v4(8))}, misses: []probe{udp(1).from(me.v4(7)), udp(1).in6()}}
		},
		func(me self) matchCase {
			return matchCase{name: "from a prefix", matches: src(ruleset.IPv4, me.v4(64).String()+"/26", false),
				hits: []probe{udp(1).from(me.v4(64)), udp(1).from(me.v4(127))}, misses: []probe{udp(1).from(me.v4(63)), udp(1).from(me.v4(128)), udp(1).in6()}}
		},
		func(me self) matchCase {
			return matchCase{name: "not from a prefix", matches: src(ruleset.IPv6, me.v6(4, 0).String()+"/64", true),
				hits: []probe{udp(1).from(me.v6(5, 1)), udp(1).from(me.v6(3, 1))}, misses: []probe{udp(1).from(me.v6(4, 9)), udp(1)}}
		},
		func(me self) matchCase {
			list := me.v4(10).String() + "-" + me.v4(20).String()
			return matchCase{name: "from a range", matches: src(ruleset.IPv4, list, false),
				hits: []probe{udp(1).from(me.v4(10)), udp(1).from(me.v4(20))}, misses: []probe{udp(1).from(me.v4(9)), udp(1).from(me.v4(21))}}
		},
		func(me self) matchCase {
			list := me.v6(0, 10).String() + "-" + me.v6(0, 20).String()
			return matchCase{name: "not from a range", matches: src(ruleset.IPv6, list, true),
				hits: []probe{udp(1).from(me.v6(0, 9)), udp(1).from(me.v6(0, 21))}, misses: []probe{udp(1).from(me.v6(0, 10)), udp(1).from(me.v6(0, 20)), udp(1)}}
		},
		func(me self) matchCase {
			list := me.v4(10).String() + " " + me.v4(32).String() + "/27 " + me.v4(100).String() + "-" + me.v4(103).String() + " 2001:db8::/32"
			return matchCase{name: "from a list", matches: src(ruleset.IPv4, list, false),
				hits:   []probe{udp(1).from(me.v4(10)), udp(1).from(me.v4(63)), udp(1).from(me.v4(103))},
				misses: []probe{udp(1).from(me.v4(11)), udp(1).from(me.v4(64)), udp(1).from(me.v4(104)), udp(1).in6()}}
		},
		func(me self) matchCase {
			list := me.v6(0, 10).String() + " " + me.v6(2, 0).String() + "/64 " + me.v6(9, 1).String() + "-" + me.v6(9, 3).String()
			return matchCase{name: "not from a list", matches: src(ruleset.IPv6, list, true),
				hits:   []probe{udp(1).from(me.v6(0, 11)), udp(1).from(me.v6(3, 1)), udp(1).from(me.v6(9, 4))},
				misses: []probe{udp(1).from(me.v6(0, 10)), udp(1).from(me.v6(2, 77)), udp(1).from(me.v6(9, 3)), udp(1)}}
		},
		func(me self) matchCase { return setCase("from a set 4", "src4", me.v4, ruleset.IPv4, false) },
		func(me self) matchCase { return setCase("not from a set 4", "nsrc4", me.v4, ruleset.IPv4, true) },
		func(me self) matchCase {
			return setCase("from a set 6", "src6", func(n uint8) netip.Addr { return me.v6(0, uint16(n)) }, ruleset.IPv6, false)
		},
		func(me self) matchCase {
			return setCase("not from a set 6", "nsrc6", func(n uint8) netip.Addr { return me.v6(0, uint16(n)) }, ruleset.IPv6, true)
		},
		func(self) matchCase {
			all := ruleset.Set{Name: "ends4", Key: ruleset.Addr4, Addrs: netset.MustParse("0.0.0.0/8 192.0.2.1 224.0.0.0-255.255.255.255")}
			return matchCase{name: "to the last address 4", sets: []ruleset.Set{all}, matches: one(ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Set: "ends4"}),
				hits: []probe{udp(1), udp(1).to("255.255.255.255"), udp(1).to("224.0.0.0")}, misses: []probe{udp(1).to("192.0.2.2"), udp(1).to("223.255.255.255"), udp(1).in6()}}
		},
		func(self) matchCase {
			all := ruleset.Set{Name: "ends6", Key: ruleset.Addr6, Addrs: netset.MustParse("ff00::/8 2001:db8:1::1")}
			return matchCase{name: "to the last address 6", sets: []ruleset.Set{all}, matches: one(ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Set: "ends6"}),
				hits: []probe{udp(1).in6(), udp(1).to("ff02::1"), udp(1).to("ff02:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}, misses: []probe{udp(1).to("2001:db8:1::2"), udp(1)}}
		},
		func(self) matchCase {
			all := ruleset.Set{Name: "all4", Key: ruleset.Addr4, Addrs: netset.All4()}
			return matchCase{name: "in all of IPv4", sets: []ruleset.Set{all}, matches: one(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "all4"}),
				hits: []probe{udp(1), udp(1).to("255.255.255.255")}, misses: []probe{udp(1).in6()}}
		},
		func(self) matchCase {
			none := ruleset.Set{Name: "none6", Key: ruleset.Addr6}
			return matchCase{name: "in an empty set", sets: []ruleset.Set{none}, matches: one(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Set: "none6"}),
				misses: both(udp(1))}
		},
		func(self) matchCase {
			none := ruleset.Set{Name: "none4", Key: ruleset.Addr4}
			return matchCase{name: "not in an empty set", sets: []ruleset.Set{none}, matches: one(ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Set: "none4", Not: true}),
				hits: []probe{udp(1)}, misses: []probe{udp(1).in6()}}
		},
		func(self) matchCase {
			return matchCase{name: "from nowhere", matches: one(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4}), misses: both(udp(1))}
		},
		func(self) matchCase {
			return matchCase{name: "not from nowhere", matches: one(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Not: true}),
				hits: []probe{udp(1).in6()}, misses: []probe{udp(1)}}
		},
		func(me self) matchCase {
			list := me.v4(1).String() + " 2001:db8::/32"
			return matchCase{name: "from a list of both families", matches: src(ruleset.IPv4, list, false), hits: []probe{udp(1)}, misses: []probe{udp(1).from(me.v4(2)), udp(1).in6()}}
		},
		func(me self) matchCase {
			var many []string
			for n := range uint8(12) {
				many = append(many, me.v4(2*n).String())
			}
			return matchCase{name: "not from a long list", matches: src(ruleset.IPv4, strings.Join(many, " "), true),
				hits: []probe{udp(1).from(me.v4(1)), udp(1).from(me.v4(24))}, misses: []probe{udp(1).from(me.v4(0)), udp(1).from(me.v4(22)), udp(1).in6()}}
		},
		func(me self) matchCase { return pairCase(me, "pairs4", ruleset.IPv4, ruleset.IfaceAddr4, false) },
		func(me self) matchCase { return pairCase(me, "pairs6", ruleset.IPv6, ruleset.IfaceAddr6, false) },
		func(me self) matchCase { return pairCase(me, "npairs4", ruleset.IPv4, ruleset.IfaceAddr4, true) },
		func(me self) matchCase { return pairCase(me, "npairs6", ruleset.IPv6, ruleset.IfaceAddr6, true) },
		func(self) matchCase {
			pairs := ruleset.Set{Name: "dpairs", Key: ruleset.IfaceAddr4, Pairs: []ruleset.IfaceSubnet{{Iface: "eth0", Subnet: netset.MustParse("192.0.2.0/24 10.0.0.0/8")}}}
			return matchCase{name: "interface and destination", sets: []ruleset.Set{pairs}, matches: one(ruleset.IfaceAddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Set: "dpairs"}),
				hits: []probe{udp(1)}, misses: []probe{udp(1).fromInside(), udp(1).to("172.17.0.1"), udp(1).in6()}}
		},
	}
}

// setCase is about a named set of some addresses of the case's own.
func setCase(name, set string, addr func(uint8) netip.Addr, f ruleset.Family, not bool) matchCase {
	key, other := ruleset.Addr4, udp(1).in6()
	if f == ruleset.IPv6 {
		key, other = ruleset.Addr6, udp(1)
	}
	addrs := netset.MustParse(fmt.Sprintf("%s %s-%s %s-%s", addr(2), addr(8), addr(15), addr(17), addr(21)))
	in := []probe{udp(1).from(addr(2)), udp(1).from(addr(8)), udp(1).from(addr(15)), udp(1).from(addr(17)), udp(1).from(addr(21))}
	out := []probe{udp(1).from(addr(1)), udp(1).from(addr(3)), udp(1).from(addr(7)), udp(1).from(addr(16)), udp(1).from(addr(22))}
	c := matchCase{name: name, sets: []ruleset.Set{{Name: set, Key: key, Addrs: addrs}}, hits: in, misses: append(out, other),
		matches: one(ruleset.AddrMatch{Field: ruleset.Src, Family: f, Set: set, Not: not})}
	if not {
		c.hits, c.misses = out, append(in, other)
	}
	return c
}

// pairCase is about addresses of the case's own, others on each interface.
func pairCase(me self, set string, f ruleset.Family, key ruleset.Key, not bool) matchCase {
	addr, other := me.v4, udp(1).in6()
	if f == ruleset.IPv6 {
		addr, other = func(n uint8) netip.Addr { return me.v6(0, uint16(n)) }, udp(1)
	}
	pairs := []ruleset.IfaceSubnet{
		{Iface: "eth0", Subnet: netset.MustParse(fmt.Sprintf("%s %s-%s", addr(2), addr(8), addr(15)))},
		{Iface: "docker0", Subnet: netset.MustParse(fmt.Sprintf("%s-%s", addr(8), addr(9)))},
		{Iface: "docker0", Subnet: netset.MustParse(fmt.Sprintf("%s-%s", addr(9), addr(10)))},
	}
	in := []probe{udp(1).from(addr(2)), udp(1).from(addr(15)), udp(1).from(addr(8)).fromInside(), udp(1).from(addr(10)).fromInside()}
	out := []probe{udp(1).from(addr(3)), udp(1).from(addr(7)), udp(1).from(addr(2)).fromInside(), udp(1).from(addr(11)).fromInside()}
	c := matchCase{name: set, sets: []ruleset.Set{{Name: set, Key: key, Pairs: pairs}}, hits: in, misses: append(out, other),
		matches: one(ruleset.IfaceAddrMatch{Field: ruleset.Src, Family: f, Set: set, Not: not})}
	if not {
		c.hits, c.misses = out, append(in, other)
	}
	return c
}

// stateCases: the second echo request of a conversation is of an established one, an error about its answer is related.
func stateCases() []func(self) matchCase {
	of := func(s ruleset.CtState, not bool) []ruleset.Match {
		return one(ruleset.CtStateMatch{States: s, Not: not})
	}
	echo := func(me self, v6 bool) (first, second, related probe) {
		id := []byte{0x42, byte(me), 0, 1, 'p', 'i', 'n', 'g'}
		first = probe{proto: unix.IPPROTO_ICMP, kind: 8, body: id}
		kind := uint8(3)
		if v6 {
			first = probe{proto: unix.IPPROTO_ICMPV6, kind: 128, body: id, v6: true}
			kind = 1
		}
		second = first.after(settle)
		related = second
		related.kind, related.code = kind, 3
		related.body = append(make([]byte, 4), answerTo(first, me)...)
		return first, second, related
	}
	invalid := both(probe{proto: unix.IPPROTO_TCP, dport: 80, flags: frame.SYN | frame.FIN})
	untracked := both(udp(999))
	type build = func(self) matchCase
	state := func(name string, match []ruleset.Match, sort func(first, second, related []probe) (hits, misses []probe)) build {
		return func(me self) matchCase {
			f4, s4, r4 := echo(me, false)
			f6, s6, r6 := echo(me, true)
			c := matchCase{name: name, matches: match, prepare: withForeignNAT}
			c.hits, c.misses = sort([]probe{f4, f6}, []probe{s4, s6}, []probe{r4, r6})
			return c
		}
	}
	join := func(lists ...[]probe) (all []probe) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	return []build{
		state("new", of(ruleset.StateNew, false), func(f, s, r []probe) (hits, misses []probe) {
			return both(udp(1)), join(invalid, untracked)
		}),
		state("not new", of(ruleset.StateNew, true), func(f, s, r []probe) (hits, misses []probe) {
			return join(invalid, untracked), both(udp(1))
		}),
		state("established", of(ruleset.StateEstablished, false), func(f, s, r []probe) (hits, misses []probe) {
			return s, join(f, r, invalid, untracked)
		}),
		state("related", of(ruleset.StateRelated, false), func(f, s, r []probe) (hits, misses []probe) {
			return r, join(f, s, invalid, untracked)
		}),
		state("established or related", of(ruleset.StateEstablished|ruleset.StateRelated, false), func(f, s, r []probe) (hits, misses []probe) {
			return join(s, r), join(f, invalid, untracked)
		}),
		state("invalid", of(ruleset.StateInvalid, false), func(f, s, r []probe) (hits, misses []probe) {
			return invalid, join(both(udp(1)), untracked)
		}),
		state("untracked", of(ruleset.StateUntracked, false), func(f, s, r []probe) (hits, misses []probe) {
			return untracked, join(both(udp(1)), invalid)
		}),
		state("neither invalid nor untracked", of(ruleset.StateInvalid|ruleset.StateUntracked, true), func(f, s, r []probe) (hits, misses []probe) {
			return both(udp(1)), join(invalid, untracked)
		}),
	}
}

// answerTo is the host's answer to an echo request, as an error about it quotes it: without Ethernet's header.
func answerTo(p probe, me self) []byte {
	p = p.complete(nil, me, 0)
	p.src, p.dst = p.dst, p.src
	p.kind = 0
	if p.v6 {
		p.kind = 129
	}
	return p.frame(p.way(make([]byte, 6)))[14:]
}

func rateCases() []func(self) matchCase {
	hourly := rate.Rate{Count: 1, Per: time.Hour, Burst: 3}
	many := func(n int, p probe) []probe {
		var all []probe
		for range n {
			all = append(all, p)
		}
		return all
	}
	return []func(self) matchCase{
		func(self) matchCase {
			return matchCase{name: "a rate", matches: one(ruleset.RateMatch{Rate: hourly}), hits: many(3, udp(1)), misses: many(4, udp(1))}
		},
		func(me self) matchCase {
			a, b := udp(1).from(me.v4(1)), udp(1).from(me.v4(2))
			return matchCase{name: "a rate by source 4", matches: one(ruleset.SourceRateMatch{Family: ruleset.IPv4, Name: "rate4", Rate: hourly}),
				misses: append(append(many(3, a), many(3, b)...), udp(1).in6()), hits: many(2, a)}
		},
		func(me self) matchCase { // addresses of one /64 count together
			a, same, b := udp(1).from(me.v6(1, 1)), udp(1).from(me.v6(1, 9)), udp(1).from(me.v6(2, 1))
			return matchCase{name: "a rate by source 6", matches: one(ruleset.SourceRateMatch{Family: ruleset.IPv6, Name: "rate6", Rate: hourly}),
				misses: append(append(many(2, a), same, udp(1)), many(3, b)...), hits: many(2, same)}
		},
	}
}
