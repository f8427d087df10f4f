package trace

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quaywall/internal/kernel/nft"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
	"quaywall/internal/watch/nflog"
	"quaywall/internal/watch/nftrace"
)

// names give events the names of what they are about.
type names struct {
	tables     map[tableKey]*netfilter.Table
	sets       map[string]*netfilter.Set // of ipset
	places     map[nft.RuleKey]nft.RulePlace
	containers map[netip.Addr]string
	links      map[int]string
	read       time.Time
}

type tableKey struct {
	legacy bool
	family netfilter.Family
	name   string
}

func newNames(host *snapshot.Host) (*names, error) {
	places, err := nft.RulePlaces()
	if err != nil {
		return nil, err
	}
	n := &names{tables: map[tableKey]*netfilter.Table{}, sets: map[string]*netfilter.Set{}, places: places,
		containers: map[netip.Addr]string{}, links: map[int]string{}, read: time.Now()}
	for _, t := range host.Rules.Tables {
		n.tables[tableKey{t.Dialect == netfilter.IPTablesLegacy, t.Family, t.Name}] = t
	}
	for _, s := range host.Rules.Sets {
		n.sets[s.Name] = s
	}
	for _, c := range host.Containers {
		for _, e := range c.Networks {
			for _, a := range e.Addrs {
				n.containers[a] = c.Name
			}
		}
	}
	return n, nil
}

// protocolNumbers are the families as NFPROTO_* numbers them.
var protocolNumbers = map[netfilter.Family]byte{netfilter.Inet: unix.NFPROTO_INET, netfilter.IPv4: unix.NFPROTO_IPV4, netfilter.IPv6: unix.NFPROTO_IPV6,
	netfilter.Bridge: unix.NFPROTO_BRIDGE, netfilter.ARP: unix.NFPROTO_ARP, netfilter.Netdev: unix.NFPROTO_NETDEV}

// met is what an event is about, as far as it is known.
type met struct {
	table  *netfilter.Table // never nil; without chains where it isn't known
	chain  *netfilter.Chain // never nil, likewise
	rule   *netfilter.Rule  // nil for the end of a chain, and where it isn't known; with all actions of its number
	number int              // of the rule, 0 where it isn't known
}

// of finds what an event is about.
func (n *names) of(e nftrace.Event) met {
	m := met{table: n.tables[tableKey{e.Legacy, e.Family, e.Table}]}
	if m.table == nil {
		m.table = &netfilter.Table{Family: e.Family, Name: e.Table}
		if e.Legacy {
			m.table.Dialect = netfilter.IPTablesLegacy
		}
	}
	if m.chain = m.table.Chain(e.Chain); m.chain == nil {
		m.chain = &netfilter.Chain{Name: e.Chain}
	}
	switch {
	case e.Legacy:
		m.number = e.Number
	case e.Kind == nftrace.Rule:
		m.number = n.places[nft.RuleKey{Family: protocolNumbers[e.Family], Table: e.Table, Handle: e.Handle}].Number
	}
	for _, r := range m.chain.Rules {
		switch {
		case r.Number != m.number || m.number == 0 || r.Handle != 0 && r.Handle != e.Handle:
		case m.rule == nil:
			whole := *r
			m.rule = &whole
		default: // a rule that does something between its matches
			m.rule.Actions = append(slices.Clip(m.rule.Actions), r.Actions...)
			m.rule.Matches = append(slices.Clip(m.rule.Matches), r.Matches...)
		}
	}
	return m
}

// knows tells whether all rules that a packet met are known.
func (n *names) knows(s *seen) bool {
	return !slices.ContainsFunc(s.events, func(e nftrace.Event) bool {
		m := n.of(e)
		return e.Kind == nftrace.Rule && !e.Legacy && m.rule == nil || len(m.table.Chains) == 0
	})
}

func (n *names) link(index int) string {
	name, ok := n.links[index]
	if !ok {
		name = nflog.InterfaceName(index)
		n.links[index] = name
	}
	return name
}

// decode reads the packet of an event. Of one with headers of IPv6 between, which the kernel doesn't tell whole, the addresses
// are read.
func (n *names) decode(e nftrace.Event) (packet.Packet, bool) {
	b := e.Header
	const header6 = 40
	if len(b) > header6 && b[0]>>4 == 6 && !e.Legacy && slices.Contains(between, b[6]) {
		b = b[:header6]
	}
	pk, err := packet.Decode(b)
	pk.In, pk.Out = n.link(e.In), n.link(e.Out)
	return pk, err == nil
}

// between are the headers that may stand between that of IPv6 and the transport's: hop-by-hop, routing, fragment, AH and
// destination options.
var between = []byte{0, 43, 44, 51, 60}

// end writes an address with its port, and the container that has it.
func (n *names) end(a netip.Addr, port uint16) string {
	text := a.String()
	if port != 0 {
		text = netip.AddrPortFrom(a, port).String()
	}
	if name := n.containers[a]; name != "" {
		text += " (container " + name + ")"
	}
	return text
}

