package compile

import (
	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// gate is the base chain that judges each new connection where it was dialled to, before Docker's DNAT.
// The order is measured, see 11-gate in the design: nothing that could drop a packet of a flow that ran before
// connection tracking was used stands above the rule that keeps those flows.
func (c *compiler) gate() {
	ch := c.chain("gate", &ruleset.Base{Hook: ruleset.Prerouting, Priority: gatePriority})
	notLo := ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"lo"}, Not: true}
	for _, m := range addrMatches(ruleset.Dst, undialled) {
		add(ch, c.refused("loopback address from outside", m, notLo))
	}
	add(ch, passes("loopback", ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"lo"}}))
	c.trusted(ch, ruleset.In)
	add(ch, established())
	c.cut(ch)
	c.fromContainers(ch)
	c.shortCut(ch)
	add(ch, alwaysPasses()...)
	add(ch, dhcpReplies(toThisHost())...)
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

// pickUp keeps the containers' connections that nobody tracked before the first apply.
func (c *compiler) pickUp(ch *ruleset.Chain) {
	for _, m := range c.subnetMatches() {
		add(ch, passes("container flow running before", append(midStream(), m)...))
	}
}

// shortCut leads clean SYNs and datagrams to this host past the rules that none of them could match.
func (c *compiler) shortCut(ch *ruleset.Chain) {
	noDHCP := ruleset.PortMatch{Field: ruleset.DstPort, Ports: []netset.Ports{{First: dhcpClient, Last: dhcpClient}, {First: dhcp6Client, Last: dhcp6Client}}, Not: true}
	add(ch, leads(c.hostChain(), "a connection to this host", append(cleanSYN(), toThisHost())...),
		leads(c.hostChain(), "a datagram to this host", ruleset.ProtoMatch{Proto: policy.UDP}, noDHCP, toThisHost()))
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
	add(ch, leads(c.hostChain(), "dialled to this host", toThisHost()), leads(c.hostChain(), "dialled on another link", fromOffLink()...))
	inbound := section{name: "inbound", section: policy.Inbound, rules: where(c.policy.Inbound, isToHost)}
	if c.policy.Hygiene {
		host := c.chain("host", nil)
		add(host, c.closedPorts(inbound)...)
		add(host, c.hygiene(toChain("inbound"))...)
	}
	c.section(inbound)
}

// isToHost tells whether an inbound rule is about what is dialled to this host.
func isToHost(r policy.Rule) bool { return r.To.Network == "" }
