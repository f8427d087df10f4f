package judge

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/testkit/frame"
)

// IP protocol numbers that the policy language has no constant for.
const (
	igmp     = 2
	gre      = 47
	esp      = 50
	ah       = 51
	fragment = 44 // the extension header of IPv6
)

// payload is what follows the header of a transport protocol. Connection tracking puts IPv6 fragments together only if
// all but the last fill the smallest MTU that IPv6 knows, so a packet that is cut has more.
func (p *probe) payload() []byte {
	if p.pieces > 1 && p.pk.Dst.Is6() {
		return bytes.Repeat([]byte("quaywall"), 1280/8)
	}
	return []byte("quaywall judges this, whatever it may be")
}

// firstPiece is the length of each fragment's body but the last's.
func (p *probe) firstPiece() int {
	if p.pk.Dst.Is6() {
		return 1280 - 40 - 8
	}
	return 16
}

// datagram is the packet of a probe from its IP header on, in one piece. Its identification is the probe's.
func datagram(p *probe) []byte {
	return ipPacket(p.pk, p.id, transport(p))
}

// ipPacket puts an IP header before what it carries.
func ipPacket(pk packet.Packet, id uint16, body []byte) []byte {
	if pk.Dst.Is4() {
		return append(ipv4Header(pk, id, len(body), 0), body...)
	}
	return append(ipv6Header(pk, id, pk.Proto, len(body)), body...)
}

const (
	moreFragments = 0x2000
	hopLimit      = 255 // Neighbour Discovery is taken with no other
)

func ipv4Header(pk packet.Packet, id uint16, bodyLen int, fragmentField uint16) []byte {
	h := make([]byte, 20)
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(20+bodyLen))
	binary.BigEndian.PutUint16(h[4:], id)
	binary.BigEndian.PutUint16(h[6:], fragmentField)
	h[8], h[9] = hopLimit, pk.Proto
	copy(h[12:], pk.Src.AsSlice())
	copy(h[16:], pk.Dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return h
}

func ipv6Header(pk packet.Packet, label uint16, next uint8, bodyLen int) []byte {
	h := make([]byte, 40)
	binary.BigEndian.PutUint32(h, 6<<28|uint32(label))
	binary.BigEndian.PutUint16(h[4:], uint16(bodyLen))
	h[6], h[7] = next, hopLimit
	copy(h[8:], pk.Src.AsSlice())
	copy(h[24:], pk.Dst.AsSlice())
	return h
}

// transport is what the IP header carries: a header as connection tracking wants it, and a payload.
func transport(p *probe) []byte {
	pk := p.pk
	switch pk.Proto {
	case policy.TCP:
		segment := tcpSegment(pk, p.id)
		if p.pieces > 1 {
			segment = append(segment, p.payload()...)
		}
		return summed(pk, segment, 16, p.badSum)
	case policy.UDP:
		b := append(make([]byte, 8), p.payload()...)
		binary.BigEndian.PutUint16(b, pk.SrcPort)
		binary.BigEndian.PutUint16(b[2:], pk.DstPort)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		return summed(pk, b, 6, p.badSum)
	case policy.SCTP:
		return frame.SCTPInit(pk.SrcPort, pk.DstPort, uint32(p.id)|1<<16)
	case policy.ICMP, policy.ICMPv6:
		return icmpMessage(p)
	case igmp:
		b := make([]byte, 8)
		b[0] = 0x11
		binary.BigEndian.PutUint16(b[2:], checksum(b))
		return b
	case gre:
		return append([]byte{0, 0, 0x08, 0}, p.payload()...)
	case ah:
		b := make([]byte, 12)
		b[0], b[1] = policy.UDP, 1
		return append(b, p.payload()...)
	}
	return append([]byte{0, 0, 1, 0, 0, 0, 0, 1}, p.payload()...)
}

// tcpSegment carries the probe's id as sequence and acknowledgement numbers, so that a reset tells which packet it
// answers.
func tcpSegment(pk packet.Packet, id uint16) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, pk.SrcPort)
	binary.BigEndian.PutUint16(b[2:], pk.DstPort)
	binary.BigEndian.PutUint32(b[4:], uint32(id)<<16)
	binary.BigEndian.PutUint32(b[8:], uint32(id)<<16)
	b[12], b[13] = 5<<4, pk.Flags
	binary.BigEndian.PutUint16(b[14:], 65535)
	return b
}

// pseudoHeader is what checksums cover of the IP header.
func pseudoHeader(pk packet.Packet, length int) []byte {
	h := append(append([]byte{}, pk.Src.AsSlice()...), pk.Dst.AsSlice()...)
	h = binary.BigEndian.AppendUint32(h, uint32(length))
	return append(h, 0, 0, 0, pk.Proto)
}

