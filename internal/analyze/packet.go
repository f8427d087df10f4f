package analyze

import (
	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
)

// Dials tells whether one packet from outside gets anywhere by the ways to its target, and whether it does whatever it is that
// isn't known. The packet is the first of a connection, and names its interface.
func (a *Analyzer) Dials(q packet.Query) (may, must bool) {
	set := bdd.None
	for _, w := range a.Dial(Target{q.Proto, q.Dst, q.DstPort}) {
		set = a.Or(set, w.set)
	}
	return a.admits(set, q)
}

// Holds is what Dials is, of the set of all packets that get anywhere.
func (a *Analyzer) Holds(q packet.Query) (may, must bool) {
	if a.all == nil {
		all := a.union(a.everything())
		a.all = &all
	}
	return a.admits(*a.all, q)
}

// admits tells whether a packet is in a set, and whether it is in it for sure.
func (a *Analyzer) admits(set bdd.Set, q packet.Query) (may, must bool) {
	for f, v := range map[netfilter.Field]bdd.Value{
		netfilter.Dst: number(q.Dst), netfilter.DstPort: bdd.Small(uint64(q.DstPort)), netfilter.Proto: bdd.Small(uint64(q.Proto)),
		netfilter.InIface: a.iface(q.In), netfilter.Src: number(q.Src), netfilter.SrcPort: bdd.Small(uint64(q.SrcPort)),
		netfilter.ICMPType: bdd.Small(uint64(q.ICMPType)), netfilter.ICMPCode: bdd.Small(uint64(q.ICMPCode)),
		netfilter.ICMPv6Type: bdd.Small(uint64(q.ICMPType)), netfilter.ICMPv6Code: bdd.Small(uint64(q.ICMPCode)),
	} {
		if at, asked := a.places[f]; asked {
			set = a.Cofactor(set, at, v)
		}
	}
	return set != bdd.None, a.certain(set) != bdd.None
}

// certain is the packets of a set that are in it whatever it is that isn't known.
func (a *Analyzer) certain(set bdd.Set) bdd.Set {
	for _, d := range a.doubts {
		set = a.Exists(set.Not(), d.field).Not()
	}
	return set
}
