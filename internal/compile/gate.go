package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// dialledTypes are the kinds of destination that count as this host.
const dialledTypes = ruleset.TypeLocal | ruleset.TypeBroadcast | ruleset.TypeMulticast | ruleset.TypeAnycast

// ownTypes are the kinds of destination that are this host and nobody else.
const ownTypes = ruleset.TypeLocal | ruleset.TypeAnycast

var loopback = netset.Of(netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))

// gate is the base chain that judges each new connection where it was dialled to, before Docker's DNAT.
// The order is measured, see 11-gate in the design: nothing that could drop a packet of a flow that ran before
// connection tracking was used stands above the rule that keeps those flows.
func (c *compiler) gate() {
	ch := c.chain("gate", &ruleset.Base{Hook: ruleset.Prerouting, Priority: gatePriority})
	notLo := ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"lo"}, Not: true}
	for _, m := range addrMatches(ruleset.Dst, loopback) {
		add(ch, c.refused("loopback address from outside", m, notLo))
	}
	add(ch, passes("loopback", ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"lo"}}))
	c.trusted(ch, ruleset.In)
	add(ch, established())
	c.fromContainers(ch)
	c.shortCut(ch)
	add(ch, alwaysPasses()...)
	add(ch, dhcpReplies()...)
	add(ch, runningBefore())
	if c.options.PickUp {
		c.pickUp(ch)
	}
	c.toHost(ch)
	c.toContainers(ch)
}

// trusted lets packets of the interfaces pass that the policy doesn't filter.
func (c *compiler) trusted(ch *ruleset.Chain, field ruleset.Field) {
	if len(c.policy.Trusted) > 0 {
		add(ch, passes("trusted interface", ruleset.IfaceMatch{Field: field, Names: c.policy.Trusted}))
	}
}

func established() ruleset.Rule {
	return passes("established", ruleset.CtStateMatch{States: ruleset.StateEstablished | ruleset.StateRelated})
}

// alwaysPasses are the rules for what IPv4 and IPv6 can't live without.
func alwaysPasses() []ruleset.Rule {
	icmp := func(f ruleset.Family, types ...uint8) ruleset.Match {
		return ruleset.ICMPTypeMatch{Family: f, Types: types}
	}
	return []ruleset.Rule{
		passes("neighbour discovery", icmp(ruleset.IPv6, 133, 134, 135, 136)),
		passes("multicast listeners", icmp(ruleset.IPv6, 130, 131, 132, 143)),
		passes("ICMPv6 errors", icmp(ruleset.IPv6, 1, 2, 3, 4)),
		passes("ICMP errors", icmp(ruleset.IPv4, 3, 11, 12)),
		passes("IGMP", ruleset.FamilyMatch{Family: ruleset.IPv4}, ruleset.ProtoMatch{Proto: protoIGMP}),
	}
}

const protoIGMP = 2

func dhcpReplies() []ruleset.Rule {
	linkLocal := netset.Of(netip.MustParsePrefix("fe80::/10"))
	return []ruleset.Rule{
		passes("DHCP replies", slices.Concat(udpPorts(ruleset.IPv4, 67, 68))...),
		passes("DHCPv6 replies", ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Addrs: linkLocal},
			ruleset.ProtoMatch{Proto: policy.UDP}, portMatch(ruleset.DstPort, 546)),
	}
}

func udpPorts(f ruleset.Family, src, dst uint16) []ruleset.Match {
	return []ruleset.Match{ruleset.FamilyMatch{Family: f}, ruleset.ProtoMatch{Proto: policy.UDP},
		portMatch(ruleset.SrcPort, src), portMatch(ruleset.DstPort, dst)}
}

func portMatch(f ruleset.Field, port uint16) ruleset.Match {
	return ruleset.PortMatch{Field: f, Ports: []netset.Ports{{First: port, Last: port}}}
}

// runningBefore keeps the host's own connections that nobody tracked before the first apply. It stays: a socket that is
// connected is a connection that was allowed once, and a packet that isn't a bare SYN opens none.
func runningBefore() ruleset.Rule {
	return passes("running before", append(midStream(), ruleset.SocketMatch{})...)
}

