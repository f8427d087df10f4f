package analyze

import (
	"net/netip"
	"slices"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/snapshot"
)

// Analyzer knows the rules of a host for one family.
type Analyzer struct {
	*space
	host    *snapshot.Host
	routing *routing
	local   netset.Set
	hooks   map[stageKey]flows
	nat     map[stageKey]*natIndex
	sockets map[uint16][]*snapshot.Socket // by port
	entries *bdd.Set                      // what may come in at all; nil where it wasn't asked for yet
	seen    map[bdd.Set]Sources
	care    *care    // nil for all packets
	all     *bdd.Set // of packets that get anywhere; nil until it is asked for
}

// New reads the rules of one family, IPv4 or IPv6.
func New(h *snapshot.Host, family netfilter.Family) *Analyzer {
	return newAnalyzer(h, newFields(family, interfacesOf(h)))
}

func newAnalyzer(h *snapshot.Host, f *fields) *Analyzer {
	a := &Analyzer{space: newSpace(f, factsOf(h, f.family)), host: h, routing: routingOf(h.Routes, f.family), hooks: map[stageKey]flows{},
		nat: map[stageKey]*natIndex{}, sockets: map[uint16][]*snapshot.Socket{}, seen: map[bdd.Set]Sources{}}
	for i := range h.Sockets {
		s := &h.Sockets[i]
		a.sockets[s.Port] = append(a.sockets[s.Port], s)
	}
	var b netset.Builder
	for _, i := range h.Inventory.Interfaces {
		for _, p := range i.Addrs {
			if p.Addr().Is4() == (f.family == netfilter.IPv4) {
				b.AddAddr(p.Addr())
			}
		}
	}
	b.AddSet(a.routing.byType[typeLocal])
	a.local, _ = b.Set() // single addresses
	return a
}

// stage is a part of a packet's way: the base chains of one hook between two priorities.
type stage struct {
	hook     netfilter.Hook
	from, to int // priorities, to is not in it
	nat      bool
}

// The priorities at which the kernel itself acts (linux/netfilter_ipv4.h).
const (
	prioConntrack = -200
	prioDNAT      = -100
	lowest        = -1 << 31
	highest       = 1<<31 - 1
)

var (
	beforeNAT   = stage{hook: netfilter.Prerouting, from: lowest, to: prioDNAT}
	dnat        = stage{hook: netfilter.Prerouting, from: lowest, to: highest, nat: true}
	afterNAT    = stage{hook: netfilter.Prerouting, from: prioDNAT, to: highest}
	input       = stage{hook: netfilter.Input, from: lowest, to: highest}
	forward     = stage{hook: netfilter.Forward, from: lowest, to: highest}
	output      = stage{hook: netfilter.Output, from: lowest, to: highest}
	postrouting = stage{hook: netfilter.Postrouting, from: lowest, to: highest}
)

type stageKey struct {
	stage
	state
}

// base is a base chain and its table.
type base struct {
	table *netfilter.Table
	chain *netfilter.Chain
}

// chains are the base chains of a stage, in the kernel's order.
func (a *Analyzer) chains(s stage) []base {
	var all []base
	for _, t := range a.host.Rules.Tables {
		if t.Dormant || t.Family != netfilter.Inet && t.Family != a.family {
			continue
		}
		for _, c := range t.Chains {
			if b := c.Base; b != nil && b.Hook == s.hook && (b.Type == netfilter.NAT) == s.nat && s.from <= b.Priority && b.Priority < s.to {
				all = append(all, base{t, c})
			}
		}
	}
	slices.SortStableFunc(all, func(x, y base) int { return x.chain.Base.Priority - y.chain.Base.Priority })
	return all
}

// through is what the chains of a stage let through of all packets that come in one state.
func (a *Analyzer) through(s stage, st state) flows {
	key := stageKey{s, st}
	if out, ok := a.hooks[key]; ok {
		return out
	}
	in, done := flows{st: a.cared(s)}, flows{}
	for _, b := range a.chains(s) {
		early := b.chain.Base.Priority < prioConntrack && (s.hook == netfilter.Prerouting || s.hook == netfilter.Output)
		w := walker{space: a.space, table: b.table, nat: s.nat}
		accepted, returned := w.chain(b.chain, withEarly(in, early))
		if b.chain.Base.Policy != netfilter.Drop {
			a.addAll(accepted, returned)
		}
		in = withEarly(accepted, false)
		if s.nat { // once a chain has translated a packet, the kernel calls no other
			a.addAll(done, translated(in))
		}
	}
	a.addAll(in, done)
	a.hooks[key] = in
	return in
}

