package compile

import (
	"slices"
	"time"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// Cut is live connections that the policy denies and that must not come back once connection tracking has forgotten them.
type Cut struct {
	ID    string         // tells the sets of one apply from those of any other: eight lower-case letters or digits; "" for none
	Flows []ruleset.Flow // what the sets hold at first
}

// cutTime is how long a connection is kept from coming back: longer than a server that asks whether its client is still
// there keeps silent (tcp_keepalive_time is two hours).
const cutTime = 3 * time.Hour

// cut keeps connections from coming back that were ended. It stands behind the rule for established traffic, so that
// nothing it costs falls on a packet of a live connection: connection tracking has forgotten those that were ended, and
// the first packet that would make it know them again, whichever side sends it, ends here (design trap 48). Only a TCP
// packet in the middle of a stream could pass to the server; from the server any could, for it looks as if the server
// began a connection. TCP is answered by a reset, so that both sides learn of it. Resets pass: they end a connection.
func (c *compiler) cut(ch *ruleset.Chain) {
	if c.options.Cut.ID == "" {
		return
	}
	tcp := append(midStream(), ruleset.TCPFlagsMatch{Mask: packet.RST, Value: 0})
	reset := ruleset.Verdict{Kind: ruleset.TCPReset}
	for _, f := range families {
		set := c.cutSet(f)
		to, from := ruleset.FlowMatch{Field: ruleset.Dst, Family: f, Set: set}, ruleset.FlowMatch{Field: ruleset.Src, Family: f, Set: set}
		add(ch, cutRule(reset, append(slices.Clip(tcp), to)...), cutRule(reset, append(slices.Clip(tcp), from)...),
			cutRule(ruleset.Verdict{}, ruleset.ProtoMatch{Proto: policy.TCP, Not: true}, from))
	}
}

func cutRule(v ruleset.Verdict, matches ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Matches: matches, Verdict: v, Counter: true, Origin: ruleset.Origin{Note: "connection that was ended"}}
}

// cutSet is the set of flows of a family; there is one for the whole table.
func (c *compiler) cutSet(f ruleset.Family) string {
	s := ruleset.Set{Name: "cut4-" + c.options.Cut.ID, Key: ruleset.Flow4, Timeout: cutTime}
	if f == ruleset.IPv6 {
		s.Name, s.Key = "cut6-"+c.options.Cut.ID, ruleset.Flow6
	}
	if c.names[s.Name] {
		return s.Name
	}
	s.AddFlows(c.options.Cut.Flows)
	return c.set(s)
}

// cutOutbound is the chain outbound of a policy that doesn't restrict what the host sends.
func (c *compiler) cutOutbound() {
	if c.options.Cut.ID == "" {
		return
	}
	ch := c.chain("outbound", &ruleset.Base{Hook: ruleset.Output, Priority: outboundPriority})
	add(ch, established())
	c.cut(ch)
}
