package judge

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// probe is one packet to be judged.
type probe struct {
	id     uint16        // names it in its batch; from 1
	pk     packet.Packet // what the evaluator is asked about
	pieces int           // fragments that it is sent in; below 2 is one piece
	badSum bool          // its checksum is wrong
	// bridged tells that it isn't for the host's link address: the bridge hands it from port to port.
	bridged bool
	known   *packet.Packet // the first packet of the connection that is known before this one is sent
	about   packet.Packet  // of an ICMP error, the packet that it is about
	flood   int            // number of the flood that it belongs to; 0 for none
	kind    string         // what it was meant to be, for the report

	want   eval.Decision
	narrow bool // the rule that decides has a limit that may be used up
}

// judgedBy asks the evaluator.
func (p *probe) judgedBy(pol *policy.Policy, inv *inventory.Inventory) {
	p.want = eval.Evaluate(pol, inv, p.pk)
	p.narrow = p.want.Limited && pol.Rules(p.want.Section)[p.want.Rule].Limit.String() != wideLimit
}

// lost tells whether the kernel itself throws a packet away behind the gate, or before it: it can't be seen to pass.
func (p *probe) lost() bool {
	src, dst := p.pk.Src, p.pk.Dst
	if p.pk.In == "" {
		return false
	}
	switch {
	case src.Is4():
		zero := src.As4()[0] == 0 && dst != broadcast4
		return unjoined(dst) || zero || dst.As4()[0] == 0 || src.IsMulticast() || src == broadcast4 || isIn(directed, src)
	case src.IsMulticast(), src.IsLoopback(), src.IsUnspecified(), dst.IsLoopback(), dst.IsUnspecified(), isMapped(src), isMapped(dst):
		return true
	}
	if unjoined(dst) || src.IsLinkLocalUnicast() && isDNATed(p.pk) {
		return true
	}
	return src.IsLinkLocalUnicast() && !isIn(hostAddrs(), dst) && !isIn(anycast6, dst) && !dst.IsMulticast()
}

// unjoined tells whether an address is that of a group that the host hasn't joined.
func unjoined(a netip.Addr) bool { return a.IsMulticast() && !isIn(multicast, a) }

func isIn(list []string, a netip.Addr) bool { return slices.Contains(list, a.String()) }

func isMapped(a netip.Addr) bool {
	return netip.MustParsePrefix("::ffff:0:0/96").Contains(a) || a.Is4In6()
}

// isToMany tells whether an address is that of more than one machine.
func isToMany(a netip.Addr) bool {
	return a.IsMulticast() || isIn(directed, a) || a == broadcast4
}

// isFlooded tells whether a bridge carries a packet to all of its ports, whatever becomes of the host's copy.
func (p *probe) isFlooded() bool {
	isBridge := slices.ContainsFunc(cards, func(c card) bool { return c.name == p.pk.In && c.port != "" })
	return isBridge && isToMany(p.pk.Dst)
}

// answerable tells whether a reject of this packet is told to its sender: never to one that can't be reached, about a
// packet to many, about a reset, an error, or a packet with a wrong checksum.
func (p *probe) answerable() bool {
	isReset := p.pk.Proto == policy.TCP && p.pk.Flags&packet.RST != 0
	toMany := isToMany(p.pk.Dst) || isIn(anycast6, p.pk.Dst)
	odd := p.pk.Src.IsLoopback() || p.pk.Src.IsUnspecified() || p.pk.In != "" && isIn(hostAddrs(), p.pk.Src) ||
		isIn(anycast6, p.pk.Src) || isIn(linked6, p.pk.Src)
	unknownICMP := p.pk.Proto == policy.ICMP && (p.pk.ICMPType > 18 || slices.Contains([]uint8{1, 2, 6, 7, 9, 10}, p.pk.ICMPType))
	// The way back to a link-local address leads by interfaces that have such a network.
	farLink := p.pk.Src.Is6() && p.pk.Src.IsLinkLocalUnicast() && (p.pk.In != "eth0" && p.pk.In != "docker0" || !linkNetwork.Contains(p.pk.Src))
	return !farLink && !unknownICMP && !isReset && !toMany && !odd && !isICMPError(p.pk) && !p.badSum && !p.bridged && !p.lost()
}

