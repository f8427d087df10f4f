package compile

import (
	"net/netip"

	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

func established() ruleset.Rule {
	return passes("established", ruleset.CtStateMatch{States: ruleset.StateEstablished | ruleset.StateRelated})
}

// alwaysPasses are the rules for what IPv4 and IPv6 can't live without, coming from outside or from this host.
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

// containersLive are the rules for what a container's network can't live without. What such packets are for is done on one
// link, so they pass to nobody behind it: a container could send anything in them. Errors of ICMP need no rule, those that
// are about a connection are related to it.
func containersLive() []ruleset.Rule {
	neighbours := ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{130, 131, 132, 133, 134, 135, 136, 143}}
	onLink := linkLocal.Union(multicast.V6())
	return []ruleset.Rule{
		passes("on one link", ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Addrs: onLink}, neighbours),
		passes("to the host as a neighbour", neighbours, ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ownTypes}),
		passes("IGMP", ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Addrs: multicast.V4()}, ruleset.ProtoMatch{Proto: protoIGMP}),
		passes("DHCP replies", append(udpPorts(ruleset.IPv4, 67, dhcpClient), ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Addrs: allHosts})...),
	}
}

const protoIGMP = 2

// allHosts is the address of all hosts on a link.
var allHosts = netset.MustParse("255.255.255.255")

// linkLocal are the addresses that each link has for itself.
var linkLocal = netset.Of(netip.MustParsePrefix("fe80::/10"))

// The ports that clients of DHCP (RFC 2131) and DHCPv6 (RFC 8415) listen on.
const dhcpClient, dhcp6Client = 68, 546

// dhcpReplies are the rules for what this host's own clients wait for.
func dhcpReplies() []ruleset.Rule {
	return []ruleset.Rule{
		passes("DHCP replies", append(udpPorts(ruleset.IPv4, 67, dhcpClient), toThisHost())...),
		passes("DHCPv6 replies", ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Addrs: linkLocal},
			ruleset.ProtoMatch{Proto: policy.UDP}, portMatch(ruleset.DstPort, dhcp6Client), toThisHost()),
	}
}

// runningBefore keeps the host's own connections that nobody tracked before the first apply. It stays: a socket that is
// connected is a connection that was allowed once, and a packet that isn't a bare SYN opens none.
func runningBefore() ruleset.Rule {
	return passes("running before", append(midStream(), ruleset.SocketMatch{})...)
}
