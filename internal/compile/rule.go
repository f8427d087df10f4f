package compile

import (
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/inventory"
	"quaywall/internal/netset"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// rule is a policy rule, or one of the variants it takes for its published ports, without its ports and protocols.
type rule struct {
	id      int             // in the order of the policy; unique in a section
	traffic []ruleset.Match // what it asks beyond the class it stands in: protocol, ports, ICMP code
	ifaces  []ruleset.Match
	src     *side
	dst     *side
	at      *side // the host addresses that a port is published on
	verdict ruleset.Verdict
	origin  ruleset.Origin
	quals   string // equal strings: traffic and ifaces are equal
}

// covers tells whether the rule matches every packet of these families.
func (r *rule) covers(f fams) bool {
	return len(r.traffic) == 0 && len(r.ifaces) == 0 && r.src.open(f) && r.dst.open(f) && r.at.open(f)
}

// dead tells whether the rule matches no packet of these families.
func (r *rule) dead(f fams) bool {
	for fam := range families {
		if f[fam] && r.src.reach(fam) != reachNone && r.dst.reach(fam) != reachNone && r.at.reach(fam) != reachNone {
			return false
		}
	}
	return true
}

// traffic is a rule on one kind of traffic. The ports are AllPorts, and the types all types, where it names none.
type traffic struct {
	rule  *rule
	proto uint8 // 0 is any packet
	ports netset.Ports
	icmp  policy.ICMPMatch
}

// expander makes the rules of a section out of the policy's.
type expander struct {
	c *compiler
	section
	next int // the next id
	out  []traffic
}

// expand lists the traffic of rules, in their order. A rule on any packet comes alone: whatever else it lists is in it.
func (c *compiler) expand(s section) []traffic {
	e := &expander{c: c, section: s}
	for _, r := range s.rules {
		e.add(r)
	}
	return e.out
}

func (e *expander) add(r policy.Rule) {
	ifaces, quals, ok := e.interfaces(r)
	if !ok {
		return
	}
	origin := originOf(r)
	base := &rule{
		ifaces: ifaces, quals: quals, src: e.c.side(r.From, origin), dst: e.c.side(r.To, origin),
		verdict: e.c.verdict(r), origin: origin,
	}
	if e.section.section == policy.Inbound && len(r.Networks) > 0 || slices.ContainsFunc(r.What, isPublished) {
		e.published(r, base)
		if len(r.Networks) > 0 {
			return
		}
	}
	if slices.Contains(r.What, policy.Traffic{}) {
		e.out = append(e.out, traffic{rule: e.variant(base, nil)})
		return
	}
	var plain *rule
	for _, what := range r.What {
		t := traffic{proto: what.Proto, ports: what.Ports, icmp: what.ICMP}
		switch {
		case what.Published:
			continue
		case what.ICMP.HasCode: // classes go by type, a code is one more thing to ask
			t.rule = e.variant(base, nil)
			t.rule = t.plain()
		default:
			if plain == nil {
				plain = e.variant(base, nil)
			}
			t.rule = plain
		}
		e.out = append(e.out, t)
	}
}

func isPublished(t policy.Traffic) bool { return t.Published }

// variant is a rule for the host addresses at, nil for all, with an id of its own.
func (e *expander) variant(base *rule, at *side) *rule {
	v := *base
	v.id, v.at = e.next, at
	e.next++
	return &v
}

// interfaces is what a rule asks of the interface. It is not ok where no Docker network of the rule exists: such a rule
// matches nothing. While Docker doesn't say which bridge a network has, it may be any: what is denied to one is denied to all.
func (e *expander) interfaces(r policy.Rule) (matches []ruleset.Match, key string, ok bool) {
	field := ruleset.In
	if e.section.section == policy.Outbound {
		field = ruleset.Out
	}
	if len(r.On) > 0 {
		matches = append(matches, ruleset.IfaceMatch{Field: field, Names: r.On})
	}
	if e.section.section != policy.Egress || len(r.Networks) == 0 {
		return matches, strings.Join(r.On, " "), true
	}
	var bridges []string
	for _, name := range r.Networks {
		if n, found := e.c.inv.Network(name); found {
			bridges = append(bridges, n.Bridge)
		} else if !e.c.inv.Docker.Reachable && r.Verb != policy.Allow {
			return matches, strings.Join(r.On, " "), true
		}
	}
	slices.Sort(bridges)
	bridges = slices.Compact(bridges)
	matches = append(matches, ruleset.IfaceMatch{Field: ruleset.In, Names: bridges})
	return matches, strings.Join(r.On, " ") + "|" + strings.Join(bridges, " "), len(bridges) > 0
}

// dialled is a port that Docker publishes, without its address.
type dialled struct {
	proto uint8
	port  uint16
}

// published adds a rule for each published port that it is about, restricted to the addresses the port is published on.
func (e *expander) published(r policy.Rule, base *rule) {
	if e.direct { // a port is published on addresses of the host
		return
	}
	at := map[dialled]*netset.Builder{}
	var order []dialled
	for _, p := range e.c.inv.Published {
		if !selects(r, p) {
			continue
		}
		d := dialled{p.Proto, p.Port}
		if at[d] == nil {
			at[d] = &netset.Builder{}
			order = append(order, d)
		}
		at[d].AddSet(hostAddresses(p))
	}
	variants := map[string]*rule{}
	for _, d := range order {
		addrs, err := at[d].Set()
		if err != nil || addrs.IsEmpty() {
			continue
		}
		text := addrs.String()
		if variants[text] == nil {
			variants[text] = e.variant(base, e.publishedAt(addrs, text))
		}
		ports := netset.Ports{First: d.port, Last: d.port}
		e.out = append(e.out, traffic{rule: variants[text], proto: d.proto, ports: ports})
	}
}

func (e *expander) publishedAt(addrs netset.Set, text string) *side {
	if addrs.Equal(netset.All()) {
		return nil
	}
	return &side{key: text, sets: []*addrSet{newAddrSet("", addrs)}}
}

// selects tells whether a published port is one that the rule is about.
func selects(r policy.Rule, p inventory.Published) bool {
	inNetwork := len(r.Networks) == 0 || slices.ContainsFunc(r.Networks, func(n string) bool { return slices.Contains(p.Networks, n) })
	return inNetwork && slices.ContainsFunc(r.What, func(t policy.Traffic) bool {
		if t.Published {
			return true
		}
		return len(r.Networks) > 0 && (t == policy.Traffic{} || t.Proto == p.Proto && t.Ports.Contains(p.Port))
	})
}

// hostAddresses are the addresses that a port is published on: one, or all of a family.
func hostAddresses(p inventory.Published) netset.Set {
	switch {
	case !p.Addr.IsUnspecified():
		return netset.OfAddrs(p.Addr)
	case p.Addr.Is4():
		return netset.All4()
	}
	return netset.All6()
}

// matches are what a kind of traffic asks of a packet, for rules that stand in no class of their own.
func (t traffic) matches() []ruleset.Match {
	switch {
	case t.proto == 0:
		return nil
	case t.proto == policy.ICMP || t.proto == policy.ICMPv6:
		if t.icmp.HasType {
			return []ruleset.Match{t.icmpType()}
		}
	case policy.HasPorts(t.proto) && t.ports != netset.AllPorts:
		return []ruleset.Match{ruleset.ProtoMatch{Proto: t.proto},
			ruleset.PortMatch{Field: ruleset.DstPort, Ports: []netset.Ports{t.ports}}}
	}
	return []ruleset.Match{ruleset.ProtoMatch{Proto: t.proto}}
}

func (t traffic) icmpType() ruleset.Match {
	m := ruleset.ICMPTypeMatch{Family: protoFamily(t.proto), Types: []uint8{t.icmp.Type}}
	if t.icmp.HasCode {
		m.Code = &t.icmp.Code
	}
	return m
}

func protoFamily(proto uint8) ruleset.Family {
	if proto == policy.ICMPv6 {
		return ruleset.IPv6
	}
	return ruleset.IPv4
}

// plain is the rule on this traffic with the traffic among its matches.
func (t traffic) plain() *rule {
	v := *t.rule
	v.traffic = t.matches()
	v.quals = fmt.Sprintf("%d %v %v/%s", t.proto, t.ports, t.icmp, v.quals)
	return &v
}

// wide tells that the rule is about any packet.
func (t traffic) wide() bool { return t.proto == 0 }

// protoFams are the families that a protocol's packets may be of.
func protoFams(proto uint8) fams {
	switch proto {
	case policy.ICMP, policy.AH: // the kernel passes over the headers of IPv6, of which AH is one
		return fams{true, false}
	case policy.ICMPv6:
		return fams{false, true}
	}
	return bothFamilies
}