// linkNetwork is where the host's link-local addresses are.
var linkNetwork = netip.MustParsePrefix("fe80::/64")

var broadcast4 = netip.MustParseAddr("255.255.255.255")

// Addresses of the host's networks that are not one machine's.
var (
	directed   = []string{"192.0.2.255", "198.51.100.255", "10.9.0.255", "172.17.255.255", "172.18.255.255", "172.30.0.255", "192.168.122.255"}
	anycast6   = []string{"2001:db8:2::", "2001:db8:51::", "fd09::", "fd00:17::", "fd00:30::", "fd00:122::", "fe80::"}
	linked6    = []string{"fd00:31::", "fd77::"} // first ones of networks where the host has no address: it answers none of them either
	multicast  = []string{"224.0.0.1", "224.0.0.251", "ff02::1", "ff02::fb"}
	containers = []string{"172.17.0.2", "172.17.0.9", "172.18.0.2", "172.30.0.5", "fd00:17::2", "fd00:30::5"}
	elsewhere  = []string{"45.0.0.1", "192.0.2.77", "198.51.100.9", "10.9.0.77", "10.77.0.9", "192.168.122.77",
		"2003:db8::9", "2001:db8:2::77", "2001:db8:51::9", "fd77::9", "fd00:122::77"}
	loopbacks = []string{"127.0.0.1", "127.9.9.9"}
)

// hostAddrs are the host's own addresses, without those of its loopback interface.
func hostAddrs() (all []string) {
	for _, c := range cards {
		for _, p := range prefixes(c.addrs...) {
			all = append(all, p.Addr().String())
		}
	}
	return all
}

// aimer makes packets for one policy.
type aimer struct {
	generator
	p    *policy.Policy
	inv  *inventory.Inventory
	next uint16
}

// probes are packets aimed at a policy: most at the edges of a rule, some anywhere.
func (g generator) probes(p *policy.Policy, inv *inventory.Inventory, n int) []*probe {
	a := &aimer{generator: g, p: p, inv: inv}
	var all []*probe
	for len(all) < n {
		pr := a.probe()
		if pr == nil {
			continue
		}
		a.next++
		pr.id = a.next
		a.finish(pr)
		all = append(all, pr)
	}
	all = append(all, a.floods()...)
	for _, pr := range all {
		pr.judgedBy(p, inv)
	}
	return all
}

// probe makes one packet, nil where what was drawn doesn't fit together.
func (a *aimer) probe() *probe {
	switch a.IntN(20) {
	case 0, 1, 2, 3:
		return a.fromContainer()
	case 4, 5, 6:
		return a.fromHost()
	case 7:
		return a.lifeline()
	}
	return a.fromOutside()
}

// rule draws a rule of a section to aim at, the zero rule where there is none.
func (a *aimer) rule(s policy.Section) policy.Rule {
	rules := a.p.Rules(s)
	if len(rules) == 0 || a.oneIn(5) {
		return policy.Rule{}
	}
	return rules[a.IntN(len(rules))]
}

func (a *aimer) fromOutside() *probe {
	pr := &probe{kind: "from outside"}
	pr.pk.In = pick(a.generator, "eth0", "eth0", "eth0", "eth1", "eth1", "wg0", "virbr0", "br-dmz")
	r := a.rule(policy.Inbound)
	a.aim(pr, r)
	if !pr.pk.Dst.IsValid() {
		switch family := a.family(pr, r); a.IntN(16) {
		case 0:
			pr.pk.Dst, pr.kind = a.among(append(directed, "255.255.255.255"), family), "to a broadcast address"
		case 1:
			pr.pk.Dst, pr.kind = a.among(multicast, family), "to a multicast group"
		case 2:
			pr.pk.Dst, pr.kind = a.among(anycast6, family), "to an anycast address"
		case 3, 4:
			pr.pk.Dst, pr.kind = a.among(containers, family), "to a container's own address"
		case 5:
			pr.pk.Dst, pr.kind = a.among(elsewhere, family), "routed"
		case 6:
			pr.pk.Dst, pr.kind = a.among(loopbacks, family), "to a loopback address"
		default:
			pr.pk.Dst, pr.kind = a.among(hostAddrs(), family), "to the host"
		}
	}
	a.source(pr, r, pr.pk.Dst)
	return pr.checked()
}

