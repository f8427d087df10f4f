package ipt

import (
	"encoding/binary"
	"fmt"
	"net/netip"

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

// Digest is a summary of entries that doesn't depend on their order, for the kernel keeps none: the sum of their hashes.
// It tells content that differs by accident, not by design: who writes a policy has no need to deceive it. The zero value is
// that of no entries.
type Digest struct {
	sum   [2]uint64
	count int
}

// Add takes an entry in. A range of ports counts as that many entries.
func (d *Digest) Add(e Entry, k Kind) {
	text := hashText(e.Iface, hashText(e.Comment, 0))
	if e.Wildcard {
		text++
	}
	if k != PortBits {
		addr := e.Net.Addr().As16()
		d.add(binary.BigEndian.Uint64(addr[:8]), binary.BigEndian.Uint64(addr[8:]), text+uint64(e.Net.Bits())<<1)
		return
	}
	for p := uint64(e.Ports.First); p <= uint64(e.Ports.Last); p++ {
		d.add(0, p, text)
	}
}

func (d *Digest) add(a, b, c uint64) {
	for i := range d.sum {
		seed := uint64(i) * 0xc2b2ae3d27d4eb4f
		d.sum[i] += mix(mix(mix(seed+a)+b) + c)
	}
	d.count++
}

// mix is a round of splitmix64: each bit of the result depends on each bit of x.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashText goes on with a hash; texts that follow each other are kept apart.
func hashText(s string, h uint64) uint64 {
	for i := range len(s) {
		h = mix(h + uint64(s[i]) + 1)
	}
	return mix(h)
}

// Elements is how many entries were taken in.
func (d *Digest) Elements() int { return d.count }

// String is the digest in hex.
func (d *Digest) String() string { return fmt.Sprintf("%016x%016x", d.sum[0], d.sum[1]) }
