package analyze

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/snapshot"
)

// Change is access that one host gives and another doesn't, by a protocol and some of its ports.
type Change struct {
	Family  netfilter.Family
	Proto   uint8
	Also    []uint8 // further protocols without ports of which the same is true
	First   uint16  // ports that are dialled, 0 and 0 for protocols without
	Last    uint16
	From    Sources    // from where
	All     Sources    // from where packets may come at all, by the same interfaces
	Served  bool       // something listens there on one of the hosts, or is published
	To      netset.Set // addresses that are dialled
	Witness Witness
}

// Witness is one packet of a change.
type Witness struct {
	Proto    uint8
	ICMPType uint8
	Src, Dst netip.Addr
	SrcPort  uint16
	DstPort  uint16
	In       string
}

// Difference is what two hosts let in differently. Where all of it is empty they let in the same, whatever the packet.
type Difference struct {
	Gained []Change // gets somewhere on the second host alone
	Lost   []Change // on the first alone
	Moved  []Change // on both, but to another place or by another way
	More   bool     // there are more of one kind than Most
}

// Most bounds the changes of each kind that are told.
const Most = 1000

// Equal tells whether there is no difference.
func (d Difference) Equal() bool { return len(d.Gained)+len(d.Lost)+len(d.Moved) == 0 }

// Compare finds all that two hosts let in differently from outside, for connections that begin. Nobody has to listen. The
// error is ErrTooLarge, or the context's.
func Compare(ctx context.Context, before, after *snapshot.Host) (d Difference, err error) {
	defer stopped(&err)
	for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		f := newFields(family, interfacesOf(before, after))
		limit(ctx, f.Universe, mostOfHost)
		a, b := newAnalyzer(before, f), newAnalyzer(after, f)
		was, is := a.everything(), b.everything()
		all, now := a.union(was), b.union(is)
		known := services(a, b)
		d.Gained = append(d.Gained, b.changes(b.Diff(now, all), known, &d.More)...)
		d.Lost = append(d.Lost, a.changes(a.Diff(all, now), known, &d.More)...)
		moved := bdd.None
		for at, set := range is {
			moved = b.Or(moved, b.Diff(b.And(set, all), was[at]))
		}
		d.Moved = append(d.Moved, b.changes(moved, known, &d.More)...)
	}
	for _, all := range [][]Change{d.Gained, d.Lost, d.Moved} {
		slices.SortStableFunc(all, byService)
	}
	return d, nil
}

// byService puts changes of services in front, by port, so that both families of one stand together.
func byService(x, y Change) int {
	switch {
	case x.Served && y.Served:
		return cmp.Or(cmp.Compare(x.First, y.First), cmp.Compare(x.Proto, y.Proto), cmp.Compare(x.Family, y.Family))
	case x.Served:
		return -1
	case y.Served:
		return 1
	}
	return 0
}

// arrival is where packets get to.
type arrival struct {
	to   netip.AddrPort // that DNAT says; zero for where they were sent
	port uint16         // that redirect says; 0 for none
	out  string         // the interface; "" for this host
}

// everything is all packets that get anywhere from outside, by where they get.
func (a *Analyzer) everything() map[arrival]bdd.Set {
	reached := map[arrival]bdd.Set{}
	in := a.passAll(flows{state{}: a.anywhere()}, beforeNAT, a.asItIs)
	translated := flows{}
	for st, set := range in {
		if st.untracked {
			a.add(translated, st, set)
			continue
		}
		for then, passed := range a.through(dnat, st) {
			a.add(translated, then, a.And(set, a.asItIs(passed)))
		}
	}
	for nat, byNAT := range split(translated) {
		if nat == nil {
			a.untranslated(byNAT, reached)
		} else {
			a.translated(nat, byNAT, reached)
		}
	}
	return reached
}

// anywhere is all that may come in from outside.
func (a *Analyzer) anywhere() bdd.Set {
	return a.Diff(a.entry(netip.Addr{}), a.addrs(netfilter.Dst, netset.MustParse("::1")))
}

// rewriting makes a stage's set one of packets as they came in.
type rewriting func(bdd.Set) bdd.Set

// asItIs is for packets whose destination is the one that was dialled.
func (a *Analyzer) asItIs(set bdd.Set) bdd.Set { return a.dialled(a.status(set, 0), netip.Addr{}, 0) }