// pickUp keeps the containers' connections that nobody tracked before the first apply.
func (c *compiler) pickUp(ch *ruleset.Chain) {
	for _, m := range c.subnetMatches() {
		add(ch, passes("container flow running before", append(midStream(), m)...))
	}
}

// shortCut leads clean SYNs to this host past the rules that none of them could match.
func (c *compiler) shortCut(ch *ruleset.Chain) {
	add(ch, leads(c.hostChain(), "a connection to this host", append(cleanSYN(), toThisHost())...))
}

const allFlags = packet.FIN | packet.SYN | packet.RST | packet.PSH | packet.ACK | packet.URG

func cleanSYN() []ruleset.Match {
	return []ruleset.Match{ruleset.ProtoMatch{Proto: policy.TCP}, ruleset.TCPFlagsMatch{Mask: allFlags, Value: packet.SYN}}
}

// toThisHost holds for destinations that count as this host.
func toThisHost() ruleset.Match {
	return ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: dialledTypes}
}

// hostChain is the chain for what is dialled to this host.
func (c *compiler) hostChain() string {
	if c.policy.Hygiene {
		return "host"
	}
	return "inbound"
}

// toHost judges what is dialled to this host.
func (c *compiler) toHost(ch *ruleset.Chain) {
	add(ch, leads(c.hostChain(), "dialled to this host", toThisHost()))
	if c.policy.Hygiene {
		add(c.chain("host", nil), c.hygiene(toChain("inbound"))...)
	}
	rules := where(c.policy.Inbound, func(r policy.Rule) bool { return r.To.Network == "" })
	c.section(section{name: "inbound", section: policy.Inbound, rules: rules})
}

// toContainers judges what is dialled to a container's own address. What no rule opens is closed in the chain direct,
// where it is known which interface a packet leaves by.
func (c *compiler) toContainers(ch *ruleset.Chain) {
	opened := c.openedNetworks()
	if len(c.subnetMatches()) == 0 || !c.policy.Hygiene && len(opened) == 0 {
		return
	}
	for _, m := range c.subnetMatches() {
		add(ch, leads("containers", "dialled to a container", m))
	}
	entry := c.chain("containers", nil)
	if c.policy.Hygiene {
		next := accept
		if len(opened) > 0 {
			next = toChain("opened")
		}
		add(entry, c.hygiene(next)...)
		if len(opened) > 0 {
			entry = c.chain("opened", nil)
		}
	}
	for i, n := range opened {
		c.opened(entry, fmt.Sprintf("open%d", i+1), n)
	}
}

// openNetwork is a Docker network that inbound rules open, and those rules.
type openNetwork struct {
	name    string
	subnets netset.Set
	rules   []policy.Rule
}

// openedNetworks are the networks that exist here and that an inbound rule opens, sorted by name.
func (c *compiler) openedNetworks() []openNetwork {
	var found []openNetwork
	for _, n := range c.inv.Networks {
		rules := where(c.policy.Inbound, func(r policy.Rule) bool { return r.To.Network == n.Name })
		if len(rules) > 0 && len(n.Subnets) > 0 {
			found = append(found, openNetwork{n.Name, netset.Of(n.Subnets...), rules})
		}
	}
	return found
}

// opened sends what is dialled to a network to the rules that open it. Nothing else opens a container's own address, so
// a default of allow doesn't either.
func (c *compiler) opened(entry *ruleset.Chain, name string, n openNetwork) {
	rules := slices.Clone(n.rules)
	for i := range rules {
		rules[i].To = policy.Addresses{}
	}
	for _, m := range addrMatches(ruleset.Dst, n.subnets) {
		add(entry, leads(name, "dialled to network "+n.name, m))
	}
	c.section(section{name: name, section: policy.Inbound, rules: rules, direct: true})
}

