package ruleset

import (
	"fmt"
	"strings"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
)

// Format is the ruleset as a person reads it, in the words of nft. Sets and maps of more than limit elements are cut
// there, and say how much is missing; 0 is no limit. It is for eyes: what nft would load looks a little different.
func (rs *Ruleset) Format(limit int) string {
	f := formatter{limit: limit}
	for i := range rs.Tables {
		f.table(&rs.Tables[i])
	}
	f.raw("hand-written rules for nft", rs.Raw.NFT)
	f.raw("hand-written rules for iptables", rs.Raw.IPTables)
	return f.b.String()
}

// String is the whole ruleset.
func (rs *Ruleset) String() string { return rs.Format(0) }

type formatter struct {
	b     strings.Builder
	limit int
}

func (f *formatter) line(indent int, format string, args ...any) {
	f.b.WriteString(strings.TrimRight(strings.Repeat("\t", indent)+fmt.Sprintf(format, args...), " ") + "\n")
}

func (f *formatter) raw(title, text string) {
	if text != "" {
		f.line(0, "# %s\n%s", title, strings.TrimRight(text, "\n"))
	}
}

func (f *formatter) table(t *Table) {
	f.line(0, "table %s %s {", t.Family, t.Name)
	for i := range t.Sets {
		f.set(&t.Sets[i])
	}
	for i := range t.Maps {
		f.verdicts(&t.Maps[i])
	}
	for i := range t.Chains {
		f.chain(&t.Chains[i])
	}
	f.line(0, "}")
}

func (f *formatter) set(s *Set) {
	f.line(1, "set %s {%s", s.Name, comment(s.Origin))
	f.line(2, "type %s", s.Key)
	f.elements(s.elements())
	f.line(1, "}\n")
}

func (s *Set) elements() []string {
	var all []string
	for _, r := range s.Addrs.Ranges() {
		all = append(all, netset.FormatRange(r))
	}
	for _, name := range s.Ifaces {
		all = append(all, quoted(name))
	}
	for _, p := range s.Pairs {
		all = append(all, quoted(p.Iface)+" . "+strings.ReplaceAll(p.Subnet.String(), " ", ", "))
	}
	for _, f := range s.Flows {
		all = append(all, fmt.Sprintf("%s . %s . %d . %s", packet.ProtoName(f.Proto), f.Server.Addr(), f.Server.Port(), f.Client))
	}
	return all
}

// maxWidth is how wide a line of elements gets, in characters.
const maxWidth = 100

// elements writes as many as fit on a line.
func (f *formatter) elements(all []string) {
	rest := 0
	if f.limit > 0 && len(all) > f.limit {
		all, rest = all[:f.limit], len(all)-f.limit
	}
	var line string
	for _, e := range all {
		if line != "" && len(line)+len(e) > maxWidth {
			f.line(2, "%s", line)
			line = ""
		}
		line += e + ", "
	}
	if line != "" {
		f.line(2, "%s", strings.TrimSuffix(line, ", "))
	}
	if rest > 0 {
		f.line(2, "# and %d more", rest)
	}
}

func (f *formatter) verdicts(m *Map) {
	f.line(1, "map %s {", m.Name)
	f.line(2, "type %s : verdict", m.Key)
	for i, e := range m.Elements {
		if f.limit > 0 && i == f.limit {
			f.line(2, "# and %d more", len(m.Elements)-i)
			break
		}
		key := e.Ports.String()
		if m.Key != Port {
			key = netset.FormatRange(e.Addrs)
		}
		f.line(2, "%s : %s%s", key, e.Verdict, comment(e.Origin))
	}
	f.line(1, "}\n")
}

func (f *formatter) chain(c *Chain) {
	f.line(1, "chain %s {", c.Name)
	if c.Base != nil {
		f.line(2, "hook %s priority %d", c.Base.Hook, c.Base.Priority)
	}
	for _, r := range c.Rules {
		f.line(2, "%s", r)
	}
	f.line(1, "}\n")
}

func comment(o Origin) string {
	if text := o.Comment(); text != "" {
		return " # " + text
	}
	return ""
}

func (v Verdict) String() string {
	if v.Chain != "" {
		return v.Kind.String() + " " + v.Chain
	}
	return v.Kind.String()
}

// String is the rule on one line, its origin behind a "#".
func (r Rule) String() string {
	proto := "th" // what nft calls the header of whatever protocol it is
	var words []string
	for i, m := range r.Matches {
		if p, ok := m.(ProtoMatch); ok && !p.Not {
			proto = packet.ProtoName(p.Proto)
			if r.namesPorts(i) {
				continue
			}
		}
		words = append(words, matchText(m, proto))
	}
	if r.Log != nil {
		words = append(words, fmt.Sprintf("log group %d prefix %s", r.Log.Group, quoted(r.Log.Prefix)))
	}
	if r.Counter {
		words = append(words, "counter")
	}
	switch {
	case r.Lookup != nil:
		words = append(words, r.lookupText(proto))
	case r.Verdict.Kind != Continue:
		words = append(words, r.Verdict.String())
	}
	return strings.Join(words, " ") + comment(r.Origin)
}

