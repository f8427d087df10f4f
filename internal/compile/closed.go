package compile

import (
	"slices"

	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// closedPorts are rules that deny what is dialled to a port of TCP or UDP that no rule is about. They stand before hygiene,
// which asks for more than all rules before it together: what nothing could let in need not be well made. Only a default
// that drops is taken ahead like that; one that rejects would answer sources that nobody has.
func (c *compiler) closedPorts(s section) []ruleset.Rule {
	if c.policy.Default(s.section).Verb != policy.Deny {
		return nil
	}
	named, all := c.namedPorts(s.rules)
	if all {
		return nil
	}
	var rules []ruleset.Rule
	for _, proto := range []uint8{policy.TCP, policy.UDP} {
		ports := netset.JoinPorts(named[proto])
		if slices.Contains(ports, netset.AllPorts) {
			continue
		}
		r := c.defaultRule(s)
		r.Matches = []ruleset.Match{ruleset.ProtoMatch{Proto: proto}}
		if len(ports) > 0 {
			r.Matches = append(r.Matches, ruleset.PortMatch{Field: ruleset.DstPort, Ports: ports, Not: true})
		}
		rules = append(rules, r)
	}
	return rules
}

// namedPorts are the ports that rules are about, by protocol. Rules that are about any packet are about all.
func (c *compiler) namedPorts(rules []policy.Rule) (named map[uint8][]netset.Ports, all bool) {
	named = map[uint8][]netset.Ports{}
	for _, r := range rules {
		for _, p := range c.inv.Published {
			if selects(r, p) {
				named[p.Proto] = append(named[p.Proto], netset.Ports{First: p.Port, Last: p.Port})
			}
		}
		if len(r.Networks) > 0 { // then it is about published ports alone
			continue
		}
		for _, t := range r.What {
			if t == (policy.Traffic{}) {
				return nil, true
			}
			if !t.Published {
				named[t.Proto] = append(named[t.Proto], t.Ports)
			}
		}
	}
	return named, false
}