// hygiene drops packets that no honest sender sends, and sends the rest on. Judged are new, invalid and untracked
// packets, established ones passed before. A clean SYN, by far the most of them, skips what only bad ones meet.
func (c *compiler) hygiene(next ruleset.Verdict) []ruleset.Rule {
	tcp := ruleset.ProtoMatch{Proto: policy.TCP}
	bogus := func(note string, mask, value uint8) ruleset.Rule {
		return c.refused(note, tcp, ruleset.TCPFlagsMatch{Mask: mask, Value: value})
	}
	var rules []ruleset.Rule
	for _, m := range c.spoofed() {
		rules = append(rules, c.refused("spoofed source", m))
	}
	return append(rules,
		c.refused("invalid state", ruleset.CtStateMatch{States: ruleset.StateInvalid}),
		ruleset.Rule{Matches: []ruleset.Match{ruleset.ProtoMatch{Proto: policy.TCP, Not: true}}, Verdict: next},
		ruleset.Rule{Matches: cleanSYN(), Verdict: next},
		bogus("no TCP flags", allFlags, 0),
		bogus("SYN with FIN", packet.SYN|packet.FIN, packet.SYN|packet.FIN),
		bogus("SYN with RST", packet.SYN|packet.RST, packet.SYN|packet.RST),
		bogus("FIN with RST", packet.FIN|packet.RST, packet.FIN|packet.RST),
		bogus("FIN without ACK", packet.FIN|packet.ACK, packet.FIN),
		bogus("PSH without ACK", packet.PSH|packet.ACK, packet.PSH),
		bogus("URG without ACK", packet.URG|packet.ACK, packet.URG),
		c.refused("new without SYN", append(midStream(), ruleset.CtStateMatch{States: ruleset.StateNew})...),
		ruleset.Rule{Verdict: next},
	)
}

