package ruleset

import "slices"

// follow lists the chains that a chain's rules lead to, by verdict or by look-up, in order; some may be there twice.
func (t *Table) follow(ch *Chain, maps map[string]*Map) []string {
	var next []string
	for i := range ch.Rules {
		next = ch.Rules[i].follow(next, maps)
	}
	return next
}

func (r *Rule) follow(next []string, maps map[string]*Map) []string {
	if r.Verdict.Chain != "" {
		next = append(next, r.Verdict.Chain)
	}
	if r.Lookup == nil || maps[r.Lookup.Map] == nil {
		return next
	}
	for _, e := range maps[r.Lookup.Map].Elements {
		if e.Verdict.Chain != "" {
			next = append(next, e.Verdict.Chain)
		}
	}
	return next
}

// indexes find chains and maps by their names.
func (t *Table) indexes() (map[string]*Chain, map[string]*Map) {
	chains, maps := make(map[string]*Chain, len(t.Chains)), make(map[string]*Map, len(t.Maps))
	for i := range t.Chains {
		chains[t.Chains[i].Name] = &t.Chains[i]
	}
	for i := range t.Maps {
		maps[t.Maps[i].Name] = &t.Maps[i]
	}
	return chains, maps
}

// ReachedFrom are the names of the chains that packets of these hooks can come to.
func (t *Table) ReachedFrom(hooks ...Hook) map[string]bool {
	chains, maps := t.indexes()
	reached := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		ch := chains[name]
		if ch == nil || reached[name] {
			return
		}
		reached[name] = true
		for _, next := range t.follow(ch, maps) {
			visit(next)
		}
	}
	for _, ch := range t.Chains {
		if ch.Base != nil && slices.Contains(hooks, ch.Base.Hook) {
			visit(ch.Name)
		}
	}
	return reached
}

// LongestPath is how many rules a packet can meet at most, from base chains of one hook each on; a look-up counts as
// one. The table must be valid.
func (t *Table) LongestPath() int {
	p := pathFinder{from: map[string]int{}}
	p.chains, p.maps = t.indexes()
	longest := 0
	for i := range t.Chains {
		if t.Chains[i].Base != nil {
			longest = max(longest, p.path(t.Chains[i].Name))
		}
	}
	return longest
}

type pathFinder struct {
	chains map[string]*Chain
	maps   map[string]*Map
	from   map[string]int // the longest path from a chain on
}

// path goes through the rules from the last to the first: what a packet meets from a rule on is the rule and the longer
// of what follows here and what the rule leads to. Behind a goto nothing follows here, behind a jump both do.
func (p *pathFinder) path(name string) int {
	if known, ok := p.from[name]; ok {
		return known
	}
	longest := 0
	rules := p.chains[name].Rules
	for i := len(rules) - 1; i >= 0; i-- {
		away, jump := 0, 0
		for _, next := range rules[i].follow(nil, p.maps) {
			away = max(away, p.path(next))
		}
		if rules[i].Verdict.Kind == Jump {
			away, jump = 0, away
		}
		longest = 1 + jump + max(longest, away)
	}
	p.from[name] = longest
	return longest
}

// Prune takes away the chains that no base chain leads to, and the sets and maps that are used by none of the others.
func (t *Table) Prune() {
	chains, maps := t.indexes()
	used := make(map[string]bool, len(t.Chains))
	var todo []string
	for i := range t.Chains {
		if t.Chains[i].Base != nil {
			todo = append(todo, t.Chains[i].Name)
		}
	}
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if ch := chains[name]; ch != nil && !used[name] {
			used[name] = true
			todo = append(todo, t.follow(ch, maps)...)
			ch.uses(used)
		}
	}
	t.Chains = keep(t.Chains, func(c Chain) bool { return used[c.Name] })
	t.Sets = keep(t.Sets, func(s Set) bool { return used[s.Name] })
	t.Maps = keep(t.Maps, func(m Map) bool { return used[m.Name] })
}

// uses adds the names of the sets and maps that a chain's rules refer to.
func (c *Chain) uses(used map[string]bool) {
	for _, r := range c.Rules {
		if r.Lookup != nil {
			used[r.Lookup.Map] = true
		}
		for _, m := range r.Matches {
			if name, _ := setOf(m); name != "" {
				used[name] = true
			}
		}
	}
}

func keep[T any](all []T, wanted func(T) bool) []T {
	var kept []T
	for _, x := range all {
		if wanted(x) {
			kept = append(kept, x)
		}
	}
	return kept
}
