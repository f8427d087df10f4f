package netfilter

import (
	"fmt"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
)

// Of is what is planned, as tables of nf_tables. Hand-written rules are not in it.
func Of(rs *ruleset.Ruleset) []*Table {
	tables := make([]*Table, len(rs.Tables))
	for i := range rs.Tables {
		tables[i] = ofTable(&rs.Tables[i])
	}
	return tables
}

func ofTable(t *ruleset.Table) *Table {
	out := &Table{Dialect: NFT, Family: [...]Family{ruleset.Inet: Inet, ruleset.IPv4: IPv4, ruleset.IPv6: IPv6}[t.Family], Name: t.Name}
	for i := range t.Chains {
		out.Chains = append(out.Chains, ofChain(&t.Chains[i]))
	}
	for i := range t.Sets {
		out.Sets = append(out.Sets, ofSet(&t.Sets[i], out.Family))
	}
	for i := range t.Maps {
		out.Sets = append(out.Sets, ofMap(&t.Maps[i], out.Family))
	}
	return out
}

func ofChain(c *ruleset.Chain) *Chain {
	out := &Chain{Name: c.Name}
	if c.Base != nil {
		hook := [...]Hook{ruleset.Prerouting: Prerouting, ruleset.Input: Input, ruleset.Forward: Forward, ruleset.Output: Output,
			ruleset.Postrouting: Postrouting}[c.Base.Hook]
		out.Base = &Base{Type: Filter, Hook: hook, Priority: c.Base.Priority, Policy: Accept}
	}
	for i := range c.Rules {
		r := ofRule(&c.Rules[i])
		r.Number = i + 1
		out.Rules = append(out.Rules, r)
	}
	return out
}

func ofRule(r *ruleset.Rule) *Rule {
	plain := *r
	plain.Origin = ruleset.Origin{}
	out := &Rule{Text: plain.String(), Comment: r.Origin.Comment()}
	for _, m := range r.Matches {
		out.Matches = append(out.Matches, ofMatch(m)...)
	}
	if r.Log != nil {
		group := r.Log.Group
		out.Actions = append(out.Actions, Log{Prefix: r.Log.Prefix, Group: &group})
	}
	if r.Lookup != nil {
		out.Actions = append(out.Actions, Lookup{Fields: []Field{ofField(r.Lookup.By)}, Map: r.Lookup.Map})
		return out
	}
	out.Actions = append(out.Actions, ofVerdict(r.Verdict))
	return out
}

func ofVerdict(v ruleset.Verdict) Action {
	switch v.Kind {
	case ruleset.Drop:
		return Verdict{Kind: Drop}
	case ruleset.TCPReset:
		return Reject{With: "tcp reset"}
	case ruleset.Unreachable:
		return Reject{With: "port-unreachable"}
	case ruleset.Accept:
		return Verdict{Kind: Accept}
	case ruleset.Return:
		return Verdict{Kind: Return}
	case ruleset.Jump:
		return Verdict{Kind: Jump, Chain: v.Chain}
	case ruleset.Goto:
		return Verdict{Kind: Goto, Chain: v.Chain}
	}
	return Verdict{Kind: Continue}
}

func ofField(f ruleset.Field) Field {
	return [...]Field{ruleset.Src: Src, ruleset.Dst: Dst, ruleset.SrcPort: SrcPort, ruleset.DstPort: DstPort, ruleset.In: InIface,
		ruleset.Out: OutIface}[f]
}

// ofMatch is a match in the open form. A match that it doesn't know is opaque; a test holds that there is none.
func ofMatch(m ruleset.Match) []Match {
	switch m := m.(type) {
	case ruleset.FamilyMatch:
		return []Match{ofFamily(m.Family)}
	case ruleset.IfaceMatch:
		return []Match{among(ofField(m.Field), m.Set, Values{Names: m.Names}, m.Not)}
	case ruleset.AddrMatch:
		return []Match{ofFamily(m.Family), among(ofField(m.Field), m.Set, Values{Addrs: m.Addrs}, m.Not)}
	case ruleset.IfaceAddrMatch:
		return []Match{ofFamily(m.Family), In{Fields: []Field{InIface, ofField(m.Field)}, Set: m.Set, Not: m.Not}}
	case ruleset.FlowMatch:
		return []Match{ofFamily(m.Family), ofFlow(m)}
	case ruleset.ProtoMatch:
		return ofProto(m)
	case ruleset.PortMatch:
		return []Match{Compare{Field: ofField(m.Field), Values: Values{Numbers: ofPorts(m.Ports)}, Not: m.Not}}
	case ruleset.ICMPTypeMatch:
		return ofICMP(m)
	case ruleset.TCPFlagsMatch:
		return []Match{Compare{Field: TCPFlags, Mask: uint64(m.Mask), Values: one(uint64(m.Value)), Not: m.Not}}
	case ruleset.CtStateMatch:
		return []Match{Compare{Field: CtState, Values: Values{Numbers: ofBits(uint8(m.States), []uint64{0, 1, 2, 3, 4})}, Not: m.Not}}
	case ruleset.DNATMatch:
		dnated := Compare{Field: CtStatus, Mask: statusDNAT, Values: one(statusDNAT)}
		if m.Not { // nothing rewrote a packet without a connection either
			return []Match{Any{Of: [][]Match{{dnated}}, Not: true}}
		}
		return []Match{dnated}
	case ruleset.AddrTypeMatch:
		field := map[ruleset.Field]Field{ruleset.Src: SrcType, ruleset.Dst: DstType}[m.Field]
		return []Match{Compare{Field: field, Values: Values{Numbers: ofBits(uint8(m.Types), []uint64{2, 3, 5, 4})}, Not: m.Not}}
	case ruleset.SocketMatch:
		return []Match{Compare{Field: SocketWildcard, Values: one(0)}}
	case ruleset.RateMatch:
		return []Match{Stateful{Kind: "limit", Text: fmt.Sprintf("limit rate %s", m.Rate), Fresh: true}}
	case ruleset.SourceRateMatch:
		return []Match{ofFamily(m.Family), Stateful{Kind: "limit", Text: fmt.Sprintf("limit of each source, over %s", m.Rate)}}
	case ruleset.Opaque:
		return []Match{Opaque{m.Text}}
	}
	return []Match{Opaque{fmt.Sprintf("%T", m)}}
}