func (a *aimer) fromContainer() *probe {
	n := a.inv.Networks[a.IntN(len(a.inv.Networks))]
	pr := &probe{kind: "from a container"}
	pr.pk.In = n.Bridge
	r := a.rule(policy.Egress)
	a.aim(pr, r)
	if family := a.family(pr, r); !pr.pk.Dst.IsValid() {
		switch a.IntN(10) {
		case 0, 1:
			pr.pk.Dst, pr.kind = a.among(containers, family), "from a container to a container"
		case 2, 3:
			pr.pk.Dst, pr.kind = a.among(hostAddrs(), family), "from a container to the host"
		case 4:
			pr.pk.Dst = a.among(slices.Concat(directed, multicast, loopbacks, anycast6, []string{"255.255.255.255"}), family)
		case 5:
			pub := published[a.IntN(len(published))]
			a.dial(pr, pub.Published)
			pr.kind = "from a container to a published port"
		case 6:
			pr.pk.Dst = a.toward(r.To, family)
		default:
			pr.pk.Dst = a.among(elsewhere, family)
		}
	}
	if !pr.pk.Dst.IsValid() {
		return nil
	}
	for _, s := range n.Subnets {
		if s.Addr().Is4() == pr.pk.Dst.Is4() {
			pr.pk.Src = s.Addr().Next().Next() // the first container of the network
		}
	}
	if r.From.Given && a.oneIn(2) || a.oneIn(10) || !pr.pk.Src.IsValid() {
		a.source(pr, r, pr.pk.Dst)
	}
	within := slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(pr.pk.Dst) })
	pr.bridged = within && !isIn(hostAddrs(), pr.pk.Dst) && !isIn(directed, pr.pk.Dst) && !isIn(anycast6, pr.pk.Dst) && a.oneIn(2)
	return pr.checked()
}

func (a *aimer) fromHost() *probe {
	pr := &probe{kind: "from the host"}
	r := a.rule(policy.Outbound)
	a.aim(pr, r)
	family := a.family(pr, r)
	if !pr.pk.Dst.IsValid() {
		switch a.IntN(10) {
		case 0:
			pr.pk.Dst, pr.kind = a.among(hostAddrs(), family), "from the host to itself"
		case 1:
			pr.pk.Dst, pr.kind = a.among(containers, family), "from the host to a container"
		case 2:
			pr.pk.Dst = a.among(append(multicast, "192.0.2.255"), family)
		case 3, 4, 5:
			pr.pk.Dst = a.toward(r.To, family)
		default:
			pr.pk.Dst = a.among(elsewhere, family)
		}
	}
	if !pr.pk.Dst.IsValid() || !a.sendable(pr.pk.Dst) {
		return nil
	}
	return a.leave(pr)
}

// sendable tells whether the host's raw sockets send to an address: not to what the kernel refuses or to where it would
// choose an interface by other means than routes.
func (a *aimer) sendable(dst netip.Addr) bool {
	if dst.Is4() {
		return !dst.IsUnspecified() && dst.As4()[0] != 0 && dst != broadcast4 && dst.As4()[0] < 240
	}
	return !dst.IsUnspecified() && !isMapped(dst) && (!dst.IsLinkLocalUnicast() || isIn(hostAddrs(), dst)) && !isIn(anycast6, dst) &&
		(!dst.IsMulticast() || isIn(multicast, dst))
}

