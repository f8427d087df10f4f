// Package frame builds whole Ethernet frames, right and wrong ones, and takes captured ones apart.
//
//	w := frame.Way{SrcMAC: client.MAC("eth0"), DstMAC: host.MAC("eth0"), Src: spoofed, Dst: target}
//	err := client.Send(ctx, "eth0", w.TCP(frame.SYN|frame.FIN))
//	parts := frame.Fragment(w.UDP([]byte("long …")), 16)
//
// Be aware: only what tests of a packet filter need: no options, no VLAN tags, no extension headers but the fragment's.
package frame

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// Way is where a frame comes from and where it goes.
type Way struct {
	SrcMAC, DstMAC net.HardwareAddr
	Src, Dst       netip.AddrPort // of one family; the ports are used by TCP, UDP and SCTP alone
}

const (
	etherLen = 14
	v4Len    = 20
	v6Len    = 40
)

// TCP is a segment with these flags, sequence number 1000.
func (w Way) TCP(flags uint8, data ...byte) []byte {
	return w.TCPAt(flags, 1000, 0, data...)
}

// TCPAt is a segment with chosen sequence and acknowledgement numbers.
func (w Way) TCPAt(flags uint8, seq, ack uint32, data ...byte) []byte {
	h := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(h[0:], w.Src.Port())
	binary.BigEndian.PutUint16(h[2:], w.Dst.Port())
	binary.BigEndian.PutUint32(h[4:], seq)
	binary.BigEndian.PutUint32(h[8:], ack)
	h[12], h[13] = 5<<4, flags
	binary.BigEndian.PutUint16(h[14:], 64240)
	return w.summed(unix.IPPROTO_TCP, append(h, data...), 16)
}

// UDP is a datagram.
func (w Way) UDP(data []byte) []byte {
	h := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(h[0:], w.Src.Port())
	binary.BigEndian.PutUint16(h[2:], w.Dst.Port())
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(data)))
	return w.summed(unix.IPPROTO_UDP, append(h, data...), 6)
}

// SCTP is the first packet of an association.
func (w Way) SCTP() []byte {
	return w.IP(unix.IPPROTO_SCTP, SCTPInit(w.Src.Port(), w.Dst.Port(), 1))
}

