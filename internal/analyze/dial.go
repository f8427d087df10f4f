package analyze

import (
	"cmp"
	"net/netip"
	"slices"

	"quaywall/internal/bdd"
	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/snapshot"
)

// Target is what somebody dials.
type Target struct {
	Proto uint8 // IP protocol number
	Addr  netip.Addr
	Port  uint16
}

// Path is how a packet gets to who serves it.
type Path string

// The paths.
const (
	ToHost   Path = "host"   // a socket of this host, by the address that was dialled
	ByDNAT   Path = "dnat"   // forwarded to where DNAT says, a container most often
	ByProxy  Path = "proxy"  // a docker-proxy of this host, which dials the container itself
	Direct   Path = "direct" // forwarded to the address that was dialled
	NoSocket Path = "none"   // nothing listens there
	Aside    Path = "aside"  // a container's own interface on a link of this host: none of the rules sees it
)

// Way is a way of packets to a target.
type Way struct {
	Path   Path
	To     netip.AddrPort   // where they arrive in the end
	Out    string           // the interface that they are forwarded by
	Socket *snapshot.Socket // of this host; nil for none
	Rule   *netfilter.Rule  // that rewrote the destination; nil for none
	Vague  bool             // it is one of several places, or not known which
	set    bdd.Set          // asks for interface, source, and what is behind them
}

// Dial finds out who gets to a target, by each way that there is, from anywhere outside of this host.
func (a *Analyzer) Dial(t Target) []Way {
	if w, ok := a.aside(t); ok {
		return []Way{w}
	}
	p := place{proto: t.Proto, dst: t.Addr, port: t.Port, origDst: t.Addr, origPort: t.Port}
	in := a.pass(flows{state{}: a.entry(t.Addr)}, beforeNAT, p)
	in = a.translate(in, p)
	var ways []Way
	for nat, byNAT := range split(in) {
		ways = append(ways, a.arrive(nat, byNAT, p)...)
	}
	slices.SortFunc(ways, func(x, y Way) int { return cmp.Or(cmp.Compare(x.Path, y.Path), x.To.Compare(y.To)) })
	return ways
}

// aside is the way to a container that has an interface of its own on a link of this host.
func (a *Analyzer) aside(t Target) (Way, bool) {
	for _, u := range a.host.Inventory.Unseen {
		for _, c := range a.host.Containers {
			on := func(e snapshot.Endpoint) bool { return e.Network == u.Name && slices.Contains(e.Addrs, t.Addr) }
			if slices.ContainsFunc(c.Networks, on) {
				byLink := a.And(a.entry(t.Addr), a.names(netfilter.InIface, []string{u.Parent}))
				return Way{Path: Aside, To: netip.AddrPortFrom(t.Addr, t.Port), set: byLink}, true
			}
		}
	}
	return Way{}, false
}

// split divides packets by their translation.
func split(in flows) map[*translation]flows {
	all := map[*translation]flows{}
	for st, set := range in {
		nat := st.nat
		st.nat = nil
		if all[nat] == nil {
			all[nat] = flows{}
		}
		all[nat][st] = set
	}
	return all
}

// arrive leads packets from where their destination is known to who serves it.
func (a *Analyzer) arrive(nat *translation, in flows, p place) []Way {
	w := Way{}
	if nat != nil {
		w.Rule, w.Vague = nat.rule.Rule, nat.vague
		if nat.addr.IsValid() {
			p.dst = nat.addr
		}
		if nat.port != 0 {
			p.port = nat.shifted(p.port)
		}
	}
	p.dnat = p.dst != p.origDst || p.port != p.origPort // else nothing is rewritten, and the kernel doesn't say so
	w.To = netip.AddrPortFrom(p.dst, p.port)
	in = a.pass(a.notMartian(in, p), afterNAT, p)
	if a.local.Contains(p.dst) {
		return a.deliver(w, in, p)
	}
	return a.forward(w, in, p)
}

// forward leads packets to where they are routed.
func (a *Analyzer) forward(w Way, in flows, p place) []Way {
	p.out = a.routing.dev(p.dst)
	if p.out == "" || !a.forwards() {
		return nil
	}
	w.Out, w.Path = p.out, Direct
	if p.dnat {
		w.Path = ByDNAT
	}
	in = a.pass(in, forward, p)
	w.set = a.joined(a.pass(in, postrouting, p))
	return []Way{w}
}