// leave chooses the source and tells by which interface the kernel sends the packet.
func (a *aimer) leave(pr *probe) *probe {
	dst := pr.pk.Dst
	for _, c := range cards {
		for _, p := range prefixes(slices.Concat(c.addrs, c.behind)...) {
			switch {
			case p.Addr() == dst:
				pr.pk.Out, pr.pk.Src = "lo", dst
			case p.Contains(dst) && pr.pk.Out == "" && c.late: // it has no address
				pr.pk.Out, pr.pk.Src = c.name, addrOf(dst, "198.51.100.1", "2001:db8:51::1")
			case p.Contains(dst) && pr.pk.Out == "":
				pr.pk.Out, pr.pk.Src = c.name, p.Addr()
			}
		}
	}
	switch {
	case dst.IsLoopback():
		pr.pk.Out, pr.pk.Src = "lo", dst
	case pr.pk.Out == "lo" && !policy.HasPorts(pr.pk.Proto):
		return nil // connection tracking can't tell the ways of two packets to oneself apart
	case dst.IsMulticast():
		c := cards[4] // eth1: IPv4 follows the routes
		if dst.Is6() {
			c = pick(a.generator, cards[3], cards[4])
		}
		pr.pk.Out, pr.pk.Src = c.name, prefixes(c.addrs...)[btoi(dst.Is6())].Addr()
	case pr.pk.Out == "":
		pr.pk.Out, pr.pk.Src = "eth1", addrOf(dst, "198.51.100.1", "2001:db8:51::1")
	}
	if pr.pk.Out != "lo" && !dst.IsMulticast() && a.oneIn(5) {
		pr.pk.Src = addrOf(dst, "192.0.2.1", "2001:db8:2::1")
	}
	return pr.checked()
}

// lifeline is a packet that networks live on, or one that is nearly one.
func (a *aimer) lifeline() *probe {
	pr := &probe{kind: "lifeline"}
	pr.pk.In = pick(a.generator, "eth0", "eth1", "wg0", "br-dmz", "docker0", "docker0", "br-00000000bace", "br-000000005eed")
	icmp6 := func(types ...uint8) {
		pr.pk.Proto, pr.pk.ICMPType = policy.ICMPv6, pick(a.generator, types...)
		pr.pk.Src, pr.pk.Dst = netip.MustParseAddr("fe80::9"), netip.MustParseAddr(pick(a.generator, "ff02::1", "2001:db8:2::1", "fe80::17"))
		if a.oneIn(2) {
			pr.pk.Src, pr.pk.Dst = a.among(containers, 6), a.among(slices.Concat(elsewhere, containers, multicast, hostAddrs()), 6)
		}
	}
	udp := func(src string, sport uint16, dst string, dport uint16) {
		pr.pk.Proto, pr.pk.SrcPort, pr.pk.DstPort = policy.UDP, sport, dport
		pr.pk.Src, pr.pk.Dst = netip.MustParseAddr(src), netip.MustParseAddr(dst)
	}
	switch a.IntN(8) {
	case 0, 1:
		icmp6(130, 131, 132, 133, 134, 135, 136, 137, 138, 143, 144, 127, 1, 2, 3, 4, 5)
	case 2:
		pr.pk.Proto, pr.pk.ICMPType = policy.ICMP, pick[uint8](a.generator, 3, 11, 12, 4, 5, 9, 10)
		pr.pk.Src, pr.pk.Dst = a.place(4), netip.MustParseAddr(pick(a.generator, "192.0.2.1", "172.17.0.2", "45.0.0.1"))
	case 3:
		pr.pk.Proto = igmp
		pr.pk.Src, pr.pk.Dst = a.place(4), netip.MustParseAddr(pick(a.generator, "224.0.0.1", "192.0.2.1", "45.0.0.1", "172.18.0.2"))
	case 4:
		udp(pick(a.generator, "192.0.2.254", "203.0.113.7", "172.17.0.2"), pick[uint16](a.generator, 67, 67, 66, 68),
			pick(a.generator, "255.255.255.255", "192.0.2.1", "45.0.0.1", "172.30.0.5", "192.0.2.255"), pick[uint16](a.generator, 68, 68, 67))
	case 5:
		udp(pick(a.generator, "fe80::9", "fe80::9", "2001:db8:9::7"), pick[uint16](a.generator, 547, 547, 999),
			pick(a.generator, "fe80::a", "2001:db8:2::1", "fe80::17", "fe80::99", "ff02::1"), pick[uint16](a.generator, 546, 546, 545))
	case 6:
		pr.pk.In = ""
		udp("192.0.2.1", 68, pick(a.generator, "192.0.2.254", "45.0.0.1"), pick[uint16](a.generator, 67, 69))
		return a.leave(pr)
	default:
		pr.pk.In = ""
		udp("fe80::a", 546, "ff02::1", pick[uint16](a.generator, 547, 548))
		return a.leave(pr)
	}
	if pr.pk.Dst.Is6() && pr.pk.Dst.IsLinkLocalUnicast() { // elsewhere no route leads there
		pr.pk.In = pick(a.generator, "eth0", "docker0")
	}
	return pr.checked()
}

