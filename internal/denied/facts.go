package denied

import (
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// Facts are what a packet is judged by.
type Facts struct {
	Policy    *policy.Policy          // in force; nil for none, or where it isn't known
	Inventory *inventory.Inventory    // that it is in force for; nil where it isn't known
	Addrs     map[string][]netip.Addr // of each running container by its name
}

// What rules log packets with: "quaywall denied", or "quaywall VERB LINE" for a rule that logs for itself; where the policy
// is observed "quaywall would deny", or "quaywall would VERB LINE".
const (
	prefixHead = "quaywall "
	prefixDeny = "denied"
	prefixMax  = 63 // bytes; of a longer line the end is kept
)

// explain completes an entry: by which line, why, and for which container. It tells whether the prefix is one of quaywall's.
func (f Facts) explain(e *Entry, pk packet.Packet, prefix string) bool {
	said, ours := strings.CutPrefix(prefix, prefixHead)
	said, observed := strings.CutPrefix(said, policy.Would)
	verb, line, hasLine := strings.Cut(said, " ")
	if !ours || !hasLine && verb != prefixDeny && (verb != policy.Deny.String() || !observed) {
		return false
	}
	e.fill(pk)
	d, known := f.decide(pk)
	switch {
	case hasLine:
		e.Verdict, e.Line = verb, printable(line)
		if len(prefix) == prefixMax && strings.HasSuffix(d.Origin, line) {
			e.Line = d.Origin
		}
	case !known:
		e.Verdict, e.Why = policy.Deny.String(), "the policy in force is not known"
	case d.Verb != policy.Allow && d.Origin == "":
		e.Verdict, e.Why = d.Verb.String(), d.Why
	case d.Verb != policy.Allow:
		e.Verdict, e.Line = d.Verb.String(), d.Origin
	case d.Limited:
		e.Verdict, e.Line, e.Why = policy.Deny.String(), d.Origin, "more than the rule's limit came from this source"
	default:
		e.Verdict, e.Why = policy.Deny.String(), "the policy or Docker's networks have changed since"
	}
	if observed {
		e.Verdict = policy.Would + e.Verdict
	}
	e.Section = d.Section.String()
	e.Container = f.container(d.Section, pk)
	return true
}

func (f Facts) decide(pk packet.Packet) (d eval.Decision, known bool) {
	if f.Policy == nil || f.Inventory == nil {
		return eval.Decision{Section: sectionOf(pk)}, false
	}
	return eval.Evaluate(f.Policy, f.Inventory, pk), true
}

// sectionOf is where a packet belongs as far as its interface tells.
func sectionOf(pk packet.Packet) policy.Section {
	switch {
	case pk.In == "":
		return policy.Outbound
	case inventory.IsDockerBridgeName(pk.In):
		return policy.Egress
	}
	return policy.Inbound
}

// container is the name of the container that a packet comes from, or else is for: by its own address, or by the port that
// is published for it; "" where there is none.
func (f Facts) container(s policy.Section, pk packet.Packet) string {
	if s == policy.Egress {
		return f.nameOf(pk.Src)
	}
	if name := f.nameOf(pk.Dst); name != "" || s == policy.Outbound || f.Inventory == nil || f.isInside(pk.Dst) {
		return name
	}
	for _, p := range f.Inventory.Published {
		sameAddr := p.Addr == pk.Dst || p.Addr.IsUnspecified() && p.Addr.Is4() == pk.Dst.Is4()
		if sameAddr && p.Proto == pk.Proto && p.Port == pk.DstPort {
			return p.Container
		}
	}
	return ""
}

// isInside tells whether an address is of a Docker network. No port is published there.
func (f Facts) isInside(a netip.Addr) bool {
	return slices.ContainsFunc(f.Inventory.Networks, func(n inventory.Network) bool {
		return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

func (f Facts) nameOf(a netip.Addr) string {
	for name, addrs := range f.Addrs {
		if slices.Contains(addrs, a) {
			return name
		}
	}
	return ""
}