func (a *Analyzer) forwards() bool {
	name := map[netfilter.Family]string{netfilter.IPv4: "net.ipv4.ip_forward", netfilter.IPv6: "net.ipv6.conf.all.forwarding"}[a.family]
	value, known := a.host.Sysctls[name]
	return !known || value != "0"
}

// deliver leads packets to a socket of this host, and what a docker-proxy gets on to its container.
func (a *Analyzer) deliver(w Way, in flows, p place) []Way {
	w.set = a.joined(a.pass(in, input, p))
	w.Path, w.Socket = NoSocket, a.socket(p)
	switch {
	case w.Socket == nil || w.Socket.Idle:
	case w.Socket.Process == "docker-proxy":
		w.Path = ByProxy
		if to := w.Socket.To; to.IsValid() {
			w.To = to
			if !a.sends(w.Socket.Proto, to) {
				w.set = bdd.None
			}
		}
	default:
		w.Path = ToHost
	}
	return []Way{w}
}

// sends tells whether a packet of the host's own gets out to an address.
func (a *Analyzer) sends(proto uint8, to netip.AddrPort) bool {
	if to.Addr().Is4() != (a.family == netfilter.IPv4) {
		return true // docker-proxy may take the other family: that is another analysis
	}
	p := place{proto: proto, dst: to.Addr(), port: to.Port(), origDst: to.Addr(), origPort: to.Port(), out: a.routing.dev(to.Addr())}
	if p.out == "" {
		return false
	}
	from := a.And(a.Equal(a.field(netfilter.InIface), bdd.Small(0)), a.addrs(netfilter.Src, a.local))
	out := a.pass(flows{state{}: from}, output, p)
	return len(a.pass(out, postrouting, p)) > 0
}

// socket is who serves packets at a place: the one that is bound most closely.
func (a *Analyzer) socket(p place) *snapshot.Socket {
	var best *snapshot.Socket
	rank := func(s *snapshot.Socket) int {
		switch {
		case s.Proto != p.proto || s.Port != p.port:
			return 0
		case s.Addr == p.dst:
			return 3
		case s.Addr.IsUnspecified() && s.Addr.Is4() == p.dst.Is4():
			return 2
		case s.Addr.IsUnspecified() && s.Both && p.dst.Is4():
			return 1
		}
		return 0
	}
	for _, s := range a.sockets[p.port] {
		if rank(s) > 0 && (best == nil || rank(s) > rank(best)) {
			best = s
		}
	}
	return best
}

func (a *Analyzer) joined(in flows) bdd.Set {
	set := bdd.None
	for _, s := range in {
		set = a.Or(set, s)
	}
	return set
}

// entry is what may come in from outside to an address: by each interface that leads out of this host, from any address
// but the host's own. What only a machine on the same link can send is in it.
func (a *Analyzer) entry(dst netip.Addr) bdd.Set {
	if dst == netip.IPv6Loopback() {
		return bdd.None
	}
	if a.entries != nil {
		return *a.entries
	}
	set := bdd.None
	for _, i := range a.host.Inventory.Interfaces {
		if !a.isEntry(i) {
			continue
		}
		set = a.Or(set, a.And(a.names(netfilter.InIface, []string{i.Name}), a.addrs(netfilter.Src, a.comeBy(i.Name))))
	}
	a.entries = &set
	return set
}

// notMartian leaves out what the kernel takes from no wire: packets to a loopback address that no rule has translated.
func (a *Analyzer) notMartian(in flows, p place) flows {
	if !p.dst.IsLoopback() {
		return in
	}
	return a.within(in, a.byLoopbackRouters())
}

// byLoopbackRouters is what comes in by interfaces that loopback addresses are let in by.
func (a *Analyzer) byLoopbackRouters() bdd.Set {
	set := bdd.None
	for _, i := range a.host.Inventory.Interfaces {
		if a.isEntry(i) && a.routesLoopback(i.Name) {
			set = a.Or(set, a.names(netfilter.InIface, []string{i.Name}))
		}
	}
	return set
}