// aim sets what a rule is about: protocol and port or type near its edges, and for published ports the address. Where
// there is no rule, anything.
func (a *aimer) aim(pr *probe, r policy.Rule) {
	if len(r.On) > 0 && a.oneIn(2) && pr.pk.In != "" && !strings.HasPrefix(pr.kind, "from a container") {
		for _, name := range []string{"eth1", "wg0", "eth0"} {
			if policy.MatchesInterface(r.On, name) {
				pr.pk.In = name
			}
		}
	}
	if r.To.Network != "" {
		if n, ok := a.inv.Network(r.To.Network); ok {
			s := n.Subnets[a.IntN(len(n.Subnets))]
			pr.pk.Dst, pr.kind = s.Addr().Next().Next(), "to an opened network"
		}
	}
	t := policy.Traffic{}
	if len(r.What) > 0 && !a.oneIn(8) {
		t = r.What[a.IntN(len(r.What))]
	}
	if t.Published || len(r.Networks) > 0 && pr.kind == "from outside" && !a.oneIn(3) {
		if pub := published[a.IntN(len(published))]; pr.pk.In != "" {
			a.dial(pr, pub.Published)
			pr.kind = "to a published port"
			return
		}
	}
	a.aimAt(pr, t)
}

// dial aims at a published port.
func (a *aimer) dial(pr *probe, pub inventory.Published) {
	pr.pk.Dst, pr.pk.Proto, pr.pk.DstPort = pub.Addr, pub.Proto, pub.Port
	if pub.Addr.IsUnspecified() || a.oneIn(6) {
		pr.pk.Dst = a.among(hostAddrs(), 4+2*btoi(pub.Addr.Is6()))
	}
	if a.oneIn(8) {
		pr.pk.DstPort += uint16(a.IntN(3)) - 1
	}
}

func (a *aimer) aimAt(pr *probe, t policy.Traffic) {
	pr.pk.Proto = t.Proto
	if t.Proto == 0 || a.oneIn(12) {
		pr.pk.Proto = pick[uint8](a.generator, policy.TCP, policy.TCP, policy.TCP, policy.UDP, policy.UDP, policy.ICMP, policy.ICMPv6,
			policy.SCTP, esp, gre, ah)
	}
	switch {
	case policy.HasPorts(pr.pk.Proto):
		pr.pk.DstPort = a.port()
		if t.Proto != 0 && policy.HasPorts(t.Proto) && t.Ports != netset.AllPorts {
			pr.pk.DstPort = a.near(t.Ports)
		}
	case pr.pk.Proto == policy.ICMP:
		pr.pk.ICMPType = pick[uint8](a.generator, 8, 8, 8, 0, 13, 5, 17, 30, 200, 3, 11, 12)
	case pr.pk.Proto == policy.ICMPv6:
		pr.pk.ICMPType = pick[uint8](a.generator, 128, 128, 128, 129, 137, 139, 200, 1, 2, 4)
	}
	if t.ICMP.HasType && t.Proto == pr.pk.Proto && !a.oneIn(5) {
		pr.pk.ICMPType, pr.pk.ICMPCode = t.ICMP.Type, t.ICMP.Code
	}
	if a.oneIn(4) && (pr.pk.Proto == policy.ICMP || pr.pk.Proto == policy.ICMPv6) {
		pr.pk.ICMPCode = uint8(a.IntN(3))
	}
}

// near is a port in a range or next to its ends.
func (a *aimer) near(r netset.Ports) uint16 {
	switch a.IntN(6) {
	case 0:
		return r.First
	case 1:
		return r.Last
	case 2:
		return max(1, r.First-1)
	case 3:
		return max(1, r.Last+1) // 0 after 65535
	}
	return r.First + uint16(a.IntN(int(r.Last-r.First)+1))
}

