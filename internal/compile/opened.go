package compile

import (
	"fmt"
	"slices"

	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

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
	add(entry, passes("to many", toMany())) // the broadcast address of a network is no container's
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
