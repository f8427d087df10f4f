package compile

import (
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

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
