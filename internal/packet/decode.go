package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The headers that may stand between the one of IPv6 and the payload's (RFC 8200), by number.
const (
	hopByHop    = 0
	routing     = 43
	fragment    = 44
	destination = 60
)

// errNoPacket is for bytes that don't begin with a whole header of IPv4 or IPv6.
var errNoPacket = errors.New("that is no IP packet")

// Decode reads a packet from its IP header on. It may be cut short behind that: what stood there stays zero. So do ports,
// flags and ICMP type of a fragment that isn't the first. In, Out, State and Socket stand in no header.
func Decode(b []byte) (Packet, error) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return decode4(b)
	case len(b) >= 40 && b[0]>>4 == 6:
		return decode6(b), nil
	}
	return Packet{}, errNoPacket
}

func decode4(b []byte) (Packet, error) {
	header := int(b[0]&0xf) * 4
	if header < 20 {
		return Packet{}, errNoPacket
	}
	p := Packet{Proto: b[9], Src: netip.AddrFrom4([4]byte(b[12:])), Dst: netip.AddrFrom4([4]byte(b[16:]))}
	if isFirst := binary.BigEndian.Uint16(b[6:])&0x1fff == 0; isFirst {
		p.decodePayload(b[min(header, len(b)):])
	}
	return p, nil
}

func decode6(b []byte) Packet {
	p := Packet{Proto: b[6], Src: netip.AddrFrom16([16]byte(b[8:])), Dst: netip.AddrFrom16([16]byte(b[24:]))}
	for b = b[40:]; len(b) >= 8; {
		length := 8 + 8*int(b[1])
		switch p.Proto {
		case hopByHop, routing, destination:
		case protoAH:
			length = 8 + 4*int(b[1])
		case fragment:
			length = 8
			if isFirst := binary.BigEndian.Uint16(b[2:])>>3 == 0; !isFirst {
				p.Proto = b[0]
				return p
			}
		default:
			p.decodePayload(b)
			return p
		}
		p.Proto, b = b[0], b[min(length, len(b)):]
	}
	p.decodePayload(b)
	return p
}

// decodePayload reads what of a transport header there is.
func (p *Packet) decodePayload(b []byte) {
	switch {
	case hasPorts(p.Proto) && len(b) >= 4:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if p.Proto == protoTCP && len(b) > 13 {
			p.Flags = b[13] & (FIN | SYN | RST | PSH | ACK | URG)
		}
	case (p.Proto == protoICMP || p.Proto == protoICMPv6) && len(b) >= 2:
		p.ICMPType, p.ICMPCode = b[0], b[1]
	}
}
