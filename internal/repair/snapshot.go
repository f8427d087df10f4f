package repair

import (
	"maps"
	"slices"
	"time"

	"quaywall/internal/ruleset"
)

// Snapshot is Docker's own rules as they were when they agreed with what Docker said.
type Snapshot struct {
	Taken   time.Time        `json:"taken"`
	Boot    string           `json:"boot"`    // of the kernel that they were in
	Variant string           `json:"variant"` // of iptables: "nft" or "legacy"
	IPv4    map[string]*Part `json:"ipv4"`    // by table
	IPv6    map[string]*Part `json:"ipv6,omitempty"`
	// Attic are rules that were taken out as stale, the last of them: they come back where Docker says after all that they
	// are of something that is there.
	Attic []Stale `json:"attic,omitempty"`
}

// Stale is a rule that was taken out.
type Stale struct {
	Family ruleset.Family `json:"family"`
	Table  string         `json:"table"`
	Chain  string         `json:"chain"`
	Spec   string         `json:"spec"`
}

// atticSize bounds what is remembered of stale rules.
const atticSize = 200

// of is a family's part, with those of the attic that are current by now; nil for none.
func (s *Snapshot) of(family ruleset.Family, f Facts) map[string]*Part {
	if s == nil {
		return nil
	}
	parts := s.IPv4
	if family == ruleset.IPv6 {
		parts = s.IPv6
	}
	for _, old := range s.Attic {
		if p := parts[old.Table]; old.Family == family && p != nil && f.isCurrent(parseRule(old.Spec)) {
			p.add(old.Chain, old.Spec)
		}
	}
	return parts
}

// add puts a rule to a chain, where Docker would have put it.
func (p *Part) add(chain, spec string) {
	to := p.Placed
	if _, own := p.Chains[chain]; own {
		to = p.Chains
	}
	if !slices.Contains(to[chain], spec) {
		to[chain] = slices.Insert(to[chain], placeOf(spec, to[chain]), spec)
	}
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
