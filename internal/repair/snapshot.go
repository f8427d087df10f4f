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
	Past    []Past           `json:"past,omitempty"` // the last of those that were in such a snapshot once, the latest last
}

// Past is a rule that was seen to be Docker's own, and was about something that is gone by now.
type Past struct {
	Family ruleset.Family `json:"family"`
	Table  string         `json:"table"`
	Chain  string         `json:"chain"`
	Spec   string         `json:"spec"`
	// Out says that quaywall took it out as stale: it comes back where Docker says after all that it is of something that
	// is there. What Docker took out itself, it writes itself.
	Out bool `json:"out,omitempty"`
}

// pastSize bounds what is remembered of rules that are no more.
const pastSize = 500

// parts are a family's, by table.
func (s *Snapshot) parts(family ruleset.Family) map[string]*Part {
	if family == ruleset.IPv6 {
		return s.IPv6
	}
	return s.IPv4
}

// of is a family's part, with those of the past that quaywall took out and that are current by now; nil for none.
func (s *Snapshot) of(family ruleset.Family, f Facts) map[string]*Part {
	if s == nil {
		return nil
	}
	parts := s.parts(family)
	for _, old := range s.Past {
		if p := parts[old.Table]; old.Out && old.Family == family && p != nil && f.isCurrent(parseRule(old.Spec)) {
			p.add(old.Chain, old.Spec)
		}
	}
	return parts
}

// has tells whether a rule is recorded as Docker's own, now or in the past. No other is ever taken out: it may be another
// engine's, or the administrator's.
func (s *Snapshot) has(family ruleset.Family, table, chain, spec string) bool {
	if s == nil {
		return false
	}
	p := s.parts(family)[table]
	return p != nil && (slices.Contains(p.Chains[chain], spec) || slices.Contains(p.Placed[chain], spec)) ||
		slices.ContainsFunc(s.Past, func(o Past) bool { return o.is(family, table, chain, spec) })
}

func (o Past) is(family ruleset.Family, table, chain, spec string) bool {
	return o.Family == family && o.Table == table && o.Chain == chain && o.Spec == spec
}

// rules are all rules of the snapshot, sorted, as they will be once they are of the past.
func (s *Snapshot) rules() []Past {
	var all []Past
	for _, family := range families {
		for _, table := range slices.Sorted(maps.Keys(s.parts(family))) {
			p := s.parts(family)[table]
			for _, chains := range []map[string][]string{p.Chains, p.Placed} {
				for _, chain := range slices.Sorted(maps.Keys(chains)) {
					for _, spec := range chains[chain] {
						all = append(all, Past{Family: family, Table: table, Chain: chain, Spec: spec})
					}
				}
			}
		}
	}
	return all
}

// ended is what stays of a snapshot once its boot is over: nothing of it comes back by itself.
func (s *Snapshot) ended() []Past {
	all := slices.Concat(s.Past, s.rules())
	for i := range all {
		all[i].Out = false
	}
	return all
}

// inherit makes what older snapshots knew and this one lacks its past.
func (s *Snapshot) inherit(older []Past) {
	for _, o := range older {
		if !s.has(o.Family, o.Table, o.Chain, o.Spec) {
			s.Past = append(s.Past, o)
		}
	}
	s.Past = s.Past[max(0, len(s.Past)-pastSize):]
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