// family is the one that a packet must be of: 4, 6, or either's.
func (a *aimer) family(pr *probe, r policy.Rule) int {
	switch {
	case pr.pk.Dst.IsValid():
		return 4 + 2*btoi(pr.pk.Dst.Is6())
	case pr.pk.Proto == policy.ICMP || pr.pk.Proto == igmp:
		return 4
	case pr.pk.Proto == policy.ICMPv6:
		return 6
	}
	for _, addrs := range []policy.Addresses{r.From, r.To} {
		if addrs.Given && !addrs.Host && addrs.Network == "" && !a.oneIn(6) {
			all := a.p.Resolve(addrs)
			switch {
			case all.V6().IsEmpty():
				return 4
			case all.V4().IsEmpty():
				return 6
			}
		}
	}
	return pick(a.generator, 4, 6)
}

// among is one of the addresses that is of a family, invalid where none is.
func (a *aimer) among(list []string, family int) netip.Addr {
	var fit []netip.Addr
	for _, s := range list {
		if addr := netip.MustParseAddr(s); addr.Is4() == (family == 4) {
			fit = append(fit, addr)
		}
	}
	if len(fit) == 0 {
		return netip.Addr{}
	}
	return fit[a.IntN(len(fit))]
}

// toward is an address that a from or a to names, or one next to its edges.
func (a *aimer) toward(addrs policy.Addresses, family int) netip.Addr {
	if addrs.Host {
		return a.among(hostAddrs(), family)
	}
	all := a.p.Resolve(addrs).V4()
	if family == 6 {
		all = a.p.Resolve(addrs).V6()
	}
	ranges := all.Ranges()
	if len(ranges) == 0 || !addrs.Given {
		return a.place(family)
	}
	r := ranges[a.IntN(len(ranges))]
	at := pick(a.generator, r.From(), r.To(), r.From().Prev(), r.To().Next())
	if !at.IsValid() || at.Is4() != (family == 4) {
		return r.From()
	}
	return at
}

// source chooses where a packet comes from: near a rule's sources, or anywhere; sometimes from where nobody may be.
func (a *aimer) source(pr *probe, r policy.Rule, dst netip.Addr) {
	if !dst.IsValid() {
		return
	}
	family := 4 + 2*btoi(dst.Is6())
	switch {
	case a.oneIn(12):
		spoofs := append([]string{"127.0.0.1", "172.17.0.9", "172.30.0.77", "224.0.0.9", "fd00:17::9", "fd00:30::77"}, hostAddrs()...)
		pr.pk.Src = a.among(spoofs, family)
	case a.oneIn(20):
		pr.pk.Src = addrOf(dst, untracked4, untracked6)
	case r.From.Given:
		pr.pk.Src = a.toward(r.From, family)
	default:
		pr.pk.Src = a.place(family)
	}
}

// checked gives the probe if its parts fit together, else nil.
func (p *probe) checked() *probe {
	src, dst := p.pk.Src, p.pk.Dst
	if !src.IsValid() || !dst.IsValid() || src.Is4() != dst.Is4() {
		return nil
	}
	if p.pk.Proto == policy.ICMP && !dst.Is4() || p.pk.Proto == policy.ICMPv6 && dst.Is4() || p.pk.Proto == igmp && !dst.Is4() {
		return nil
	}
	// In IPv6 an authentication header is no protocol: everybody looks at what it leads to.
	if p.pk.Proto == ah && dst.Is6() {
		return nil
	}
	linked := p.pk.In == "" || p.pk.In == "eth0" || p.pk.In == "docker0"
	if dst.Is6() && dst.IsLinkLocalUnicast() && (!linked || !linkNetwork.Contains(dst)) {
		return nil // no route leads there
	}
	if policy.HasPorts(p.pk.Proto) && p.pk.DstPort == 0 {
		return nil
	}
	switch p.pk.Proto {
	case policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, policy.ICMPv6, igmp, gre, esp, ah:
		return p
	}
	return nil
}

