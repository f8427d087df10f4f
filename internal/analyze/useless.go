package analyze

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
)

// Useless is a rule that does nothing to any packet, whatever it is that isn't known. Such rules can be taken out, any of
// them alone or several together.
type Useless struct {
	Table *netfilter.Table
	Chain *netfilter.Chain
	Rule  *netfilter.Rule
	Why   Uselessness
	// By are the rules before that leave it nothing, all of its chain or all that lead there, or those behind that do the same.
	By []Placed
	// Outside tells that By lead to the chain of the rule, and nothing that it matches comes by them.
	Outside bool
	// Never tells that its matches exclude each other, or what is at its hook.
	Never bool
	// Passes tells that it leads to chains which do nothing to what it sends there.
	Passes bool
	// End tells that the end of the chain does the same for what is left of it by By.
	End bool
}

// Placed is a rule and its chain.
type Placed struct {
	Chain *netfilter.Chain
	Rule  *netfilter.Rule
}

// Uselessness is why a rule is useless.
type Uselessness string

// The reasons.
const (
	Dead      Uselessness = "dead"      // no packet gets to its chain
	Shadowed  Uselessness = "shadowed"  // packets get to its chain, and none of them is left for it
	Redundant Uselessness = "redundant" // without it the same would become of each packet
)

// Unsorted is a table in which it wasn't looked for useless rules.
type Unsorted struct {
	Table *netfilter.Table
	Why   string
}

// FindUseless looks for useless rules in all tables of IPv4 and IPv6. It looks at nothing but the rules: what a named set
// holds, which addresses are the host's, and what state a connection is in may be anything. The error is the context's.
func FindUseless(ctx context.Context, rules *netfilter.Rules) (all []Useless, unsorted []Unsorted, err error) {
	for _, t := range rules.Tables {
		var families []netfilter.Family
		switch t.Family {
		case netfilter.Inet:
			families = []netfilter.Family{netfilter.IPv4, netfilter.IPv6}
		case netfilter.IPv4, netfilter.IPv6:
			families = []netfilter.Family{t.Family}
		default:
			unsorted = append(unsorted, Unsorted{t, "it is for other packets than those of IP"})
			continue
		}
		found, why, err := sortOut(ctx, t, families)
		switch {
		case errors.Is(err, ErrTooLarge):
			why = err.Error()
		case err != nil:
			return nil, nil, err
		}
		if why != "" {
			unsorted = append(unsorted, Unsorted{t, why})
		}
		all = append(all, found...)
	}
	return all, unsorted, nil
}

// sorter finds the useless rules of a table. What is true of a rule has to be so in each family.
type sorter struct {
	table    *netfilter.Table
	families []*flow
	useless  map[*netfilter.Rule]*Useless
	sites    map[string]int // how many rules lead to a chain
	decided  map[*netfilter.Chain]bool
}

// sortOut finds the useless rules of a table, or says why that can't be done.
func sortOut(ctx context.Context, t *netfilter.Table, families []netfilter.Family) (all []Useless, why string, err error) {
	chains, circle := sorted(t)
	if circle != "" {
		return nil, "its chains lead in a circle by " + circle, nil
	}
	defer stopped(&err)
	s := &sorter{table: t, useless: map[*netfilter.Rule]*Useless{}, sites: map[string]int{}, decided: map[*netfilter.Chain]bool{}}
	host := interfacesIn(nil, &netfilter.Rules{Tables: []*netfilter.Table{t}})
	for _, f := range families {
		w := newFlow(ctx, t, f, host)
		w.all(chains)
		s.families = append(s.families, w)
	}
	for _, c := range chains {
		s.unreached(c)
	}
	s.count(chains)
	for _, c := range chains {
		if c.Base != nil {
			s.decide(c, make([]bdd.Set, len(s.families)))
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			if u := s.useless[r]; u != nil {
				all = append(all, *u)
			}
		}
	}
	return parted(all), "", nil
}

// parted makes one of rules of nf_tables that are read as several, and leaves them out where not all of them are useless.
func parted(all []Useless) []Useless {
	var whole []Useless
	for i := 0; i < len(all); {
		u := all[i]
		first := slices.Index(u.Chain.Rules, u.Rule)
		parts, useless := 1, 1
		for ; first+parts < len(u.Chain.Rules) && partOf(u.Chain, first+parts) && u.Chain.Rules[first+parts].Number == u.Rule.Number; parts++ {
		}
		for ; i+useless < len(all) && all[i+useless].Chain == u.Chain && all[i+useless].Rule.Number == u.Rule.Number; useless++ {
		}
		if i += useless; useless == parts && (first == 0 || u.Chain.Rules[first-1].Number != u.Rule.Number) {
			whole = append(whole, all[i-1])
		}
	}
	return whole
}

