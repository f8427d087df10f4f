package sim

import (
	"net/netip"

	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
)

// IP protocol numbers.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// outside is an interface that isn't known: anything but lo and a bridge of Docker's.
const outside = "?"

// tuple is the two ends of a packet.
type tuple struct {
	src, dst     netip.Addr
	sport, dport uint16
}

func (t tuple) reversed() tuple { return tuple{t.dst, t.src, t.dport, t.sport} }

// conn is a connection: as it was begun, and what translation makes of it. It is shared by all its packets.
type conn struct {
	orig             tuple
	now              tuple // what the first packet leaves as
	dstDone, srcDone bool
	icmp             [2]uint8 // type and code of the first packet
	mark             uint64
	labels           [2]uint64 // a bit each
	dnat, snat       bool
}

// pkt is a packet on its way.
type pkt struct {
	tuple
	proto, icmpType, icmpCode, flags uint8
	family                           uint8  // nfIPv4 or nfIPv6
	in, out                          string // as the hook shows them
	inPort, outPort                  string // of bridges, where bridge netfilter shows them
	bridged                          bool
	mark                             uint64
	state                            packet.State
	reply                            bool  // it goes the connection's way back
	untracked                        bool  // by a rule
	ct                               *conn // nil where connection tracking doesn't know it (yet)
	local                            bool  // the host itself sends it
	root                             bool  // a process of root's does
	socket                           bool  // the asker says that it belongs to a socket
	tproxy                           netip.AddrPort
}

// knowledge is what is known of a field.
type knowledge uint8

const (
	has knowledge = iota
	lacks
	unknown
)

func known(v uint64) (uint64, knowledge) { return v, has }

func when(b bool) (uint64, knowledge) {
	if b {
		return 1, has
	}
	return 0, has
}

// String is the packet in short: where from, where to.
func (p *pkt) String() string {
	return packet.ProtoName(p.proto) + " " + end(p.src, p.sport) + " -> " + end(p.dst, p.dport)
}

// address is a field that is an address.
func (p *pkt) address(_ *walk, f netfilter.Field) (netip.Addr, knowledge) {
	switch f {
	case netfilter.Src:
		return p.src, has
	case netfilter.Dst:
		return p.dst, has
	}
	if p.ct == nil {
		return netip.Addr{}, lacks
	}
	switch f {
	case netfilter.CtOrigSrc:
		return p.ct.orig.src, has
	case netfilter.CtOrigDst:
		return p.ct.orig.dst, has
	case netfilter.CtReplySrc:
		return p.ct.now.dst, has
	case netfilter.CtReplyDst:
		return p.ct.now.src, has
	}
	return netip.Addr{}, unknown
}

// name is a field that is a name. An interface that a packet doesn't have is "".
func (p *pkt) name(w *walk, f netfilter.Field) (string, knowledge) {
	switch f {
	case netfilter.InIface:
		return p.in, has
	case netfilter.OutIface:
		return p.out, has
	case netfilter.InBridgePort:
		return p.inPort, has
	case netfilter.OutBridgePort:
		return p.outPort, has
	case netfilter.InKind:
		return w.s.net.kind(p.in)
	case netfilter.OutKind:
		return w.s.net.kind(p.out)
	case netfilter.CtHelper:
		if p.ct != nil && p.state == packet.New {
			return "", has
		}
	case netfilter.CGroup:
		if !p.local {
			return "", lacks
		}
	}
	return "", unknown
}