// SCTPInit is the payload of an association's first packet (RFC 9260): a common header and an INIT chunk. The tag is not 0.
func SCTPInit(src, dst uint16, tag uint32) []byte {
	b := make([]byte, 12+20)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[12] = 1
	binary.BigEndian.PutUint16(b[14:], 20)
	binary.BigEndian.PutUint32(b[16:], tag)
	binary.BigEndian.PutUint32(b[20:], 65535)
	b[25], b[27] = 1, 1
	binary.BigEndian.PutUint32(b[28:], 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// ICMP is an ICMP or ICMPv6 message, by the family of the way. The body begins after the checksum.
func (w Way) ICMP(kind, code uint8, body []byte) []byte {
	msg := append([]byte{kind, code, 0, 0}, body...)
	if w.Dst.Addr().Is6() {
		return w.summed(unix.IPPROTO_ICMPV6, msg, 2)
	}
	binary.BigEndian.PutUint16(msg[2:], checksum(0, msg))
	return w.IP(unix.IPPROTO_ICMP, msg)
}

// summed puts the checksum over pseudo-header and payload at an offset.
func (w Way) summed(proto uint8, payload []byte, at int) []byte {
	sum := add(0, w.Src.Addr().AsSlice())
	sum = add(sum, w.Dst.Addr().AsSlice())
	sum += uint32(proto) + uint32(len(payload))
	binary.BigEndian.PutUint16(payload[at:], checksum(sum, payload))
	return w.IP(proto, payload)
}

// IP is a packet of any protocol, its payload as it is.
func (w Way) IP(proto uint8, payload []byte) []byte {
	frame := append(append([]byte(nil), w.DstMAC...), w.SrcMAC...)
	if w.Dst.Addr().Is4() {
		frame = append(frame, 0x08, 0x00)
		return append(append(frame, w.v4(proto, len(payload))...), payload...)
	}
	frame = append(frame, 0x86, 0xdd)
	h := make([]byte, 8, v6Len)
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = proto, 255 // as Neighbour Discovery asks for
	h = append(h, w.Src.Addr().AsSlice()...)
	h = append(h, w.Dst.Addr().AsSlice()...)
	return append(append(frame, h...), payload...)
}

func (w Way) v4(proto uint8, payload int) []byte {
	h := make([]byte, 12, v4Len)
	h[0] = 4<<4 | v4Len/4
	binary.BigEndian.PutUint16(h[2:], uint16(v4Len+payload))
	binary.BigEndian.PutUint16(h[4:], 1) // an identification, for fragments
	h[8], h[9] = 64, proto
	h = append(h, w.Src.Addr().AsSlice()...)
	h = append(h, w.Dst.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(0, h))
	return h
}

func add(sum uint32, data []byte) uint32 {
	for i, b := range data {
		if i%2 == 0 {
			sum += uint32(b) << 8
		} else {
			sum += uint32(b)
		}
	}
	return sum
}

func checksum(sum uint32, data []byte) uint16 {
	sum = add(sum, data)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Fragment cuts the packet of a frame into fragments whose payloads have this size, a multiple of 8.
func Fragment(frame []byte, size int) [][]byte {
	header, cut := etherLen+v6Len, fragment6
	if frame[12] == 0x08 {
		header, cut = etherLen+v4Len, fragment4
	}
	var parts [][]byte
	payload := frame[header:]
	for at := 0; at < len(payload); at += size {
		end := min(at+size, len(payload))
		parts = append(parts, cut(frame[:header], payload[at:end], at, end < len(payload)))
	}
	return parts
}

func fragment4(header, payload []byte, at int, more bool) []byte {
	f := append([]byte(nil), header...)
	ip := f[etherLen:]
	binary.BigEndian.PutUint16(ip[2:], uint16(v4Len+len(payload)))
	field := uint16(at / 8)
	if more {
		field |= 1 << 13
	}
	binary.BigEndian.PutUint16(ip[6:], field)
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	return append(f, payload...)
}

func fragment6(header, payload []byte, at int, more bool) []byte {
	f := append([]byte(nil), header...)
	ip := f[etherLen:]
	binary.BigEndian.PutUint16(ip[4:], uint16(8+len(payload)))
	ext := []byte{ip[6], 0, 0, 0, 0, 0, 0, 1}
	ip[6] = unix.IPPROTO_FRAGMENT
	field := uint16(at)
	if more {
		field |= 1
	}
	binary.BigEndian.PutUint16(ext[2:], field)
	return append(append(f, ext...), payload...)
}

// Packet is what matters of a captured frame.
type Packet struct {
	Way
	Proto   uint8
	Flags   uint8  // of TCP
	Payload []byte // what follows the IP header
}

// Parse takes a frame apart. Frames that are not IP, and those cut short, are not ok.
func Parse(frame []byte) (p Packet, ok bool) {
	if len(frame) < etherLen {
		return p, false
	}
	p.DstMAC, p.SrcMAC = frame[0:6], frame[6:12]
	var src, dst netip.Addr
	ip := frame[etherLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		if len(ip) < v4Len || len(ip) < int(ip[0]&15)*4 {
			return p, false
		}
		p.Proto, p.Payload = ip[9], ip[int(ip[0]&15)*4:]
		src, dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	case unix.ETH_P_IPV6:
		if len(ip) < v6Len {
			return p, false
		}
		p.Proto, p.Payload = ip[6], ip[v6Len:]
		src, dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	default:
		return p, false
	}
	var sport, dport uint16
	if (p.Proto == unix.IPPROTO_TCP || p.Proto == unix.IPPROTO_UDP) && len(p.Payload) >= 8 {
		sport, dport = binary.BigEndian.Uint16(p.Payload), binary.BigEndian.Uint16(p.Payload[2:])
	}
	if p.Proto == unix.IPPROTO_TCP && len(p.Payload) >= 14 {
		p.Flags = p.Payload[13]
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return p, true
}
