package ipt

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
)

// IP protocol numbers that have options of their own in iptables.
const (
	icmp    = 1
	tcp     = 6
	udp     = 17
	icmpv6  = 58
	sctp    = 132
	dccp    = 33
	udplite = 136
)

// condition is what the matches of a rule come to in one family.
//
// iptables has one place in a rule for each of its own options (-p, -i, -s, …), and its nft variant also joins two matches
// "tcp" of one rule into one when it lists them: so what two of ruleset's matches say is brought together here.
type condition struct {
	never   bool     // the rule matches nothing in this family
	proto   protocol // which transport protocol
	options []string // -i, -o, -s, -d
	used    map[ruleset.Field]bool
	ports   []string       // options of the match "tcp" or "udp"
	flags   []flagTest     // alternatives; none is any flags
	ext     []string       // matches that must all hold
	either  [][]string     // of each, one must hold
	rates   []string       // matches that count packets, so that they must be asked once and last
	taken   map[string]int // options of the match "tcp" or "udp" that are given
}

// protocol is a test of the transport protocol. The zero value is none.
type protocol struct {
	number uint8
	given  bool
	not    bool
}

// flagTest is a test of TCP flags.
type flagTest struct {
	mask, value uint8
	not         bool
}

func (c *condition) clone() *condition {
	d := *c
	d.options, d.ports, d.flags = slices.Clone(c.options), slices.Clone(c.ports), slices.Clone(c.flags)
	d.ext, d.either, d.rates = slices.Clone(c.ext), slices.Clone(c.either), slices.Clone(c.rates)
	return &d
}

// transport is the condition that is left of c in a chain that only what c matches comes to: later options of ports need
// the protocol named again.
func (c *condition) transport() *condition {
	if c.proto.not {
		return &condition{}
	}
	return &condition{proto: c.proto}
}

// setProto adds a test of the protocol.
func (c *condition) setProto(p protocol) error {
	if p.number == 0 {
		return fmt.Errorf("protocol 0 can't be matched: to iptables it means any")
	}
	switch {
	case !c.proto.given || c.proto == p:
		c.proto = p
	case c.proto.not && p.not:
		return fmt.Errorf("two protocols can't be excluded in one rule")
	case c.proto.number == p.number:
		c.never = true // one wants it, the other doesn't
	case !c.proto.not && !p.not:
		c.never = true
	case c.proto.not:
		c.proto = p
	}
	return nil
}

// addFlags adds a test of TCP flags: both this one and those before must hold.
func (c *condition) addFlags(t flagTest) {
	if len(c.flags) == 0 {
		c.flags = []flagTest{t}
		return
	}
	var both []flagTest
	for _, a := range expandFlags(c.flags...) {
		for _, b := range expandFlags(t) {
			if a.value&b.mask == b.value&a.mask {
				both = append(both, flagTest{mask: a.mask | b.mask, value: a.value | b.value})
			}
		}
	}
	c.flags = both
	c.never = c.never || len(both) == 0
}

// expandFlags writes "not" as disjoint alternatives: the first bit that differs, with all bits before it as they were.
func expandFlags(tests ...flagTest) []flagTest {
	var all []flagTest
	for _, t := range tests {
		if !t.not {
			all = append(all, t)
			continue
		}
		var same uint8
		for rest := t.mask; rest != 0; rest &= rest - 1 {
			bit := uint8(1) << bits.TrailingZeros8(rest)
			all = append(all, flagTest{mask: same | bit, value: t.value&same | ^t.value&bit})
			same |= bit
		}
	}
	return all
}

func (t flagTest) String() string {
	return not(t.not) + "--tcp-flags " + flagNames(t.mask) + " " + flagNames(t.value)
}

func flagNames(f uint8) string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "NONE"
	}
	return strings.Join(names, ",")
}

func not(n bool) string {
	if n {
		return "! "
	}
	return ""
}