func (n *names) ends(pk packet.Packet) string {
	return n.end(pk.Src, pk.SrcPort) + " -> " + n.end(pk.Dst, pk.DstPort)
}

// tcpFlags are the flags' names, from the lowest bit on.
var tcpFlags = []string{"fin", "syn", "rst", "psh", "ack", "urg"}

func flagsText(pk packet.Packet) string {
	var words []string
	for i, name := range tcpFlags {
		if pk.Flags&(1<<i) != 0 {
			words = append(words, name)
		}
	}
	return strings.Join(words, ",")
}

// policyLine is the line of quaywall's policy that had a rule do what it did: the rule's own, or that of the element of a set or
// a map which holds the packet.
func (n *names) policyLine(m met, pk packet.Packet) string {
	if m.rule == nil {
		return ""
	}
	if line := sim.PolicyLine(m.table, m.chain.Name, m.rule.Comment); line != "" {
		return line
	}
	for _, a := range m.rule.Actions {
		if l, ok := a.(netfilter.Lookup); ok {
			return n.elementLine(m, l.Map, l.Elements, l.Fields, pk)
		}
	}
	for _, match := range m.rule.Matches {
		if in, ok := match.(netfilter.In); ok && !in.Not {
			if line := n.elementLine(m, in.Set, in.Elements, in.Fields, pk); line != "" {
				return line
			}
		}
	}
	return ""
}

func (n *names) elementLine(m met, name string, elements []netfilter.Element, fields []netfilter.Field, pk packet.Packet) string {
	set := m.table.Set(name)
	if m.table.Dialect != netfilter.NFT {
		set = n.sets[name]
	}
	if set != nil {
		elements = set.Elements
	}
	for i := range elements {
		if holds(elements[i].Key, fields, pk) {
			return sim.PolicyLine(m.table, m.chain.Name, elements[i].Comment)
		}
	}
	return ""
}

// holds tells whether a packet's fields are those of an element, as far as they are known.
func holds(key []netfilter.Values, fields []netfilter.Field, pk packet.Packet) bool {
	if len(key) > len(fields) {
		return false
	}
	for i := range key {
		if !holdsField(&key[i], fields[i], pk) {
			return false
		}
	}
	return len(key) > 0
}

func holdsField(v *netfilter.Values, f netfilter.Field, pk packet.Packet) bool {
	number := func(x uint64) bool {
		return slices.ContainsFunc(v.Numbers, func(r netfilter.Range) bool { return r.First <= x && x <= r.Last })
	}
	switch f {
	case netfilter.Src:
		return v.Addrs.Contains(pk.Src)
	case netfilter.Dst:
		return v.Addrs.Contains(pk.Dst)
	case netfilter.Proto:
		return number(uint64(pk.Proto))
	case netfilter.SrcPort, netfilter.IPSetSrcPort:
		return number(uint64(pk.SrcPort))
	case netfilter.DstPort, netfilter.IPSetDstPort:
		return number(uint64(pk.DstPort))
	case netfilter.InIface:
		return slices.Contains(v.Names, pk.In)
	case netfilter.OutIface:
		return slices.Contains(v.Names, pk.Out)
	}
	return false
}

// did says what a rule did: its verdict, where the kernel told one, or else what it says that it does.
func did(e nftrace.Event, r *netfilter.Rule) (verdict string, to *netfilter.Verdict) {
	v := e.Verdict
	var words []string
	if r != nil {
		for _, a := range r.Actions {
			switch a := a.(type) {
			case netfilter.Verdict:
				if e.Legacy {
					v = &a
				}
			case netfilter.Reject:
				return "reject", &netfilter.Verdict{Kind: netfilter.Drop}
			case netfilter.Translate:
				words = append(words, [...]string{"dnat", "snat", "masquerade", "redirect", "netmap"}[a.Kind])
				if e.Legacy {
					v = &netfilter.Verdict{Kind: netfilter.Accept}
				}
			case netfilter.Log:
				words = append(words, "log")
			case netfilter.Assign:
				words = append(words, "set "+sim.FieldName(a.Field))
			case netfilter.Untrack:
				words = append(words, "notrack")
			}
		}
	}
	if v == nil {
		v = &netfilter.Verdict{Kind: netfilter.Continue}
	}
	switch v.Kind {
	case netfilter.Accept:
		if len(words) == 0 || r == nil || !slices.ContainsFunc(r.Actions, isTranslate) {
			words = append(words, "accept")
		}
	case netfilter.Drop:
		words = append(words, "drop")
	case netfilter.Return:
		words = append(words, "return")
	case netfilter.Jump:
		words = append(words, "jump "+v.Chain)
	case netfilter.Goto:
		words = append(words, "goto "+v.Chain)
	case netfilter.Queue:
		words = append(words, "queue")
	}
	return strings.Join(words, ", "), v
}

func isTranslate(a netfilter.Action) bool {
	_, is := a.(netfilter.Translate)
	return is
}
