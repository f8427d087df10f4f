package nftlist

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
)

// attrs are attributes by their types.
type attrs map[uint16][]byte

func attributes(b []byte) attrs {
	a := attrs{}
	for typ, value := range nlsock.Attributes(b) {
		a[typ] = value
	}
	return a
}

// nested are the attributes of one; nil where it isn't there.
func (a attrs) nested(typ uint16) attrs {
	b, ok := a[typ]
	if !ok {
		return nil
	}
	return attributes(b)
}

// number is a value in network byte order, 0 where there is none.
func (a attrs) number(typ uint16) uint64 { return bigEndian(a[typ]) }

func (a attrs) text(typ uint16) string { return unix.ByteSliceToString(a[typ]) }

// has tells whether an attribute is there.
func (a attrs) has(typ uint16) bool {
	_, ok := a[typ]
	return ok
}

// zero is a string with its zero.
func zero(s string) []byte { return append([]byte(s), 0) }

// bigEndian is a number of up to 8 bytes in network byte order; of a longer one it is 0.
func bigEndian(b []byte) uint64 {
	var n uint64
	if len(b) > 8 {
		return 0
	}
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

// native is a number in the host's byte order.
func native(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	case 8:
		return binary.NativeEndian.Uint64(b)
	}
	return 0
}
