package ruleset

import (
	"quaywall/internal/netset"
	"quaywall/internal/rate"
)

// Match is one condition of a rule. The types that implement it are those of this file and no others.
type Match interface{ match() }

// FamilyMatch holds for packets of one family.
type FamilyMatch struct{ Family Family } // IPv4 or IPv6

// IfaceMatch holds for packets by the interface that they come in or leave by: one of Names (a name, or a prefix and
// "*"), or one in the set of key Iface that Set names.
type IfaceMatch struct {
	Field Field // In or Out
	Names []string
	Set   string
	Not   bool
}

// AddrMatch holds for packets by an address of one family: one in Addrs, or one in the set that Set names. The rule is
// of that family even under Not.
type AddrMatch struct {
	Field  Field  // Src or Dst
	Family Family // IPv4 or IPv6
	Addrs  netset.Set
	Set    string
	Not    bool
}

// IfaceAddrMatch holds for packets whose incoming interface and address are, together, in a set of key IfaceAddr4 or
// IfaceAddr6.
type IfaceAddrMatch struct {
	Field  Field  // Src or Dst
	Family Family // IPv4 or IPv6
	Set    string
	Not    bool
}

// FlowMatch holds for packets between the two ends of a flow in the set of key Flow4 or Flow6 that Set names: with Src
// those that its server sends, with Dst those that are sent to it. Packets of protocols without ports are of none.
type FlowMatch struct {
	Field  Field  // Src or Dst
	Family Family // IPv4 or IPv6
	Set    string
}

// ProtoMatch holds for packets of a transport protocol. ICMP and ICMPv6 imply their family.
type ProtoMatch struct {
	Proto uint8 // IP protocol number
	Not   bool
}

// PortMatch holds for packets by port; an earlier ProtoMatch names the protocol.
type PortMatch struct {
	Field Field // SrcPort or DstPort
	Ports []netset.Ports
	Not   bool
}

// ICMPTypeMatch holds for ICMP (IPv4) or ICMPv6 (IPv6) packets of one of the types, and of the code where one is given.
type ICMPTypeMatch struct {
	Family Family // IPv4 or IPv6
	Types  []uint8
	Code   *uint8
}

// TCPFlagsMatch holds for TCP packets whose flags, under Mask, are Value. The bits are those of package packet.
type TCPFlagsMatch struct {
	Mask, Value uint8
	Not         bool
}

// CtStateMatch holds for packets in one of the states of connection tracking.
type CtStateMatch struct {
	States CtState
	Not    bool
}

// CtState is a set of states of connection tracking.
type CtState uint8

// The states.
const (
	StateNew CtState = 1 << iota
	StateEstablished
	StateRelated
	StateInvalid
	StateUntracked
)

// DNATMatch holds for packets of connections whose destination was rewritten.
type DNATMatch struct{ Not bool }

// AddrTypeMatch holds for packets whose address is, to this host's routing, of one of the types.
type AddrTypeMatch struct {
	Field Field // Src or Dst
	Types AddrType
	Not   bool // none of them
}

// AddrType is a set of kinds of address (RTN_* of rtnetlink).
type AddrType uint8

// The kinds of address.
const (
	TypeLocal AddrType = 1 << iota
	TypeBroadcast
	TypeMulticast
	TypeAnycast
)

// SocketMatch holds for packets that belong to a socket of this host which isn't bound to the wildcard address:
// connected ones, and listeners on one address.
type SocketMatch struct{}

// RateMatch holds as long as packets come no faster than a rate, for all packets together.
type RateMatch struct{ Rate rate.Rate }

// SourceRateMatch holds for packets by whose source address (IPv6: its /64) come more than a rate. Name names the table
// of sources in the kernel; family and name together are unique.
type SourceRateMatch struct {
	Family Family // IPv4 or IPv6
	Name   string
	Rate   rate.Rate
}

// Opaque is a match that could be read but not understood. No renderer takes it.
type Opaque struct{ Text string }

func (FamilyMatch) match()     {}
func (IfaceMatch) match()      {}
func (AddrMatch) match()       {}
func (IfaceAddrMatch) match()  {}
func (FlowMatch) match()       {}
func (ProtoMatch) match()      {}
func (PortMatch) match()       {}
func (ICMPTypeMatch) match()   {}
func (TCPFlagsMatch) match()   {}
func (CtStateMatch) match()    {}
func (DNATMatch) match()       {}
func (AddrTypeMatch) match()   {}
func (SocketMatch) match()     {}
func (RateMatch) match()       {}
func (SourceRateMatch) match() {}
func (Opaque) match()          {}
