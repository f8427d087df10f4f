package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// buffer is netlink attributes in the making. Lengths and types are in the host's order, nf_tables' values in the
// network's.
type buffer []byte

// bytes adds an attribute.
func (b *buffer) bytes(typ uint16, value []byte) {
	*b = binary.NativeEndian.AppendUint16(*b, uint16(len(value)+unix.SizeofNlAttr))
	*b = binary.NativeEndian.AppendUint16(*b, typ)
	*b = append(*b, value...)
	for len(*b)%unix.NLA_ALIGNTO != 0 {
		*b = append(*b, 0)
	}
}

func (b *buffer) string(typ uint16, s string) { b.bytes(typ, append([]byte(s), 0)) }

func (b *buffer) uint32(typ uint16, v uint32) {
	*b = binary.NativeEndian.AppendUint16(*b, unix.SizeofNlAttr+4)
	*b = binary.NativeEndian.AppendUint16(*b, typ)
	*b = binary.BigEndian.AppendUint32(*b, v)
}

func (b *buffer) uint64(typ uint16, v uint64) { b.bytes(typ, binary.BigEndian.AppendUint64(nil, v)) }

// open begins an attribute of attributes, which close ends.
func (b *buffer) open(typ uint16) (at int) {
	at = len(*b)
	*b = binary.NativeEndian.AppendUint16(*b, 0)
	*b = binary.NativeEndian.AppendUint16(*b, typ|unix.NLA_F_NESTED)
	return at
}

func (b *buffer) close(at int) {
	binary.NativeEndian.PutUint16((*b)[at:], uint16(len(*b)-at))
}

// value adds data in the form that keys, masks and the like have: nested once more.
func (b *buffer) value(typ uint16, data []byte) {
	at := b.open(typ)
	b.bytes(unix.NFTA_DATA_VALUE, data)
	b.close(at)
}
