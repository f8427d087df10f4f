package compile

import (
	"slices"

	"quaywall/internal/ruleset"
)

// plain is the rules that a rule comes to where it isn't resolved: one, or for each family one for each of its sets.
func (c *compiler) plain(r *rule, f fams) []ruleset.Rule {
	var rules []ruleset.Rule
	put := func(conditions [][]ruleset.Match) {
		for _, matches := range conditions {
			rules = append(rules, ruleset.Rule{Matches: matches, Counter: true, Verdict: r.verdict, Origin: r.origin})
		}
	}
	if r.ofAnyFamily(f) {
		put(c.conditions(r, slices.Index(f[:], true)))
		return rules
	}
	for fam, family := range families {
		if !f[fam] {
			continue
		}
		conditions := c.conditions(r, fam)
		for i, matches := range conditions {
			if f == bothFamilies && !slices.ContainsFunc(matches, ofFamily) {
				conditions[i] = append([]ruleset.Match{ruleset.FamilyMatch{Family: family}}, matches...)
			}
		}
		put(conditions)
	}
	return rules
}

// ofAnyFamily tells whether one rule serves all of these families.
func (r *rule) ofAnyFamily(f fams) bool {
	for _, s := range []*side{r.src, r.dst, r.at} {
		if s != nil && !s.host && !s.open(f) {
			return false
		}
	}
	return true
}

// ofFamily tells whether a match holds for packets of one family alone.
func ofFamily(m ruleset.Match) bool {
	switch m := m.(type) {
	case ruleset.AddrMatch, ruleset.ICMPTypeMatch, ruleset.FamilyMatch:
		return true
	case ruleset.ProtoMatch:
		return !m.Not && protoFams(m.Proto) != bothFamilies
	}
	return false
}

// conditions is what a rule asks of a packet of a family: any one of the lists, all of whose matches must hold.
func (c *compiler) conditions(r *rule, fam int) [][]ruleset.Match {
	lists := [][]ruleset.Match{slices.Concat(r.traffic, r.ifaces)}
	for _, end := range []struct {
		field ruleset.Field
		side  *side
	}{{ruleset.Src, r.src}, {ruleset.Dst, r.dst}, {ruleset.Dst, r.at}} {
		lists = c.narrow(lists, end.field, end.side, fam)
	}
	return lists
}

// narrow adds what a side asks to each of the lists: one match for any of several sets multiplies them, "none of these"
// takes a match for each set.
func (c *compiler) narrow(lists [][]ruleset.Match, field ruleset.Field, s *side, fam int) [][]ruleset.Match {
	switch {
	case s != nil && s.host:
		return product(lists, []ruleset.Match{ruleset.AddrTypeMatch{Field: field, Types: ownTypes}})
	case s.reach(fam) == reachNone:
		return nil
	case s.reach(fam) == reachAll:
		return lists
	}
	var matches []ruleset.Match
	for _, set := range s.sets {
		if set.mayHold(fam) {
			matches = append(matches, c.match(set, field, fam, s.not))
		}
	}
	if !s.not {
		return product(lists, matches)
	}
	for i := range lists {
		lists[i] = slices.Concat(lists[i], matches)
	}
	return lists
}

// product is each list with each match at its end.
func product(lists [][]ruleset.Match, matches []ruleset.Match) [][]ruleset.Match {
	var all [][]ruleset.Match
	for _, list := range lists {
		for _, m := range matches {
			all = append(all, append(slices.Clip(list), m))
		}
	}
	return all
}
