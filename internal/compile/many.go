package compile

import (
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// manyTypes are the kinds of destination that are this host among others.
const manyTypes = ruleset.TypeBroadcast | ruleset.TypeMulticast

func toMany() ruleset.Match { return ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: manyTypes} }

// many is the base chain that judges what is sent to many at once, this host among them. Under bridge netfilter, which
// Docker turns on, such a packet meets the gate once for all whom a bridge carries it to: machines of libvirt's, containers
// of one network. In the hook input only this host's own copy is seen. The order is the gate's.
func (c *compiler) many() {
	ch := c.chain("many", &ruleset.Base{Hook: ruleset.Input, Priority: manyPriority})
	add(ch, established(), leads("many-to-host", "to many", toMany()))
	to := c.chain("many-to-host", nil)
	add(to, passes("loopback", ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"lo"}}))
	c.trusted(to, ruleset.In)
	fromContainer := c.bridgeMatch(ruleset.In)
	if restricts(c.policy, policy.Egress) {
		add(to, leads("container-to-many", "from a container", fromContainer))
		ch := c.chain("container-to-many", nil)
		add(ch, passes("neighbours", neighbours()), passes("IGMP", append(isIGMP(), ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Addrs: multicast.V4()})...),
			passes("DHCP replies", append(udpPorts(ruleset.IPv4, 67, dhcpClient), ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Addrs: allHosts})...),
			ruleset.Rule{Verdict: toChain(egressChain)})
	} else {
		add(to, passes("from a container", fromContainer))
	}
	add(to, alwaysPasses()...)
	add(to, dhcpReplies()...)
	add(to, ruleset.Rule{Verdict: toChain(c.hostChain())})
}
