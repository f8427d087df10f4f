// Package eval says what a policy decides on one packet: the reference that the kernel is judged against, and what the
// lock-out guard asks.
//
//	d := eval.Evaluate(p, inv, pk)
//	if d.Verb != policy.Allow { fmt.Println(d.Why, d.Origin) } // "rule 3 of inbound denies it" "policy.yaml:12"
//
// It reads the policy from top to bottom, rule by rule, as a person would, and knows nothing of chains, sets and maps:
// package compile is built for speed, this one for being obviously right, and they share no code on purpose.
//
// Be aware: a verdict is quaywall's alone. What it lets through still has to pass the rules of Docker and of others,
// and something has to listen. Limits are not counted: a verdict that depends on one is marked. Fragments are seen put
// together, as connection tracking does it before the gate. An IPv6 subnet's router anycast address counts as this
// host's, which the kernel does only where forwarding is on; so it is wherever Docker runs with IPv6. The lowest
// address of an IPv4 network is not a broadcast address here, as in kernels since 5.14.
//
// What surely begins something is judged by the leading rules of the form "deny: any" before anything else is asked: a
// SYN of theirs is denied though connection tracking takes it for part of a connection (one that was sent twice, one of a
// simultaneous open), and so are the next requests of a ping that ran before the rule came, unless the policy keeps live
// connections. Everything else of a connection goes on, answers to this host above all.
//
// What the language leaves to be read between its lines is read like this: a Docker bridge's own address is the host's
// and not its network's, so egress judges a container that dials it; "to: host" in egress is that address and every
// other unicast or anycast address of the host; a container's own address is opened by rules with "to: {network: …}"
// alone, never by a default; what the host sends by a trusted interface isn't judged either; where the interface that a
// packet of the host leaves by isn't known, rules with "on" don't match it.
//
// While Docker doesn't answer, which bridge a network has isn't known, and it may be any: an egress rule that denies
// something to such a network denies it to all, and one that allows something allows it to none.
//
// A broadcast or multicast packet is judged as what this host gets of it: the copies that a bridge carries to others on it
// are none of quaywall's business.
//
// Two things that pass for a while only aren't known here: TCP connections of containers that ran before the first
// apply, and what Docker networks made after the policy was compiled do.
package eval

