package netfilter

// Field is something of a packet, its connection, or the host, that rules ask for.
type Field uint8

// The fields. Numbers stand as they are in headers and constants of the kernel.
const (
	NoField Field = iota

	// Of the packet.
	NFProto // NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10)
	Proto   // transport protocol
	Src
	Dst
	SrcPort
	DstPort
	ICMPType // of ICMP; of ICMPv6 see ICMPv6Type
	ICMPCode
	ICMPv6Type
	ICMPv6Code
	TCPFlags
	TCPOption // number of an option that is there
	ExtHeader // number of an extension header of IPv6 that is there: 0 hop-by-hop, 43 routing, 44 fragment, 51 AH, 60 destination
	// What ipset takes for a port: that of TCP, UDP, UDP-Lite and SCTP, of ICMP and ICMPv6 256 times the type and the code, 0
	// of other protocols. Fragments behind the first lack it if their protocol is one of those named.
	IPSetSrcPort
	IPSetDstPort
	Length // of the whole packet from the IP header on, in bytes
	TTL    // or hop limit
	DSCP
	ECN
	FragmentOffset // in units of 8 bytes; 0 for the first fragment and for whole packets
	MoreFragments  // 0 or 1
	SrcMAC
	DstMAC
	EtherType
	VLAN
	PacketType // PACKET_HOST (0), PACKET_BROADCAST (1), PACKET_MULTICAST (2), PACKET_OTHERHOST (3)

	// Of its way.
	InIface
	OutIface
	InBridgePort // physdev: where bridge netfilter shows the packet
	OutBridgePort
	Bridged // 0 or 1: it goes from port to port of one bridge
	InKind  // kind of the interface: "bridge", "veth", …
	OutKind
	InGroup // devgroup
	OutGroup
	SrcType // RTN_* of the source address in the host's routing: RTN_UNICAST (1), RTN_LOCAL (2), RTN_BROADCAST (3), …
	DstType
	SrcTypeIn // the same, asked for the interface that the packet comes in by
	DstTypeIn
	SrcTypeOut // for the one that it leaves by
	DstTypeOut
	ReverseRoute      // 1 where the way back to the source leads out of the interface that the packet came in by, else 0
	ReverseRouteLoose // 1 where there is a way back, whichever interface it leads out of
	Mark
	Priority
	Realm
	IPsecIn // 0 or 1: it came through an IPsec policy
	IPsecOut

	// Of its connection.
	CtState     // packet.State: new 0, established 1, related 2, invalid 3, untracked 4
	CtStatus    // IPS_* bits: expected 1, seen reply 2, assured 4, confirmed 8, snat 16, dnat 32
	CtDirection // 0 original, 1 reply
	CtMark
	CtLabel // a bit's number
	CtZone
	CtProto
	CtHelper
	CtOrigSrc
	CtOrigDst
	CtOrigSrcPort
	CtOrigDstPort
	CtReplySrc
	CtReplyDst
	CtReplySrcPort
	CtReplyDstPort

	// Of the socket that it belongs to.
	SocketFound       // 0 or 1: there is one
	SocketWildcard    // 0 or 1: it is bound to the wildcard address; only where there is one
	SocketTransparent // 0 or 1
	SocketMark
	UID // of a packet that this host sends
	GID
	CGroup // path
)

// Kind is what the values of a field are.
type Kind uint8

// The kinds.
const (
	NoKind Kind = iota
	Address
	Number
	Name
)

// Kind is what the field's values are.
func (f Field) Kind() Kind {
	switch f {
	case NoField:
		return NoKind
	case Src, Dst, CtOrigSrc, CtOrigDst, CtReplySrc, CtReplyDst:
		return Address
	case InIface, OutIface, InBridgePort, OutBridgePort, InKind, OutKind, CtHelper, CGroup:
		return Name
	}
	return Number
}
