package ipt

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"

	"quaywall/internal/netset"
)

// Entry is one element of a set. Which fields count follows from the set's kind.
type Entry struct {
	Net      netip.Prefix // of Nets and IfaceNets
	Iface    string       // of IfaceNets
	Wildcard bool         // Iface is the beginning of a name
	Ports    netset.Ports // of PortBits; the kernel keeps each port for itself
	Comment  string       // of sets that count
}

// appendText writes an entry as ipset reads it.
func (e *Entry) appendText(b []byte, k Kind) []byte {
	switch k {
	case PortBits:
		b = strconv.AppendUint(b, uint64(e.Ports.First), 10)
		if e.Ports.Last != e.Ports.First {
			b = append(b, '-')
			b = strconv.AppendUint(b, uint64(e.Ports.Last), 10)
		}
	default:
		if e.Net.IsSingleIP() {
			b = e.Net.Addr().AppendTo(b)
		} else {
			b = e.Net.AppendTo(b)
		}
	}
	if k == IfaceNets {
		b = append(append(b, ','), e.Iface...)
		if e.Wildcard {
			b = append(b, " wildcard"...)
		}
	}
	if e.Comment != "" {
		b = append(append(append(b, ` comment "`...), e.Comment...), '"')
	}
	return b
}

// Digest is a summary of entries that doesn't depend on their order, for the kernel keeps none: the sum of their hashes,
// lane by lane. The zero value is that of no entries.
type Digest struct {
	lanes [4]uint64
	count int
	buf   []byte
}

// Add takes an entry in. A range of ports counts as that many entries.
func (d *Digest) Add(e Entry, k Kind) {
	if k != PortBits {
		addr := e.Net.Addr().As16()
		d.buf = append(append(d.buf[:0], addr[:]...), byte(e.Net.Bits()))
		d.add(&e)
		return
	}
	for p := int(e.Ports.First); p <= int(e.Ports.Last); p++ {
		d.buf = binary.BigEndian.AppendUint16(d.buf[:0], uint16(p))
		d.add(&e)
	}
}

func (d *Digest) add(e *Entry) {
	d.buf = append(append(d.buf, e.Iface...), 0)
	if e.Wildcard {
		d.buf = append(d.buf, '*')
	}
	d.buf = append(append(d.buf, 0), e.Comment...)
	sum := sha256.Sum256(d.buf)
	for i := range d.lanes {
		d.lanes[i] += binary.BigEndian.Uint64(sum[8*i:])
	}
	d.count++
}

// Elements is how many entries were taken in.
func (d *Digest) Elements() int { return d.count }

// String is the digest in hex.
func (d *Digest) String() string {
	var b []byte
	for _, l := range d.lanes {
		b = binary.BigEndian.AppendUint64(b, l)
	}
	return hex.EncodeToString(b[:16])
}
