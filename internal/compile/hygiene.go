package compile

import (
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// hygiene drops packets that no honest sender sends, and sends the rest on. Judged are new, invalid and untracked
// packets, established ones passed before. A clean SYN, by far the most of them, skips what only bad ones meet.
func (c *compiler) hygiene(next ruleset.Verdict) []ruleset.Rule {
	tcp := ruleset.ProtoMatch{Proto: policy.TCP}
	bogus := func(note string, mask, value uint8) ruleset.Rule {
		return c.refused(note, tcp, ruleset.TCPFlagsMatch{Mask: mask, Value: value})
	}
	var rules []ruleset.Rule
	for _, m := range c.spoofed() {
		rules = append(rules, c.refused("spoofed source", m...))
	}
	return append(rules,
		c.refused("invalid state", ruleset.CtStateMatch{States: ruleset.StateInvalid}),
		ruleset.Rule{Matches: []ruleset.Match{ruleset.ProtoMatch{Proto: policy.TCP, Not: true}}, Verdict: next},
		ruleset.Rule{Matches: cleanSYN(), Verdict: next},
		bogus("no TCP flags", allFlags, 0),
		bogus("SYN with FIN", packet.SYN|packet.FIN, packet.SYN|packet.FIN),
		bogus("SYN with RST", packet.SYN|packet.RST, packet.SYN|packet.RST),
		bogus("FIN with RST", packet.FIN|packet.RST, packet.FIN|packet.RST),
		bogus("FIN without ACK", packet.FIN|packet.ACK, packet.FIN),
		bogus("PSH without ACK", packet.PSH|packet.ACK, packet.PSH),
		bogus("URG without ACK", packet.URG|packet.ACK, packet.URG),
		c.refused("new without SYN", append(midStream(), ruleset.CtStateMatch{States: ruleset.StateNew})...),
		ruleset.Rule{Verdict: next},
	)
}

// spoofed are the sources that nobody outside can have: loopback and multicast addresses, those of the Docker networks,
// and this host's own. A link-local address of this host's may be another machine's on another link (fe80::1 is that of
// many routers, and of Docker's bridges), and backends differ in which interface they ask about: it is never spoofed.
func (c *compiler) spoofed() [][]ruleset.Match {
	all := loopback.Union(multicast).Union(c.subnets())
	own := ruleset.AddrTypeMatch{Field: ruleset.Src, Types: ruleset.TypeLocal}
	return [][]ruleset.Match{
		{c.builtIn("spoofed4", ruleset.Src, ruleset.IPv4, all.V4())},
		{c.builtIn("spoofed6", ruleset.Src, ruleset.IPv6, all.V6())},
		{ruleset.FamilyMatch{Family: ruleset.IPv4}, own},
		{ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Addrs: netset.LinkLocal(), Not: true}, own},
	}
}
