package analyze

import (
	"slices"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
)

// Numbers that rules compare with (linux/netfilter.h, nf_conntrack_common.h).
const (
	nfproto4   = 2
	nfproto6   = 10
	statusDNAT = 32
)

// rule is where a match stands.
type rule struct {
	*netfilter.Rule
	chain *netfilter.Chain
	table *netfilter.Table
}

// occurrence counts the rules before in the chain that say the same.
func (r rule) occurrence() (n int) {
	for _, before := range r.chain.Rules {
		if before == r.Rule {
			break
		}
		if before.Text == r.Text {
			n++
		}
	}
	return n
}

// state is what became of a packet on its way so far, that rules ask for and that isn't in the packet.
type state struct {
	mark, ctMark uint32
	labels       [2]uint64 // of the connection, a bit each
	untracked    bool
	early        bool         // connection tracking hasn't seen it
	nat          *translation // that was done; nil for none
}

// tracked tells whether the packet has a connection that rules can ask for.
func (st state) tracked() bool { return !st.early && !st.untracked }

// labelled tells whether the connection has one of these labels.
func (st state) labelled(r netfilter.Range) bool {
	for n := r.First; n <= min(r.Last, 127); n++ {
		if st.labels[n/64]>>(n%64)&1 != 0 {
			return true
		}
	}
	return false
}

// matches is the packets that meet all matches of a rule.
func (s *space) matches(r rule, st state) bdd.Set {
	key := cacheKey{r.Rule, st.tracked()}
	if set, ok := s.cache[key]; ok {
		return set
	}
	set := s.all(r, r.Matches, st)
	if !asksState(r.Matches) {
		s.cache[key] = set
	}
	return set
}

// asksState tells whether matches ask for what is in a state.
func asksState(all []netfilter.Match) bool {
	for _, m := range all {
		switch m := m.(type) {
		case netfilter.Compare:
			switch m.Field {
			case netfilter.Mark, netfilter.CtMark, netfilter.CtLabel, netfilter.CtState, netfilter.CtStatus:
				return true
			}
		case netfilter.Any:
			for _, of := range m.Of {
				if asksState(of) {
					return true
				}
			}
		case netfilter.In:
			for _, f := range m.Fields {
				if f == netfilter.Mark || f == netfilter.CtMark {
					return true
				}
			}
		}
	}
	return false
}

func (s *space) all(r rule, matches []netfilter.Match, st state) bdd.Set {
	set := bdd.All
	for _, m := range matches {
		if set = s.And(set, s.match(r, m, st)); set == bdd.None {
			break
		}
	}
	return set
}

// unknown is a bit that nobody knows, which a rule asks for.
func (s *space) unknown(r rule, what string) bdd.Set {
	if s.open != nil {
		return s.doubt()
	}
	return s.fields.unknown(r, what)
}

func (s *space) match(r rule, m netfilter.Match, st state) bdd.Set {
	switch m := m.(type) {
	case netfilter.Compare:
		return s.compare(r, m, st)
	case netfilter.In:
		return s.in(r, m, st)
	case netfilter.Any:
		set := bdd.None
		for _, of := range m.Of {
			set = s.Or(set, s.all(r, of, st))
		}
		if m.Not {
			return set.Not()
		}
		return set
	case netfilter.Stateful:
		return s.unknown(r, m.Text)
	case netfilter.Opaque:
		return s.unknown(r, m.Text)
	}
	return bdd.None
}

// compare is the packets that have the field, with one of the values or with none of them.
func (s *space) compare(r rule, c netfilter.Compare, st state) bdd.Set {
	there := s.there(c.Field, st)
	if there == bdd.None {
		return bdd.None
	}
	values, known := s.values(r, c, st)
	return s.either(r, there, values, known, c.Not)
}

// either is the packets that have a field with one of the values, or with not those that have it with none of them.
func (s *space) either(r rule, there, values bdd.Set, known, not bool) bdd.Set {
	switch {
	case !known:
		return s.unknown(r, r.Text)
	case not:
		return s.Diff(there, values)
	}
	return s.And(there, values)
}

// protos is the packets of one of these protocols.
func (s *space) protos(all ...uint64) bdd.Set {
	set := bdd.None
	for _, p := range all {
		set = s.Or(set, s.Equal(s.field(netfilter.Proto), bdd.Small(p)))
	}
	return set
}

// withPorts are the protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
var withPorts = []uint64{6, 17, 33, 132, 136}

// there is the packets that have a field.
func (s *space) there(f netfilter.Field, st state) bdd.Set {
	switch {
	case s.open != nil:
		return s.And(s.had(f), s.headed(f))
	case isOfConnection(f) && !st.tracked():
		return bdd.None
	}
	return s.headed(f)
}

// isOfConnection tells whether a packet has a field by its connection.
func isOfConnection(f netfilter.Field) bool {
	switch f {
	case netfilter.CtStatus, netfilter.CtDirection, netfilter.CtMark, netfilter.CtLabel, netfilter.CtZone, netfilter.CtProto, netfilter.CtHelper,
		netfilter.CtOrigSrc, netfilter.CtOrigDst, netfilter.CtOrigSrcPort, netfilter.CtOrigDstPort,
		netfilter.CtReplySrc, netfilter.CtReplyDst, netfilter.CtReplySrcPort, netfilter.CtReplyDstPort:
		return true
	}
	return false
}