// namesPorts tells whether what follows match i says the protocol along with its ports or flags.
func (r Rule) namesPorts(i int) bool {
	for _, m := range r.Matches[i+1:] {
		switch m.(type) {
		case PortMatch, TCPFlagsMatch:
			return true
		}
	}
	return r.Lookup != nil && r.Lookup.By == DstPort
}

func (r Rule) lookupText(proto string) string {
	if r.Lookup.By == DstPort {
		return fmt.Sprintf("%s dport vmap @%s", proto, r.Lookup.Map)
	}
	return fmt.Sprintf("%s vmap @%s", r.Lookup.By, r.Lookup.Map)
}

// matchText is one match; proto names the protocol that an earlier match of the rule asks for.
func matchText(m Match, proto string) string {
	switch m := m.(type) {
	case FamilyMatch:
		return "meta nfproto " + map[Family]string{IPv4: "ipv4", IPv6: "ipv6"}[m.Family]
	case IfaceMatch:
		return fmt.Sprintf("%s %s%s", m.Field, unless(m.Not), among(m.Set, m.Names, quoted))
	case AddrMatch:
		return fmt.Sprintf("%s %s %s%s", m.Family, m.Field, unless(m.Not), among(m.Set, m.Addrs.Ranges(), netset.FormatRange))
	case IfaceAddrMatch:
		return fmt.Sprintf("iifname . %s %s %s@%s", m.Family, m.Field, unless(m.Not), m.Set)
	case FlowMatch:
		ends := map[Field]string{Src: "%[1]s saddr . th sport . %[1]s daddr", Dst: "%[1]s daddr . th dport . %[1]s saddr"}[m.Field]
		return fmt.Sprintf("meta l4proto . "+ends+" @%s", m.Family, m.Set)
	case ProtoMatch:
		return fmt.Sprintf("meta l4proto %s%s", unless(m.Not), packet.ProtoName(m.Proto))
	case PortMatch:
		return fmt.Sprintf("%s %s %s%s", proto, m.Field, unless(m.Not), among("", m.Ports, netset.Ports.String))
	case ICMPTypeMatch:
		return icmpText(m)
	case TCPFlagsMatch:
		op := map[bool]string{false: "==", true: "!="}[m.Not]
		return fmt.Sprintf("tcp flags & (%s) %s %s", bitNames(m.Mask, flagNames, "|"), op, bitNames(m.Value, flagNames, "|"))
	case CtStateMatch:
		return fmt.Sprintf("ct state %s%s", unless(m.Not), bitNames(uint8(m.States), stateNames, ","))
	case DNATMatch:
		return "ct status " + unless(m.Not) + "dnat"
	case AddrTypeMatch:
		return fmt.Sprintf("fib %s type %s{ %s }", m.Field, unless(m.Not), bitNames(uint8(m.Types), addrTypeNames, ", "))
	case SocketMatch:
		return "socket wildcard 0"
	case RateMatch:
		return fmt.Sprintf("limit rate %s", m.Rate)
	case SourceRateMatch:
		return fmt.Sprintf("%s saddr limit %s rate over %s", m.Family, m.Name, m.Rate)
	case Opaque:
		return m.Text
	}
	return fmt.Sprintf("(%T)", m)
}

func icmpText(m ICMPTypeMatch) string {
	text := map[Family]string{IPv4: "icmp", IPv6: "icmpv6"}[m.Family]
	text += " type " + among("", m.Types, func(t uint8) string { return fmt.Sprint(t) })
	if m.Code != nil {
		text += fmt.Sprintf(" code %d", *m.Code)
	}
	return text
}

func unless(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

// among is a set by its name, or what it holds.
func among[T any](set string, list []T, text func(T) string) string {
	if set != "" {
		return "@" + set
	}
	words := make([]string, len(list))
	for i, x := range list {
		words[i] = text(x)
	}
	if len(words) == 1 {
		return words[0]
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

var (
	flagNames     = []string{"fin", "syn", "rst", "psh", "ack", "urg"}
	stateNames    = []string{"new", "established", "related", "invalid", "untracked"}
	addrTypeNames = []string{"local", "broadcast", "multicast", "anycast"}
)

// bitNames names the bits that are set, the lowest first.
func bitNames(bits uint8, names []string, separator string) string {
	var set []string
	for i, name := range names {
		if bits&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		return "0"
	}
	return strings.Join(set, separator)
}

func quoted(s string) string { return `"` + s + `"` }