// spoofed are the sources that nobody outside can have: loopback and multicast addresses, those of the Docker networks,
// and this host's own.
func (c *compiler) spoofed() []ruleset.Match {
	multicast := netset.Of(netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"))
	all := loopback.Union(multicast).Union(c.subnets())
	return []ruleset.Match{
		c.builtIn("spoofed4", ruleset.Src, ruleset.IPv4, all.V4()),
		c.builtIn("spoofed6", ruleset.Src, ruleset.IPv6, all.V6()),
		ruleset.AddrTypeMatch{Field: ruleset.Src, Types: ruleset.TypeLocal},
	}
}

// subnets are the addresses of all Docker networks.
func (c *compiler) subnets() netset.Set {
	var all []netip.Prefix
	for _, n := range c.inv.Networks {
		all = append(all, n.Subnets...)
	}
	return netset.Of(all...)
}

// subnetMatches hold for packets to the address of a container, one match for each family that has such addresses.
func (c *compiler) subnetMatches() []ruleset.Match {
	var found []ruleset.Match
	all := c.subnets()
	if part := all.V4(); !part.IsEmpty() {
		found = append(found, c.builtIn("subnets4", ruleset.Dst, ruleset.IPv4, part))
	}
	if part := all.V6(); !part.IsEmpty() {
		found = append(found, c.builtIn("subnets6", ruleset.Dst, ruleset.IPv6, part))
	}
	return found
}

// builtIn matches addresses in a set of ours, which is made at its first use.
func (c *compiler) builtIn(name string, field ruleset.Field, f ruleset.Family, addrs netset.Set) ruleset.Match {
	if !slices.ContainsFunc(c.sets, func(s ruleset.Set) bool { return s.Name == name }) {
		c.set(ruleset.Set{Name: name, Key: addrKey(f), Addrs: addrs})
	}
	return ruleset.AddrMatch{Field: field, Family: f, Set: name}
}

// addrMatches match the addresses of a short list, one match for each of its families.
func addrMatches(field ruleset.Field, addrs netset.Set) []ruleset.Match {
	var found []ruleset.Match
	if part := addrs.V4(); !part.IsEmpty() {
		found = append(found, ruleset.AddrMatch{Field: field, Family: ruleset.IPv4, Addrs: part})
	}
	if part := addrs.V6(); !part.IsEmpty() {
		found = append(found, ruleset.AddrMatch{Field: field, Family: ruleset.IPv6, Addrs: part})
	}
	return found
}

func addrKey(f ruleset.Family) ruleset.Key {
	if f == ruleset.IPv6 {
		return ruleset.Addr6
	}
	return ruleset.Addr4
}

// bridgeMatch holds for packets that come from or leave for a Docker bridge.
func (c *compiler) bridgeMatch(field ruleset.Field) ruleset.Match {
	if c.bridges == "" {
		all := append(c.inv.Bridges(), "docker0", "docker_gwbridge")
		slices.Sort(all)
		c.bridges = c.set(ruleset.Set{Name: "bridges", Key: ruleset.Iface, Ifaces: slices.Compact(all)})
	}
	return ruleset.IfaceMatch{Field: field, Set: c.bridges}
}

// likeDocker is how Docker names the bridges that it makes by itself.
const likeDocker = "br-"

// fromContainers judges connections that begin in a container.
func (c *compiler) fromContainers(ch *ruleset.Chain) {
	bridge := c.bridgeMatch(ruleset.In)
	if !restricts(c.policy, policy.Egress) {
		add(ch, passes("from a container", bridge))
		return
	}
	add(ch, leads(c.egress(), "from a container", bridge))
}

// unknownBridge holds for interfaces that are named like Docker's bridges and were not there when this was compiled.
func (c *compiler) unknownBridge(field ruleset.Field) []ruleset.Match {
	matches := []ruleset.Match{ruleset.IfaceMatch{Field: field, Names: []string{likeDocker + "*"}}}
	var known []string
	for _, i := range c.inv.Interfaces {
		if strings.HasPrefix(i.Name, likeDocker) {
			known = append(known, i.Name)
		}
	}
	if len(known) > 0 {
		const name = "known-bridges"
		if !slices.ContainsFunc(c.sets, func(s ruleset.Set) bool { return s.Name == name }) {
			c.set(ruleset.Set{Name: name, Key: ruleset.Iface, Ifaces: known})
		}
		matches = append(matches, ruleset.IfaceMatch{Field: field, Set: name, Not: true})
	}
	return matches
}

// egress is the chain for what comes from a container. Packets within one network aren't judged, except those to the
// host's own address there, its gateway: by that a container reaches the host.
func (c *compiler) egress() string {
	ch := c.chain("egress", nil)
	notHost := ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ownTypes, Not: true}
	for _, f := range families {
		if pairs := c.pairs(f); len(pairs) > 0 {
			key, name := ruleset.IfaceAddr4, "networks4"
			if f == ruleset.IPv6 {
				key, name = ruleset.IfaceAddr6, "networks6"
			}
			c.set(ruleset.Set{Name: name, Key: key, Pairs: pairs})
			within := ruleset.IfaceAddrMatch{Field: ruleset.Dst, Family: f, Set: name}
			add(ch, passes("within one network", within, notHost))
		}
	}
	add(ch, runningBefore()) // not in egressRules: the kernel looks for sockets in prerouting and not in forward
	c.egressRules(ch, "egress", c.policy.Egress)
	return ch.Name
}

// egressRules are the end of a chain for what comes from a container.
func (c *compiler) egressRules(ch *ruleset.Chain, name string, rules []policy.Rule) {
	add(ch, alwaysPasses()...)
	add(ch, dhcpReplies()...)
	if c.options.PickUp {
		add(ch, passes("container flow running before", midStream()...))
	}
	c.sectionIn(ch, section{name: name, section: policy.Egress, rules: rules})
}

// pairs are Docker's bridges with the subnets behind them, of one family.
func (c *compiler) pairs(f ruleset.Family) []ruleset.IfaceSubnet {
	var found []ruleset.IfaceSubnet
	for _, n := range c.inv.Networks {
		for _, p := range n.Subnets {
			if p.Addr().Is4() == (f == ruleset.IPv4) {
				found = append(found, ruleset.IfaceSubnet{Iface: n.Bridge, Subnet: netset.Of(p)})
			}
		}
	}
	return found
}

