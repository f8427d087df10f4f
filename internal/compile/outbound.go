package compile

import (
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// outbound is the base chain that judges what the host sends, where the policy restricts that. What goes to the host
// itself and to its containers isn't judged: docker-proxy lives on that.
func (c *compiler) outbound() {
	if !restricts(c.policy, policy.Outbound) {
		c.cutOutbound()
		return
	}
	ch := c.chain("outbound", &ruleset.Base{Hook: ruleset.Output, Priority: outboundPriority})
	add(ch, passes("loopback", ruleset.IfaceMatch{Field: ruleset.Out, Names: []string{"lo"}}),
		passes("to a container", c.bridgeMatch(ruleset.Out)))
	c.trusted(ch, ruleset.Out)
	add(ch, established())
	c.cut(ch)
	add(ch, passes("no bare SYN", midStream()...))
	add(ch, alwaysPasses()...)
	add(ch, passes("DHCP requests", udpPorts(ruleset.IPv4, 68, 67)...),
		passes("DHCPv6 requests", udpPorts(ruleset.IPv6, 546, 547)...),
		passes("to this host", toThisHost()))
	rules := where(c.policy.Outbound, func(r policy.Rule) bool { return !r.To.Host })
	c.sectionIn(ch, section{name: "outbound", section: policy.Outbound, rules: rules})
}
