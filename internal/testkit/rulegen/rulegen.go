// Package rulegen makes random rulesets, and packets that have something to do with them, for comparing a ruleset with what a
// renderer makes of it.
//
//	d := rulegen.New(seed)
//	table := d.Table()
//	pk, host := d.Packet(), d.Host()
//
// Be aware: for tests alone. A table has all kinds of matches and verdicts, also those that the compiler never emits. What a kind
// of address an address is of is made up: see AddrType. The same seed gives the same things.
package rulegen

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/rulewalk"
)

// Dice make rulesets and packets.
type Dice struct{ *rand.Rand }

// New gives the dice of a seed.
func New(seed uint64) Dice { return Dice{rand.New(rand.NewPCG(seed, 1))} }

func pick[T any](d Dice, list ...T) T { return list[d.IntN(len(list))] }

func (d Dice) chance(percent int) bool { return d.IntN(100) < percent }

func (d Dice) family() ruleset.Family { return pick(d, ruleset.IPv4, ruleset.IPv6) }

func (d Dice) addr(f ruleset.Family) netip.Addr {
	if f == ruleset.IPv4 {
		return netip.AddrFrom4([4]byte{10, 0, byte(d.IntN(2)), byte(d.IntN(16))})
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(d.IntN(2)), 15: byte(d.IntN(16))})
}

func (d Dice) addrs(f ruleset.Family) netset.Set {
	var b netset.Builder
	for range d.IntN(4) {
		x, y := d.addr(f), d.addr(f)
		if y.Less(x) {
			x, y = y, x
		}
		if d.chance(10) {
			x, y = rangeOfAll(f)
		}
		b.Add(netipx.IPRangeFrom(x, y))
	}
	s, _ := b.Set()
	return s
}

func rangeOfAll(f ruleset.Family) (netip.Addr, netip.Addr) {
	if f == ruleset.IPv4 {
		return netset.All4().Ranges()[0].From(), netset.All4().Ranges()[0].To()
	}
	return netset.All6().Ranges()[0].From(), netset.All6().Ranges()[0].To()
}

func (d Dice) iface() string {
	return pick(d, "eth0", "eth1", "docker0", "br-1", "br-2", "lo", "wg0", "x+")
}

func (d Dice) ifaces() []string {
	var names []string
	for range d.IntN(4) {
		names = append(names, pick(d, d.iface(), "eth*", "br-*", "*"))
	}
	if d.chance(5) {
		for i := range 100 {
			names = append(names, fmt.Sprintf("if%d", i))
		}
	}
	return names
}

func (d Dice) port() uint16 { return pick(d, uint16(d.IntN(200)), 0, 65535, uint16(d.IntN(65536))) }

func (d Dice) ports() []netset.Ports {
	var ports []netset.Ports
	n := pick(d, 1, 2, 3, 12, 40)
	for range n {
		x, y := d.port(), d.port()
		if d.chance(60) {
			y = x
		}
		ports = append(ports, netset.Ports{First: min(x, y), Last: max(x, y)})
	}
	if d.chance(5) {
		ports = append(ports, netset.AllPorts)
	}
	return ports
}

func (d Dice) proto() uint8 {
	return pick[uint8](d, policy.TCP, policy.UDP, policy.SCTP, policy.UDPLite, policy.DCCP)
}

// Table makes a table with one base chain, in prerouting. Chains lead on to later ones alone.
func (d Dice) Table() ruleset.Table {
	t := ruleset.Table{Name: "quaywall"}
	for i := range 3 {
		f := d.family()
		key4, keyPair := ruleset.Addr4, ruleset.IfaceAddr4
		if f == ruleset.IPv6 {
			key4, keyPair = ruleset.Addr6, ruleset.IfaceAddr6
		}
		t.Sets = append(t.Sets,
			ruleset.Set{Name: fmt.Sprintf("addrs%d", i), Key: key4, Addrs: d.addrs(f)},
			ruleset.Set{Name: fmt.Sprintf("ifaces%d", i), Key: ruleset.Iface, Ifaces: d.ifaces()},
			ruleset.Set{Name: fmt.Sprintf("pairs%d", i), Key: keyPair, Pairs: []ruleset.IfaceSubnet{{Iface: d.iface(), Subnet: d.addrs(f)}}})
	}
	const chains = 7
	for i := range 5 {
		t.Maps = append(t.Maps, d.lookupMap(i, chains))
	}
	for i := range chains {
		c := ruleset.Chain{Name: fmt.Sprintf("c%d", i)}
		if i == 0 {
			c.Base = &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}
		}
		for n := range d.IntN(6) {
			c.Rules = append(c.Rules, d.rule(&t, i, chains, n))
		}
		t.Chains = append(t.Chains, c)
	}
	return t
}