// sorted are the chains of a table, those that lead to another in front of it, or one from which a circle begins.
func sorted(t *netfilter.Table) (chains []*netfilter.Chain, circle string) {
	const visiting, done = 1, 2
	marks := map[*netfilter.Chain]int{}
	var visit func(c *netfilter.Chain)
	visit = func(c *netfilter.Chain) {
		marks[c] = visiting
		for _, r := range c.Rules {
			for name := range leadsTo(t, r) {
				switch to := t.Chain(name); {
				case to == nil:
				case marks[to] == visiting:
					circle = name
				case marks[to] == 0:
					visit(to)
				}
			}
		}
		marks[c] = done
		chains = append(chains, c)
	}
	for _, c := range t.Chains {
		if marks[c] == 0 {
			visit(c)
		}
	}
	slices.Reverse(chains)
	return chains, circle
}

// leadsTo are the chains that a rule may jump or go to.
func leadsTo(t *netfilter.Table, r *netfilter.Rule) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, a := range r.Actions {
			switch a := a.(type) {
			case netfilter.Verdict:
				if a.Chain != "" && !yield(a.Chain) {
					return
				}
			case netfilter.Lookup:
				for _, e := range mapped(t, a) {
					if e.Verdict != nil && e.Verdict.Chain != "" && !yield(e.Verdict.Chain) {
						return
					}
				}
			}
		}
	}
}

// mapped are the elements that a rule looks its verdict up in.
func mapped(t *netfilter.Table, l netfilter.Lookup) []netfilter.Element {
	if m := t.Set(l.Map); m != nil {
		return m.Elements
	}
	return l.Elements
}

// unreached notes the rules of a chain that no packet gets to, and why.
func (s *sorter) unreached(c *netfilter.Chain) {
	dead := true
	for _, w := range s.families {
		dead = dead && w.reach[c] == bdd.None
	}
	for _, r := range c.Rules {
		switch {
		case dead:
			s.useless[r] = &Useless{Table: s.table, Chain: c, Rule: r, Why: Dead}
		case !slices.ContainsFunc(s.families, func(w *flow) bool { return w.hits[r] != bdd.None }):
			s.useless[r] = &Useless{Table: s.table, Chain: c, Rule: r, Why: Shadowed}
		}
	}
	if dead {
		by := s.leading(c)
		for _, r := range c.Rules {
			s.useless[r].By, s.useless[r].Outside = by, len(by) > 0
		}
		return
	}
	s.shadows(c)
}

// leading are the rules that lead to a chain.
func (s *sorter) leading(to *netfilter.Chain) (all []Placed) {
	for _, c := range s.table.Chains {
		for _, r := range c.Rules {
			for name := range leadsTo(s.table, r) {
				if name == to.Name {
					all = append(all, Placed{c, r})
					break
				}
			}
		}
	}
	return all
}

// shadows names, for the rules of a chain to which nothing is left, those that leave them nothing.
func (s *sorter) shadows(c *netfilter.Chain) {
	if !slices.ContainsFunc(c.Rules, func(r *netfilter.Rule) bool { return s.useless[r] != nil }) {
		return
	}
	by, never, outside := map[*netfilter.Rule]map[int]bool{}, map[*netfilter.Rule]bool{}, map[*netfilter.Rule]bool{}
	for _, r := range c.Rules {
		if s.useless[r] != nil {
			by[r], never[r], outside[r] = map[int]bool{}, true, true
		}
	}
	for _, w := range s.families {
		w.takers(c, func(r *netfilter.Rule, may, comes bdd.Set, takers []int) {
			if by[r] == nil {
				return
			}
			never[r], outside[r] = never[r] && may == bdd.None, outside[r] && comes == bdd.None
			for _, at := range takers {
				by[r][at] = true
			}
		})
	}
	for r, at := range by {
		u := s.useless[r]
		if u.Never = never[r] || outside[r] && c.Base != nil; u.Never {
			continue
		}
		if u.Outside = outside[r]; u.Outside {
			u.By = s.leading(c)
			continue
		}
		u.By = placed(c, at)
	}
}

// placed are rules of a chain by their places, in order; each once, though it was read as several.
func placed(c *netfilter.Chain, at map[int]bool) (all []Placed) {
	for i, r := range c.Rules {
		if at[i] && (len(all) == 0 || all[len(all)-1].Rule.Number != r.Number) {
			all = append(all, Placed{c, r})
		}
	}
	return all
}