// headed is the packets whose protocol has a field.
func (s *space) headed(f netfilter.Field) bdd.Set {
	switch f {
	case netfilter.SrcPort, netfilter.DstPort:
		return s.protos(withPorts...)
	case netfilter.ICMPType, netfilter.ICMPCode:
		return s.protos(1)
	case netfilter.ICMPv6Type, netfilter.ICMPv6Code:
		return s.protos(58)
	case netfilter.TCPFlags, netfilter.TCPOption:
		return s.protos(6)
	}
	return bdd.All
}

// values is the packets whose field has one of the values; not known where nothing is known of the field.
func (s *space) values(r rule, c netfilter.Compare, st state) (set bdd.Set, known bool) {
	if s.open != nil && c.Field != netfilter.NFProto {
		return s.openValues(c)
	}
	constant := func(n uint64) (bdd.Set, bool) { return constantSet(holds(c, n)), true }
	switch c.Field {
	case netfilter.NFProto:
		return constant(map[netfilter.Family]uint64{netfilter.IPv4: nfproto4, netfilter.IPv6: nfproto6}[s.family])
	case netfilter.CtState:
		switch {
		case st.early:
			return constant(uint64(packet.Invalid))
		case st.untracked:
			return constant(uint64(packet.Untracked))
		}
		return constant(uint64(packet.New))
	case netfilter.CtStatus:
		dnat := s.Equal(s.field(netfilter.CtStatus), bdd.Small(statusDNAT))
		set := bdd.None
		if holds(c, statusDNAT) {
			set = dnat
		}
		if holds(c, 0) {
			set = s.Or(set, dnat.Not())
		}
		return set, true
	case netfilter.CtDirection, netfilter.FragmentOffset, netfilter.MoreFragments, netfilter.PacketType, netfilter.CtZone:
		return constant(0)
	case netfilter.TCPFlags:
		return constant(uint64(packet.SYN))
	case netfilter.CtProto:
		return s.numbers(netfilter.Proto, c.Mask, c.Numbers), true
	case netfilter.Mark:
		return constant(uint64(st.mark))
	case netfilter.CtMark:
		return constant(uint64(st.ctMark))
	case netfilter.CtLabel:
		return constantSet(slices.ContainsFunc(c.Numbers, st.labelled)), true
	case netfilter.CtOrigSrc:
		return s.addresses(netfilter.Src, c)
	case netfilter.CtOrigDstPort:
		return s.portOf(netfilter.CtOrigDstPort, withPorts, c), true
	case netfilter.CtOrigSrcPort: // of ICMP it is the identifier
		identifier := s.protos(1, 58)
		return s.Or(s.Diff(s.portOf(netfilter.SrcPort, withPorts, c), identifier), s.And(identifier, s.unknown(r, r.Text))), true
	case netfilter.CtOrigDst, netfilter.Src, netfilter.Dst:
		return s.addresses(c.Field, c)
	case netfilter.IPSetSrcPort:
		return s.portOf(netfilter.SrcPort, ipsetPorts, c), true
	case netfilter.IPSetDstPort:
		return s.portOf(netfilter.DstPort, ipsetPorts, c), true
	case netfilter.InIface, netfilter.OutIface:
		return s.names(c.Field, c.Names), true
	case netfilter.InKind, netfilter.OutKind:
		return s.kinds(c)
	case netfilter.SrcType, netfilter.DstType, netfilter.SrcTypeIn, netfilter.DstTypeIn, netfilter.SrcTypeOut, netfilter.DstTypeOut:
		return s.addrTypes(c)
	case netfilter.ReverseRoute, netfilter.ReverseRouteLoose:
		return s.reverse(c)
	case netfilter.Proto, netfilter.SrcPort, netfilter.DstPort,
		netfilter.ICMPType, netfilter.ICMPCode, netfilter.ICMPv6Type, netfilter.ICMPv6Code,
		netfilter.TTL, netfilter.DSCP, netfilter.ECN, netfilter.Length, netfilter.SocketFound, netfilter.SocketWildcard:
		return s.numbers(c.Field, c.Mask, c.Numbers), true
	}
	return bdd.None, false
}

// addresses is the packets whose address is one of those. Of ranges nothing is known under a mask that is no prefix.
func (s *space) addresses(f netfilter.Field, c netfilter.Compare) (bdd.Set, bool) {
	if !c.AddrMask.IsValid() {
		return s.addrs(f, c.Addrs), true
	}
	set := bdd.None
	for r := range c.Addrs.Each() {
		if r.From() != r.To() {
			return bdd.None, false
		}
		if r.From().Is4() == (s.family == netfilter.IPv4) {
			set = s.Or(set, s.Masked(s.field(f), number(c.AddrMask), number(r.From())))
		}
	}
	return set, true
}

