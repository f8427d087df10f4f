package compile

import (
	"fmt"
	"slices"
	"sort"

	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// budget bounds how many rules the classes of a section may take together. Each rule stands once in every class that
// it is about: where thousands of wide ranges overlap, that is quadratic.
const budget = 200_000

// section is rules of one section of the policy that become chains of their own.
type section struct {
	name    string // what the names of its chains and maps begin with
	section policy.Section
	rules   []policy.Rule
	direct  bool // they judge what is dialled to a container's own address
}

// section writes a section into a chain of its name.
func (c *compiler) section(s section) { c.sectionIn(c.chain(s.name, nil), s) }

// sectionIn writes a section to the end of a chain. The rules come in three parts: leading ones about any packet, then
// those that are resolved by protocol and port, then trailing ones about any packet and, where resolving all would cost
// too much, those that stay a plain list.
func (c *compiler) sectionIn(ch *ruleset.Chain, s section) {
	all := c.expand(s)
	first := slices.IndexFunc(all, func(t traffic) bool { return !t.wide() })
	if first < 0 {
		first = len(all)
	}
	last := len(all)
	for last > first && all[last-1].wide() {
		last--
	}
	g, n := affordable(all[first:last])
	w := &writer{c: c, name: s.name, end: c.defaultRule(s)}
	if w.list(ch, plainRules(all[:first]), bothFamilies) {
		return
	}
	w.prepareRest(plainRules(all[first+n:]))
	w.classes(ch, g)
}

// defaultRule is what becomes of a packet that no rule of a section matches.
func (c *compiler) defaultRule(s section) ruleset.Rule {
	def := c.policy.Default(s.section)
	if s.direct && def.Verb == policy.Allow {
		return c.refused("container's own address")
	}
	return ruleset.Rule{Counter: true, Verdict: c.verb(def.Verb),
		Origin: ruleset.Origin{Line: policy.OriginOf(def.Pos), Note: fmt.Sprintf("no %s rule matched", s.section)}}
}

// plainRules are rules with their traffic among their matches.
func plainRules(list []traffic) []*rule {
	rules := make([]*rule, len(list))
	for i, t := range list {
		if t.wide() {
			rules[i] = t.rule
		} else {
			rules[i] = t.plain()
		}
	}
	return rules
}

// affordable groups the first of these that can be resolved within the budget, and tells how many they are.
func affordable(all []traffic) (grouped, int) {
	g := group(all)
	if g.cost() <= budget {
		return g, len(all)
	}
	n := sort.Search(len(all), func(n int) bool { return group(all[:n+1]).cost() > budget })
	return group(all[:n]), n
}

// grouped is traffic by protocol.
type grouped struct {
	wide   []*rule // about any packet
	protos map[uint8]*protoGroup
	order  []uint8 // TCP and UDP first
}

// protoGroup is what is about one protocol.
type protoGroup struct {
	spans []span  // on ports or ICMP types
	all   []*rule // on all of the protocol, those about any packet included
}

func group(all []traffic) grouped {
	g := grouped{protos: map[uint8]*protoGroup{}}
	for _, t := range all {
		if !t.wide() && g.protos[t.proto] == nil {
			g.protos[t.proto] = &protoGroup{all: slices.Clone(g.wide)}
			g.order = append(g.order, t.proto)
		}
		g.put(t)
	}
	slices.SortFunc(g.order, func(a, b uint8) int { return protoRank(a) - protoRank(b) })
	return g
}

func (g *grouped) put(t traffic) {
	if t.wide() {
		g.wide = append(g.wide, t.rule)
		for _, p := range g.protos {
			p.all = append(p.all, t.rule)
		}
		return
	}
	p := g.protos[t.proto]
	switch {
	case policy.HasPorts(t.proto) && t.ports != netset.AllPorts:
		p.spans = append(p.spans, span{t.ports.First, t.ports.Last, t.rule})
	case t.icmp.HasType:
		p.spans = append(p.spans, span{uint16(t.icmp.Type), uint16(t.icmp.Type), t.rule})
	case len(p.all) == 0 || p.all[len(p.all)-1] != t.rule:
		p.all = append(p.all, t.rule)
	}
}

func protoRank(proto uint8) int {
	switch proto {
	case policy.TCP:
		return -2
	case policy.UDP:
		return -1
	}
	return int(proto)
}

func (g grouped) cost() int {
	total := 0
	for _, p := range g.protos {
		total += cost(p.spans, len(p.all)) + len(p.all)
	}
	return total
}

// writer writes the chains of one section.
type writer struct {
	c    *compiler
	name string       // what the names of its chains and maps begin with
	end  ruleset.Rule // the last rule of each way through the section
	maps int          // address maps made so far
}

// prepareRest decides what a packet meets that no class decides on: the rest of the rules, which all classes share,
// and the default.
func (w *writer) prepareRest(rest []*rule) {
	rest = reachable(rest, bothFamilies)
	if len(rest) == 0 {
		return
	}
	if rest[0].covers(bothFamilies) {
		w.end = ruleset.Rule{Counter: true, Verdict: rest[0].verdict, Origin: rest[0].origin}
		return
	}
	ch := w.c.chain(w.name+"-rest", nil)
	if !w.list(ch, rest, bothFamilies) {
		add(ch, w.end)
	}
	w.end = ruleset.Rule{Verdict: toChain(ch.Name)}
}

// classes writes what is resolved by protocol and port.
func (w *writer) classes(ch *ruleset.Chain, g grouped) {
	for _, proto := range g.order {
		p := g.protos[proto]
		if policy.HasPorts(proto) {
			w.ports(ch, proto, p)
		} else {
			w.types(ch, proto, p)
		}
		if len(p.all) > len(g.wide) {
			w.wholeProto(ch, proto, p)
		}
	}
	if !w.list(ch, g.wide, bothFamilies) {
		add(ch, w.end)
	}
}

// ports writes the verdict map of a protocol with ports.
func (w *writer) ports(ch *ruleset.Chain, proto uint8, p *protoGroup) {
	if len(p.spans) == 0 {
		return
	}
	base := fmt.Sprintf("%s-%s", w.name, protoName(proto))
	m := ruleset.Map{Name: w.c.names.claim(base + "-ports"), Key: ruleset.Port}
	for _, class := range w.pack(proto, classify(p.spans, p.all)) {
		verdict, origin := w.target(fmt.Sprintf("%s-%d", base, class.ports[0].First), class.rules, bothFamilies)
		for _, ports := range class.ports {
			m.Elements = append(m.Elements, ruleset.Element{Ports: ports, Verdict: verdict, Origin: origin})
		}
	}
	slices.SortFunc(m.Elements, func(a, b ruleset.Element) int { return int(a.Ports.First) - int(b.Ports.First) })
	w.c.lookups = append(w.c.lookups, m)
	add(ch, ruleset.Rule{Matches: []ruleset.Match{ruleset.ProtoMatch{Proto: proto}},
		Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: m.Name}})
}

