package analyze

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/snapshot"
)

// space is the fields of a packet of one family as fields of a diagram, and what rules ask of one host.
type space struct {
	*fields
	facts        hostFacts
	cache        map[cacheKey]bdd.Set // of rules that ask for no state
	translations map[translationKey]*translation
	open         *openFields // nil where packets are those that begin a connection with a known host
}

// cacheKey is a rule, for packets that have a connection or for others.
type cacheKey struct {
	*netfilter.Rule
	tracked bool
}

// fields are the fields of packets. Hosts that are compared share them.
type fields struct {
	*bdd.Universe
	family netfilter.Family // IPv4 or IPv6
	ifaces []string         // by their number in InIface and OutIface; the first, "", is no interface at all
	places map[netfilter.Field]bdd.Field
	next   uint32 // the first variable that is free
	doubts []doubt
	byText map[string]bdd.Set // the bit of each doubt: what is said in the same words in the same place is the same
}

// doubt is a bit that nobody knows, and the rule that asks for it.
type doubt struct {
	field bdd.Field
	rule  rule
	what  string
}

// order is the fields in the order of their variables. Of the orders that were measured it is the one in which large rule
// sets stay small: rules name the destination most often together with a port; sources next to destinations cost a
// hundred times as much.
var order = []netfilter.Field{
	netfilter.Dst, netfilter.DstPort, netfilter.Proto, netfilter.OutIface, netfilter.InIface, netfilter.Src, netfilter.SrcPort,
	netfilter.CtOrigDst, netfilter.CtOrigDstPort,
}

func newFields(family netfilter.Family, ifaces []string) *fields {
	f := &fields{Universe: bdd.New(), family: family, ifaces: ifaces, places: map[netfilter.Field]bdd.Field{}, byText: map[string]bdd.Set{}}
	for _, known := range order {
		f.field(known)
	}
	return f
}

func newSpace(f *fields, facts hostFacts) *space {
	return &space{fields: f, facts: facts, cache: map[cacheKey]bdd.Set{}, translations: map[translationKey]*translation{}}
}

// field is a field's place; a field that no rule asked for so far gets one behind all others.
func (s *fields) field(f netfilter.Field) bdd.Field {
	at, ok := s.places[f]
	if !ok {
		at = bdd.Field{First: s.next, Bits: s.bits(f)}
		s.next += at.Bits
		s.places[f] = at
	}
	return at
}

func (s *fields) bits(f netfilter.Field) uint32 {
	switch f {
	case netfilter.InIface, netfilter.OutIface:
		bits := uint32(1)
		for 1<<bits < len(s.ifaces) {
			bits++
		}
		return bits
	case netfilter.Proto, netfilter.ICMPType, netfilter.ICMPCode, netfilter.ICMPv6Type, netfilter.ICMPv6Code, netfilter.TCPFlags,
		netfilter.TCPOption, netfilter.TTL, netfilter.DSCP, netfilter.ECN:
		return 8
	case netfilter.SrcPort, netfilter.DstPort, netfilter.CtOrigDstPort, netfilter.Length, netfilter.FragmentOffset:
		return 16
	case netfilter.MoreFragments, netfilter.SocketFound, netfilter.SocketWildcard, netfilter.SocketTransparent, netfilter.CtDirection,
		netfilter.Bridged, netfilter.IPsecIn, netfilter.IPsecOut, netfilter.ReverseRoute, netfilter.ReverseRouteLoose:
		return 1
	case netfilter.CtState:
		return 3
	case netfilter.SrcMAC, netfilter.DstMAC:
		return 48
	}
	if f.Kind() == netfilter.Address {
		if s.family == netfilter.IPv4 {
			return 32
		}
		return 128
	}
	return 32
}

// unknown is a bit that nobody knows, which a rule asks for.
func (s *fields) unknown(r rule, what string) bdd.Set {
	key := what
	if r.Rule != nil {
		key = fmt.Sprintf("%d %s %s %s %s %d", r.table.Family, r.table.Name, r.chain.Name, r.Text, what, r.occurrence())
	}
	if bit, ok := s.byText[key]; ok {
		return bit
	}
	d := doubt{field: bdd.Field{First: s.next, Bits: 1}, rule: r, what: what}
	s.next++
	s.doubts = append(s.doubts, d)
	s.byText[key] = s.Equal(d.field, bdd.Small(1))
	return s.byText[key]
}

// addrs is the packets whose address is in a set.
func (s *fields) addrs(f netfilter.Field, set netset.Set) bdd.Set {
	if s.family == netfilter.IPv4 {
		set = set.V4()
	} else {
		set = set.V6()
	}
	all := make([]bdd.Interval, 0, set.Len())
	for r := range set.Each() {
		all = append(all, bdd.Interval{First: number(r.From()), Last: number(r.To())})
	}
	return s.Ranges(s.field(f), all)
}

// number is an address as a number.
func number(a netip.Addr) bdd.Value {
	if a.Is4() {
		b := a.As4()
		return bdd.Small(uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3]))
	}
	b := a.As16()
	var v bdd.Value
	for i := range 8 {
		v.Hi, v.Lo = v.Hi<<8|uint64(b[i]), v.Lo<<8|uint64(b[i+8])
	}
	return v
}