// status is a set of packets whose connection has a status: statusDNAT, or 0.
func (a *Analyzer) status(set bdd.Set, status uint64) bdd.Set {
	if place, asked := a.places[netfilter.CtStatus]; asked {
		return a.Cofactor(set, place, bdd.Small(status))
	}
	return set
}

// passAll leads packets through a stage.
func (a *Analyzer) passAll(in flows, s stage, rewrite rewriting) flows {
	out := flows{}
	for st, set := range in {
		for then, passed := range a.through(s, st) {
			a.add(out, then, a.And(set, rewrite(passed)))
		}
	}
	return out
}

// rewrites makes a set of packets as they are when they leave by an interface, "" for to this host, one of packets as they
// came in.
type rewrites func(set bdd.Set, out string) bdd.Set

func (a *Analyzer) untranslated(in flows, reached map[arrival]bdd.Set) {
	a.route(in, arrival{}, func(set bdd.Set, out string) bdd.Set { return a.asItIs(a.leaving(set, out)) }, reached)
}

// route leads packets from behind translation to where they arrive.
func (a *Analyzer) route(in flows, at arrival, by rewrites, reached map[arrival]bdd.Set) {
	switch {
	case !at.to.IsValid():
		in = a.within(in, a.Or(a.addrs(netfilter.Dst, loopbacks).Not(), a.byLoopbackRouters()))
	case at.to.Addr().IsLoopback():
		in = a.within(in, a.byLoopbackRouters())
	}
	in = a.passAll(in, afterNAT, func(set bdd.Set) bdd.Set { return by(set, "") })
	to := func(all netset.Set) flows {
		if at.to.IsValid() { // its address is the same for all packets
			if all.Contains(at.to.Addr()) {
				return in
			}
			return nil
		}
		return a.within(in, a.addrs(netfilter.Dst, all))
	}
	a.arrives(reached, at, a.passAll(to(a.local), input, func(set bdd.Set) bdd.Set { return by(set, "") }))
	if !a.forwards() {
		return
	}
	for dev, dsts := range a.routing.byDev {
		at.out = dev
		leaves := func(set bdd.Set) bdd.Set { return by(set, dev) }
		a.arrives(reached, at, a.passAll(a.passAll(to(dsts.Subtract(a.local)), forward, leaves), postrouting, leaves))
	}
}

func (a *Analyzer) translated(nat *translation, in flows, reached map[arrival]bdd.Set) {
	same := bdd.All
	if nat.addr.IsValid() {
		same = a.And(same, a.Equal(a.field(netfilter.Dst), number(nat.addr)))
	}
	if nat.port != 0 {
		same = a.And(same, a.Equal(a.field(netfilter.DstPort), bdd.Small(uint64(nat.port))))
	}
	// What was dialled by the address and port that it is rewritten to isn't rewritten, and the kernel doesn't say so.
	a.rewritten(nat, a.within(in, same), 0, reached)
	a.rewritten(nat, a.within(in, same.Not()), statusDNAT, reached)
}

func (a *Analyzer) rewritten(nat *translation, in flows, status uint64, reached map[arrival]bdd.Set) {
	at := arrival{port: nat.port}
	if nat.addr.IsValid() {
		at = arrival{to: netip.AddrPortFrom(nat.addr, nat.port)}
	}
	a.route(in, at, func(set bdd.Set, out string) bdd.Set {
		return a.dialled(a.status(a.leaving(set, out), status), nat.addr, nat.port)
	}, reached)
}

func (a *Analyzer) arrives(reached map[arrival]bdd.Set, at arrival, in flows) {
	if set := a.joined(in); set != bdd.None {
		reached[at] = a.Or(reached[at], set)
	}
}

func (a *Analyzer) within(in flows, set bdd.Set) flows {
	out := flows{}
	for st, all := range in {
		a.add(out, st, a.And(all, set))
	}
	return out
}

func (a *Analyzer) leaving(set bdd.Set, dev string) bdd.Set {
	return a.Cofactor(set, a.field(netfilter.OutIface), a.iface(dev))
}

// dialled turns what a stage says of packets that were rewritten to an address and a port, where these are given, into what
// it says of the packets as they were dialled.
func (a *Analyzer) dialled(set bdd.Set, addr netip.Addr, port uint16) bdd.Set {
	if addr.IsValid() {
		set = a.Cofactor(set, a.field(netfilter.Dst), number(addr))
	}
	if port != 0 {
		set = a.Cofactor(set, a.field(netfilter.DstPort), bdd.Small(uint64(port)))
	}
	set = a.original(set, netfilter.CtOrigDstPort, netfilter.DstPort)
	return a.original(set, netfilter.CtOrigDst, netfilter.Dst)
}

