package ipt

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	"quaywall/internal/nlsock"
	render "quaywall/internal/render/ipt"
)

// appendEntry appends an entry as an attribute of attributes.
func appendEntry(b []byte, e *render.Entry, k render.Kind) []byte {
	b, entry := nlsock.Begin(b, attrData|unix.NLA_F_NESTED)
	if k == render.PortBits {
		b = append16(b, entryPort, e.Ports.First)
		b = append16(b, entryPortTo, e.Ports.Last)
	} else {
		b = appendAddr(b, entryIP, e.Net.Addr())
		b = nlsock.Append(b, entryCIDR, byte(e.Net.Bits()))
	}
	if k == render.IfaceNets {
		b = nlsock.Append(b, entryIface, append([]byte(e.Iface), 0)...)
	}
	if e.Wildcard {
		b = nlsock.Append(b, entryFlags|unix.NLA_F_NET_BYTEORDER, 0, 0, 0, flagWildcard)
	}
	if e.Comment != "" {
		b = nlsock.Append(b, entryComment, append([]byte(e.Comment), 0)...)
	}
	return nlsock.End(b, entry)
}

func appendAddr(b []byte, kind uint16, a netip.Addr) []byte {
	b, nested := nlsock.Begin(b, kind|unix.NLA_F_NESTED)
	if a.Is4() {
		bytes := a.As4()
		b = nlsock.Append(b, addrIPv4|unix.NLA_F_NET_BYTEORDER, bytes[:]...)
	} else {
		bytes := a.As16()
		b = nlsock.Append(b, addrIPv6|unix.NLA_F_NET_BYTEORDER, bytes[:]...)
	}
	return nlsock.End(b, nested)
}

func append16(b []byte, kind, value uint16) []byte {
	return nlsock.Append(b, kind|unix.NLA_F_NET_BYTEORDER, byte(value>>8), byte(value))
}

// entries takes a list of entries in.
func (c *content) entries(list []byte, k render.Kind) {
	for _, data := range nlsock.Attributes(list) {
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
	for kind, value := range nlsock.Attributes(data) {
		switch {
		case kind == entryIP:
			for _, v := range nlsock.Attributes(value) {
				addr, _ = netip.AddrFromSlice(v)
			}
			e.Net = netip.PrefixFrom(addr, addr.BitLen())
		case kind == entryCIDR && len(value) == 1:
			e.Net = netip.PrefixFrom(addr, int(value[0]))
		case kind == entryPort && len(value) == 2:
			port := binary.BigEndian.Uint16(value)
			e.Ports = netset.Ports{First: port, Last: port}
		case kind == entryIface:
			e.Iface = unix.ByteSliceToString(value)
		case kind == entryFlags && len(value) == 4:
			flags := binary.BigEndian.Uint32(value)
			e.Wildcard = flags&flagWildcard != 0
			ok = ok && flags&^flagWildcard == 0
		case kind == entryComment:
			e.Comment = unix.ByteSliceToString(value)
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