// address is a number as an address.
func (s *fields) address(v bdd.Value) netip.Addr {
	if s.family == netfilter.IPv4 {
		return netip.AddrFrom4([4]byte{byte(v.Lo >> 24), byte(v.Lo >> 16), byte(v.Lo >> 8), byte(v.Lo)})
	}
	var b [16]byte
	for i := range 8 {
		b[7-i], b[15-i] = byte(v.Hi>>(8*i)), byte(v.Lo>>(8*i))
	}
	return netip.AddrFrom16(b)
}

// members are the addresses that a set which asks nothing but a field holds.
func (s *fields) members(set bdd.Set, f bdd.Field) netset.Set {
	var b netset.Builder
	for _, i := range s.Intervals(set, f) {
		b.Add(netipx.IPRangeFrom(s.address(i.First), s.address(i.Last)))
	}
	all, _ := b.Set() // intervals of a diagram are in order
	return all
}

// numbers is the packets whose field, under a mask, is in one of the ranges.
func (s *fields) numbers(f netfilter.Field, mask uint64, ranges []netfilter.Range) bdd.Set {
	at := s.field(f)
	if mask == 0 {
		return s.Ranges(at, intervals(ranges, at.Bits))
	}
	set := bdd.None
	for _, r := range ranges {
		set = s.Or(set, s.maskedRange(at, mask, r))
	}
	return set
}

// maskedRange is the values of a field that are in a range once a mask is put on them. The masked bits are compared from
// the highest on, as they stand.
func (s *fields) maskedRange(at bdd.Field, mask uint64, r netfilter.Range) bdd.Set {
	atLeast, atMost := bdd.All, bdd.All
	for bit := range at.Bits {
		m := uint64(1) << bit
		one := s.Masked(at, bdd.Small(m), bdd.Small(m))
		if mask&m == 0 { // the value has 0 there
			if r.First&m != 0 {
				atLeast = bdd.None
			}
			if r.Last&m != 0 {
				atMost = bdd.All
			}
			continue
		}
		if r.First&m != 0 {
			atLeast = s.And(one, atLeast)
		} else {
			atLeast = s.Or(one, atLeast)
		}
		if r.Last&m != 0 {
			atMost = s.Or(one.Not(), atMost)
		} else {
			atMost = s.And(one.Not(), atMost)
		}
	}
	if at.Bits < 64 && r.First>>at.Bits != 0 {
		return bdd.None
	}
	if at.Bits < 64 && r.Last>>at.Bits != 0 {
		atMost = bdd.All
	}
	return s.And(atLeast, atMost)
}

// intervals puts ranges in order, joins them, and cuts what the field can't hold.
func intervals(ranges []netfilter.Range, bits uint32) []bdd.Interval {
	most := ^uint64(0)
	if bits < 64 {
		most = 1<<bits - 1
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b netfilter.Range) int {
		if a.First < b.First {
			return -1
		}
		return 1
	})
	var all []bdd.Interval
	for _, r := range sorted {
		if r.First > most || r.First > r.Last {
			continue
		}
		last := min(r.Last, most)
		if n := len(all); n > 0 && r.First <= all[n-1].Last.Lo+1 && all[n-1].Last.Lo+1 != 0 {
			all[n-1].Last.Lo = max(all[n-1].Last.Lo, last)
		} else {
			all = append(all, bdd.Interval{First: bdd.Small(r.First), Last: bdd.Small(last)})
		}
	}
	return all
}

// names is the packets whose interface has one of these names; a pattern ends in "*".
func (s *fields) names(f netfilter.Field, names []string) bdd.Set {
	var numbers []netfilter.Range
	for i, name := range s.ifaces {
		if slices.ContainsFunc(names, func(pattern string) bool { return matches(pattern, name) }) {
			numbers = append(numbers, netfilter.Range{First: uint64(i), Last: uint64(i)})
		}
	}
	return s.numbers(f, 0, numbers)
}

// matches tells whether a name is what a pattern names.
func matches(pattern, name string) bool {
	if plain, ok := strings.CutSuffix(pattern, `\*`); ok {
		return plain+"*" == name
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// iface is the number of an interface; one that isn't there is none.
func (s *fields) iface(name string) bdd.Value {
	return bdd.Small(uint64(max(0, slices.Index(s.ifaces, name))))
}

// interfacesOf lists the interfaces of a universe: none at all, those of the hosts, those that rules name, and for each
// pattern one that nothing else names.
func interfacesOf(hosts ...*snapshot.Host) []string {
	var names []string
	var rules []*netfilter.Rules
	for _, h := range hosts {
		for _, i := range h.Inventory.Interfaces {
			names = append(names, i.Name)
		}
		rules = append(rules, &h.Rules)
	}
	return interfacesIn(names, rules...)
}

// interfacesIn lists the interfaces of rules, with others.
func interfacesIn(names []string, rules ...*netfilter.Rules) []string {
	all := []string{""}
	add := func(name string) {
		if plain, ok := strings.CutSuffix(name, `\*`); ok {
			name = plain + "*"
		} else if prefix, ok := strings.CutSuffix(name, "*"); ok {
			name = prefix + "…"
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	for _, name := range names {
		add(name)
	}
	for _, r := range rules {
		eachName(r, add)
	}
	add("*")
	return all
}
