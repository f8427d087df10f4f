// Package packet is one packet as the policy evaluator and the simulator see it.
//
// Be aware: a Packet is facts, not bytes; Decode takes those from bytes that stand in headers. Where it was dialled to
// counts, before any rewriting by NAT.
package packet

import "net/netip"

// State is what connection tracking says of a packet.
type State uint8

// The states. The zero value is the first packet of a connection.
const (
	New State = iota
	Established
	Related
	Invalid
	Untracked
)

func (s State) String() string {
	return [...]string{"new", "established", "related", "invalid", "untracked"}[s]
}

// TCP flags as they stand in the header (RFC 9293).
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Packet is the facts of one packet.
type Packet struct {
	Proto    uint8 // IP protocol number
	Src, Dst netip.Addr
	SrcPort  uint16
	DstPort  uint16 // the dialled port
	ICMPType uint8
	ICMPCode uint8
	Flags    uint8  // of TCP; SYN for the first packet of a connection
	In       string // interface it comes in by; "" where it is sent by the host itself
	Out      string // interface it leaves by, for packets of the host itself; "" where not known
	State    State
	Socket   bool // it belongs to a socket of this host that isn't bound to the wildcard address: a connection, say
}

// OpensTCP tells whether the flags are those of the first packet of a TCP connection: SYN without ACK.
func (p Packet) OpensTCP() bool { return p.Flags&(SYN|ACK) == SYN }
