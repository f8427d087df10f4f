package netfilter

import (
	"net/netip"

	"quaywall/internal/netset"
)

// Match is one condition of a rule. The types that implement it are those of this file and no others.
type Match interface{ match() }

// Compare holds for packets whose field has one of these values, or with Not for those that have the field and none of
// these values. A packet that lacks the field (ports of ICMP, the connection of an untracked packet, an interface that isn't
// known at the hook) is compared like nothing else: neither with Not nor without does it hold, but for interfaces, which
// are "" then.
type Compare struct {
	Field Field
	Mask  uint64 // of numbers: bits that are compared; 0 for all
	// AddrMask is the bits of addresses that are compared where they are no prefix ("::1/::ffff"); the zero Addr for all.
	AddrMask netip.Addr
	Values
	Not bool
}

// Values are values of a field; which of these are filled follows from the field's Kind.
type Values struct {
	Addrs   netset.Set // of both families, unless a match on NFProto stands before
	Numbers []Range
	Names   []string // a name, or a prefix and "*"; the "*" that is itself the end of a name stands as "\*"
}

// Range is numbers, both ends included.
type Range struct{ First, Last uint64 }

// In holds for packets whose fields are, together, in a set; with Not for those that have the fields and are not. A set of
// ipset of one part and a list:set of such take the first field.
type In struct {
	Fields []Field
	Set    string // of the table, or in iptables of the host; "" for Elements
	// Elements is a set without a name, in its place.
	Elements []Element
	Not      bool
}

// Any holds where one of these lists of matches holds as a whole, with Not where none does.
type Any struct {
	Of  [][]Match
	Not bool
}

// Stateful is a match that holds sometimes, for more than is in a packet: limit, hashlimit, recent, quota, connlimit,
// statistic, time and the like. What is new, and comes seldom, meets Fresh.
type Stateful struct {
	Kind  string // "limit", "recent": in the dialect's words
	Text  string
	Fresh bool // whether it holds for a packet unlike any that came lately
}

// Opaque is a match, or what must be one, that isn't understood.
type Opaque struct{ Text string }

func (Compare) match()  {}
func (In) match()       {}
func (Any) match()      {}
func (Stateful) match() {}
func (Opaque) match()   {}