// lookupMap makes a map whose verdicts lead to chains behind all of those that may look it up.
func (d Dice) lookupMap(i, chains int) ruleset.Map {
	m := ruleset.Map{Name: fmt.Sprintf("m%d", i), Key: pick(d, ruleset.Addr4, ruleset.Addr6, ruleset.Port, ruleset.Port)}
	origin := func() ruleset.Origin { return ruleset.Origin{Line: fmt.Sprintf("p:%d", 1000+d.IntN(100))} }
	verdict := func() ruleset.Verdict {
		return d.finalOr(chains-3, chains, ruleset.Drop, ruleset.Accept, ruleset.Goto, ruleset.Jump)
	}
	if m.Key == ruleset.Port {
		step := pick(d, 1, 3, 50)
		for p, n := 0, pick(d, 3, 20, 60, 500); n > 0 && p < 65000; n-- {
			last := p + d.IntN(step)
			m.Elements = append(m.Elements, ruleset.Element{Ports: netset.Ports{First: uint16(p), Last: uint16(last)}, Verdict: verdict(), Origin: origin()})
			p = last + 1 + d.IntN(3)
		}
		return m
	}
	f := ruleset.IPv4
	if m.Key == ruleset.Addr6 {
		f = ruleset.IPv6
	}
	for _, r := range d.addrs(f).Ranges() {
		m.Elements = append(m.Elements, ruleset.Element{Addrs: r, Verdict: verdict(), Origin: origin()})
	}
	return m
}

func (d Dice) finalOr(first, chains int, kinds ...ruleset.Kind) ruleset.Verdict {
	k := pick(d, kinds...)
	if k != ruleset.Goto && k != ruleset.Jump {
		return ruleset.Verdict{Kind: k}
	}
	if first >= chains {
		return ruleset.Verdict{Kind: ruleset.Drop}
	}
	return ruleset.Verdict{Kind: k, Chain: fmt.Sprintf("c%d", first+d.IntN(chains-first))}
}

func (d Dice) rule(t *ruleset.Table, chain, chains, n int) ruleset.Rule {
	r := ruleset.Rule{Counter: d.chance(70)}
	if r.Counter {
		r.Origin.Line = fmt.Sprintf("p:%d", chain*10+n)
	}
	if d.chance(20) {
		r.Log = &ruleset.Log{Group: 86, Prefix: fmt.Sprintf("log %d.%d", chain, n)}
	}
	for range pick(d, 0, 0, 1, 1, 1, 2, 3) {
		r.Matches = append(r.Matches, d.matches(t)...)
	}
	m := pick(d, t.Maps...)
	if d.chance(25) && chain < chains-3 {
		r.Lookup = &ruleset.Lookup{By: pick(d, ruleset.Src, ruleset.Dst), Map: m.Name}
		if m.Key == ruleset.Port {
			r.Lookup.By = ruleset.DstPort
			r.Matches = append(slices.DeleteFunc(r.Matches, isProtocol), ruleset.ProtoMatch{Proto: d.proto()})
		}
		return r
	}
	r.Verdict = d.finalOr(chain+1, chains, ruleset.Drop, ruleset.TCPReset, ruleset.Unreachable, ruleset.Accept, ruleset.Continue,
		ruleset.Continue, ruleset.Return, ruleset.Jump, ruleset.Goto, ruleset.Goto)
	return r
}

// isProtocol: a rule has room for one protocol.
func isProtocol(m ruleset.Match) bool {
	switch m.(type) {
	case ruleset.ProtoMatch, ruleset.PortMatch, ruleset.TCPFlagsMatch, ruleset.ICMPTypeMatch:
		return true
	}
	return false
}

