package policy

import (
	"fmt"
	"slices"
	"strings"

	"go4.org/netipx"

	"quaywall/internal/diag"
	"quaywall/internal/netset"
	"quaywall/internal/policy/cover"
)

// resolver gives the addresses of rules in parts, so that a set of a million is never put together with an address or two
// for each rule that names it.
type resolver struct {
	source *Policy
	known  map[string]cover.Addrs         // sets, and what is left by not
	ranges map[netipx.IPRange]cover.Addrs // single ranges that rules name
}

func newResolver(p *Policy) *resolver {
	return &resolver{p, map[string]cover.Addrs{}, map[netipx.IPRange]cover.Addrs{}}
}

// parts are the sets whose union a from or a to is. Of this host's addresses and of a network's nothing is known here:
// they count as any.
func (r *resolver) parts(a Addresses) []cover.Addrs {
	switch {
	case !a.Given || a.Host || a.Network != "":
		return []cover.Addrs{cover.Any}
	case a.Not:
		return []cover.Addrs{r.inverted(a)}
	}
	var parts []cover.Addrs
	for _, name := range a.Sets {
		parts = append(parts, remembered(r, r.known, name, func() netset.Set {
			s, _ := r.source.Set(name)
			return s.Addrs
		}))
	}
	if !a.Inline.IsEmpty() {
		parts = append(parts, r.inline(a.Inline))
	}
	return parts
}

// inline gives the addresses that a rule names itself.
func (r *resolver) inline(s netset.Set) cover.Addrs {
	if s.Len() > 1 {
		return cover.Addrs{Set: s}
	}
	for key := range s.Each() {
		return remembered(r, r.ranges, key, func() netset.Set { return s })
	}
	return cover.Addrs{}
}

// remembered gives a set the same identity each time.
func remembered[K comparable](r *resolver, in map[K]cover.Addrs, key K, get func() netset.Set) cover.Addrs {
	s, ok := in[key]
	if !ok {
		s = cover.Addrs{ID: len(r.known) + len(r.ranges) + 1, Set: get()}
		in[key] = s
	}
	return s
}

func (r *resolver) inverted(a Addresses) cover.Addrs {
	sets := Addresses{Given: true, Not: true, Sets: a.Sets}
	all := remembered(r, r.known, "not "+strings.Join(a.Sets, " "), func() netset.Set { return r.source.Resolve(sets) })
	if a.Inline.IsEmpty() {
		return all
	}
	return cover.Addrs{Set: all.Set.Subtract(a.Inline)}
}

// section is the rules of one section while they are compared with each other.
type section struct {
	*loader
	*resolver
	number   Section
	dead     []bool             // rules that were told of already
	repeated []bool             // rules that those behind them make needless
	sides    [][2][]cover.Addrs // from and to of each rule, in parts
}

func (s *section) rules() []Rule { return s.policy.Rules(s.number) }

func (s *section) region(i int) cover.Region {
	r := s.rules()[i]
	region := cover.Region{
		Scope: cover.Scope{On: r.On, Networks: r.Networks},
		From:  s.sides[i][0], To: s.sides[i][1],
	}
	switch {
	case r.To.Host:
		region.Scope.Kind = cover.KindHost
	case r.To.Network != "":
		region.Scope.Kind, region.Scope.Network = cover.KindNetwork, r.To.Network
	}
	for _, t := range r.What {
		region.Traffic = append(region.Traffic, t.span())
	}
	return region
}

// span is traffic as a range of ports, or of types and codes.
func (t Traffic) span() cover.Traffic {
	all := cover.Traffic{Proto: int(t.Proto), First: 0, Last: 65535}
	switch {
	case t.Published:
		all.Proto = cover.Published
	case t.Proto == 0:
		all.Proto = cover.AnyProto
	case HasPorts(t.Proto):
		all.First, all.Last = t.Ports.First, t.Ports.Last
	case t.ICMP.HasCode:
		all.First = uint16(t.ICMP.Type)<<8 | uint16(t.ICMP.Code)
		all.Last = all.First
	case t.ICMP.HasType:
		all.First = uint16(t.ICMP.Type) << 8
		all.Last = all.First | 255
	}
	return all
}

// maxShadowed is of how many rules it is told: to name the one that shadows them means going through all before it.
const maxShadowed = 50

// addTo adds a rule to an index, unless it covers the rule.
func (s *section) addTo(index *cover.Index, i int) (region cover.Region, covered bool) {
	region = s.region(i)
	if covered = index.Covers(region); !covered {
		index.Add(region)
	}
	return region, covered
}

