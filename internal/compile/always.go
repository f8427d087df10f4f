package compile

import (
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
		passes("IGMP", isIGMP()...),
	}
}

// neighbours holds for Neighbour Discovery and MLD.
func neighbours() ruleset.Match {
	return ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{130, 131, 132, 133, 134, 135, 136, 143}}
}

func isIGMP() []ruleset.Match {
	return []ruleset.Match{ruleset.FamilyMatch{Family: ruleset.IPv4}, ruleset.ProtoMatch{Proto: protoIGMP}}
}

const protoIGMP = 2

// allHosts is the address of all hosts on a link.
var allHosts = netset.MustParse("255.255.255.255")

// The ports that clients of DHCP (RFC 2131) and DHCPv6 (RFC 8415) listen on.
const dhcpClient, dhcp6Client = 68, 546

// dhcpReplies are the rules for what this host's own clients wait for; also is what else they ask.
func dhcpReplies(also ...ruleset.Match) []ruleset.Rule {
	reply6 := []ruleset.Match{ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Addrs: netset.LinkLocal()},
		ruleset.ProtoMatch{Proto: policy.UDP}, portMatch(ruleset.DstPort, dhcp6Client)}
	return []ruleset.Rule{
		passes("DHCP replies", append(udpPorts(ruleset.IPv4, 67, dhcpClient), also...)...),
		passes("DHCPv6 replies", append(reply6, also...)...),
	}
}

// runningBefore keeps the host's own connections that nobody tracked before the first apply. It stays: a socket that is
// connected is a connection that was allowed once, and a packet that isn't a bare SYN opens none.
func runningBefore() ruleset.Rule {
	return passes("running before", append(midStream(), ruleset.SocketMatch{})...)
}
