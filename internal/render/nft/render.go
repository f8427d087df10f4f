package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
)

// Render gives the typed form of a ruleset of one table. What can't be said in nf_tables is an error that names the rule.
func Render(rs *ruleset.Ruleset) (*Table, error) {
	if len(rs.Tables) != 1 || rs.Tables[0].Family != ruleset.Inet {
		return nil, fmt.Errorf("nft: one table of family inet is what can be rendered, not %d tables", len(rs.Tables))
	}
	src := &rs.Tables[0]
	r := &renderer{table: &Table{Name: src.Name}, lists: map[string]bool{}, maps: map[string]*ruleset.Map{}}
	for i := range src.Sets {
		s, err := namedSet(&src.Sets[i])
		if err != nil {
			return nil, fmt.Errorf("nft: set %s: %w", src.Sets[i].Name, err)
		}
		r.table.Sets = append(r.table.Sets, s)
	}
	for i := range src.Maps {
		s, err := verdictMap(&src.Maps[i])
		if err != nil {
			return nil, fmt.Errorf("nft: map %s: %w", src.Maps[i].Name, err)
		}
		r.maps[src.Maps[i].Name] = &src.Maps[i]
		r.table.Sets = append(r.table.Sets, s)
	}
	for i := range src.Chains {
		if err := r.chain(&src.Chains[i]); err != nil {
			return nil, err
		}
	}
	return r.table, nil
}

// renderer collects a table. Lists are the sets that stand for the lists of values in rules.
type renderer struct {
	table *Table
	lists map[string]bool
	maps  map[string]*ruleset.Map
}

// hooks are the kernel's numbers of the hooks.
var hooks = map[ruleset.Hook]uint32{
	ruleset.Prerouting:  unix.NF_INET_PRE_ROUTING,
	ruleset.Input:       unix.NF_INET_LOCAL_IN,
	ruleset.Forward:     unix.NF_INET_FORWARD,
	ruleset.Output:      unix.NF_INET_LOCAL_OUT,
	ruleset.Postrouting: unix.NF_INET_POST_ROUTING,
}

func (r *renderer) chain(src *ruleset.Chain) error {
	c := Chain{Name: src.Name}
	if src.Base != nil {
		hook, ok := hooks[src.Base.Hook]
		if !ok {
			return fmt.Errorf("nft: chain %s: unknown hook %d", src.Name, src.Base.Hook)
		}
		c.Base = &Base{Hook: hook, Priority: int32(src.Base.Priority), Policy: nfAccept, Type: "filter"}
	}
	for i := range src.Rules {
		rules, err := r.rule(&src.Rules[i])
		if err != nil {
			return fmt.Errorf("nft: chain %s, rule %d (%s): %w", src.Name, i+1, src.Rules[i], err)
		}
		c.Rules = append(c.Rules, rules...)
	}
	r.table.Chains = append(r.table.Chains, c)
	return nil
}

// rule gives the rule, or the rules, of which a packet matches one at most, that say it in nf_tables.
func (r *renderer) rule(src *ruleset.Rule) ([]Rule, error) {
	var rules []Rule
	all, err := alternatives(src.Matches)
	if err != nil {
		return nil, err
	}
	for _, matches := range all {
		b := &builder{renderer: r}
		for _, m := range matches {
			if err := b.match(m); err != nil {
				return nil, err
			}
		}
		if err := b.action(src); err != nil {
			return nil, err
		}
		rules = append(rules, Rule{Exprs: b.exprs, Comment: comment(src.Origin)})
	}
	return rules, nil
}

// maxAlternatives is into how many rules a rule is split at most for the sake of its short lists.
const maxAlternatives = 8

// alternatives says rules that one list of expressions can't say, or that would need a set for a short list, as several;
// no packet matches two of them. The kernel finds a set by going through all of the table: 10,000 rules with a list each
// take 10 s as sets, and 0.4 s as 20,000 rules (measured).
func alternatives(matches []ruleset.Match) ([][]ruleset.Match, error) {
	all := [][]ruleset.Match{nil}
	limited := false
	for _, m := range matches {
		_, isRate := m.(ruleset.RateMatch)
		limited = limited || isRate
	}
	for _, m := range matches {
		either := split(m)
		if short := shortList(m); !limited && len(short)*len(all) <= maxAlternatives && len(short) > 1 {
			either = short
		}
		var next [][]ruleset.Match
		for _, before := range all {
			for _, x := range either {
				next = append(next, append(before[:len(before):len(before)], x...))
			}
		}
		all = next
	}
	if limited && len(all) > 1 {
		return nil, errors.New("a rate for all packets together can't stand in a rule that has to be split")
	}
	return all, nil
}

// shortList splits a match of a few addresses or ports into one for each; nil for any other.
func shortList(m ruleset.Match) (either [][]ruleset.Match) {
	switch m := m.(type) {
	case ruleset.AddrMatch:
		addrs := ofFamily(m.Addrs, m.Family)
		if m.Set != "" || m.Not || addrs.Len() > maxAlternatives {
			return nil
		}
		for r := range addrs.Each() {
			m.Addrs = rangeOf(r)
			either = append(either, []ruleset.Match{m})
		}
	case ruleset.PortMatch:
		ports := netset.JoinPorts(m.Ports)
		if m.Not || len(ports) > maxAlternatives {
			return nil
		}
		for _, p := range ports {
			m.Ports = []netset.Ports{p}
			either = append(either, []ruleset.Match{m})
		}
	}
	return either
}

// split gives the alternatives of a match that can't be said at once, each a list of matches that must all hold.
func split(m ruleset.Match) [][]ruleset.Match {
	switch m := m.(type) {
	case ruleset.DNATMatch:
		if m.Not { // "ct status" ends the rule for packets that conntrack knows nothing of; these are not rewritten either
			unknown := ruleset.CtStateMatch{States: ruleset.StateInvalid | ruleset.StateUntracked}
			return [][]ruleset.Match{{unknown}, {m}}
		}
	case ruleset.ProtoMatch:
		if family := familyOf(m.Proto); m.Not && family != ruleset.Inet {
			other := ruleset.IPv4 + ruleset.IPv6 - family
			return [][]ruleset.Match{{ruleset.FamilyMatch{Family: other}}, {ruleset.FamilyMatch{Family: family}, m}}
		}
	}
	return [][]ruleset.Match{{m}}
}

// familyOf is the family that a protocol belongs to, Inet for one of both.
func familyOf(proto uint8) ruleset.Family {
	switch proto {
	case unix.IPPROTO_ICMP:
		return ruleset.IPv4
	case unix.IPPROTO_ICMPV6:
		return ruleset.IPv6
	}
	return ruleset.Inet
}

// maxComment is the longest comment that nft prints, in bytes.
const maxComment = 127

// comment is an origin as it is kept in the kernel, cut where it is too long, between two characters.
func comment(o ruleset.Origin) string {
	text := o.Comment()
	if len(text) <= maxComment {
		return text
	}
	cut := maxComment - len("…")
	for cut > 0 && text[cut]&0xc0 == 0x80 {
		cut--
	}
	return text[:cut] + "…"
}