// warnShadowed tells of rules to which earlier ones leave nothing.
func (s *section) warnShadowed() {
	index := cover.New()
	told := 0
	for i := range s.rules() {
		if s.dead[i] {
			continue
		}
		region, covered := s.addTo(index, i)
		if !covered {
			continue
		}
		s.dead[i] = true
		if told++; told <= maxShadowed {
			s.warnRule(i, s.shadowedBy(i, s.culprit(i, region)), "remove it, or move it up")
		}
	}
	if told > maxShadowed {
		s.list.Warnf(diag.Pos{File: s.policy.File}, "", "%d more rules of %s never match", told-maxShadowed, s.number)
	}
}

// warnRule reports a warning on a whole rule.
func (s *section) warnRule(i int, text, hint string) {
	syntax := s.syntax[s.number][i]
	syntax.file.warnf(syntax.rule, hint, "%s", text)
}

// culprit finds an earlier rule that covers a region by itself, -1 where it takes several.
func (s *section) culprit(i int, region cover.Region) int {
	for j := range i {
		if cover.Alone(s.region(j), region) {
			return j
		}
	}
	return -1
}

// shadowedBy says what leaves nothing to a rule: an earlier one, or several (-1).
func (s *section) shadowedBy(i, culprit int) string {
	if culprit < 0 {
		return "the rule never matches: those before it together decide on all of it"
	}
	r, by := s.rules()[i], s.rules()[culprit]
	switch {
	case r.Verb != by.Verb:
		return fmt.Sprintf("the rule never matches: %s (%s) decides first", by.Origin(), by.Verb)
	case r.Limit != by.Limit:
		return fmt.Sprintf("the rule never matches: %s decides first, with another limit", by.Origin())
	case slices.Equal(r.What, by.What) && slices.Equal(r.On, by.On) && slices.Equal(r.Networks, by.Networks) &&
		sameAddresses(r.From, by.From) && sameAddresses(r.To, by.To):
		return fmt.Sprintf("the rule never matches: it is %s again", by.Origin())
	}
	return fmt.Sprintf("the rule never matches: %s does the same for all of it", by.Origin())
}

func sameAddresses(a, b Addresses) bool {
	return a.Not == b.Not && a.Host == b.Host && a.Network == b.Network && slices.Equal(a.Sets, b.Sets) && a.Inline.Equal(b.Inline)
}

// plain tells whether a rule does nothing but allow, deny or reject.
func (r Rule) plain() bool { return !r.Log && r.Limit.IsZero() }

// defaultFrom is the place of the first of the rules at the end that do what happens without them as well. A rule that logs
// or limits does more; a network's own addresses are opened by rules alone, whatever the default is.
func (s *section) defaultFrom() int {
	rules := s.rules()
	for i := len(rules) - 1; i >= 0; i-- {
		if r := rules[i]; r.Verb != s.policy.Default(s.number).Verb || !r.plain() || r.To.Network != "" {
			return i + 1
		}
	}
	return 0
}

// warnLikeDefault tells of those.
func (s *section) warnLikeDefault() {
	first, told := s.defaultFrom(), 0
	for i := len(s.rules()) - 1; i >= first; i-- {
		if told++; !s.dead[i] && told <= maxShadowed {
			s.warnRule(i, fmt.Sprintf("the rule does what the default of %s does anyway", s.number), "remove it")
		}
	}
}

// warnRepeated tells of rules whose packets those right behind them treat alike. A rule of another verb ends such a row, and
// so does one that nothing is left to: it would have something without those before it.
func (s *section) warnRepeated() {
	rules := s.rules()
	index, told := cover.New(), 0
	last := s.defaultFrom() - 1
	for i := last; i >= 0; i-- {
		r := rules[i]
		switch {
		case !r.plain():
			index, last = cover.New(), i-1
			continue
		case i < last && r.Verb != rules[i+1].Verb:
			index, last = cover.New(), i
		}
		if s.dead[i] {
			continue
		}
		region, covered := s.addTo(index, i)
		if !covered {
			continue
		}
		s.repeated[i] = true
		if told++; told <= maxShadowed {
			s.warnRule(i, "the rule changes nothing: "+s.repeatedBy(i, last, region), "remove it")
		}
	}
}

// repeatedBy says which of the rules behind one, as far as the last, do the same.
func (s *section) repeatedBy(i, last int, region cover.Region) string {
	for j := i + 1; j <= last; j++ {
		if !s.dead[j] && !s.repeated[j] && cover.Alone(s.region(j), region) {
			return s.rules()[j].Origin() + " does the same for all of it"
		}
	}
	return "those behind it together do the same for all of it"
}