// types writes the rules for the types of ICMP that the policy names.
func (w *writer) types(ch *ruleset.Chain, proto uint8, p *protoGroup) {
	for _, class := range classify(p.spans, p.all) {
		f := protoFams(proto)
		name := fmt.Sprintf("%s-%s-%d", w.name, protoName(proto), class.ports[0].First)
		verdict, origin := w.target(name, class.rules, f)
		m := ruleset.ICMPTypeMatch{Family: protoFamily(proto)}
		for _, ports := range class.ports {
			for t := ports.First; t <= ports.Last; t++ {
				m.Types = append(m.Types, uint8(t))
			}
		}
		add(ch, counted(ruleset.Rule{Matches: []ruleset.Match{m}, Verdict: verdict, Origin: origin}))
	}
}

// wholeProto writes what is about all of a protocol: for ports and types that no rule names, or protocols without any.
func (w *writer) wholeProto(ch *ruleset.Chain, proto uint8, p *protoGroup) {
	verdict, origin := w.target(fmt.Sprintf("%s-%s", w.name, protoName(proto)), p.all, protoFams(proto))
	add(ch, counted(ruleset.Rule{Matches: []ruleset.Match{ruleset.ProtoMatch{Proto: proto}}, Verdict: verdict, Origin: origin}))
}

// counted has a rule that comes from a policy line count.
func counted(r ruleset.Rule) ruleset.Rule {
	r.Counter = r.Origin.Line != ""
	return r
}

// target is where the packets of a class go: straight to a verdict where the first rule is about all of them, else to
// a chain of that name, which is made.
func (w *writer) target(name string, rules []*rule, f fams) (ruleset.Verdict, ruleset.Origin) {
	rules = reachable(rules, f)
	switch {
	case len(rules) == 0:
		return w.end.Verdict, w.end.Origin
	case rules[0].covers(f):
		return rules[0].verdict, rules[0].origin
	}
	ch := w.c.chain(name, nil)
	if !w.list(ch, rules, f) {
		add(ch, w.end)
	}
	return toChain(ch.Name), ruleset.Origin{}
}

func protoName(proto uint8) string {
	switch proto {
	case policy.TCP:
		return "tcp"
	case policy.UDP:
		return "udp"
	case policy.SCTP:
		return "sctp"
	case policy.DCCP:
		return "dccp"
	case policy.UDPLite:
		return "udpl"
	case policy.ICMP:
		return "icmp"
	case policy.ICMPv6:
		return "icmp6"
	}
	return fmt.Sprintf("proto-%d", proto)
}

// where gives the rules that are wanted; the same list where all are.
func where(rules []policy.Rule, wanted func(policy.Rule) bool) []policy.Rule {
	if !slices.ContainsFunc(rules, func(r policy.Rule) bool { return !wanted(r) }) {
		return rules
	}
	var found []policy.Rule
	for _, r := range rules {
		if wanted(r) {
			found = append(found, r)
		}
	}
	return found
}
