package analyze

import (
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
)

// openFields are what a space knows where it is for packets of any kind, on a host of which nothing but the rules is known: what
// rules ask of connections, marks and routes are fields as well, and whether a named set holds a packet is a bit.
type openFields struct {
	bits   map[string]bdd.Field
	of     map[netfilter.Field][]bdd.Field // the bits that ask for a field
	doubts []bdd.Field                     // for what nobody knows: rules use the same ones
	asked  int                             // of doubts, by the rule in hand
}

// codes are the numbers that relations of packets and numbers have; behind all that packets have.
var codes = bdd.Field{First: 65_500, Bits: 24}

func newOpenSpace(family netfilter.Family, ifaces []string) *space {
	s := newSpace(newFields(family, ifaces), hostFacts{})
	s.open = &openFields{bits: map[string]bdd.Field{}, of: map[netfilter.Field][]bdd.Field{}}
	return s
}

// newBit is a field of one bit.
func (s *fields) newBit() bdd.Field {
	f := bdd.Field{First: s.next, Bits: 1}
	s.next++
	return f
}

// doubt is the next bit that nobody knows, of those that the rule in hand asks for.
func (s *space) doubt() bdd.Set {
	if s.open.asked == len(s.open.doubts) {
		s.open.doubts = append(s.open.doubts, s.newBit())
	}
	s.open.asked++
	return s.Equal(s.open.doubts[s.open.asked-1], bdd.Small(1))
}

// bit is a bit that is the same wherever the same is asked. It is about a field, or about none.
func (s *space) bit(f netfilter.Field, what string) bdd.Set {
	return s.Equal(s.bitField(f, what), bdd.Small(1))
}

func (s *space) bitField(f netfilter.Field, what string) bdd.Field {
	at, known := s.open.bits[what]
	if !known {
		at = s.newBit()
		s.open.bits[what] = at
		s.open.of[f] = append(s.open.of[f], at)
	}
	return at
}

// bounds are the packets that may meet a rule's matches, and those that do whatever it is that isn't known.
type bounds struct{ may, must bdd.Set }

// bound asks a rule, or an element of a map that it looks into.
func (s *space) bound(ask func() bdd.Set) bounds {
	s.open.asked = 0
	set := ask()
	b := bounds{set, set}
	for _, d := range s.open.doubts[:s.open.asked] {
		b.may, b.must = s.Exists(b.may, d), s.Exists(b.must.Not(), d).Not()
	}
	return b
}

// tracked is the packets that have a connection.
func (s *space) tracked() bdd.Set {
	return s.Range(s.field(netfilter.CtState), bdd.Small(uint64(packet.New)), bdd.Small(uint64(packet.Related)))
}

// had is the packets that have a field as far as it doesn't hang on their protocol.
func (s *space) had(f netfilter.Field) bdd.Set {
	if isOfConnection(f) {
		return s.tracked()
	}
	switch f {
	case netfilter.SrcPort, netfilter.DstPort, netfilter.ICMPType, netfilter.ICMPCode, netfilter.ICMPv6Type, netfilter.ICMPv6Code, netfilter.TCPFlags,
		netfilter.TCPOption, netfilter.IPSetSrcPort, netfilter.IPSetDstPort:
		return s.Equal(s.field(netfilter.FragmentOffset), bdd.Small(0))
	case netfilter.SocketWildcard, netfilter.SocketTransparent, netfilter.SocketMark:
		return s.Equal(s.field(netfilter.SocketFound), bdd.Small(1))
	case netfilter.UID, netfilter.GID, netfilter.CGroup:
		return s.bit(netfilter.NoField, "sent by a process here")
	case netfilter.SrcMAC, netfilter.DstMAC, netfilter.VLAN, netfilter.ExtHeader, netfilter.Realm:
		return s.bit(netfilter.NoField, fmt.Sprint("has field ", f))
	}
	return bdd.All
}

// mostBits is how many numbers of a field that has several at once are told apart.
const mostBits = 64

// openValues is the packets whose field has one of the values, where each field may have any.
func (s *space) openValues(c netfilter.Compare) (set bdd.Set, known bool) {
	switch c.Field {
	case netfilter.TCPOption, netfilter.ExtHeader, netfilter.CtLabel: // a packet has several, or none
		return s.several(c)
	case netfilter.InIface, netfilter.OutIface:
		return s.names(c.Field, c.Names), true
	case netfilter.IPSetSrcPort, netfilter.IPSetDstPort:
		return bdd.None, false
	}
	switch c.Field.Kind() {
	case netfilter.Address:
		return s.addresses(c.Field, c)
	case netfilter.Name:
		names := slices.Sorted(slices.Values(c.Names))
		return s.bit(c.Field, fmt.Sprint("field ", c.Field, " ", strings.Join(names, " "))), true
	}
	return s.numbers(c.Field, c.Mask, c.Numbers), true
}

func (s *space) several(c netfilter.Compare) (bdd.Set, bool) {
	set := bdd.None
	for _, r := range c.Numbers {
		if c.Mask != 0 || r.Last-r.First >= mostBits {
			return bdd.None, false
		}
		for n := r.First; n <= r.Last; n++ {
			set = s.Or(set, s.bit(c.Field, has(c.Field, n)))
		}
	}
	return set, true
}

// has is the bit of a number that a field has among others.
func has(f netfilter.Field, n uint64) string { return fmt.Sprint("field ", f, " has ", n) }

// assigned is what packets become by an action that sets a field. Where it can't be told what the field becomes it may be
// anything.
func (s *space) assigned(set bdd.Set, a netfilter.Assign) bdd.Set {
	if a.Field == netfilter.CtLabel {
		label := s.bitField(a.Field, has(a.Field, a.Value))
		return s.And(s.Exists(set, label), s.Equal(label, bdd.Small(1)))
	}
	for _, bit := range s.open.of[a.Field] {
		set = s.Exists(set, bit)
	}
	at := s.field(a.Field)
	if a.From != netfilter.NoField || a.Add != 0 {
		return s.Exists(set, at)
	}
	for i := range at.Bits {
		set = s.assignedBit(set, bdd.Field{First: at.First + i, Bits: 1}, a, uint64(1)<<(at.Bits-1-i))
	}
	return set
}

func (s *space) assignedBit(set bdd.Set, at bdd.Field, a netfilter.Assign, bit uint64) bdd.Set {
	one := s.Equal(at, bdd.Small(1))
	switch {
	case a.Mask&bit != 0 && a.Value&bit != 0:
		return s.And(s.Exists(set, at), one)
	case a.Mask&bit != 0:
		return s.Diff(s.Exists(set, at), one)
	case a.Value&bit != 0:
		return s.Or(s.And(s.Cofactor(set, at, bdd.Small(0)), one), s.Diff(s.Cofactor(set, at, bdd.Small(1)), one))
	}
	return set
}
