package repair

import (
	"maps"
	"slices"
	"time"
)

// Snapshot is Docker's own rules as they were when they agreed with what Docker said.
type Snapshot struct {
	Taken   time.Time        `json:"taken"`
	Boot    string           `json:"boot"`    // of the kernel that they were in
	Variant string           `json:"variant"` // of iptables: "nft" or "legacy"
	IPv4    map[string]*Part `json:"ipv4"`    // by table
	IPv6    map[string]*Part `json:"ipv6,omitempty"`
}

// Part is what Docker has in one table.
type Part struct {
	Forward string              `json:"forward,omitempty"` // policy of the chain FORWARD
	Chains  map[string][]string `json:"chains"`            // Docker's own, with all their rules
	Placed  map[string][]string `json:"placed"`            // its rules in built-in chains, in order
}

// tables are those that Docker writes into, in the order in which they are mended: what opens comes last.
var tables = []string{"raw", "filter", "nat"}

// extract takes Docker's part of a dump. What is there of networks and containers that are gone is left out.
func (f Facts) extract(d dump) map[string]*Part {
	parts := map[string]*Part{}
	for _, name := range tables {
		t := d[name]
		if t == nil {
			continue
		}
		p := &Part{Forward: t.policies["FORWARD"], Chains: map[string][]string{}, Placed: map[string][]string{}}
		for chain, rules := range t.chains {
			_, builtIn := t.policies[chain]
			switch {
			case chain == userChain:
				p.Chains[chain] = slices.DeleteFunc(slices.Clone(rules), func(s string) bool { return s != "-j RETURN" })
			case slices.Contains(chains, chain):
				p.Chains[chain] = f.current(rules)
			case builtIn:
				placed := f.current(slices.DeleteFunc(slices.Clone(rules), func(s string) bool { return !f.isOurs(name, chain, parseRule(s)) }))
				if len(placed) > 0 {
					p.Placed[chain] = placed
				}
			}
		}
		if len(p.Chains)+len(p.Placed) > 0 {
			parts[name] = p
		}
	}
	return parts
}

// current leaves out rules that are not about what is there.
func (f Facts) current(rules []string) []string {
	return slices.DeleteFunc(slices.Clone(rules), func(s string) bool { return !f.isCurrent(parseRule(s)) })
}

// same tells whether two parts of a family hold the same rules.
func same(a, b map[string]*Part) bool {
	return maps.EqualFunc(a, b, func(a, b *Part) bool {
		return a.Forward == b.Forward && maps.EqualFunc(a.Chains, b.Chains, slices.Equal) && maps.EqualFunc(a.Placed, b.Placed, slices.Equal)
	})
}
