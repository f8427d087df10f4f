package compile

import (
	"slices"

	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// bridgeMatch holds for packets that come from or leave for a Docker bridge.
func (c *compiler) bridgeMatch(field ruleset.Field) ruleset.Match {
	if c.bridges == "" {
		c.bridges = c.set(ruleset.Set{Name: "bridges", Key: ruleset.Iface, Ifaces: c.bridgeNames()})
	}
	return ruleset.IfaceMatch{Field: field, Set: c.bridges}
}

// bridgeNames are the Docker bridges. Docker's two fixed names are among them, whether or not they exist, but none that
// leads elsewhere too.
func (c *compiler) bridgeNames() []string {
	all := slices.DeleteFunc(append(c.inv.Bridges(), "docker0", "docker_gwbridge"), c.inv.IsShared)
	slices.Sort(all)
	return slices.Compact(all)
}

// fromContainers judges connections that begin in a container.
func (c *compiler) fromContainers(ch *ruleset.Chain) {
	bridge := c.bridgeMatch(ruleset.In)
	if !restricts(c.policy, policy.Egress) {
		add(ch, passes("from a container", bridge))
		return
	}
	add(ch, leads(c.egress(), "from a container", bridge))
}

// egressChain is the chain of the egress rules.
const egressChain = "egress"

// egress is the chain for what comes from a container. Packets within one network aren't judged, except those to the
// host's own address there, its gateway: by that a container reaches the host. Of those to many the host's own copy is
// judged where it gets it. What a network can't live without is done on its own link, so it passes to nobody behind that: a
// container could send anything in it. Errors of ICMP need no rule, those that are about a connection are related to it.
func (c *compiler) egress() string {
	ch := c.chain("container", nil)
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
	fromLink := ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Addrs: netset.LinkLocal()}
	toLink := ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Addrs: netset.LinkLocal()}
	add(ch, passes("within one network", fromLink, toLink, notHost), passes("to many", toMany()),
		runningBefore(), // not in egressRules: the kernel looks for sockets in prerouting and not in forward
		passes("a neighbour", toLink, neighbours()), passes("the host as a neighbour", neighbours(), toThisHost()))
	if c.options.PickUp {
		add(ch, passes("container flow running before", midStream()...))
	}
	add(ch, ruleset.Rule{Verdict: toChain(egressChain)})
	c.section(section{name: egressChain, section: policy.Egress, rules: c.policy.Egress})
	return ch.Name
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