// statusDNAT is IPS_DST_NAT.
const statusDNAT = 32

func one(n uint64) Values { return Values{Numbers: []Range{{n, n}}} }

func ofFamily(f ruleset.Family) Match {
	number := uint64(2)
	if f == ruleset.IPv6 {
		number = 10
	}
	return Compare{Field: NFProto, Values: one(number)}
}

// among compares with the values, or with what is in a set.
func among(f Field, set string, v Values, not bool) Match {
	if set != "" {
		return In{Fields: []Field{f}, Set: set, Not: not}
	}
	return Compare{Field: f, Values: v, Not: not}
}

func ofFlow(m ruleset.FlowMatch) Match {
	if m.Field == ruleset.Src {
		return In{Fields: []Field{Proto, Src, SrcPort, Dst}, Set: m.Set}
	}
	return In{Fields: []Field{Proto, Dst, DstPort, Src}, Set: m.Set}
}

// ofProto has ICMP be of its family alone.
func ofProto(m ruleset.ProtoMatch) []Match {
	proto := Compare{Field: Proto, Values: one(uint64(m.Proto)), Not: m.Not}
	var all []Match
	switch m.Proto {
	case 1:
		all = []Match{ofFamily(ruleset.IPv4)}
	case 58:
		all = []Match{ofFamily(ruleset.IPv6)}
	default:
		return []Match{proto}
	}
	proto.Not = false
	all = append(all, proto)
	if m.Not {
		return []Match{Any{Of: [][]Match{all}, Not: true}}
	}
	return all
}

func ofPorts(ports []netset.Ports) []Range {
	all := make([]Range, len(ports))
	for i, p := range ports {
		all[i] = Range{uint64(p.First), uint64(p.Last)}
	}
	return all
}

func ofICMP(m ruleset.ICMPTypeMatch) []Match {
	kind, code := ICMPType, ICMPCode
	if m.Family == ruleset.IPv6 {
		kind, code = ICMPv6Type, ICMPv6Code
	}
	var types Values
	for _, t := range m.Types {
		types.Numbers = append(types.Numbers, Range{uint64(t), uint64(t)})
	}
	all := []Match{ofFamily(m.Family), Compare{Field: kind, Values: types}}
	if m.Code != nil {
		all = append(all, Compare{Field: code, Values: one(uint64(*m.Code))})
	}
	return all
}

// ofBits are the numbers whose bits are set, the lowest bit first.
func ofBits(bits uint8, numbers []uint64) (all []Range) {
	for i, n := range numbers {
		if bits&(1<<i) != 0 {
			all = append(all, Range{n, n})
		}
	}
	return all
}

var keyParts = map[ruleset.Key][]Kind{ruleset.Addr4: {Address}, ruleset.Addr6: {Address}, ruleset.Port: {Number}, ruleset.Iface: {Name},
	ruleset.IfaceAddr4: {Name, Address}, ruleset.IfaceAddr6: {Name, Address}, ruleset.Flow4: {Number, Address, Number, Address},
	ruleset.Flow6: {Number, Address, Number, Address}}

func ofSet(s *ruleset.Set, family Family) *Set {
	out := &Set{Name: s.Name, Family: family, Type: s.Key.String(), Parts: keyParts[s.Key], Addrs: s.Addrs, Dynamic: s.Timeout > 0}
	for _, name := range s.Ifaces {
		out.Elements = append(out.Elements, Element{Key: []Values{{Names: []string{name}}}})
	}
	for _, p := range s.Pairs {
		out.Elements = append(out.Elements, Element{Key: []Values{{Names: []string{p.Iface}}, {Addrs: p.Subnet}}})
	}
	for _, f := range s.Flows {
		out.Elements = append(out.Elements, Element{Key: []Values{one(uint64(f.Proto)), {Addrs: netset.OfAddrs(f.Server.Addr())},
			one(uint64(f.Server.Port())), {Addrs: netset.OfAddrs(f.Client)}}})
	}
	return out
}

func ofMap(m *ruleset.Map, family Family) *Set {
	out := &Set{Name: m.Name, Family: family, Type: m.Key.String(), Parts: keyParts[m.Key], Maps: true}
	for _, e := range m.Elements {
		var key Values
		if m.Key == ruleset.Port {
			key.Numbers = ofPorts([]netset.Ports{e.Ports})
		} else {
			var b netset.Builder
			b.Add(e.Addrs)
			key.Addrs, _ = b.Set()
		}
		v := ofVerdict(e.Verdict).(Verdict)
		out.Elements = append(out.Elements, Element{Key: []Values{key}, Verdict: &v, Comment: e.Origin.Comment()})
	}
	return out
}