import (
	"fmt"
	"net/netip"

	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// Decision is what a policy decides on one packet.
type Decision struct {
	Judged  bool           // false: none of quaywall's business; Verb is Allow then
	Verb    policy.Verb    // Allow lets the packet go on
	Section policy.Section // where the packet belongs by where its connection begins
	Rule    int            // index in the section's rules; -1 where no rule decided
	Origin  string         // "policy.yaml:12", "default", or "" for what always holds
	Why     string         // a short sentence without a full stop
	Limited bool           // the rule has a limit; the verdict is that of a connection within it
}

// Evaluate decides on one packet. A packet with no In is sent by the host itself; any other comes in by In, from a
// container where that is a Docker bridge, else from outside.
func Evaluate(p *policy.Policy, inv *inventory.Inventory, pk packet.Packet) Decision {
	pk.Src, pk.Dst = pk.Src.Unmap().WithZone(""), pk.Dst.Unmap().WithZone("")
	j := judge{p: p, inv: inv, host: host{inv, pk.In}, pk: pk}
	if d, decided := j.early(); decided {
		return d
	}
	switch {
	case pk.In == "":
		return j.outbound()
	case pk.In != "lo" && pk.Dst.IsLoopback():
		return j.always(j.section(), policy.Deny, "a loopback address is dialled from another interface")
	case pk.In != "lo" && pk.Dst == netip.IPv6Unspecified():
		return j.always(j.section(), policy.Deny, "the unspecified address is dialled")
	case pk.In == "lo":
		return j.always(policy.Inbound, policy.Allow, "loopback traffic always passes")
	case len(p.Trusted) > 0 && policy.MatchesInterface(p.Trusted, pk.In):
		return j.unjudged(j.section(), "it comes in by a trusted interface")
	case pk.State == packet.Established || pk.State == packet.Related:
		return j.always(j.section(), policy.Allow, "it belongs to a connection that is already there")
	case j.host.isBridge(pk.In):
		return j.egress()
	}
	return j.inbound()
}

// early judges what begins something, whatever connection tracking says of it: from outside, to this host, and by the
// inbound rules down to the first that does more than deny everything from some addresses. It is not decided where these
// leave a packet to what follows, where all rules are asked.
func (j judge) early() (d Decision, decided bool) {
	if !j.begins() || !j.fromOutside() || !j.host.isOwn(j.pk.Dst) {
		return Decision{}, false
	}
	for i, r := range j.p.Inbound {
		switch {
		case r.To.Network != "": // not about this host
		case !deniesSource(r):
			return Decision{}, false
		case j.matchesInbound(r):
			return j.byRule(policy.Inbound, i, r), true
		}
	}
	return Decision{}, false
}

// fromOutside tells whether a packet comes in by an interface that is filtered and no Docker bridge.
func (j judge) fromOutside() bool {
	isTrusted := len(j.p.Trusted) > 0 && policy.MatchesInterface(j.p.Trusted, j.pk.In)
	return j.pk.In != "" && j.pk.In != "lo" && !isTrusted && !j.host.isBridge(j.pk.In)
}

// begins tells whether a packet can't be an answer: the first of a TCP connection, or a request of ping. Where live
// connections are kept a request may be a later one of a ping that goes on.
func (j judge) begins() bool {
	is4 := j.pk.Dst.Is4()
	switch j.pk.Proto {
	case policy.TCP:
		return j.pk.Flags&(packet.FIN|packet.SYN|packet.RST|packet.PSH|packet.ACK|packet.URG) == packet.SYN
	case policy.ICMP:
		return is4 && j.pk.ICMPType == 8 && !j.p.Keep
	case policy.ICMPv6:
		return !is4 && j.pk.ICMPType == 128 && !j.p.Keep
	}
	return false
}

// deniesSource tells whether a rule denies everything from some addresses, at most by interface.
func deniesSource(r policy.Rule) bool {
	if r.Verb != policy.Deny || !r.From.Given || r.To.Given || len(r.Networks) > 0 {
		return false
	}
	isAny := false
	for _, t := range r.What {
		if t.Published {
			return false
		}
		isAny = isAny || t == policy.Traffic{}
	}
	return isAny
}

// judge is the packet in hand and what it is judged by.
type judge struct {
	p    *policy.Policy
	inv  *inventory.Inventory
	host host
	pk   packet.Packet
}

// section is where a packet that comes in by an interface belongs.
func (j judge) section() policy.Section {
	if j.host.isBridge(j.pk.In) {
		return policy.Egress
	}
	return policy.Inbound
}

// inbound judges a packet that comes from outside and belongs to no connection yet.
func (j judge) inbound() Decision {
	toHost, toContainer := j.isDialled(), j.host.isContainer(j.pk.Dst)
	opened := j.openedNetworks()
	switch {
	case toContainer && len(opened) == 0:
		// Comes before what always passes: a stray ICMP error to a container's own address is dropped in forward.
		return j.always(policy.Inbound, policy.Deny, "a container's own address is dialled from outside")
	case j.alwaysPasses() || isDHCPReply(j.pk) && j.host.isDialled(j.pk.Dst):
		return j.always(policy.Inbound, policy.Allow, "networks cannot live without it")
	case j.ranBefore():
		return j.always(policy.Inbound, policy.Allow, "it belongs to a connection from before the policy")
	case j.p.Hygiene && (toContainer || toHost && !j.isClosed()) && j.unhygienic() != "":
		return j.always(policy.Inbound, policy.Deny, "hygiene: "+j.unhygienic())
	case toContainer:
		return j.openedContainer(opened)
	case toHost:
		return j.rules(policy.Inbound, func(r policy.Rule) bool { return r.To.Network == "" && j.matchesInbound(r) })
	}
	return j.unjudged(policy.Inbound, "it is neither for this host nor for a container")
}

// isClosed tells whether no rule is about the port that is dialled, and the default denies: then it is the default that does,
// well made or not.
func (j judge) isClosed() bool {
	if j.pk.Proto != policy.TCP && j.pk.Proto != policy.UDP || j.p.Default(policy.Inbound).Verb != policy.Deny {
		return false
	}
	for _, r := range j.p.Inbound {
		if r.To.Network == "" && j.names(r) {
			return false
		}
	}
	return true
}

// names tells whether an inbound rule is about the port that is dialled, whoever dials it and at whichever address.
func (j judge) names(r policy.Rule) bool {
	for _, t := range r.What {
		any := t == policy.Traffic{} || t.Proto == j.pk.Proto && t.Ports.Contains(j.pk.DstPort)
		if !t.Published && len(r.Networks) == 0 {
			if any {
				return true
			}
			continue
		}
		for _, p := range j.inv.Published {
			if p.Proto == j.pk.Proto && p.Port == j.pk.DstPort && (any || t.Published) && (len(r.Networks) == 0 || shares(p.Networks, r.Networks)) {
				return true
			}
		}
	}
	return false
}

func shares(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// isDialled tells whether the packet is for this host, be it among others. A link-local address is dialled from a link-local
// one; dialled from elsewhere it is taken for this host's own, for Docker takes that of any interface for one.
func (j judge) isDialled() bool {
	strange := j.pk.Dst.Is6() && j.pk.Dst.IsLinkLocalUnicast() && !j.pk.Src.IsLinkLocalUnicast()
	return strange || j.host.isDialled(j.pk.Dst)
}

// openedNetworks are the networks that the packet's destination is in and that a rule opens by "to: {network: …}".
func (j judge) openedNetworks() []string {
	var names []string
	for _, n := range j.host.networksOf(j.pk.Dst) {
		for _, r := range j.p.Inbound {
			if r.To.Network == n.Name {
				names = append(names, n.Name)
				break
			}
		}
	}
	return names
}

// openedContainer judges a packet to a container's own address in a network that the policy opens. Only the rules that
// open it count, and nothing else may: a default of allow is none.
func (j judge) openedContainer(opened []string) Decision {
	d := j.rules(policy.Inbound, func(r policy.Rule) bool {
		for _, name := range opened {
			if r.To.Network == name && j.matchesInbound(r) {
				return true
			}
		}
		return false
	})
	if d.Rule < 0 && d.Verb == policy.Allow {
		return j.always(policy.Inbound, policy.Deny, "no rule opens this container's own address")
	}
	return d
}

// egress judges a packet that comes from a container and belongs to no connection yet.
func (j judge) egress() Decision {
	switch {
	case j.withinNetwork():
		return j.unjudged(policy.Egress, "it stays within one Docker network")
	case j.keepsNetwork():
		return j.always(policy.Egress, policy.Allow, "its network cannot live without it")
	case j.ranBefore():
		return j.always(policy.Egress, policy.Allow, "it belongs to a connection from before the policy")
	}
	return j.rules(policy.Egress, j.matchesEgress)
}

// withinNetwork tells whether a packet goes from a container to its own network. The bridge's own address is the
// host's, not the network's: egress rules can close the way to the host. So is the host's copy of what goes to many.
func (j judge) withinNetwork() bool {
	if j.host.isDialled(j.pk.Dst) {
		return false
	}
	if j.pk.Dst.Is6() && j.pk.Src.IsLinkLocalUnicast() && j.pk.Dst.IsLinkLocalUnicast() {
		return true
	}
	for _, n := range j.host.networksOf(j.pk.Dst) {
		if n.Bridge == j.pk.In {
			return true
		}
	}
	return false
}

// keepsNetwork tells whether a packet of a container is one that its network can't live without: IGMP to groups,
// Neighbour Discovery and MLD on the network or with the host, DHCP replies to all. Sent to anybody else they would be a
// way out.
func (j judge) keepsNetwork() bool {
	dst := j.pk.Dst
	switch j.pk.Proto {
	case igmp:
		return dst.Is4() && dst.IsMulticast()
	case policy.ICMPv6:
		near := dst.IsMulticast() || dst.IsLinkLocalUnicast() || j.host.isOwn(dst)
		return dst.Is6() && near && contains(j.pk.ICMPType, 130, 131, 132, 133, 134, 135, 136, 143)
	}
	return dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) && isDHCPReply(j.pk)
}

// outbound judges a packet that the host itself sends.
func (j judge) outbound() Decision {
	switch {
	case j.pk.Out == "lo" || j.host.isOwn(j.pk.Dst):
		return j.unjudged(policy.Outbound, "the host talks to itself")
	case j.host.isBridge(j.pk.Out) || j.pk.Out == "" && j.host.isContainer(j.pk.Dst):
		return j.unjudged(policy.Outbound, "the host talks to its own containers")
	case j.pk.Out != "" && len(j.p.Trusted) > 0 && policy.MatchesInterface(j.p.Trusted, j.pk.Out):
		return j.unjudged(policy.Outbound, "it leaves by a trusted interface")
	case j.pk.State == packet.Established || j.pk.State == packet.Related:
		return j.always(policy.Outbound, policy.Allow, "it belongs to a connection that is already there")
	case j.pk.Proto == policy.TCP && !j.pk.OpensTCP():
		return j.always(policy.Outbound, policy.Allow, "it opens no connection")
	case j.alwaysPasses() || isDHCPRequest(j.pk):
		return j.always(policy.Outbound, policy.Allow, "networks cannot live without it")
	}
	return j.rules(policy.Outbound, j.matchesOutbound)
}

// rules finds the first rule of a section that matches, else takes the section's default.
func (j judge) rules(s policy.Section, matches func(policy.Rule) bool) Decision {
	for i, r := range j.p.Rules(s) {
		if matches(r) {
			return j.byRule(s, i, r)
		}
	}
	v := j.p.Default(s)
	return Decision{Judged: true, Verb: v.Verb, Section: s, Rule: -1, Origin: policy.OriginOf(v.Pos),
		Why: fmt.Sprintf("no rule of %s matches; the default %s it", s, doing(v.Verb))}
}

func (j judge) byRule(s policy.Section, i int, r policy.Rule) Decision {
	return Decision{Judged: true, Verb: r.Verb, Section: s, Rule: i, Origin: r.Origin(),
		Why: fmt.Sprintf("rule %d of %s %s it", i+1, s, doing(r.Verb)), Limited: !r.Limit.IsZero()}
}

// doing is the verb in a sentence.
func doing(v policy.Verb) string {
	return [...]string{"denies", "rejects", "allows"}[v]
}

func (j judge) always(s policy.Section, v policy.Verb, why string) Decision {
	return Decision{Judged: true, Verb: v, Section: s, Rule: -1, Why: why}
}

func (j judge) unjudged(s policy.Section, why string) Decision {
	return Decision{Verb: policy.Allow, Section: s, Rule: -1, Why: why}
}

// ranBefore tells whether a packet is of a TCP connection of this host that nobody tracked before the policy came. No
// connection is with many.
func (j judge) ranBefore() bool {
	return j.pk.Proto == policy.TCP && !j.pk.OpensTCP() && j.pk.Socket && !j.host.isToMany(j.pk.Dst)
}

// isDHCPReply tells whether a packet is what a DHCP client of this host waits for.
func isDHCPReply(pk packet.Packet) bool {
	if pk.Proto != policy.UDP {
		return false
	}
	if pk.Src.Is4() {
		return pk.SrcPort == 67 && pk.DstPort == 68
	}
	return pk.DstPort == 546 && pk.Src.IsLinkLocalUnicast()
}

// isDHCPRequest tells whether a packet is what a DHCP client of this host sends.
func isDHCPRequest(pk packet.Packet) bool {
	if pk.Proto != policy.UDP {
		return false
	}
	if pk.Src.Is4() {
		return pk.SrcPort == 68 && pk.DstPort == 67
	}
	return pk.SrcPort == 546 && pk.DstPort == 547
}

// igmp is the number of the protocol by which IPv4 hosts join multicast groups.
const igmp = 2

// alwaysPasses tells whether a packet is one of those without which a network doesn't work, whatever a policy says:
// IGMP, errors of ICMP, and of ICMPv6 errors, Neighbour Discovery, router advertisements and MLD.
func (j judge) alwaysPasses() bool {
	is4 := j.pk.Dst.Is4()
	switch {
	case j.pk.Proto == igmp && is4:
		return true
	case j.pk.Proto == policy.ICMP && is4:
		return contains(j.pk.ICMPType, 3, 11, 12)
	case j.pk.Proto == policy.ICMPv6 && !is4:
		return contains(j.pk.ICMPType, 1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 143)
	}
	return false
}

func contains(t uint8, types ...uint8) bool {
	for _, x := range types {
		if t == x {
			return true
		}
	}
	return false
}

// unhygienic says what is wrong with a packet from outside, "" where nothing is.
func (j judge) unhygienic() string {
	isTCP := j.pk.Proto == policy.TCP
	switch {
	case j.pk.State == packet.Invalid:
		return "connection tracking calls it invalid"
	case isTCP && bogus(j.pk.Flags):
		return "no TCP sends these flags together"
	case isTCP && j.pk.State == packet.New && !j.pk.OpensTCP():
		return "a new connection does not begin with SYN"
	case j.spoofed():
		return "nobody outside may have this source address"
	}
	return ""
}

// bogus tells whether TCP flags are a combination that only scanners send.
func bogus(flags uint8) bool {
	has := func(f uint8) bool { return flags&f == f }
	ack := has(packet.ACK)
	switch {
	case flags&(packet.FIN|packet.SYN|packet.RST|packet.PSH|packet.ACK|packet.URG) == 0:
		return true
	case has(packet.SYN | packet.FIN), has(packet.SYN | packet.RST), has(packet.FIN | packet.RST):
		return true
	case has(packet.FIN) && !ack, has(packet.URG) && !ack, has(packet.PSH) && !ack:
		return true
	}
	return false
}

// spoofed tells whether a source address can't be that of a machine outside. A link-local one always can: each link has
// its own, fe80::1 is that of many routers and of Docker's bridges.
func (j judge) spoofed() bool {
	src := j.pk.Src
	own := j.host.isLocal(src) && !(src.Is6() && src.IsLinkLocalUnicast())
	return own || src.IsLoopback() || src.IsMulticast() || len(j.host.networksOf(src)) > 0
}

// matchesInbound tells whether a rule of inbound matches. Which destinations it is asked about at all ("to: {network}"
// or not) is settled before.
func (j judge) matchesInbound(r policy.Rule) bool {
	if len(r.Networks) > 0 && !j.isPublished(r.Networks) {
		return false
	}
	return j.matchesWhat(r, r.Networks) && j.matchesAddresses(r) && policy.MatchesInterface(r.On, j.pk.In)
}

// matchesEgress tells whether a rule of egress matches.
func (j judge) matchesEgress(r policy.Rule) bool {
	if len(r.Networks) > 0 && !j.host.isBridgeOf(j.pk.In, r.Networks) && !(r.Verb != policy.Allow && j.host.isUnclear(r.Networks)) {
		return false
	}
	return j.matchesWhat(r, nil) && j.matchesAddresses(r) && policy.MatchesInterface(r.On, j.pk.In)
}

// matchesOutbound tells whether a rule of outbound matches.
func (j judge) matchesOutbound(r policy.Rule) bool {
	return j.matchesWhat(r, nil) && j.matchesAddresses(r) && policy.MatchesInterface(r.On, j.pk.Out)
}

// matchesWhat tells whether a packet is one of the kinds of traffic of a rule; published counts ports of containers in
// these networks only, of all where none are named.
func (j judge) matchesWhat(r policy.Rule, networks []string) bool {
	for _, t := range r.What {
		if t.Published && j.isPublished(networks) || !t.Published && j.isTraffic(t) {
			return true
		}
	}
	return false
}

// isTraffic tells whether a packet is of a kind that isn't "published".
func (j judge) isTraffic(t policy.Traffic) bool {
	switch {
	case t.Proto == 0:
		return true
	case t.Proto != j.pk.Proto:
		return false
	case (t.Proto == policy.ICMP || t.Proto == policy.AH) && !j.pk.Dst.Is4(), t.Proto == policy.ICMPv6 && j.pk.Dst.Is4():
		return false
	case policy.HasPorts(t.Proto):
		return t.Ports.Contains(j.pk.DstPort)
	case t.Proto == policy.ICMP || t.Proto == policy.ICMPv6:
		return (!t.ICMP.HasType || t.ICMP.Type == j.pk.ICMPType) && (!t.ICMP.HasCode || t.ICMP.Code == j.pk.ICMPCode)
	}
	return true
}

// isPublished tells whether a packet is dialled to an address, protocol and port of this host that Docker publishes for
// a container in one of these networks, or in any where none are named.
func (j judge) isPublished(networks []string) bool {
	for _, pub := range j.inv.Published {
		sameAddr := pub.Addr == j.pk.Dst
		if pub.Addr.IsUnspecified() {
			sameAddr = pub.Addr.Is4() == j.pk.Dst.Is4() && j.isDialled()
		}
		if sameAddr && pub.Proto == j.pk.Proto && pub.Port == j.pk.DstPort && overlap(pub.Networks, networks) {
			return true
		}
	}
	return false
}

// overlap tells whether one of the names is wanted; all are where none is named.
func overlap(names, wanted []string) bool {
	if len(wanted) == 0 {
		return true
	}
	for _, n := range names {
		for _, w := range wanted {
			if n == w {
				return true
			}
		}
	}
	return false
}

// matchesAddresses tells whether from and to of a rule hold.
func (j judge) matchesAddresses(r policy.Rule) bool {
	if r.To.Host && !j.host.isOwn(j.pk.Dst) {
		return false
	}
	to := r.To
	if to.Host || to.Network != "" {
		to = policy.Addresses{}
	}
	return j.in(r.From, j.pk.Src) && j.in(to, j.pk.Dst)
}

// in tells whether an address is one that a from or a to names.
func (j judge) in(a policy.Addresses, addr netip.Addr) bool {
	if !a.Given {
		return true
	}
	named := a.Inline.Contains(addr)
	for _, name := range a.Sets {
		set, _ := j.p.Set(name)
		named = named || set.Addrs.Contains(addr)
	}
	return named != a.Not
}
