package compile

import (
	"fmt"
	"slices"
	"strings"

	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// families are the families a rule may be of. A fams is some of them, by the same index.
var families = [2]ruleset.Family{ruleset.IPv4, ruleset.IPv6}

type fams [2]bool

var bothFamilies = fams{true, true}

const (
	// longList is how many ranges an inline list may have before it becomes a named set, shared by all that are equal.
	longList = 8
	// largeSet is how many ranges a set may have to be resolved into verdict maps. A larger one is referred to.
	largeSet = 1024
)

// addrSet is addresses that a rule names at once: a set of the policy or the addresses written in the rule.
type addrSet struct {
	name   string // the set's name; "" for a short list
	file   bool   // a file fills it, so that its elements may change later
	large  bool
	origin ruleset.Origin
	parts  [2]netset.Set       // by family
	ranges [2][]netipx.IPRange // by family; not kept for large sets
	full   [2]bool             // every address of the family
	made   [2]string           // names of the sets in the table, once made
}

func newAddrSet(name string, addrs netset.Set) *addrSet {
	s := &addrSet{name: name, parts: [2]netset.Set{addrs.V4(), addrs.V6()}}
	for i, part := range s.parts {
		if part.Len() > largeSet {
			s.large = true
			continue
		}
		s.ranges[i] = part.Ranges()
		s.full[i] = len(s.ranges[i]) == 1 && isFull(s.ranges[i][0])
	}
	return s
}

func isFull(r netipx.IPRange) bool {
	return r.From().IsUnspecified() && !r.To().Next().IsValid()
}

// mayHold tells whether addresses of a family are or may come to be in the set.
func (s *addrSet) mayHold(fam int) bool { return s.file || !s.parts[fam].IsEmpty() }

// fixed tells that the set may be resolved into maps.
func (s *addrSet) fixed() bool { return !s.file && !s.large }

// prepareSets reads the policy's sets.
func (c *compiler) prepareSets() {
	c.userSets = make(map[string]*addrSet, len(c.policy.Sets))
	for _, set := range c.policy.Sets {
		s := newAddrSet(set.Name, set.Addrs)
		s.file = set.File != ""
		s.origin = ruleset.Origin{Line: policy.OriginOf(set.Pos)}
		c.userSets[set.Name] = s
	}
}

// match is one match of an address in the set.
func (c *compiler) match(s *addrSet, field ruleset.Field, fam int, not bool) ruleset.Match {
	m := ruleset.AddrMatch{Field: field, Family: families[fam], Not: not}
	if s.name == "" {
		m.Addrs = s.parts[fam]
		return m
	}
	if s.made[fam] == "" {
		name := fmt.Sprintf("%s-%d", s.name, 4+2*fam)
		s.made[fam] = c.set(ruleset.Set{Name: name, Key: families[fam].AddrKey(), Addrs: s.parts[fam], Origin: s.origin})
	}
	m.Set = s.made[fam]
	return m
}

// side is what a rule asks of one end of a packet; nil asks nothing.
type side struct {
	key  string // sides with the same key ask the same
	host bool   // an address of this host; all below is empty then
	not  bool   // none of the sets
	sets []*addrSet
}

// reach is how many of a family's addresses a side lets through.
type reach uint8

const (
	reachNone reach = iota
	reachSome
	reachAll
)

func (s *side) reach(fam int) reach {
	if s == nil || s.host {
		return reachAll
	}
	full, some := false, false
	for _, set := range s.sets {
		full = full || set.full[fam] && !set.file
		some = some || set.mayHold(fam)
	}
	switch {
	case full == s.not && (full || !some):
		return reachNone
	case full || !some:
		return reachAll
	}
	return reachSome
}

// open tells whether the side asks nothing of these families.
func (s *side) open(f fams) bool {
	if s == nil {
		return true
	}
	for fam := range families {
		if f[fam] && (s.host || s.reach(fam) != reachAll) {
			return false
		}
	}
	return true
}

// mappable tells whether the side can be resolved into a map: all of its addresses are known, and they are not all
// there are.
func (s *side) mappable() bool {
	if s == nil || s.host {
		return false
	}
	for fam := range families {
		if s.reach(fam) == reachAll {
			return false
		}
	}
	return !slices.ContainsFunc(s.sets, func(a *addrSet) bool { return !a.fixed() })
}

// size is how many plain rules the side would take at most.
func (s *side) size() int {
	if s == nil || s.host || s.not {
		return 1
	}
	return len(s.sets)
}

// resolve gives the ranges of a family that the side lets through.
func (s *side) resolve(fam int) []netipx.IPRange {
	if len(s.sets) == 1 && !s.not {
		return s.sets[0].ranges[fam]
	}
	var all netset.Set
	for _, set := range s.sets {
		all = all.Union(set.parts[fam])
	}
	if s.not {
		all = [2]netset.Set{netset.All4(), netset.All6()}[fam].Subtract(all)
	}
	return all.Ranges()
}

// side reads a from or a to. Line names the set that a long list becomes.
func (c *compiler) side(a policy.Addresses, origin ruleset.Origin) *side {
	if !a.Given {
		return nil
	}
	s := &side{host: a.Host, not: a.Not}
	for _, name := range a.Sets {
		if set := c.userSets[name]; set != nil {
			s.sets = append(s.sets, set)
		}
	}
	inline := ""
	if !a.Inline.IsEmpty() {
		inline = a.Inline.String()
		s.sets = append(s.sets, c.inline(a.Inline, inline, origin))
	}
	s.key = strings.Join(a.Sets, " ") + "|" + inline
	if a.Host {
		s.key += "|host"
	}
	if a.Not {
		s.key += "|not"
	}
	return s
}

// inline gives the addresses written in a rule; long lists that are equal are one.
func (c *compiler) inline(addrs netset.Set, text string, origin ruleset.Origin) *addrSet {
	if known, ok := c.lists[text]; ok {
		return known
	}
	s := newAddrSet("", addrs)
	if addrs.Len() > longList {
		s.name, s.origin = "list"+lineNumber(origin), origin
	}
	c.lists[text] = s
	return s
}

// lineNumber is the part of FILE:LINE behind the colon.
func lineNumber(o ruleset.Origin) string { return o.Line[strings.LastIndexByte(o.Line, ':')+1:] }