// ipsetPorts are the protocols whose ports ipset takes for ports.
var ipsetPorts = []uint64{6, 17, 132, 136}

// portOf is the packets of which ipset or connection tracking take one of these numbers for the port: of ICMP they take type and
// code, and of protocols without ports 0.
func (s *space) portOf(f netfilter.Field, ported []uint64, c netfilter.Compare) bdd.Set {
	set := s.And(s.protos(ported...), s.numbers(f, c.Mask, c.Numbers))
	for p, fields := range map[uint64][2]netfilter.Field{1: {netfilter.ICMPType, netfilter.ICMPCode}, 58: {netfilter.ICMPv6Type, netfilter.ICMPv6Code}} {
		for _, i := range intervals(c.Numbers, 16) {
			set = s.Or(set, s.And(s.protos(p), s.typesAndCodes(fields[0], fields[1], i.First.Lo, i.Last.Lo)))
		}
	}
	if holds(c, 0) {
		set = s.Or(set, s.Or(s.protos(ported...), s.protos(1, 58)).Not())
	}
	return set
}

// typesAndCodes is the packets whose type and code, as one number of 16 bits, are in a range.
func (s *space) typesAndCodes(typ, code netfilter.Field, first, last uint64) bdd.Set {
	part := func(types, codes netfilter.Range) bdd.Set {
		return s.And(s.numbers(typ, 0, []netfilter.Range{types}), s.numbers(code, 0, []netfilter.Range{codes}))
	}
	from, to := first>>8, last>>8
	if from == to {
		return part(netfilter.Range{First: from, Last: to}, netfilter.Range{First: first & 255, Last: last & 255})
	}
	set := part(netfilter.Range{First: from, Last: from}, netfilter.Range{First: first & 255, Last: 255})
	set = s.Or(set, part(netfilter.Range{First: to, Last: to}, netfilter.Range{Last: last & 255}))
	return s.Or(set, part(netfilter.Range{First: from + 1, Last: to - 1}, netfilter.Range{Last: 255})) // none where they are next to each other
}

func constantSet(holds bool) bdd.Set {
	if holds {
		return bdd.All
	}
	return bdd.None
}

// holds tells whether a number, under the mask, is one of those that are compared with.
func holds(c netfilter.Compare, n uint64) bool {
	if c.Mask != 0 {
		n &= c.Mask
	}
	for _, r := range c.Numbers {
		if r.First <= n && n <= r.Last {
			return true
		}
	}
	return false
}

// kinds is the packets that come or leave by an interface of a kind.
func (s *space) kinds(c netfilter.Compare) (bdd.Set, bool) {
	f := map[netfilter.Field]netfilter.Field{netfilter.InKind: netfilter.InIface, netfilter.OutKind: netfilter.OutIface}[c.Field]
	var names []string
	for _, name := range s.ifaces {
		for _, kind := range c.Names {
			if name != "" && s.facts.kinds[name] == kind {
				names = append(names, name)
			}
		}
	}
	return s.names(f, names), true
}

// addrTypes is the packets whose address is of a type in the host's routing.
func (s *space) addrTypes(c netfilter.Compare) (bdd.Set, bool) {
	if s.facts.types == nil {
		return bdd.None, false
	}
	f := netfilter.Dst
	if c.Field == netfilter.SrcType || c.Field == netfilter.SrcTypeIn || c.Field == netfilter.SrcTypeOut {
		f = netfilter.Src
	}
	iface := map[netfilter.Field]netfilter.Field{netfilter.SrcTypeIn: netfilter.InIface, netfilter.DstTypeIn: netfilter.InIface,
		netfilter.SrcTypeOut: netfilter.OutIface, netfilter.DstTypeOut: netfilter.OutIface}[c.Field]
	if iface == netfilter.NoField {
		return s.typesBy(f, c, ""), true
	}
	set := bdd.None
	for _, name := range s.ifaces[1:] {
		set = s.Or(set, s.And(s.names(iface, []string{name}), s.typesBy(f, c, name)))
	}
	return set, true
}

// typesBy is the packets whose address is of a type, asked for one interface, or for all.
func (s *space) typesBy(f netfilter.Field, c netfilter.Compare, iface string) bdd.Set {
	set := bdd.None
	for _, t := range addrTypes {
		if holds(c, uint64(t)) {
			set = s.Or(set, s.addrs(f, s.facts.types(t, iface)))
		}
	}
	return set
}

// reverse is the packets whose way back leads out of the interface that they came by, or those for which it does not.
func (s *space) reverse(c netfilter.Compare) (bdd.Set, bool) {
	if s.facts.wayTo == nil {
		return bdd.None, false
	}
	back := bdd.None
	for _, name := range s.ifaces[1:] {
		way := s.addrs(netfilter.Src, s.facts.wayTo(name))
		if c.Field == netfilter.ReverseRoute {
			way = s.And(way, s.names(netfilter.InIface, []string{name}))
		}
		back = s.Or(back, way)
	}
	set := bdd.None
	if holds(c, 1) {
		set = back
	}
	if holds(c, 0) {
		set = s.Or(set, back.Not())
	}
	return set, true
}
