package compile

import (
	"slices"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// early is the base chain in front of connection tracking. There a dropped packet costs half of what it costs at the gate,
// but nothing is known of connections: a packet from a denied source may answer somebody here. Only what surely begins
// something is dropped, and only by the rules that nothing stands before; the gate judges everything by all rules anyway.
//
// The order is for the packets that go on: one of a TCP connection meets one rule, a datagram two, a SYN three and a
// look-up. What costs more is asked of packets from denied sources alone.
func (c *compiler) early() {
	rules := c.leading()
	if len(rules) == 0 {
		return
	}
	ch := c.chain("early", &ruleset.Base{Hook: ruleset.Prerouting, Priority: earlyPriority})
	tcp := ruleset.ProtoMatch{Proto: policy.TCP}
	add(ch, passes("begins no connection", tcp, ruleset.TCPFlagsMatch{Mask: allFlags, Value: packet.SYN, Not: true}),
		passes("may be an answer", ruleset.ProtoMatch{Proto: policy.UDP}))
	from := c.chain("early-source", nil)
	add(ch, leads(from.Name, "begins a connection", tcp))
	if !c.policy.Keep { // a later echo request of a ping belongs to a flow, as far as connection tracking is concerned
		for _, m := range echoRequests() {
			add(ch, leads(from.Name, "asks for an echo", m))
		}
	}
	add(from, c.fromSources(rules, "early-host")...)
	c.earlyToHost(rules)
}

// echoRequests hold for the requests of ping.
func echoRequests() []ruleset.Match {
	return []ruleset.Match{ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{8}},
		ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{128}}}
}

// leading are the first of the inbound rules about this host, as long as they deny everything from some addresses.
func (c *compiler) leading() []*rule {
	inbound := where(c.policy.Inbound, isToHost)
	n := 0
	for n < len(inbound) && deniesSource(inbound[n]) {
		n++
	}
	var rules []*rule
	for _, t := range c.expand(section{section: policy.Inbound, rules: inbound[:n]}) {
		rules = append(rules, t.rule)
	}
	return reachable(rules, bothFamilies)
}

// deniesSource tells whether a rule is about all that comes from some addresses, at most by some interface.
func deniesSource(r policy.Rule) bool {
	isAny := slices.Contains(r.What, policy.Traffic{}) && !slices.ContainsFunc(r.What, isPublished)
	return r.Verb == policy.Deny && isAny && r.From.Given && !r.To.Given && len(r.Networks) == 0
}

// earlyToHost judges what begins something and comes from a source of one of the rules, or near one.
func (c *compiler) earlyToHost(rules []*rule) {
	ch := c.chain("early-host", nil)
	outside := []ruleset.Match{ruleset.IfaceMatch{Field: ruleset.In, Set: c.inside(), Not: true}, toThisHost()}
	if len(rules) == 1 { // its sources have been looked up
		r := *rules[0]
		r.src, r.traffic = nil, outside
		add(ch, c.plain(&r, bothFamilies)...)
		return
	}
	next := c.chain("early-rules", nil)
	add(ch, leads(next.Name, "from outside to this host", outside...))
	w := &writer{c: c, name: "early"}
	w.list(next, rules, bothFamilies)
}

// inside is a set of the interfaces by which packets come in that the inbound rules don't judge: one look-up, and no rule
// for each kind of them.
func (c *compiler) inside() string {
	all := slices.Concat([]string{"lo"}, c.policy.Trusted, c.bridgeNames())
	slices.Sort(all)
	return c.set(ruleset.Set{Name: "inside", Key: ruleset.Iface, Ifaces: slices.Compact(all)})
}

// fromSources lead packets to a chain that come from a source of one of the rules. The sources of many rules, where they
// are known, are one set: a packet that goes on is looked up in it once.
func (c *compiler) fromSources(rules []*rule, next string) []ruleset.Rule {
	const note = "from a denied source"
	merge := plainSize(rules, ruleset.Src) > longRun
	var merged netset.Builder
	var found []ruleset.Rule
	seen := map[string]bool{}
	for _, r := range rules {
		switch {
		case merge && r.src.mappable():
			for fam := range families {
				for _, x := range r.src.resolve(fam) {
					merged.Add(x)
				}
			}
		case !seen[r.src.key]:
			seen[r.src.key] = true
			alone := &rule{src: r.src, verdict: toChain(next), origin: ruleset.Origin{Note: note}}
			found = append(found, uncounted(c.plain(alone, bothFamilies))...)
		}
	}
	all, _ := merged.Set() // fails on ranges that are none alone
	for fam, part := range []netset.Set{all.V4(), all.V6()} {
		if !part.IsEmpty() {
			m := c.builtIn([]string{"early4", "early6"}[fam], ruleset.Src, families[fam], part)
			found = append(found, leads(next, note, m))
		}
	}
	return found
}

// uncounted are rules that lead somewhere where their packets are counted.
func uncounted(rules []ruleset.Rule) []ruleset.Rule {
	for i := range rules {
		rules[i].Counter = false
	}
	return rules
}
