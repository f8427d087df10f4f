package nlsock

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// The decoders and encoders of the netlink libraries take several times as long as what is here, which a million of
// attributes show.

// Append appends an attribute.
func Append(b []byte, kind uint16, value ...byte) []byte {
	b, start := Begin(b, kind)
	return End(append(b, value...), start)
}

// Begin begins an attribute and gives the place where it begins.
func Begin(b []byte, kind uint16) ([]byte, int) {
	return binary.NativeEndian.AppendUint16(append(b, 0, 0), kind), len(b)
}

// End writes the length of an attribute that began at start, and fills it up to a multiple of four bytes.
func End(b []byte, start int) []byte {
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// typeMask leaves the flags for nested ones and for the byte order out.
const typeMask = 0x3fff

// Attributes goes over attributes. It ends at what is no attribute.
func Attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofNlAttr || length > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&typeMask, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min((length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
		}
	}
}