// number is a field that is a number.
func (p *pkt) number(w *walk, f netfilter.Field) (uint64, knowledge) {
	switch f {
	case netfilter.NFProto:
		return known(uint64(p.family))
	case netfilter.Proto:
		return known(uint64(p.proto))
	case netfilter.SrcPort:
		return p.port(p.sport)
	case netfilter.DstPort:
		return p.port(p.dport)
	case netfilter.ICMPType, netfilter.ICMPCode, netfilter.ICMPv6Type, netfilter.ICMPv6Code:
		return p.icmp(f)
	case netfilter.TCPFlags:
		if p.proto != protoTCP {
			return 0, lacks
		}
		return known(uint64(p.flags))
	case netfilter.TCPOption:
		if p.proto != protoTCP {
			return 0, lacks
		}
	case netfilter.FragmentOffset, netfilter.MoreFragments, netfilter.IPsecIn, netfilter.IPsecOut, netfilter.Realm:
		return 0, has
	case netfilter.ExtHeader:
		return noHeader, has
	case netfilter.IPSetSrcPort, netfilter.IPSetDstPort:
		return known(p.ipsetPort(f))
	case netfilter.VLAN:
		return 0, lacks
	case netfilter.EtherType:
		if p.family == nfIPv4 {
			return known(0x0800)
		}
		return known(0x86dd)
	case netfilter.Mark:
		return known(p.mark)
	}
	if v, k, ok := p.wayNumber(w, f); ok {
		return v, k
	}
	if v, k, ok := p.ctNumber(f); ok {
		return v, k
	}
	return p.socketNumber(w, f)
}

// noHeader is the number of no extension header: a packet is taken to have none.
const noHeader = 1 << 32

// ipsetPort is what ipset takes for a port.
func (p *pkt) ipsetPort(f netfilter.Field) uint64 {
	switch {
	case p.proto == protoICMP || p.proto == protoICMPv6:
		return uint64(p.icmpType)<<8 | uint64(p.icmpCode)
	case !hasPorts(p.proto) || p.proto == 33:
		return 0
	case f == netfilter.IPSetSrcPort:
		return uint64(p.sport)
	}
	return uint64(p.dport)
}

func (p *pkt) port(n uint16) (uint64, knowledge) {
	if !hasPorts(p.proto) {
		return 0, lacks
	}
	return uint64(n), has
}

// hasPorts tells whether packets of a protocol have ports.
func hasPorts(proto uint8) bool {
	switch proto {
	case protoTCP, protoUDP, 33, 132, 136: // DCCP, SCTP, UDP-Lite
		return true
	}
	return false
}

func (p *pkt) icmp(f netfilter.Field) (uint64, knowledge) {
	of, v := uint8(protoICMP), p.icmpType
	switch f {
	case netfilter.ICMPCode:
		v = p.icmpCode
	case netfilter.ICMPv6Type:
		of = protoICMPv6
	case netfilter.ICMPv6Code:
		of, v = protoICMPv6, p.icmpCode
	}
	if p.proto != of {
		return 0, lacks
	}
	return uint64(v), has
}

// RTN_* of rtnetlink.
const (
	typeUnicast     = 1
	typeLocal       = 2
	typeBroadcast   = 3
	typeAnycast     = 4
	typeMulticast   = 5
	typeBlackhole   = 6
	typeUnreachable = 7
	typeProhibit    = 8
	typeThrow       = 9
)

// wayNumber are the numbers of a packet's way.
func (p *pkt) wayNumber(w *walk, f netfilter.Field) (v uint64, k knowledge, ok bool) {
	n := w.s.net
	switch f {
	case netfilter.Bridged:
		v, k = when(p.bridged)
	case netfilter.SrcType:
		v = uint64(w.addrType(p.src, w.link(p.src)))
	case netfilter.DstType:
		v = uint64(w.addrType(p.dst, w.link(p.dst)))
	case netfilter.SrcTypeIn:
		v = uint64(w.addrType(p.src, p.in))
	case netfilter.DstTypeIn:
		v = uint64(w.addrType(p.dst, p.in))
	case netfilter.SrcTypeOut:
		v = uint64(w.addrType(p.src, p.out))
	case netfilter.DstTypeOut:
		v = uint64(w.addrType(p.dst, p.out))
	case netfilter.ReverseRoute:
		v, k = when(n.leadsBack(p, false))
	case netfilter.ReverseRouteLoose:
		v, k = when(n.leadsBack(p, true))
	case netfilter.PacketType:
		switch w.addrType(p.dst, "") {
		case typeBroadcast:
			v = 1
		case typeMulticast:
			v = 2
		}
		if p.local {
			k = unknown
		}
	default:
		return 0, 0, false
	}
	return v, k, true
}

