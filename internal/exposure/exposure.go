// Package exposure tells who may reach what listens on a host, by its policy alone.
//
//	for _, row := range exposure.Rows(p, inv, endpoints) {
//		fmt.Println(row.Port, row.Open) // 6379, opened by the rule in line 9
//	}
//
// For every endpoint and every way in it makes up connections from addresses that the rules name and from some that
// none does, and asks package eval about each. So it says nothing that the evaluator would not say.
//
// Be aware: an opening means "some address of those that the rule names", found by trying a bounded number of them; it
// does not count how much of them an earlier rule takes away. What Docker and others do to a packet later is not looked
// at, and neither are the interfaces that the policy trusts.
package exposure

import (
	"cmp"
	"net/netip"
	"slices"

	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// Endpoint is something that can be dialled: a listening socket, a published port, or (Proto ICMP) the host's answer to
// a ping.
type Endpoint struct {
	Proto     uint8
	Addr      netip.Addr // unspecified: every address of its family; the zero Addr: every address of both
	Port      uint16
	Owner     string // process or container, "" where not known
	Container bool   // Owner is a container: the port is published
}

// Row is who may reach an endpoint.
type Row struct {
	Endpoint
	Reachable bool      // an outside interface has an address that the endpoint is dialled at
	Open      []Opening // in the order of the rules, the default last; empty is closed
	Others    string    // the policy line, or "default", that turns away whom Open does not name; "" where it is nobody
}

// Opening is what one rule, or the default, opens.
type Opening struct {
	Rule       int    // index in the policy's inbound rules, -1 for the default
	Origin     string // the policy line, or "default"
	Limited    bool
	IPv4, IPv6 bool     // the families it holds for
	Ifaces     []string // the outside interfaces it holds on, sorted; nil is all of them
}

// Rows judges each endpoint.
func Rows(p *policy.Policy, inv *inventory.Inventory, endpoints []Endpoint) []Row {
	a := asker{p: p, inv: inv, samples: sampler{p: p, bySet: map[string][]netip.Addr{}}}
	rows := make([]Row, len(endpoints))
	for i, e := range endpoints {
		rows[i] = a.row(e)
	}
	return rows
}

// asker asks the evaluator.
type asker struct {
	p       *policy.Policy
	inv     *inventory.Inventory
	samples sampler
}

func (a asker) row(e Endpoint) Row {
	rules := a.rulesAbout(e)
	// Where no rule asks for the address that was dialled, one of each family and interface speaks for all.
	every := slices.ContainsFunc(rules, func(r policy.Rule) bool { return r.To.Given })
	ways := a.ways(e, every)
	row := Row{Endpoint: e, Reachable: len(ways) > 0}
	for _, w := range ways {
		for _, src := range a.samples.of(rules, w.dst.Is4()) {
			row.note(w, eval.Evaluate(a.p, a.inv, dial(e, w, src)))
		}
		if d := a.stranger(e, w); d.Verb != policy.Allow {
			row.Others = d.Origin
		} else {
			row.note(w, d)
		}
	}
	row.sort(ways)
	return row
}

// stranger is the decision on somebody whom no rule names.
func (a asker) stranger(e Endpoint, w way) eval.Decision {
	return eval.Evaluate(a.p, a.inv, dial(e, w, a.samples.stranger(w.dst.Is4())))
}

// note adds what an allowing decision says to the row's openings.
func (r *Row) note(w way, d eval.Decision) {
	if d.Verb != policy.Allow || !d.Judged || d.Rule < 0 && d.Origin == "" {
		return
	}
	i := slices.IndexFunc(r.Open, func(o Opening) bool { return o.Rule == d.Rule })
	if i < 0 {
		r.Open = append(r.Open, Opening{Rule: d.Rule, Origin: d.Origin, Limited: d.Limited})
		i = len(r.Open) - 1
	}
	o := &r.Open[i]
	o.IPv4 = o.IPv4 || w.dst.Is4()
	o.IPv6 = o.IPv6 || w.dst.Is6()
	if !slices.Contains(o.Ifaces, w.iface) {
		o.Ifaces = append(o.Ifaces, w.iface)
	}
}

// sort puts the openings into the order of the rules, and says "all" of those that hold on each interface that has an
// address of their families.
func (r *Row) sort(ways []way) {
	for i := range r.Open {
		o := &r.Open[i]
		elsewhere := func(w way) bool {
			return (o.IPv4 && w.dst.Is4() || o.IPv6 && w.dst.Is6()) && !slices.Contains(o.Ifaces, w.iface)
		}
		if !slices.ContainsFunc(ways, elsewhere) {
			o.Ifaces = nil
		}
		slices.Sort(o.Ifaces)
	}
	slices.SortFunc(r.Open, func(a, b Opening) int { return cmp.Compare(uint(a.Rule), uint(b.Rule)) }) // -1 comes last
}

// rulesAbout are the inbound rules that speak of an endpoint's protocol and port.
func (a asker) rulesAbout(e Endpoint) []policy.Rule {
	var rules []policy.Rule
	for _, r := range a.p.Inbound {
		if slices.ContainsFunc(r.What, func(t policy.Traffic) bool { return about(t, e) }) {
			rules = append(rules, r)
		}
	}
	return rules
}

func about(t policy.Traffic, e Endpoint) bool {
	switch {
	case t.Published:
		return e.Container
	case t.Proto == 0:
		return true
	case e.Proto == policy.ICMP:
		return t.Proto == policy.ICMP || t.Proto == policy.ICMPv6
	}
	return t.Proto == e.Proto && t.Ports.Contains(e.Port)
}

// way is one way to dial an endpoint from outside.
type way struct {
	iface string
	dst   netip.Addr
}

// ways are the addresses that an endpoint can be dialled at, by the interfaces that somebody outside comes in by. A host
// answers for each of its addresses on every interface (the weak host model), so every address has a way by all of them.
func (a asker) ways(e Endpoint, every bool) []way {
	var outside []inventory.Interface
	for _, i := range a.inv.Interfaces {
		if a.outside(i) {
			outside = append(outside, i)
		}
	}
	var ways []way
	for _, i := range outside {
		addrs := dialled(e, i)
		if every {
			addrs = dialled(e, outside...)
		} else {
			addrs = slices.CompactFunc(addrs, func(a, b netip.Addr) bool { return a.Is4() == b.Is4() })
		}
		for _, addr := range addrs {
			ways = append(ways, way{i.Name, addr})
		}
	}
	return ways
}

// outside tells whether an interface is one that strangers come in by.
func (a asker) outside(i inventory.Interface) bool {
	return i.Name != "lo" && i.Master == "" && len(i.Addrs) > 0 && !a.inv.IsDockerBridge(i.Name) &&
		(len(a.p.Trusted) == 0 || !policy.MatchesInterface(a.p.Trusted, i.Name))
}

// dialled are the addresses of these interfaces that get somebody to an endpoint.
func dialled(e Endpoint, interfaces ...inventory.Interface) []netip.Addr {
	if e.Addr.IsValid() && !e.Addr.IsUnspecified() {
		if e.Addr.IsLoopback() {
			return nil
		}
		return []netip.Addr{e.Addr.WithZone("")}
	}
	var addrs []netip.Addr
	for _, i := range interfaces {
		for _, p := range i.Addrs {
			if !e.Addr.IsValid() || e.Addr.Is4() == p.Addr().Is4() {
				addrs = append(addrs, p.Addr().WithZone(""))
			}
		}
	}
	return addrs
}

// dial makes up the first packet of a connection.
func dial(e Endpoint, w way, src netip.Addr) packet.Packet {
	pk := packet.Packet{Proto: e.Proto, Src: src, Dst: w.dst, In: w.iface}
	switch e.Proto {
	case policy.ICMP:
		pk.ICMPType = 8
		if w.dst.Is6() {
			pk.Proto, pk.ICMPType = policy.ICMPv6, 128
		}
	case policy.TCP:
		pk.Flags = packet.SYN
		fallthrough
	default:
		pk.SrcPort, pk.DstPort = 49152, e.Port
	}
	return pk
}
