package policy

import (
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/policy/cover"
	"quaywall/internal/policy/tree"
)

// checkRules looks at what a policy without mistakes means, and tells what a person can't have meant.
func (l *loader) checkRules() {
	r := newResolver(l.policy)
	for _, s := range []Section{Inbound, Egress, Outbound} {
		section := l.checkSection(s, r)
		if !l.list.HasErrors() {
			section.warnShadowed()
			section.warnRepeated()
			section.warnLikeDefault()
		}
	}
	l.warnUnused()
}

func (l *loader) warnUnused() {
	for name, s := range l.sets {
		if !s.used {
			l.list.Warnf(s.pos, "remove it, or name it in a rule", "nothing uses the set %q", name)
		}
	}
	for name, s := range l.services {
		if !s.used {
			l.list.Warnf(s.pos, "remove it, or name it in a rule", "nothing uses the service %q", name)
		}
	}
}

// families is which of the families of addresses something covers.
type families struct{ v4, v6 bool }

func (f families) and(o families) families { return families{f.v4 && o.v4, f.v6 && o.v6} }
func (f families) none() bool              { return !f.v4 && !f.v6 }

func (f families) String() string {
	switch {
	case f.v4 && f.v6:
		return "both families"
	case f.v4:
		return "IPv4"
	case f.v6:
		return "IPv6"
	}
	return "nothing"
}

// families of traffic: in IPv6 an authentication header is no protocol, netfilter looks at what follows it.
func (t Traffic) families() families {
	return families{t.Proto != ICMPv6, t.Proto != ICMP && t.Proto != AH}
}

// checkSection tells of rules that can't match, and gives what is known of the others.
func (l *loader) checkSection(s Section, r *resolver) *section {
	section := &section{loader: l, number: s, resolver: r}
	for i, rule := range l.policy.Rules(s) {
		from, to := r.parts(rule.From), r.parts(rule.To)
		c := ruleCheck{loader: l, resolver: r, rule: rule, syntax: l.syntax[s][i], from: familiesOf(from), to: familiesOf(to)}
		section.sides = append(section.sides, [2][]cover.Addrs{from, to})
		section.dead = append(section.dead, c.neverMatches())
		section.repeated = append(section.repeated, false)
		c.warnInverted(rule.From, c.syntax.from, c.to)
		c.warnInverted(rule.To, c.syntax.to, c.from)
		c.warnInterfaces(s)
	}
	return section
}

// ruleCheck looks at one rule.
type ruleCheck struct {
	*loader
	*resolver
	rule     Rule
	syntax   ruleSyntax
	from, to families // what from and to have addresses of
}

// familiesOf is what a union of sets has addresses of.
func familiesOf(parts []cover.Addrs) families {
	var f families
	for _, part := range parts {
		f.v4 = f.v4 || !part.Set.V4().IsEmpty()
		f.v6 = f.v6 || !part.Set.V6().IsEmpty()
	}
	return f
}

// neverMatches tells of a rule that no packet can match.
func (c *ruleCheck) neverMatches() bool {
	if c.from.none() || c.to.none() {
		a, n := c.rule.From, c.syntax.from
		if c.to.none() {
			a, n = c.rule.To, c.syntax.to
		}
		c.syntax.file.warnf(n, "", "%s: the rule matches nothing", emptiness(a))
		return true
	}
	both := c.from.and(c.to)
	if both.none() {
		c.mismatch(c.syntax.to, fmt.Sprintf("from is of %s and to of %s: the rule matches nothing", c.from, c.to))
		return true
	}
	if !slices.ContainsFunc(c.rule.What, func(t Traffic) bool { return !t.families().and(both).none() }) {
		other := families{!both.v4, !both.v6}
		c.mismatch(c.syntax.what, fmt.Sprintf("this is of %s alone, the rule's addresses of %s: the rule matches nothing", other, both))
		return true
	}
	return false
}

// emptiness says why a from or to has no address.
func emptiness(a Addresses) string {
	if a.Not {
		return "not leaves no address"
	}
	return "no address is in " + strings.Join(a.Sets, ", ")
}

// mismatch reports families that don't meet. Where a file fills one of the sets, that may have been otherwise yesterday
// and may be tomorrow: the policy stays valid.
func (c *ruleCheck) mismatch(n *tree.Node, text string) {
	for _, name := range slices.Concat(c.rule.From.Sets, c.rule.To.Sets) {
		if s, _ := c.policy.Set(name); s.File != "" {
			c.syntax.file.warnf(n, "", "%s", text)
			return
		}
	}
	c.syntax.file.errorf(n, "", "%s", text)
}

// warnInverted tells that the inversion of addresses of one family is all of the other.
func (c *ruleCheck) warnInverted(a Addresses, n *tree.Node, other families) {
	if !a.Not {
		return
	}
	a.Not = false
	named := familiesOf(c.parts(a))
	missing := families{!named.v4, !named.v6}
	possible := slices.ContainsFunc(c.rule.What, func(t Traffic) bool { return !t.families().and(missing).and(other).none() })
	switch {
	case !possible || missing.none():
	case named.none():
		c.syntax.file.warnf(n, "", "%s, so the rule matches every address", emptiness(a))
	default:
		c.syntax.file.warnf(n, fmt.Sprintf("add the %s addresses that are meant, if any", missing),
			"what not stands before is of %s alone, so the rule matches all of %s", named, missing)
	}
}

// warnInterfaces tells of interfaces whose packets are never judged.
func (c *ruleCheck) warnInterfaces(s Section) {
	if c.syntax.on == nil {
		return
	}
	items := []tree.Node{*c.syntax.on}
	if c.syntax.on.Kind == tree.List {
		items = c.syntax.on.Items
	}
	for i := range items {
		name := items[i].Text
		switch {
		case name == "lo":
			c.syntax.file.warnf(&items[i], "remove it", "what passes the loopback interface is never judged")
		case s == Inbound && c.trusts(name):
			c.syntax.file.warnf(&items[i], "", "%s is trusted: what comes in by it is never judged", name)
		}
	}
}

// trusts tells whether all interfaces of a pattern are trusted.
func (c *ruleCheck) trusts(pattern string) bool {
	return slices.ContainsFunc(c.policy.Trusted, func(trusted string) bool {
		prefix, isGlob := strings.CutSuffix(trusted, "*")
		return trusted == pattern || isGlob && strings.HasPrefix(pattern, prefix)
	})
}