// finish chooses what is left: ports, flags, fragments, a connection that is known already.
func (a *aimer) finish(pr *probe) {
	if policy.HasPorts(pr.pk.Proto) && pr.pk.SrcPort == 0 {
		pr.pk.SrcPort = 10000 + pr.id
	}
	if pr.pk.Proto == policy.TCP {
		pr.pk.Flags = packet.SYN
		if a.oneIn(6) || (isUntracked(pr.pk) || pr.pk.DstPort == 7000) && !a.oneIn(3) {
			pr.pk.Flags = a.flags()
		}
	}
	pr.about = packet.Packet{Proto: policy.UDP, Src: pr.pk.Dst, Dst: pr.pk.Src, SrcPort: 9, DstPort: 9}
	if pr.pk.Dst.IsMulticast() {
		pr.about.Src = addrOf(pr.pk.Dst, "192.0.2.1", "2001:db8:2::1")
	}
	often := 8
	if isICMPError(pr.pk) {
		often = 2
	}
	switch {
	case a.oneIn(often) && a.track(pr):
	case a.oneIn(30):
		switch pr.pk.Proto {
		case policy.TCP, policy.UDP, policy.ICMP, policy.ICMPv6:
			pr.badSum = pr.pk.In != ""
		}
	case a.oneIn(8) && pr.pk.In != "" && !pr.bridged:
		pr.pieces = a.pieces(pr)
	}
	if pr.known == nil {
		pr.pk.State = firstState(pr)
	}
	pr.pk.Socket = pr.pk.Proto == policy.TCP && slices.Contains(socketAddrs, netip.AddrPortFrom(pr.pk.Dst, pr.pk.DstPort).String())
}

// pieces is how many fragments a packet can be cut into.
func (a *aimer) pieces(pr *probe) int {
	switch {
	case pr.pk.Proto == igmp, pr.pk.Dst.Is6() && (pr.pk.Proto == policy.SCTP || isICMPError(pr.pk)):
		return 0 // too short
	case pr.pk.Dst.Is6(), pr.pk.Proto == policy.TCP, pr.pk.Proto == policy.SCTP:
		return 2
	}
	return 2 + a.IntN(2)
}

func (a *aimer) flags() uint8 {
	const f, s, r, p, k, u = packet.FIN, packet.SYN, packet.RST, packet.PSH, packet.ACK, packet.URG
	return pick[uint8](a.generator, k, k, k, p|k, s|k, f|k, r, r|k, 0, s|f, s|r, f, s|u, s|p, f|p|u, u|k, f|r|k, p, u, f|k|u)
}

// firstState is what connection tracking says of a packet of no known connection (nf_conntrack_proto_*.c).
func firstState(pr *probe) packet.State {
	switch pk := pr.pk; {
	case isUntracked(pk):
		return packet.Untracked
	case pr.badSum:
		return packet.Invalid
	case pk.Proto == policy.TCP:
		return firstTCPState(pk.Flags)
	case isICMPError(pk):
		return packet.Invalid
	case pk.Proto == policy.ICMP && !slices.Contains([]uint8{8, 13, 15, 17}, pk.ICMPType):
		return packet.Invalid
	case pk.Proto == policy.ICMPv6:
		switch pk.ICMPType {
		case 128, 139:
			return packet.New
		case 130, 131, 132, 133, 134, 135, 136, 143:
			return packet.Untracked
		}
		return packet.Invalid
	}
	return packet.New
}

// isUntracked tells whether the host is told not to track a packet.
func isUntracked(pk packet.Packet) bool {
	return pk.In != "" && (pk.Src.String() == untracked4 || pk.Src.String() == untracked6)
}

// firstTCPState: combinations of flags that don't exist are invalid, so is whatever can't begin a connection. An ACK
// alone can: conntrack picks up connections that it didn't see begin.
func firstTCPState(flags uint8) packet.State {
	const f, s, r, k, u = packet.FIN, packet.SYN, packet.RST, packet.ACK, packet.URG
	switch flags &^ packet.PSH {
	case s, s | u, k, k | u:
		return packet.New
	}
	return packet.Invalid
}