// original puts what is asked of the dialled end in the place of what is asked of the packet: value by value, for those
// that the set tells apart. There are few: rules name single addresses and ports.
func (a *Analyzer) original(set bdd.Set, asked, place netfilter.Field) bdd.Set {
	from := a.field(asked)
	if !a.Asks(set, from) {
		return set
	}
	out := bdd.None
	for part, values := range a.Classes(set, from) {
		out = a.Or(out, a.And(part, a.Ranges(a.field(place), values)))
	}
	return out
}

func (a *Analyzer) union(reached map[arrival]bdd.Set) bdd.Set {
	all := bdd.None
	for _, set := range reached {
		all = a.Or(all, set)
	}
	return all
}

// service is a port at addresses where something on one of the hosts is known to take what is sent.
type service struct {
	snapshot.Port
	at netset.Set
}

// nowhere is the address that nobody has, though a host with a route for all takes it for its own.
var nowhere = netset.MustParse("::")

// services are what sockets of the hosts listen on, what is published, and where containers take that.
func services(hosts ...*Analyzer) []service {
	at := map[snapshot.Port]netset.Set{}
	for _, a := range hosts {
		own := a.local.Subtract(loopbacks).Subtract(nowhere) // from outside loopback addresses are dialled for no service's sake
		add := func(p snapshot.Port, addr netip.Addr, both bool) {
			switch {
			case addr.IsUnspecified() && (a.ours(addr) || both):
				at[p] = at[p].Union(own)
			case a.ours(addr):
				at[p] = at[p].Union(netset.OfAddrs(addr))
			}
		}
		for _, s := range a.host.Sockets {
			add(snapshot.Port{Proto: s.Proto, Port: s.Port}, s.Addr, s.Both)
		}
		for _, p := range a.host.Inventory.Published {
			add(snapshot.Port{Proto: p.Proto, Port: p.Port}, p.Addr, false)
		}
		targets := targetsOf(a.host)
		for _, c := range a.host.Containers {
			a.inside(c, targets[c.Name], func(c candidate) { add(snapshot.Port{Proto: c.Proto, Port: c.Port}, c.Addr, false) })
		}
	}
	all := make([]service, 0, len(at))
	for p, addrs := range at {
		all = append(all, service{p, addrs})
	}
	slices.SortFunc(all, func(a, b service) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port.Port, b.Port.Port))
	})
	return all
}

// changes divides a set of packets by protocol and ports, and tells from where they come: those to services one by one, then
// all others. more becomes true where there are more than Most.
func (a *Analyzer) changes(set bdd.Set, services []service, more *bool) []Change {
	var all []Change
	tell := func(part bdd.Set, served bool) bdd.Set {
		if len(all) == Most {
			*more = true
			return part
		}
		c, told := a.change(part, a.witness(part))
		c.Served = served
		all = append(all, c)
		return told
	}
	for _, s := range services {
		port := []netfilter.Range{{First: uint64(s.Port.Port), Last: uint64(s.Port.Port)}}
		there := a.And(a.addrs(netfilter.Dst, s.at), a.And(a.protos(uint64(s.Proto)), a.numbers(netfilter.DstPort, 0, port)))
		for part := a.And(set, there); part != bdd.None && !*more; part = a.And(set, there) {
			set = a.Diff(set, tell(part, true))
		}
	}
	for set != bdd.None && !*more {
		set = a.Diff(set, tell(set, false))
	}
	return all
}

func (a *Analyzer) witness(set bdd.Set) Witness {
	asked := []netfilter.Field{netfilter.Dst, netfilter.DstPort, netfilter.Proto, netfilter.InIface, netfilter.Src, netfilter.SrcPort}
	var at []bdd.Field
	for _, f := range asked {
		at = append(at, a.field(f))
	}
	v := a.Witness(a.likely(set), at)
	w := Witness{Dst: a.address(v[0]), Proto: uint8(v[2].Lo), In: a.ifaces[min(v[3].Lo, uint64(len(a.ifaces)-1))], Src: a.address(v[4])}
	switch {
	case slices.Contains(withPorts, uint64(w.Proto)):
		w.DstPort, w.SrcPort = uint16(v[1].Lo), uint16(v[5].Lo)
	case w.Proto == protoICMP:
		w.ICMPType = a.icmpType(set, w, netfilter.ICMPType, echo)
	case w.Proto == protoICMPv6:
		w.ICMPType = a.icmpType(set, w, netfilter.ICMPv6Type, echo6)
	}
	return w
}