// count counts the rules that lead to each chain.
func (s *sorter) count(chains []*netfilter.Chain) {
	for _, c := range chains {
		for _, r := range c.Rules {
			for _, x := range s.families[0].exits(rule{r, c, s.table}).exits {
				if x.chain != nil {
					s.sites[x.chain.Name]++
				}
			}
		}
	}
}

// decide goes through the rules of a chain from its end, and finds those without which the same becomes of each packet,
// whichever of the useless rules behind them are taken out as well. What comes behind a rule, in the order in which packets
// meet it, is decided before it: so no two are useless each for the sake of the other. Of a chain that is entered by one rule alone it is known what becomes of packets that come
// back from it; else that is None.
func (s *sorter) decide(c *netfilter.Chain, behind []bdd.Set) {
	if s.decided[c] {
		return
	}
	s.decided[c] = true
	next, by := make([]bdd.Set, len(s.families)), make([]bdd.Set, len(s.families))
	for i, w := range s.families {
		next[i], by[i] = w.back(c), w.Equal(codes, bdd.Small(atEnd))
	}
	for at, r := range slices.Backward(c.Rules) {
		placed := rule{r, c, s.table}
		s.decideBehind(placed, next, behind)
		if s.useless[r] == nil && s.removable(placed, at) && s.sameWithout(placed, next, behind) {
			s.useless[r] = s.redundant(placed, by)
		}
		stays := s.useless[r] == nil
		for i, w := range s.families {
			next[i] = w.before(placed, next[i], stays)
			if stays {
				by[i] = w.decider(placed, at, by[i])
			}
		}
	}
	for i, w := range s.families {
		w.becomes[c] = next[i]
	}
}

// decideBehind decides on the chains that a rule leads to.
func (s *sorter) decideBehind(r rule, next, behind []bdd.Set) {
	for _, x := range s.families[0].exits(r).exits {
		if x.chain == nil {
			continue
		}
		then := make([]bdd.Set, len(s.families))
		if s.sites[x.chain.Name] == 1 {
			for i, w := range s.families {
				then[i] = next[i]
				if x.kind == netfilter.Goto {
					then[i] = w.back(r.chain)
				}
				then[i] = w.resolved(r.chain, then[i], behind[i])
			}
		}
		s.decide(x.chain, then)
	}
}

// removable tells whether a rule is a whole one, and does nothing but decide.
func (s *sorter) removable(r rule, at int) bool {
	return !s.families[0].exits(r).side && impure(r.Matches) == len(r.Matches) && !partOf(r.chain, at)
}

// partOf tells whether a rule of nf_tables is read as several, of which this is one.
func partOf(c *netfilter.Chain, at int) bool {
	number := c.Rules[at].Number
	return number != 0 && (at > 0 && c.Rules[at-1].Number == number || at+1 < len(c.Rules) && c.Rules[at+1].Number == number)
}

// impure is the place of the first match that may change something, or how many there are: others than limit may keep lists
// that other rules ask for.
func impure(all []netfilter.Match) int {
	at := slices.IndexFunc(all, func(m netfilter.Match) bool {
		switch m := m.(type) {
		case netfilter.Stateful:
			return m.Kind != "limit"
		case netfilter.Opaque:
			return true
		case netfilter.Any:
			return slices.ContainsFunc(m.Of, func(of []netfilter.Match) bool { return impure(of) < len(of) })
		}
		return false
	})
	if at < 0 {
		return len(all)
	}
	return at
}

func (s *sorter) sameWithout(r rule, next, behind []bdd.Set) bool {
	for i, w := range s.families {
		if !w.sameWithout(r, next[i], behind[i]) {
			return false
		}
	}
	return true
}

func (s *sorter) redundant(r rule, by []bdd.Set) *Useless {
	u := &Useless{Table: s.table, Chain: r.chain, Rule: r.Rule, Why: Redundant}
	at := map[int]bool{}
	u.Passes = true
	for _, w := range s.families {
		u.Passes = u.Passes && w.passing(r, w.hits[r.Rule]) == w.hits[r.Rule]
	}
	if u.Passes {
		return u
	}
	for i, w := range s.families {
		for _, code := range w.numbersOf(w.And(w.hits[r.Rule], by[i])) {
			if code == atEnd {
				u.End = true
			} else {
				at[int(code-1)] = true
			}
		}
	}
	u.By = placed(r.chain, at)
	return u
}

func describe(a netfilter.Action) string { return fmt.Sprintf("%+v", a) }