// loopbacks are the addresses that a host talks to itself by.
var loopbacks = netset.MustParse("127.0.0.0/8 ::1")

// neverSources are addresses that no packet may come from (RFC 1122, 3.2.1.3).
var neverSources = loopbacks.Union(netset.MustParse("0.0.0.0/8 ::"))

// comeBy are the addresses that packets which come in by an interface may have: of a Docker network those of its containers.
func (a *Analyzer) comeBy(iface string) netset.Set {
	all := a.routing.all
	if a.host.Inventory.IsDockerBridge(iface) {
		all = netset.Set{}
		for _, n := range a.host.Inventory.Networks {
			if n.Bridge == iface {
				all = all.Union(netset.Of(n.Subnets...).Intersect(a.routing.all))
			}
		}
	}
	for _, never := range []netset.Set{a.local, neverSources, a.routing.byType[typeMulticast], a.routing.byType[typeBroadcast]} {
		all = all.Subtract(never)
	}
	if a.strict(iface) {
		all = all.Intersect(a.routing.byDev[iface])
	}
	return all
}

// isEntry tells whether packets come in by an interface: not by the loopback, nor by ports of a bridge, whose packets come
// in by the bridge.
func (a *Analyzer) isEntry(i inventory.Interface) bool {
	return i.Name != "lo" && i.Up && i.Master == ""
}

// sysctl is the stronger of what is said for an interface and for all.
func (a *Analyzer) sysctl(format func(iface string) string, iface string) string {
	return max(a.host.Sysctls[format(iface)], a.host.Sysctls[format("all")])
}

// strict tells whether a packet's source must be routed out of the interface that it comes in by (RFC 3704).
func (a *Analyzer) strict(iface string) bool {
	return a.family == netfilter.IPv4 && a.sysctl(func(i string) string { return "net.ipv4.conf." + i + ".rp_filter" }, iface) == "1"
}

// routesLoopback tells whether 127.0.0.0/8 may be dialled from outside.
func (a *Analyzer) routesLoopback(iface string) bool {
	return a.family == netfilter.IPv4 && a.sysctl(func(i string) string { return "net.ipv4.conf." + i + ".route_localnet" }, iface) == "1"
}

// Sources are the addresses from which packets get somewhere, by the interface that they come in by.
type Sources map[string]netset.Set

// May is from where packets may get to the target by this way, and Must from where they do whatever it is that isn't
// known. Where nothing is in doubt they are the same.
func (a *Analyzer) May(w Way) Sources { return a.bySource(w.set) }

// Must is described at May.
func (a *Analyzer) Must(w Way) Sources {
	return a.bySource(a.certain(a.controlled(w.set)))
}

// controlled leaves out of a set what who sends a packet is free to choose: for some of it the packet gets through.
func (a *Analyzer) controlled(set bdd.Set) bdd.Set {
	for f, at := range a.places {
		if f != netfilter.InIface && f != netfilter.Src {
			set = a.Exists(set, at)
		}
	}
	return set
}

func (a *Analyzer) bySource(set bdd.Set) Sources {
	if all, known := a.seen[set]; known {
		return all
	}
	all := Sources{}
	a.seen[set] = all
	src, in := a.field(netfilter.Src), a.field(netfilter.InIface)
	set = a.Exists(set, bdd.Field{First: src.First + src.Bits, Bits: a.next - src.First - src.Bits})
	for n, name := range a.ifaces {
		if s := a.members(a.Cofactor(set, in, bdd.Small(uint64(n))), src); name != "" && !s.IsEmpty() {
			all[name] = s
		}
	}
	return all
}

// Doubts are the rules that nobody can tell the effect of, and that this way depends on.
func (a *Analyzer) Doubts(w Way) []*netfilter.Rule {
	var all []*netfilter.Rule
	for _, d := range a.doubts {
		if d.rule.Rule != nil && !slices.Contains(all, d.rule.Rule) && a.Asks(w.set, d.field) {
			all = append(all, d.rule.Rule)
		}
	}
	return all
}

// Everybody is from where packets to an address may come at all, by interface.
func (a *Analyzer) Everybody(dst netip.Addr) Sources { return a.bySource(a.entry(dst)) }