const (
	protoICMP   = 1
	protoICMPv6 = 58
	echo        = 8
	echo6       = 128
)

// icmpType is the type of a witness: that of a ping where it may be.
func (a *Analyzer) icmpType(set bdd.Set, w Witness, f netfilter.Field, ping uint64) uint8 {
	at, asked := a.places[f]
	if !asked {
		return uint8(ping)
	}
	for _, wish := range []bdd.Set{a.protos(uint64(w.Proto)), a.Equal(a.field(netfilter.Dst), number(w.Dst)), a.Equal(a.field(netfilter.Src), number(w.Src)),
		a.Equal(at, bdd.Small(ping))} {
		if with := a.And(set, wish); with != bdd.None {
			set = with
		}
	}
	return uint8(a.Witness(set, []bdd.Field{at})[0].Lo)
}

// far are addresses that stand for somebody far away (RFC 5737, RFC 3849).
var far = netset.MustParse("198.51.100.77 2001:db8:ffff::77")

// likely prefers packets that a person knows: from somebody far away to this host, by TCP or UDP.
func (a *Analyzer) likely(set bdd.Set) bdd.Set {
	var outer []string
	var own netset.Builder
	for _, i := range a.host.Inventory.Interfaces {
		if a.isEntry(i) && !a.host.Inventory.IsDockerBridge(i.Name) {
			outer = append(outer, i.Name)
			for _, p := range i.Addrs {
				if !p.Addr().IsLinkLocalUnicast() {
					own.AddAddr(p.Addr())
				}
			}
		}
	}
	addrs, _ := own.Set()
	ports := func(f netfilter.Field, first, last uint64) bdd.Set {
		return a.numbers(f, 0, []netfilter.Range{{First: first, Last: last}})
	}
	for _, wish := range []bdd.Set{
		a.addrs(netfilter.Dst, addrs), a.names(netfilter.InIface, outer), a.protos(6), a.protos(6, 17), a.protos(1, 58), a.addrs(netfilter.Src, far),
		ports(netfilter.SrcPort, 40_000, 60_000), ports(netfilter.DstPort, 1, 65_535),
	} {
		if with := a.And(set, wish); with != bdd.None {
			set = with
		}
	}
	return set
}

// change is the part of a set that is of one protocol and of those ports, and then addresses, which get what the witness's gets;
// protocols without ports are taken together where they get the same.
func (a *Analyzer) change(set bdd.Set, w Witness) (Change, bdd.Set) {
	c := Change{Family: a.family, Proto: w.Proto, Witness: w}
	proto, port := a.field(netfilter.Proto), a.field(netfilter.DstPort)
	part := a.And(set, a.protos(uint64(w.Proto)))
	if !slices.Contains(withPorts, uint64(w.Proto)) {
		for _, i := range a.Classes(set, proto)[a.Cofactor(set, proto, bdd.Small(uint64(w.Proto)))] {
			for n := i.First.Lo; n <= i.Last.Lo; n++ {
				if n != uint64(w.Proto) && !slices.Contains(withPorts, n) {
					c.Also = append(c.Also, uint8(n))
					part = a.Or(part, a.And(set, a.protos(n)))
				}
			}
		}
	} else {
		for _, i := range a.Classes(part, port)[a.Cofactor(part, port, bdd.Small(uint64(w.DstPort)))] {
			if first, last := uint16(i.First.Lo), uint16(i.Last.Lo); first <= w.DstPort && w.DstPort <= last {
				c.First, c.Last = first, last
			}
		}
		part = a.And(part, a.numbers(netfilter.DstPort, 0, []netfilter.Range{{First: uint64(c.First), Last: uint64(c.Last)}}))
	}
	dst := a.field(netfilter.Dst)
	part = a.And(part, a.Ranges(dst, a.Classes(part, dst)[a.Cofactor(part, dst, number(w.Dst))]))
	c.From, c.To = a.bySource(a.Exists(part, bdd.Field{First: 0, Bits: a.field(netfilter.InIface).First})), a.destinations(part)
	c.All = Sources{}
	for iface := range c.From {
		c.All[iface] = a.comeBy(iface)
	}
	return c, part
}

// destinations are the addresses that packets of a set are sent to.
func (a *Analyzer) destinations(set bdd.Set) netset.Set {
	dst := a.field(netfilter.Dst)
	return a.members(a.only(set, dst), dst)
}