// track makes a packet one of a connection that is known: in the direction that it was opened in or the other, or an
// error about it. It is false where that doesn't fit.
func (a *aimer) track(pr *probe) bool {
	pk := pr.pk
	unicast := !pk.Dst.IsMulticast() && pk.Dst != broadcast4 && !isIn(directed, pk.Dst) && !isIn(anycast6, pk.Dst) && pk.Src != pk.Dst
	if !unicast || isUntracked(pk) || pr.lost() || pr.bridged || pr.kind == "lifeline" { // those share their ports
		return false
	}
	switch {
	case pk.Proto == policy.ICMP && pk.ICMPType == 5:
		return false // NAT drops redirects of connections that it hasn't seen
	case isICMPError(pk) && pk.In != "":
		opening := packet.Packet{Proto: policy.UDP, Src: pk.Dst, Dst: addrOf(pk.Dst, "45.0.0.9", "2003:db8::99"), SrcPort: 20000 + pr.id, DstPort: 53}
		pr.known, pr.about, pr.pk.State = &opening, opening, packet.Related
		return true
	case pk.Proto == policy.TCP:
		pr.pk.Flags = pick(a.generator, packet.ACK, packet.ACK|packet.PSH)
	case pk.Proto == policy.ICMP:
		pr.pk.ICMPType, pr.pk.ICMPCode = pick[uint8](a.generator, 8, 0), 0
	case pk.Proto == policy.ICMPv6:
		pr.pk.ICMPType, pr.pk.ICMPCode = pick[uint8](a.generator, 128, 129), 0
	case pk.Proto != policy.UDP:
		return false
	}
	opening := pr.pk
	opening.State = packet.New
	isReply := pr.pk.ICMPType == 0 && pk.Proto == policy.ICMP || pr.pk.ICMPType == 129 && pk.Proto == policy.ICMPv6
	isEcho := pk.Proto == policy.ICMP || pk.Proto == policy.ICMPv6
	if isReply || !isEcho && a.oneIn(2) {
		if pk.Proto == policy.TCP && a.oneIn(3) {
			pr.pk.Flags = packet.SYN | packet.ACK // the answer to the first packet, once more
		}
		opening = reversed(opening)
		if isReply {
			opening.ICMPType = map[uint8]uint8{0: 8, 129: 128}[pr.pk.ICMPType]
		}
	}
	pr.known, pr.pk.State = &opening, packet.Established
	return true
}

// floodSize is how many packets are sent against a limit, all of one source.
const floodSize = 12

// floods are packets over the limits of rules: each from a source of its own that meets no other rule first.
func (a *aimer) floods() (all []*probe) {
	for i, r := range a.p.Inbound {
		if r.Limit.IsZero() || r.Limit.Burst >= floodSize || r.Limit.Per.Seconds() < 60 || !a.oneIn(2) {
			continue
		}
		first := a.floodProbe(i, r)
		if first == nil {
			continue
		}
		for range floodSize {
			pr := *first
			a.next++
			pr.id, pr.flood, pr.kind = a.next, i+1, "flood"
			pr.pk.SrcPort = 10000 + pr.id
			all = append(all, &pr)
		}
	}
	return all
}

// floodProbe finds a packet that a rule decides on, from a source that nobody else uses.
func (a *aimer) floodProbe(i int, r policy.Rule) *probe {
	for range 30 {
		pr := &probe{pk: packet.Packet{In: pick(a.generator, "eth0", "eth1"), SrcPort: 9}}
		a.aim(pr, r)
		if pr.pk.Proto != policy.TCP && pr.pk.Proto != policy.UDP || r.To.Network != "" {
			continue
		}
		family := a.family(pr, r)
		if !pr.pk.Dst.IsValid() {
			pr.pk.Dst = a.among([]string{"192.0.2.1", "198.51.100.1", "2001:db8:2::1"}, family)
		}
		src := fmt.Sprintf("11.%d.%d.%d", a.IntN(256), a.IntN(256), a.IntN(256))
		if family == 6 {
			src = fmt.Sprintf("2a00:%x:%x:%x::1", a.IntN(65536), a.IntN(65536), a.IntN(65536))
		}
		pr.pk.Src = netip.MustParseAddr(src)
		if pr.pk.Proto == policy.TCP {
			pr.pk.Flags = packet.SYN
		}
		if pr.checked() == nil {
			continue
		}
		if d := eval.Evaluate(a.p, a.inv, pr.pk); d.Section == policy.Inbound && d.Rule == i {
			return pr
		}
	}
	return nil
}
