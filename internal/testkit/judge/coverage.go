package judge

import (
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// Coverage counts what the packets of a run were: by which rules they were decided, and what they were like.
type Coverage struct{ counts map[string]map[string]int }

func newCoverage() *Coverage { return &Coverage{map[string]map[string]int{}} }

func (c *Coverage) count(what, which string) {
	if c.counts[what] == nil {
		c.counts[what] = map[string]int{}
	}
	c.counts[what][which]++
}

// Count is how many packets of a run were of one sort: Count("protocol", "tcp").
func (c *Coverage) Count(what, which string) int { return c.counts[what][which] }

func (c *Coverage) add(cs *Case) {
	for _, p := range cs.probes {
		c.packet(p)
		c.decision(cs.policy, p)
		c.path(cs, p)
	}
}

func (c *Coverage) packet(p *probe) {
	c.count("kind", p.kind)
	c.count("protocol", packet.ProtoName(p.pk.Proto))
	c.count("state", p.pk.State.String())
	c.count("family", map[bool]string{true: "IPv4", false: "IPv6"}[p.pk.Dst.Is4()])
	form := "whole"
	switch {
	case p.pieces > 1:
		form = "in fragments"
	case p.bridged:
		form = "bridged"
	case p.badSum:
		form = "wrong checksum"
	}
	c.count("form", form)
	if p.pk.Proto == policy.TCP {
		c.count("flags", flagNames(p.pk.Flags))
	}
	if isDNATed(p.pk) {
		c.count("way", "DNAT")
	}
	switch {
	case p.lost():
		c.count("way", "lost in the kernel")
	case p.want.Verb == policy.Reject && !p.answerable():
		c.count("way", "can't be answered")
	}
}

// path counts what was judged in front of connection tracking, which only the compiled rules tell.
func (c *Coverage) path(cs *Case, p *probe) {
	_, walked, err := cs.walk(p)
	if err == nil && slices.Contains(walked.Path, "early-host") {
		c.count("early", packet.ProtoName(p.pk.Proto)+map[bool]string{true: " goes on", false: " dropped"}[slices.Contains(walked.Path, "gate")])
	}
}

func (c *Coverage) decision(p *policy.Policy, pr *probe) {
	d := pr.want
	by := "what always holds"
	switch {
	case d.Rule >= 0:
		by = "a rule"
	case d.Origin != "":
		by = "a default"
	case !d.Judged:
		by = "nobody"
	}
	c.count("section", d.Section.String())
	c.count("verb", d.Section.String()+" "+d.Verb.String())
	c.count("decided by", by)
	if d.Rule < 0 {
		c.count("reason", strings.SplitN(d.Why, ";", 2)[0])
		return
	}
	for _, q := range qualifiersOf(p.Rules(d.Section)[d.Rule]) {
		c.count("qualifier", q)
	}
	if d.Rule > 8 {
		c.count("qualifier", "far down")
	}
}

// qualifiersOf names what a rule uses of the language.
func qualifiersOf(r policy.Rule) (all []string) {
	for _, q := range []struct {
		is   bool
		name string
	}{
		{r.From.Given && !r.From.Not, "from"}, {r.From.Not, "from not"}, {r.To.Given && !r.To.Host && r.To.Network == "", "to"},
		{r.To.Not, "to not"}, {r.To.Host, "to host"}, {r.To.Network != "", "to network"}, {len(r.On) > 0, "on"},
		{len(r.Networks) > 0, "network"}, {!r.Limit.IsZero(), "limit"}, {r.Log, "log"}, {len(r.From.Sets)+len(r.To.Sets) > 0, "sets"},
		{slices.Contains(r.What, policy.Traffic{Published: true}), "published"}, {slices.Contains(r.What, policy.Traffic{}), "any"},
	} {
		if q.is {
			all = append(all, q.name)
		}
	}
	return append(all, "all")
}

// required is what a run of usual length must have met at least once.
var required = map[string]string{
	"verb":       "inbound allow; inbound deny; inbound reject; egress allow; egress deny; egress reject; outbound allow; outbound deny; outbound reject",
	"decided by": "a rule; a default; what always holds; nobody",
	"family":     "IPv4; IPv6",
	"protocol":   "tcp; udp; sctp; icmp; icmp6; igmp; esp; ah; gre",
	"state":      "new; established; related; invalid; untracked",
	"form":       "whole; in fragments; bridged; wrong checksum",
	"flags":      "S; A; PA; SA; FA; R; RA; none; FS; SR; F; SU; SP; FPU; AU; FRA",
	"way":        "DNAT",
	"early":      "tcp dropped; tcp goes on; icmp dropped; icmp6 dropped",
	"qualifier":  "from; from not; to; to not; to host; to network; on; network; limit; log; sets; published; any; far down",
	"kind": "from a container; from a container to a container; from a container to the host; from a container to a published port; " +
		"from the host; from the host to itself; from the host to a container; to the host; to a published port; to a container's own address; " +
		"to an opened network; to a broadcast address; to a multicast group; to an anycast address; to a loopback address; routed; lifeline; flood",
	"reason": "it belongs to a connection from before the policy; no rule opens this container's own address; it opens no connection; " +
		"hygiene: a new connection does not begin with SYN; hygiene: no TCP sends these flags together",
}

// Missing lists what a run of usual length should have met and didn't.
func (c *Coverage) Missing() (missing []string) {
	for _, what := range slices.Sorted(mapsKeys(required)) {
		for _, which := range strings.Split(required[what], "; ") {
			if c.counts[what][which] == 0 {
				missing = append(missing, what+" "+which)
			}
		}
	}
	return missing
}

// String is a table of all counts.
func (c *Coverage) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(mapsKeys(c.counts)) {
		which := c.counts[what]
		fmt.Fprintf(&b, "%s:", what)
		for _, w := range slices.Sorted(mapsKeys(which)) {
			fmt.Fprintf(&b, " %s %d;", w, which[w])
		}
		b.WriteString("\n")
	}
	return b.String()
}