// link is the interface that nf_tables asks of a link-local address for, unasked; "" for other addresses.
func (w *walk) link(a netip.Addr) string {
	switch {
	case a.Is4() || !a.IsLinkLocalUnicast() || w.chain.table.Dialect != netfilter.NFT:
		return ""
	case w.pk.in == "":
		return w.pk.out
	}
	return w.pk.in
}

// IPS_* bits of a connection's status.
const (
	statusSeenReply = 2
	statusAssured   = 4
	statusConfirmed = 8
	statusSNAT      = 16
	statusDNAT      = 32
	statusSrcDone   = 128
	statusDstDone   = 256
)

// ctNumber are the numbers of a packet's connection.
func (p *pkt) ctNumber(f netfilter.Field) (v uint64, k knowledge, ok bool) {
	switch f {
	case netfilter.CtState:
		return p.ctState(), has, true
	case netfilter.CtStatus, netfilter.CtDirection, netfilter.CtMark, netfilter.CtLabel, netfilter.CtZone, netfilter.CtProto,
		netfilter.CtOrigSrcPort, netfilter.CtOrigDstPort, netfilter.CtReplySrcPort, netfilter.CtReplyDstPort:
	default:
		return 0, 0, false
	}
	c := p.ct
	if c == nil {
		return 0, lacks, true
	}
	switch f {
	case netfilter.CtStatus:
		v = p.status()
	case netfilter.CtDirection:
		v, k = when(p.reply)
	case netfilter.CtMark:
		v = c.mark
	case netfilter.CtLabel:
		k = lacks
	case netfilter.CtProto:
		v = uint64(p.proto)
	case netfilter.CtZone:
	default:
		v, k = p.ctPort(f)
	}
	return v, k, true
}

// ctPort is what connection tracking keeps where it keeps ports: of ICMP the identifier, and the type and code; of protocols
// without any nothing.
func (p *pkt) ctPort(f netfilter.Field) (uint64, knowledge) {
	c := p.ct
	switch {
	case p.proto == protoICMP || p.proto == protoICMPv6:
		switch f {
		case netfilter.CtOrigDstPort:
			return known(uint64(c.icmp[0])<<8 | uint64(c.icmp[1]))
		case netfilter.CtReplyDstPort:
			return known(uint64(answerType(p.proto, c.icmp[0]))<<8 | uint64(c.icmp[1]))
		}
		return 0, unknown
	case !hasPorts(p.proto):
		return 0, has
	}
	return known(uint64(map[netfilter.Field]uint16{netfilter.CtOrigSrcPort: c.orig.sport, netfilter.CtOrigDstPort: c.orig.dport,
		netfilter.CtReplySrcPort: c.now.dport, netfilter.CtReplyDstPort: c.now.sport}[f]))
}

// answerType is the ICMP type that answers another.
func answerType(proto, request uint8) uint8 {
	switch {
	case proto == protoICMP && request == 8:
		return 0
	case proto == protoICMPv6 && request == 128:
		return 129
	}
	return request
}

// ctState is what connection tracking says. Of packets that it hasn't seen it says invalid.
func (p *pkt) ctState() uint64 {
	switch {
	case p.untracked:
		return uint64(packet.Untracked)
	case p.ct == nil:
		return uint64(packet.Invalid)
	}
	return uint64(p.state)
}

// status is what is known to have happened to the connection. Whether an established one is assured is taken for granted.
func (p *pkt) status() uint64 {
	var v uint64
	if p.state != packet.New {
		v |= statusSeenReply | statusAssured | statusConfirmed
	}
	if p.ct.snat {
		v |= statusSNAT
	}
	if p.ct.dnat {
		v |= statusDNAT
	}
	if p.ct.srcDone {
		v |= statusSrcDone
	}
	if p.ct.dstDone {
		v |= statusDstDone
	}
	return v
}

// socketNumber are the numbers of the socket that a packet belongs to.
func (p *pkt) socketNumber(w *walk, f netfilter.Field) (uint64, knowledge) {
	switch f {
	case netfilter.UID, netfilter.GID:
		switch {
		case !p.local:
			return 0, lacks
		case p.root:
			return 0, has
		}
	case netfilter.SocketFound, netfilter.SocketWildcard:
		return w.socketField(f)
	case netfilter.SocketTransparent:
		return 0, has
	}
	return 0, unknown
}