// translated takes the packets out that were translated.
func translated(in flows) flows {
	out := flows{}
	for st, set := range in {
		if st.nat != nil {
			out[st] = set
			delete(in, st)
		}
	}
	return out
}

func withEarly(in flows, early bool) flows {
	out := make(flows, len(in))
	for st, set := range in {
		st.early = early
		out[st] = set
	}
	return out
}

// natIndex finds the translations of a port without looking at all of them.
type natIndex struct {
	byPort map[uint16][]natFlow
	wide   []natFlow // of several ports
}

type natFlow struct {
	state
	set bdd.Set
}

func (a *Analyzer) natOf(st state) *natIndex {
	key := stageKey{dnat, st}
	if x, ok := a.nat[key]; ok {
		return x
	}
	x := &natIndex{byPort: map[uint16][]natFlow{}}
	port := a.field(netfilter.DstPort)
	for st, set := range a.through(dnat, st) {
		f := natFlow{st, set}
		ports := a.Intervals(a.only(set, port), port)
		if len(ports) == 1 && ports[0].First == ports[0].Last {
			x.byPort[uint16(ports[0].First.Lo)] = append(x.byPort[uint16(ports[0].First.Lo)], f)
		} else {
			x.wide = append(x.wide, f)
		}
	}
	a.nat[key] = x
	return x
}

// only is what a set says of one field: its values for which there is any string in the set.
func (a *Analyzer) only(set bdd.Set, f bdd.Field) bdd.Set {
	set = a.Exists(set, bdd.Field{First: 0, Bits: f.First})
	return a.Exists(set, bdd.Field{First: f.First + f.Bits, Bits: a.next - f.First - f.Bits})
}

// place is where a packet is on its way: what of it is the same for all that is asked about.
type place struct {
	proto    uint8
	dst      netip.Addr // now
	port     uint16
	origDst  netip.Addr // as it was dialled
	origPort uint16
	out      string // interface; "" where it isn't known yet
	dnat     bool
}

// at is a set of packets at a place: it asks of the others only.
func (a *Analyzer) at(set bdd.Set, p place) bdd.Set {
	set = a.Cofactor(set, a.field(netfilter.Dst), number(p.dst))
	set = a.Cofactor(set, a.field(netfilter.DstPort), bdd.Small(uint64(p.port)))
	set = a.Cofactor(set, a.field(netfilter.Proto), bdd.Small(uint64(p.proto)))
	set = a.Cofactor(set, a.field(netfilter.OutIface), a.iface(p.out))
	set = a.Cofactor(set, a.field(netfilter.CtOrigDst), number(p.origDst))
	set = a.Cofactor(set, a.field(netfilter.CtOrigDstPort), bdd.Small(uint64(p.origPort)))
	if p.dnat {
		return a.status(set, statusDNAT)
	}
	return a.status(set, 0)
}

// pass leads packets through a stage.
func (a *Analyzer) pass(in flows, s stage, p place) flows {
	out := flows{}
	if len(in) == 0 || !a.asks(s, p) {
		return out
	}
	for st, set := range in {
		nat := st.nat
		st.nat = nil
		for then, passed := range a.through(s, st) {
			then.nat = nat
			a.add(out, then, a.And(set, a.at(passed, p)))
		}
	}
	return out
}

// translate leads packets through address translation.
func (a *Analyzer) translate(in flows, p place) flows {
	out := flows{}
	if len(in) == 0 || !a.asks(dnat, p) {
		return out
	}
	for st, set := range in {
		if st.untracked {
			a.add(out, st, set)
			continue
		}
		x := a.natOf(st)
		for _, f := range slices.Concat(x.byPort[p.port], x.wide) {
			a.add(out, f.state, a.And(set, a.at(f.set, p)))
		}
	}
	return out
}