// matches makes a match, or some that belong together.
func (d Dice) matches(t *ruleset.Table) []ruleset.Match {
	set := pick(d, t.Sets...)
	f := ruleset.IPv4
	if set.Key == ruleset.Addr6 || set.Key == ruleset.IfaceAddr6 {
		f = ruleset.IPv6
	}
	not := d.chance(30)
	limit := rate.Rate{Count: 1, Per: time.Second, Burst: 5}
	switch d.IntN(13) {
	case 0:
		return []ruleset.Match{ruleset.FamilyMatch{Family: d.family()}}
	case 1, 2:
		switch set.Key {
		case ruleset.Iface:
			return []ruleset.Match{ruleset.IfaceMatch{Field: pick(d, ruleset.In, ruleset.Out), Set: set.Name, Not: not}}
		case ruleset.Addr4, ruleset.Addr6:
			return []ruleset.Match{ruleset.AddrMatch{Field: pick(d, ruleset.Src, ruleset.Dst), Family: f, Set: set.Name, Not: not}}
		}
		return []ruleset.Match{ruleset.IfaceAddrMatch{Field: pick(d, ruleset.Src, ruleset.Dst), Family: f, Set: set.Name, Not: not}}
	case 3:
		return []ruleset.Match{ruleset.AddrMatch{Field: pick(d, ruleset.Src, ruleset.Dst), Family: f, Addrs: d.addrs(f), Not: not}}
	case 4:
		return []ruleset.Match{ruleset.IfaceMatch{Field: pick(d, ruleset.In, ruleset.Out), Names: d.ifaces(), Not: not}}
	case 5, 6:
		return []ruleset.Match{ruleset.ProtoMatch{Proto: d.proto()},
			ruleset.PortMatch{Field: pick(d, ruleset.SrcPort, ruleset.DstPort), Ports: d.ports(), Not: not}}
	case 7:
		mask := uint8(d.IntN(64))
		return []ruleset.Match{ruleset.TCPFlagsMatch{Mask: mask, Value: mask & uint8(d.IntN(64)), Not: not}}
	case 8:
		types := []uint8{uint8(d.IntN(4)), uint8(4 + d.IntN(4))}
		m := ruleset.ICMPTypeMatch{Family: d.family(), Types: types[:1+d.IntN(2)]}
		if d.chance(30) {
			m.Code = new(uint8)
		}
		return []ruleset.Match{m}
	case 9:
		if d.chance(30) {
			return []ruleset.Match{ruleset.DNATMatch{Not: not}}
		}
		return []ruleset.Match{ruleset.CtStateMatch{States: ruleset.CtState(1 + d.IntN(31)), Not: not}}
	case 10:
		return []ruleset.Match{ruleset.AddrTypeMatch{Field: pick(d, ruleset.Src, ruleset.Dst), Types: ruleset.AddrType(1 + d.IntN(15)), Not: not}}
	case 11:
		return []ruleset.Match{ruleset.SocketMatch{}}
	}
	return []ruleset.Match{pick[ruleset.Match](d, ruleset.RateMatch{Rate: limit}, ruleset.SourceRateMatch{Family: d.family(), Name: "l", Rate: limit})}
}

// Packet makes a packet.
func (d Dice) Packet() packet.Packet {
	f := d.family()
	pk := packet.Packet{Proto: d.proto(), Src: d.addr(f), Dst: d.addr(f), In: d.iface(), Out: d.iface(),
		State: packet.State(d.IntN(5)), Socket: d.chance(30)}
	switch d.IntN(4) {
	case 0:
		pk.Proto = map[ruleset.Family]uint8{ruleset.IPv4: policy.ICMP, ruleset.IPv6: policy.ICMPv6}[f]
		pk.ICMPType, pk.ICMPCode = uint8(d.IntN(8)), uint8(d.IntN(2))
	default:
		pk.SrcPort, pk.DstPort = d.port(), d.port()
	}
	if pk.Proto == policy.TCP {
		pk.Flags = uint8(d.IntN(64))
	}
	return pk
}

// Host makes what else rules ask for.
func (d Dice) Host() rulewalk.Host {
	return rulewalk.Host{AddrType: AddrType, DNAT: d.chance(30), Over: d.chance(50)}
}

// AddrType is the kind of an address, by its last byte.
func AddrType(a netip.Addr) ruleset.AddrType {
	switch b := a.AsSlice(); b[len(b)-1] % 4 {
	case 0:
		return ruleset.TypeLocal
	case 1:
		return ruleset.TypeMulticast
	case 2:
		if a.Is4() {
			return ruleset.TypeBroadcast
		}
		return ruleset.TypeAnycast
	}
	return 0
}