// addPorts adds a test of ports.
func (c *condition) addPorts(l *lowering, m ruleset.PortMatch) error {
	if !c.proto.given || c.proto.not {
		return fmt.Errorf("ports are matched without a protocol")
	}
	ports := netset.JoinPorts(m.Ports)
	switch { // iptables-nft 1.8.9 loses a negated range 0:65535 and matches everything then
	case len(ports) == 0 || ports[0] == netset.AllPorts:
		c.never = c.never || (len(ports) > 0) == m.Not
		return nil
	case len(ports) == 1 && c.transportMatch() != "" && c.taken[optionOf(m.Field)] == 0:
		c.take(optionOf(m.Field), not(m.Not)+"--"+optionOf(m.Field)+" "+portRange(ports[0]))
		return nil
	case slots(ports) <= maxMultiport:
		c.ext = append(c.ext, multiport(m.Field, ports, m.Not))
		return nil
	case c.proto.number == tcp || c.proto.number == udp:
		set := l.sets.add("ports", Set{Kind: PortBits, Entries: portEntries(ports)})
		c.ext = append(c.ext, matchSet(set, direction(m.Field), m.Not))
		return nil
	}
	c.manyPorts(m.Field, ports, m.Not)
	return nil
}

// manyPorts splits ports that no set can hold into several matches.
func (c *condition) manyPorts(f ruleset.Field, ports []netset.Ports, negated bool) {
	var parts []string
	for part := range slices.Chunk(ports, maxMultiport/2) {
		parts = append(parts, multiport(f, part, negated))
	}
	if negated {
		c.ext = append(c.ext, parts...)
		return
	}
	c.either = append(c.either, parts)
}

// take gives an option to the match of the protocol.
func (c *condition) take(option, text string) {
	if c.taken == nil {
		c.taken = map[string]int{}
	}
	c.taken[option]++
	c.ports = append(c.ports, text)
}

// transportMatch is the match that tests ports of the protocol, "" where multiport has to.
func (c *condition) transportMatch() string {
	switch c.proto.number {
	case tcp:
		return "tcp"
	case udp:
		return "udp"
	}
	return ""
}

// maxMultiport is how many ports the match "multiport" takes; a range counts as two.
const maxMultiport = 15

func slots(ports []netset.Ports) int {
	n := 0
	for _, p := range ports {
		n++
		if p.First != p.Last {
			n++
		}
	}
	return n
}

func multiport(f ruleset.Field, ports []netset.Ports, negated bool) string {
	var list []string
	for _, p := range ports {
		list = append(list, portRange(p))
	}
	return "-m multiport " + not(negated) + "--" + optionOf(f) + "s " + strings.Join(list, ",")
}

func portRange(p netset.Ports) string {
	if p.First == p.Last {
		return fmt.Sprint(p.First)
	}
	return fmt.Sprintf("%d:%d", p.First, p.Last)
}

// variants are the rules that the condition takes, without rates; a packet meets it if one of them matches.
func (c *condition) variants() []string {
	if c.never {
		return nil
	}
	var protocols []string
	if len(c.flags) == 0 {
		protocols = []string{c.protocolText("")}
	}
	for _, f := range c.flags {
		protocols = append(protocols, c.protocolText(f.String()))
	}
	var all []string
	for _, p := range protocols {
		all = append(all, join(strings.Join(c.options, " "), p, strings.Join(c.ext, " ")))
	}
	for _, alternatives := range c.either {
		var next []string
		for _, before := range all {
			for _, a := range alternatives {
				next = append(next, join(before, a))
			}
		}
		all = next
	}
	return all
}

func (c *condition) protocolText(flags string) string {
	if !c.proto.given {
		return ""
	}
	text := not(c.proto.not) + "-p " + protocolName(c.proto.number)
	if options := join(append(slices.Clone(c.ports), flags)...); options != "" {
		text += " -m " + c.transportMatch() + " " + options
	}
	return text
}

func protocolName(number uint8) string {
	switch number {
	case icmp:
		return "icmp"
	case tcp:
		return "tcp"
	case udp:
		return "udp"
	case icmpv6:
		return "ipv6-icmp"
	}
	return fmt.Sprint(number)
}

// matchSet is a match against a set.
func matchSet(name, directions string, negated bool) string {
	return "-m set " + not(negated) + "--match-set " + name + " " + directions
}