// restricts tells whether a section ever denies, limits or logs. A section that doesn't needs no rules.
func restricts(p *policy.Policy, s policy.Section) bool {
	return p.Default(s).Verb != policy.Allow || slices.ContainsFunc(p.Rules(s), func(r policy.Rule) bool {
		return r.Verb != policy.Allow || !r.Limit.IsZero() || r.Log
	})
}

// direct is the base chain that closes the containers' own addresses to packets from outside that no DNAT led there.
// What a network's inbound rules judge was judged at the gate.
func (c *compiler) direct() {
	ch := c.chain("direct", &ruleset.Base{Hook: ruleset.Forward, Priority: directPriority})
	add(ch, established())
	c.trusted(ch, ruleset.In)
	add(ch, passes("from a container", c.bridgeMatch(ruleset.In)))
	if c.options.PickUp {
		add(ch, passes("container flow running before", midStream()...))
	}
	for _, n := range c.openedNetworks() {
		for _, m := range addrMatches(ruleset.Dst, n.subnets) {
			add(ch, passes("judged at the gate", m))
		}
	}
	direct := ruleset.DNATMatch{Not: true}
	add(ch, c.refused("container's own address", c.bridgeMatch(ruleset.Out), direct))
	c.newBridges(ch, direct)
}

// newBridges judges what is forwarded to and from bridges that Docker made after this was compiled: their containers are
// never more open than others, at most less. It is judged here and not at the gate, since only here it is known what
// goes from one of them to another or stays within one; that is left to Docker.
func (c *compiler) newBridges(ch *ruleset.Chain, direct ruleset.Match) {
	other := func(f ruleset.Field) ruleset.Match {
		return ruleset.IfaceMatch{Field: f, Names: []string{likeDocker + "*"}, Not: true}
	}
	add(ch, leads("new-bridge", "to a new bridge", append(c.unknownBridge(ruleset.Out), other(ruleset.In), direct)...))
	var names []string
	for _, digit := range "0123456789abcdef" {
		names = append(names, likeDocker+string(digit)+"*")
	}
	add(c.chain("new-bridge", nil), c.refused("container's own address", ruleset.IfaceMatch{Field: ruleset.Out, Names: names}))
	if !restricts(c.policy, policy.Egress) {
		return
	}
	add(ch, leads("egress-new", "from a new bridge", append(c.unknownBridge(ruleset.In), other(ruleset.Out), direct)...))
	rules := where(c.policy.Egress, func(r policy.Rule) bool { return len(r.Networks) == 0 && !r.To.Host })
	c.egressRules(c.chain("egress-new", nil), "egnew", rules)
}

// outbound is the base chain that judges what the host sends, where the policy restricts that. What goes to the host
// itself and to its containers isn't judged: docker-proxy lives on that.
func (c *compiler) outbound() {
	if !restricts(c.policy, policy.Outbound) {
		return
	}
	ch := c.chain("outbound", &ruleset.Base{Hook: ruleset.Output, Priority: outboundPriority})
	add(ch, passes("loopback", ruleset.IfaceMatch{Field: ruleset.Out, Names: []string{"lo"}}),
		passes("to a container", c.bridgeMatch(ruleset.Out)))
	c.trusted(ch, ruleset.Out)
	add(ch, established(), passes("no bare SYN", midStream()...))
	add(ch, alwaysPasses()...)
	add(ch, passes("DHCP requests", udpPorts(ruleset.IPv4, 68, 67)...),
		passes("DHCPv6 requests", udpPorts(ruleset.IPv6, 546, 547)...),
		passes("to this host", ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ownTypes}))
	rules := where(c.policy.Outbound, func(r policy.Rule) bool { return !r.To.Host })
	c.sectionIn(ch, section{name: "outbound", section: policy.Outbound, rules: rules})
}

// where gives the rules that are wanted; the same list where all are.
func where(rules []policy.Rule, wanted func(policy.Rule) bool) []policy.Rule {
	if !slices.ContainsFunc(rules, func(r policy.Rule) bool { return !wanted(r) }) {
		return rules
	}
	var found []policy.Rule
	for _, r := range rules {
		if wanted(r) {
			found = append(found, r)
		}
	}
	return found
}