// summed fills in the checksum of TCP, UDP and ICMPv6, or a wrong one.
func summed(pk packet.Packet, b []byte, at int, wrong bool) []byte {
	sum := checksum(append(pseudoHeader(pk, len(b)), b...))
	if sum == 0 {
		sum = 0xffff
	}
	if wrong {
		sum ^= 0x5555
	}
	binary.BigEndian.PutUint16(b[at:], sum)
	return b
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// icmpMessage is an ICMP or ICMPv6 message. An error holds the head of the packet that it is about: one of a connection
// that is tracked where the probe names it, else one that nobody knows. That packet's own identification is 0, so that it
// is not taken for an answer.
func icmpMessage(p *probe) []byte {
	b := make([]byte, 8)
	b[0], b[1] = p.pk.ICMPType, p.pk.ICMPCode
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], 1)
	if isICMPError(p.pk) {
		binary.BigEndian.PutUint32(b[4:], 0)
		if p.pk.Proto == policy.ICMPv6 && p.pk.ICMPType == 2 {
			binary.BigEndian.PutUint32(b[4:], 1280)
		}
		b = append(b, ipPacket(p.about, 0, transport(&probe{pk: p.about}))...)
	} else {
		b = append(b, p.payload()...)
	}
	if p.pk.Proto == policy.ICMPv6 {
		return summed(p.pk, b, 2, p.badSum)
	}
	sum := checksum(b)
	if p.badSum {
		sum ^= 0x5555
	}
	binary.BigEndian.PutUint16(b[2:], sum)
	return b
}

// isICMPError tells whether connection tracking takes a message for an error about another packet.
func isICMPError(pk packet.Packet) bool {
	if pk.Proto == policy.ICMP {
		switch pk.ICMPType {
		case 3, 4, 5, 11, 12:
			return true
		}
		return false
	}
	return pk.Proto == policy.ICMPv6 && pk.ICMPType < 128
}

// fragments cuts a packet into pieces, for every other probe with the last piece first.
func fragments(p *probe) [][]byte {
	body := transport(p)
	if p.pieces < 2 {
		return [][]byte{ipPacket(p.pk, p.id, body)}
	}
	var out [][]byte
	for at, left := 0, p.pieces; left > 0; left-- {
		end := at + p.firstPiece()
		if left == 1 {
			end = len(body)
		}
		out = append(out, piece(p, body[at:end], at, left > 1))
		at = end
	}
	if p.id%2 == 0 {
		out[0], out[len(out)-1] = out[len(out)-1], out[0]
	}
	return out
}

func piece(p *probe, body []byte, at int, more bool) []byte {
	field := uint16(at / 8)
	if p.pk.Dst.Is4() {
		if more {
			field |= moreFragments
		}
		return append(ipv4Header(p.pk, p.id, len(body), field), body...)
	}
	h := make([]byte, 8)
	h[0] = p.pk.Proto
	field <<= 3
	if more {
		field |= 1
	}
	binary.BigEndian.PutUint16(h[2:], field)
	binary.BigEndian.PutUint32(h[4:], uint32(p.id))
	return append(ipv6Header(p.pk, p.id, fragment, 8+len(body)), append(h, body...)...)
}

// ethernet puts a frame's header before a packet.
func ethernet(to net.HardwareAddr, ip []byte) []byte {
	b := make([]byte, 14, 14+len(ip))
	copy(b, to)
	copy(b[6:], []byte{2, 0, 0, 0, 0, 9})
	b[12], b[13] = 0x08, 0x00
	if ip[0]>>4 == 6 {
		b[12], b[13] = 0x86, 0xdd
	}
	return append(b, ip...)
}

// answered tells which probe a packet answers: a reset by its numbers, a port-unreachable by the packet it holds.
func answered(ip []byte) (id uint16, kind answer) {
	proto, body, ok := split(ip)
	switch {
	case !ok:
		return 0, noAnswer
	case proto == policy.TCP && len(body) >= 20 && body[13]&packet.RST != 0 && identification(ip) == 0:
		return resetID(body), reset
	case proto == policy.ICMP && len(body) > 28 && body[0] == 3 && body[1] == 3:
		return identification(body[8:]), unreachable
	case proto == policy.ICMPv6 && len(body) > 48 && body[0] == 1 && body[1] == 4:
		return identification(body[8:]), unreachable
	}
	return 0, noAnswer
}

// resetID finds the id in a reset (RFC 9293, 3.10.7.1): the answer to an ACK has its acknowledgement as sequence number,
// the answer to anything else has the sequence number and what it takes as acknowledgement.
func resetID(tcp []byte) uint16 {
	if seq := binary.BigEndian.Uint32(tcp[4:]); seq != 0 {
		return uint16(seq >> 16)
	}
	return uint16(binary.BigEndian.Uint32(tcp[8:]) >> 16)
}

// split gives the protocol and the body of an IP packet without options.
func split(ip []byte) (proto uint8, body []byte, ok bool) {
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		return ip[9], ip[min(len(ip), int(ip[0]&15)*4):], true
	case len(ip) >= 40 && ip[0]>>4 == 6:
		return ip[6], ip[40:], true
	}
	return 0, nil, false
}

// ends are the addresses of an IP packet.
func ends(ip []byte) (src, dst netip.Addr) {
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	case len(ip) >= 40 && ip[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	}
	return netip.Addr{}, netip.Addr{}
}

// identification is IPv4's identification, IPv6's flow label.
func identification(ip []byte) uint16 {
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		return binary.BigEndian.Uint16(ip[4:])
	case len(ip) >= 40 && ip[0]>>4 == 6:
		return uint16(binary.BigEndian.Uint32(ip))
	}
	return 0
}

// addrOf is an address of the family of another.
func addrOf(family netip.Addr, four, six string) netip.Addr {
	if family.Is4() {
		return netip.MustParseAddr(four)
	}
	return netip.MustParseAddr(six)
}
