package compile

import (
	"slices"
	"strings"

	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// direct is the base chain that closes the containers' own addresses to packets from outside that no DNAT led there.
// What a network's inbound rules judge was judged at the gate.
func (c *compiler) direct() {
	ch := c.chain("direct", &ruleset.Base{Hook: ruleset.Forward, Priority: directPriority})
	add(ch, established())
	c.trusted(ch, ruleset.In)
	if restricts(c.policy, policy.Egress) { // multicast that is routed was judged nowhere
		away := ruleset.IfaceMatch{Field: ruleset.Out, Set: c.bridges, Not: true}
		add(ch, leads(egressChain, "to many elsewhere", c.bridgeMatch(ruleset.In), away, toMany()))
	}
	add(ch, passes("from a container", c.bridgeMatch(ruleset.In)))
	if c.options.PickUp {
		add(ch, passes("container flow running before", midStream()...))
	}
	for _, n := range c.openedNetworks() {
		for _, m := range addrMatches(ruleset.Dst, n.subnets) {
			add(ch, passes("judged at the gate", m))
		}
	}
	direct := ruleset.DNATMatch{Not: true}
	add(ch, c.refused("container's own address", c.bridgeMatch(ruleset.Out), direct))
	c.newBridges(ch, direct)
}

// newBridges judges what is forwarded to and from bridges that Docker made after this was compiled: their containers are
// never more open than others, at most less. It is judged here and not at the gate, since only here it is known what
// goes from one of them to another or stays within one; that is left to Docker.
func (c *compiler) newBridges(ch *ruleset.Chain, direct ruleset.Match) {
	add(ch, leads("new-bridge", "to a new bridge", append(c.newcomer(ruleset.Out), direct)...))
	to, next := c.chain("new-bridge", nil), accept
	if restricts(c.policy, policy.Egress) {
		add(ch, leads("egress-new", "from a new bridge", append(c.newcomer(ruleset.In), direct)...))
		next = toChain(c.fromNewBridges())
	}
	leftToDocker := append(c.newcomer(ruleset.In), c.namedByDocker(ruleset.In, false))
	add(to, ruleset.Rule{Matches: []ruleset.Match{c.namedByDocker(ruleset.Out, true)}, Verdict: next, Origin: ruleset.Origin{Note: "to others"}},
		passes("left to Docker", leftToDocker...), c.refused("container's own address"))
}

// fromNewBridges is the chain for what comes from a new bridge. Packets to the bridges of others come here whichever
// interface they are from.
func (c *compiler) fromNewBridges() string {
	ch := c.chain("egress-new", nil)
	leftToDocker := append(c.newcomer(ruleset.Out), c.namedByDocker(ruleset.Out, false))
	add(ch, passes("from others", c.knownBridges(ruleset.In, false)), passes("from others", c.namedByDocker(ruleset.In, true)),
		passes("left to Docker", leftToDocker...))
	if c.options.PickUp {
		add(ch, passes("container flow running before", midStream()...))
	}
	c.sectionIn(ch, section{name: "egnew", section: policy.Egress, rules: c.strictest()})
	return ch.Name
}

// strictest are the egress rules for a bridge of which nobody knows whose network it is. It may be any that has a bridge
// named like it, also one that was there and was made anew: what is denied to one of them is denied here, and what is
// allowed to one isn't allowed. Nothing that is routed goes to the host.
func (c *compiler) strictest() []policy.Rule {
	var rules []policy.Rule
	for _, r := range c.policy.Egress {
		elsewhere := len(r.Networks) > 0 && !slices.ContainsFunc(r.Networks, c.mayBeNew)
		if r.To.Host || elsewhere || len(r.Networks) > 0 && r.Verb == policy.Allow {
			continue
		}
		r.Networks = nil
		rules = append(rules, r)
	}
	return rules
}

// mayBeNew tells whether a new bridge may be that of a network: not where it has one with another kind of name.
func (c *compiler) mayBeNew(network string) bool {
	n, known := c.inv.Network(network)
	return !known || strings.HasPrefix(n.Bridge, likeDocker)
}

// likeDocker begins the names of the bridges that Docker names by itself: twelve hex digits follow.
const likeDocker = "br-"

// newcomer holds for interfaces that may be bridges which Docker made after this was compiled: cheap to ask, and true of
// some that others made.
func (c *compiler) newcomer(field ruleset.Field) []ruleset.Match {
	return []ruleset.Match{ruleset.IfaceMatch{Field: field, Names: []string{likeDocker + "*"}}, c.knownBridges(field, true)}
}

// others are names of bridges that people give, and Docker never does: with a letter that is no hex digit, or too short. Only
// those stand here that begin as Docker's may (see namedByDocker).
var others = []string{"br-0", "br-1", "br-2", "br-3", "br-acces*", "br-ad", "br-adm*", "br-back*", "br-bak*", "br-bas*", "br-be", "br-ca",
	"br-cach*", "br-cam*", "br-cep*", "br-dat*", "br-db", "br-db1", "br-db2", "br-dc", "br-dc1", "br-dc2", "br-defau*", "br-dem*", "br-dev*",
	"br-edg*", "br-fabr*", "br-fe"}

// knownBridges holds for interfaces that are no new bridges of Docker's: they were there, the policy trusts them, or they are
// called otherwise.
func (c *compiler) knownBridges(field ruleset.Field, not bool) ruleset.Match {
	known := slices.Concat(others, c.policy.Trusted)
	for _, i := range c.inv.Interfaces {
		if strings.HasPrefix(i.Name, likeDocker) {
			known = append(known, i.Name)
		}
	}
	slices.Sort(known)
	return c.ifaceSet("known-bridges", field, slices.Compact(known), not)
}

// namedByDocker holds for interfaces named as Docker may name its bridges. iptables knows names by their beginnings alone, so
// the twelve digits can't be asked for. One digit or two have to do, two where the first is a letter: most names that
// people give are none of these (br-lan, br-dmz, br-ext), and of the others the usual ones are known.
func (c *compiler) namedByDocker(field ruleset.Field, not bool) ruleset.Match {
	const digits, letters = "0123456789", "abcdef"
	var names []string
	for _, a := range digits {
		names = append(names, likeDocker+string(a)+"*")
	}
	for _, a := range letters {
		for _, b := range digits + letters {
			names = append(names, likeDocker+string(a)+string(b)+"*")
		}
	}
	return c.ifaceSet("docker-names", field, names, not)
}

// ifaceSet matches interfaces in a set of ours, which is made at its first use.
func (c *compiler) ifaceSet(name string, field ruleset.Field, ifaces []string, not bool) ruleset.Match {
	if !slices.ContainsFunc(c.sets, func(s ruleset.Set) bool { return s.Name == name }) {
		c.set(ruleset.Set{Name: name, Key: ruleset.Iface, Ifaces: ifaces})
	}
	return ruleset.IfaceMatch{Field: field, Set: name, Not: not}
}
