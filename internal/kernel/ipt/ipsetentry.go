package ipt

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	render "quaywall/internal/render/ipt"
)

// A million entries are five million attributes: the decoder and encoder of the netlink library take several times as long
// as what is here.

// appendEntry appends an entry as an attribute of attributes.
func appendEntry(b []byte, e *render.Entry, k render.Kind) []byte {
	b, entry := begin(b, attrData|unix.NLA_F_NESTED)
	if k == render.PortBits {
		b = append16(b, entryPort, e.Ports.First)
		b = append16(b, entryPortTo, e.Ports.Last)
	} else {
		b = appendAddr(b, e.Net.Addr())
		b = appendAttr(b, entryCIDR, byte(e.Net.Bits()))
	}
	if k == render.IfaceNets {
		b = appendAttr(b, entryIface, append([]byte(e.Iface), 0)...)
	}
	if e.Wildcard {
		b = appendAttr(b, entryFlags|unix.NLA_F_NET_BYTEORDER, 0, 0, 0, flagWildcard)
	}
	if e.Comment != "" {
		b = appendAttr(b, entryComment, append([]byte(e.Comment), 0)...)
	}
	return end(b, entry)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	b, nested := begin(b, entryIP|unix.NLA_F_NESTED)
	if a.Is4() {
		bytes := a.As4()
		b = appendAttr(b, addrIPv4|unix.NLA_F_NET_BYTEORDER, bytes[:]...)
	} else {
		bytes := a.As16()
		b = appendAttr(b, addrIPv6|unix.NLA_F_NET_BYTEORDER, bytes[:]...)
	}
	return end(b, nested)
}

func append16(b []byte, kind, value uint16) []byte {
	return appendAttr(b, kind|unix.NLA_F_NET_BYTEORDER, byte(value>>8), byte(value))
}

func appendAttr(b []byte, kind uint16, value ...byte) []byte {
	b, start := begin(b, kind)
	return end(append(b, value...), start)
}

// begin begins an attribute and gives the place where it begins.
func begin(b []byte, kind uint16) ([]byte, int) {
	return binary.NativeEndian.AppendUint16(append(b, 0, 0), kind), len(b)
}

// end writes the length of an attribute that began at start, and fills it up to a multiple of four bytes.
func end(b []byte, start int) []byte {
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// entries takes a list of entries in.
func (c *content) entries(list []byte, k render.Kind) {
	for _, data := range attributes(list, 0) {
		e, count, ok := decodeEntry(data)
		if !ok {
			c.strange = true
		}
		c.Add(e, k)
		if count.Packets > 0 {
			addCount(c.counters, e.Comment, count)
		}
	}
}

// decodeEntry is not ok with an entry that has something in it which quaywall doesn't know.
func decodeEntry(data []byte) (e render.Entry, count kernel.PacketCount, ok bool) {
	ok = true
	var addr netip.Addr
	for kind, value := range attributes(data, 0) {
		switch {
		case kind == entryIP:
			for _, v := range attributes(value, 0) {
				addr, _ = netip.AddrFromSlice(v)
			}
			e.Net = netip.PrefixFrom(addr, addr.BitLen())
		case kind == entryCIDR && len(value) == 1:
			e.Net = netip.PrefixFrom(addr, int(value[0]))
		case kind == entryPort && len(value) == 2:
			port := binary.BigEndian.Uint16(value)
			e.Ports = netset.Ports{First: port, Last: port}
		case kind == entryIface:
			e.Iface = text(value)
		case kind == entryFlags && len(value) == 4:
			flags := binary.BigEndian.Uint32(value)
			e.Wildcard = flags&flagWildcard != 0
			ok = ok && flags&^flagWildcard == 0
		case kind == entryComment:
			e.Comment = text(value)
		case kind == entryPackets && len(value) == 8:
			count.Packets = binary.BigEndian.Uint64(value)
		case kind == entryBytes && len(value) == 8:
			count.Bytes = binary.BigEndian.Uint64(value)
		case kind == entryPad:
		default:
			ok = false
		}
	}
	return e, count, ok
}

// attributes goes over the attributes of a message, behind a header of so many bytes.
func attributes(b []byte, header int) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for b = b[min(header, len(b)):]; len(b) >= 4; {
			length := int(binary.NativeEndian.Uint16(b))
			if length < 4 || length > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&attrTypeMask, b[4:length]) {
				return
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}

// text is a C string.
func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
