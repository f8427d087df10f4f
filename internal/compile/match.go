package compile

import (
	"net/netip"
	"slices"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// ownTypes are the kinds of destination that are this host and nobody else.
const ownTypes = ruleset.TypeLocal | ruleset.TypeAnycast

var loopback = netset.Of(netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))

var multicast = netset.MustParse("224.0.0.0/4 ff00::/8")

// undialled are the destinations that no packet has that comes in by another interface than lo. The unspecified address is
// one (RFC 4291, 2.5.2); the kernel takes it for an anycast address of its own where a default route is on link.
var undialled = loopback.Union(netset.Of(netip.MustParsePrefix("::/128")))

func udpPorts(f ruleset.Family, src, dst uint16) []ruleset.Match {
	return []ruleset.Match{ruleset.FamilyMatch{Family: f}, ruleset.ProtoMatch{Proto: policy.UDP},
		portMatch(ruleset.SrcPort, src), portMatch(ruleset.DstPort, dst)}
}

func portMatch(f ruleset.Field, port uint16) ruleset.Match {
	return ruleset.PortMatch{Field: f, Ports: []netset.Ports{{First: port, Last: port}}}
}

const allFlags = packet.FIN | packet.SYN | packet.RST | packet.PSH | packet.ACK | packet.URG

func cleanSYN() []ruleset.Match {
	return []ruleset.Match{ruleset.ProtoMatch{Proto: policy.TCP}, ruleset.TCPFlagsMatch{Mask: allFlags, Value: packet.SYN}}
}

// toThisHost holds for destinations that are this host alone. Those that are it among others have a chain of their own.
func toThisHost() ruleset.Match { return ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ownTypes} }

// fromOffLink holds for packets to a link-local address from one of wider scope. The link-local addresses of this host's
// other interfaces are none of the host's to the kernel, and none to nftables; but they are to the match addrtype of
// iptables, and thus to Docker's DNAT, which leads such packets to the container (it passes over link-local sources). Hosts
// don't choose such a pair of addresses by themselves, so nothing that a bridge carries is lost.
func fromOffLink() []ruleset.Match {
	return []ruleset.Match{
		ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Addrs: netset.LinkLocal()},
		ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Addrs: netset.LinkLocal(), Not: true},
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
		c.set(ruleset.Set{Name: name, Key: f.AddrKey(), Addrs: addrs})
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
