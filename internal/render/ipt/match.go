package ipt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
)

// condition brings the matches of a rule together. Protocols come first: what other matches may say depends on them.
func (l *lowering) condition(matches []ruleset.Match) (*condition, error) {
	c := &condition{used: map[ruleset.Field]bool{}}
	for _, m := range matches {
		if err := c.protocolOf(m, l.family); err != nil {
			return nil, err
		}
	}
	for _, m := range matches {
		if c.never {
			return c, nil
		}
		if err := l.match(c, m); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// protocolOf takes from a match what it says about the protocol.
func (c *condition) protocolOf(m ruleset.Match, family ruleset.Family) error {
	switch m := m.(type) {
	case ruleset.ProtoMatch:
		if !m.Not && (m.Proto == icmp && family == ruleset.IPv6 || m.Proto == icmpv6 && family == ruleset.IPv4) {
			c.never = true
			return nil
		}
		return c.setProto(protocol{number: m.Proto, given: true, not: m.Not})
	case ruleset.TCPFlagsMatch:
		return c.setProto(protocol{number: tcp, given: true})
	case ruleset.ICMPTypeMatch:
		if m.Family == ruleset.IPv6 {
			return c.setProto(protocol{number: icmpv6, given: true})
		}
		return c.setProto(protocol{number: icmp, given: true})
	}
	return nil
}

// match adds one match. A match that the switch doesn't know is an error: leaving one out would let more packets match.
func (l *lowering) match(c *condition, m ruleset.Match) error {
	switch m := m.(type) {
	case ruleset.FamilyMatch:
		c.onlyIn(m.Family, l.family)
		return nil
	case ruleset.IfaceMatch:
		return l.iface(c, m)
	case ruleset.AddrMatch:
		return l.addr(c, m)
	case ruleset.IfaceAddrMatch:
		return l.ifaceAddr(c, m)
	case ruleset.FlowMatch:
		return l.flow(c, m)
	case ruleset.ProtoMatch:
		return nil // protocolOf has it
	case ruleset.PortMatch:
		return c.addPorts(l, m)
	case ruleset.ICMPTypeMatch:
		return l.icmpType(c, m)
	case ruleset.TCPFlagsMatch:
		if m.Value&^m.Mask != 0 {
			c.never = c.never || !m.Not
			return nil
		}
		c.addFlags(flagTest{mask: m.Mask, value: m.Value, not: m.Not})
		return nil
	case ruleset.CtStateMatch:
		return c.ctState(m)
	case ruleset.DNATMatch:
		c.ext = append(c.ext, "-m conntrack "+not(m.Not)+"--ctstate DNAT")
		return nil
	case ruleset.AddrTypeMatch:
		return l.addrType(c, m)
	case ruleset.SocketMatch:
		c.ext = append(c.ext, "-m socket")
		return nil
	case ruleset.RateMatch:
		return c.rate(m)
	case ruleset.SourceRateMatch:
		return l.sourceRate(c, m)
	case ruleset.Opaque:
		return fmt.Errorf("the match %q was read from somewhere and not understood", m.Text)
	}
	return fmt.Errorf("unknown match %T", m)
}

// onlyIn makes the rule match nothing in the other family.
func (c *condition) onlyIn(family, here ruleset.Family) {
	if family != ruleset.Inet && family != here {
		c.never = true
	}
}

// direction is how the match "set" names a part of the packet.
func direction(f ruleset.Field) string {
	if f == ruleset.Src || f == ruleset.SrcPort || f == ruleset.In {
		return "src"
	}
	return "dst"
}

// optionOf is the option for a field.
func optionOf(f ruleset.Field) string {
	return map[ruleset.Field]string{ruleset.Src: "s", ruleset.Dst: "d", ruleset.In: "i", ruleset.Out: "o",
		ruleset.SrcPort: "sport", ruleset.DstPort: "dport"}[f]
}

// only refuses a field that a match can't look at.
func only(f ruleset.Field, allowed ...ruleset.Field) error {
	if !slices.Contains(allowed, f) {
		return fmt.Errorf("a match of this kind can't look at %s", f)
	}
	return nil
}

// option adds one of the options that a rule can have once.
func (c *condition) option(f ruleset.Field, negated bool, value string) {
	c.used[f] = true
	c.options = append(c.options, not(negated)+"-"+optionOf(f)+" "+value)
}

// maxSameNet is how many interfaces a hash:net,iface holds for one network; the kernel refuses more than 64.
const maxSameNet = 48

// iface adds a test of the interface. Several names are a set.
func (l *lowering) iface(c *condition, m ruleset.IfaceMatch) error {
	if err := only(m.Field, ruleset.In, ruleset.Out); err != nil {
		return err
	}
	names, word := m.Names, "ifaces"
	if m.Set != "" {
		s, err := l.set(m.Set, ruleset.Iface)
		if err != nil {
			return err
		}
		names, word = s.Ifaces, s.Name
	}
	for _, name := range names {
		if err := ifaceName(name); err != nil {
			return err
		}
	}
	switch {
	case slices.Contains(names, "*"):
		// "! -i +" is no way to say it: iptables-legacy lists it as nothing at all.
		c.never = c.never || m.Not
	case len(names) == 0:
		c.never = c.never || !m.Not
	case len(names) == 1 && m.Set == "" && !c.used[m.Field] && !strings.HasSuffix(names[0], "+"):
		name, glob := strings.CutSuffix(names[0], "*")
		if glob {
			name += "+"
		}
		c.option(m.Field, m.Not, name)
	default:
		l.ifaceSets(c, m, word, names)
	}
	return nil
}

func (l *lowering) ifaceSets(c *condition, m ruleset.IfaceMatch, word string, names []string) {
	var parts []string
	for part := range slices.Chunk(slices.Sorted(slices.Values(names)), maxSameNet) {
		set := l.sets.add(word, Set{Kind: IfaceNets, Family: l.family, Entries: ifaceEntries(part, l.family)})
		parts = append(parts, matchSet(set, "src,"+direction(m.Field), m.Not))
	}
	if m.Not || len(parts) == 1 {
		c.ext = append(c.ext, parts...)
		return
	}
	c.either = append(c.either, parts)
}

// ifaceName refuses what can't be the name of an interface, which ends a word or a field of a payload.
func ifaceName(name string) error {
	if name == "" || len(name) > 15 || strings.ContainsAny(name, " \t\n\v\f\r\",/") || strings.HasPrefix(name, "!") {
		return fmt.Errorf("%q can't be the name of an interface", name)
	}
	return nil
}

// addr adds a test of an address.
func (l *lowering) addr(c *condition, m ruleset.AddrMatch) error {
	if err := errors.Join(only(m.Field, ruleset.Src, ruleset.Dst), oneFamily(m.Family)); err != nil {
		return err
	}
	if c.onlyIn(m.Family, l.family); c.never {
		return nil
	}
	addrs, word := m.Addrs, "addrs"
	if m.Set != "" {
		s, err := l.set(m.Set, m.Family.AddrKey())
		if err != nil {
			return err
		}
		addrs, word = s.Addrs, s.Name
	}
	prefixes := m.Addrs.Prefixes()
	switch {
	case m.Set == "" && len(prefixes) == 0:
		c.never = !m.Not
	case m.Set == "" && len(prefixes) == 1 && prefixes[0].Bits() == 0:
		c.never = m.Not
	case m.Set == "" && len(prefixes) == 1 && !c.used[m.Field]:
		c.option(m.Field, m.Not, prefixes[0].String())
	default:
		s := Set{Kind: Nets, Family: l.family, Entries: prefixEntries(addrs, l.family)}
		set := l.sets.once(m.Set, word, s)
		c.ext = append(c.ext, matchSet(set, direction(m.Field), m.Not))
	}
	return nil
}

func oneFamily(f ruleset.Family) error {
	if f != ruleset.IPv4 && f != ruleset.IPv6 {
		return fmt.Errorf("a match of addresses is of one family, this is of %s", f)
	}
	return nil
}

// ifaceAddr adds a test of the incoming interface and an address together.
func (l *lowering) ifaceAddr(c *condition, m ruleset.IfaceAddrMatch) error {
	if err := errors.Join(only(m.Field, ruleset.Src, ruleset.Dst), oneFamily(m.Family)); err != nil {
		return err
	}
	if c.onlyIn(m.Family, l.family); c.never {
		return nil
	}
	key := ruleset.IfaceAddr4
	if m.Family == ruleset.IPv6 {
		key = ruleset.IfaceAddr6
	}
	s, err := l.set(m.Set, key)
	if err != nil {
		return err
	}
	for _, p := range s.Pairs {
		if err := ifaceName(p.Iface); err != nil {
			return err
		}
	}
	set := l.sets.once(s.Name, s.Name, Set{Kind: IfaceNets, Family: l.family, Entries: pairEntries(s.Pairs, l.family)})
	c.ext = append(c.ext, matchSet(set, direction(m.Field)+",src", m.Not))
	return nil
}

// flow adds a test of the two ends of a packet.
func (l *lowering) flow(c *condition, m ruleset.FlowMatch) error {
	if err := errors.Join(only(m.Field, ruleset.Src, ruleset.Dst), oneFamily(m.Family)); err != nil {
		return err
	}
	if c.onlyIn(m.Family, l.family); c.never {
		return nil
	}
	key, server, client := ruleset.Flow4, direction(m.Field), "src"
	if m.Family == ruleset.IPv6 {
		key = ruleset.Flow6
	}
	if m.Field == ruleset.Src {
		client = "dst"
	}
	s, err := l.set(m.Set, key)
	if err != nil {
		return err
	}
	set := NewFlows(s)
	l.sets.sets[set.Name] = set
	c.ext = append(c.ext, matchSet(set.Name, server+","+server+","+client, false))
	return nil
}

// icmpType adds a test of ICMP types, each an alternative.
func (l *lowering) icmpType(c *condition, m ruleset.ICMPTypeMatch) error {
	if err := oneFamily(m.Family); err != nil {
		return err
	}
	if c.onlyIn(m.Family, l.family); c.never {
		return nil
	}
	option := "-m icmp --icmp-type "
	if m.Family == ruleset.IPv6 {
		option = "-m icmp6 --icmpv6-type "
	}
	var types []string
	for _, t := range m.Types {
		if t == 255 && m.Family == ruleset.IPv4 {
			return errors.New("ICMP type 255 can't be matched: to iptables it means any")
		}
		text := option + fmt.Sprint(t)
		if m.Code != nil {
			text += fmt.Sprintf("/%d", *m.Code)
		}
		types = append(types, text)
	}
	c.either = append(c.either, types)
	c.never = len(types) == 0
	return nil
}

// ctStates are the states as iptables-save orders them.
var ctStates = []struct {
	state ruleset.CtState
	name  string
}{
	{ruleset.StateInvalid, "INVALID"}, {ruleset.StateNew, "NEW"}, {ruleset.StateRelated, "RELATED"},
	{ruleset.StateEstablished, "ESTABLISHED"}, {ruleset.StateUntracked, "UNTRACKED"},
}

func (c *condition) ctState(m ruleset.CtStateMatch) error {
	var names []string
	left := m.States
	for _, s := range ctStates {
		if left&s.state != 0 {
			names = append(names, s.name)
			left &^= s.state
		}
	}
	if left != 0 || len(names) == 0 {
		return fmt.Errorf("unknown states of connection tracking: %#x", uint8(m.States))
	}
	c.ext = append(c.ext, "-m conntrack "+not(m.Not)+"--ctstate "+strings.Join(names, ","))
	return nil
}

// addrTypes are the kinds of address as iptables-save orders them.
var addrTypes = []struct {
	kind ruleset.AddrType
	name string
}{
	{ruleset.TypeLocal, "LOCAL"}, {ruleset.TypeBroadcast, "BROADCAST"}, {ruleset.TypeAnycast, "ANYCAST"},
	{ruleset.TypeMulticast, "MULTICAST"},
}

// addrType adds a test of the kind of address. IPv4 takes several in one match and means any of them. IPv6 would mean all
// of them, has no broadcast, and refuses it.
func (l *lowering) addrType(c *condition, m ruleset.AddrTypeMatch) error {
	if err := only(m.Field, ruleset.Src, ruleset.Dst); err != nil {
		return err
	}
	var names []string
	left := m.Types
	for _, t := range addrTypes {
		if left&t.kind != 0 && (l.family == ruleset.IPv4 || t.kind != ruleset.TypeBroadcast) {
			names = append(names, t.name)
		}
		left &^= t.kind
	}
	if left != 0 || m.Types == 0 {
		return fmt.Errorf("unknown kinds of address: %#x", uint8(m.Types))
	}
	if l.family == ruleset.IPv4 {
		names = []string{strings.Join(names, ",")}
	}
	var parts []string
	for _, name := range names {
		part := "-m addrtype " + not(m.Not) + "--" + direction(m.Field) + "-type " + name
		switch here := name == "LOCAL" && l.family == ruleset.IPv6 && l.arriving; {
		case here && m.Not:
			c.either = append(c.either, l.localHere(m.Field, part))
		case here:
			parts = append(parts, l.localHere(m.Field, part)...)
		default:
			parts = append(parts, part)
		}
	}
	switch {
	case len(parts) == 0 && !m.Not:
		c.never = true
	case m.Not:
		c.ext = append(c.ext, parts...)
	default:
		c.either = append(c.either, parts)
	}
	return nil
}

// localHere asks whether an address is local to a packet that comes in. A plain test takes the link-local address of
// another interface for one, where the kernel would send the packet on; a test limited to the interface doesn't know
// addresses of wider scope that other interfaces have. So link-local addresses are asked for in the one way, all others in
// the other, and a packet that one of the two holds for is none of the other's.
func (l *lowering) localHere(f ruleset.Field, plain string) []string {
	set := l.sets.add("link-local", Set{Kind: Nets, Family: ruleset.IPv6, Entries: prefixEntries(netset.LinkLocal(), ruleset.IPv6)})
	return []string{matchSet(set, direction(f), false) + " " + plain + " --limit-iface-in", matchSet(set, direction(f), true) + " " + plain}
}

// maxLimit is the fastest rate, and the largest burst, of the match "limit".
const maxLimit = 10000

// rate adds a limit for all packets together.
func (c *condition) rate(m ruleset.RateMatch) error {
	r := m.Rate
	if r.IsZero() || r.Burst > maxLimit || r.Burst == 0 || float64(r.Count)/r.Per.Seconds() > maxLimit {
		return fmt.Errorf("a rate of %s can't be kept: between 1/hour and %d/second, with a burst of 1 to %d", r, maxLimit, maxLimit)
	}
	c.rates = append(c.rates, fmt.Sprintf("-m limit --limit %d/%s --limit-burst %d", r.Count, r.Unit(), r.Burst))
	return nil
}

// maxSources is how many sources a limit remembers. Packets of others are dropped while it is full: a flood of forged
// sources can close a limited port, but not open it.
const maxSources = 65536

// sourceRate adds a limit by source. The kernel finds the table of sources by its name and, where there is one already,
// goes on with the rate that it was made with: so the name holds the rate. Sources are forgotten when they have
// their whole burst again, not earlier.
func (l *lowering) sourceRate(c *condition, m ruleset.SourceRateMatch) error {
	if err := oneFamily(m.Family); err != nil {
		return err
	}
	if c.onlyIn(m.Family, l.family); c.never {
		return nil
	}
	r := m.Rate
	if r.IsZero() || r.Burst == 0 || r.Burst > 1000000 {
		return fmt.Errorf("a rate of %s for each source can't be kept", r)
	}
	mask := ""
	if m.Family == ruleset.IPv6 {
		mask = " --hashlimit-srcmask 64"
	}
	refill := uint64(r.Per.Milliseconds())*uint64(r.Burst)/uint64(r.Count) + 1000
	c.rates = append(c.rates, fmt.Sprintf("-m hashlimit --hashlimit-above %d/%s --hashlimit-burst %d --hashlimit-mode srcip%s"+
		" --hashlimit-name %s --hashlimit-htable-size %d --hashlimit-htable-max %d --hashlimit-htable-expire %d",
		r.Count, r.Unit(), r.Burst, mask, limitName(m), maxSources/8, maxSources, refill))
	return nil
}

// limitName is the name of a table of sources; files in /proc/net/ipt_hashlimit are called so.
func limitName(m ruleset.SourceRateMatch) string {
	name := clean(m.Name)
	return SetPrefix + "-" + name[:min(len(name), 60)] + "-" + shortHash(m.Name+" "+m.Rate.String())
}

// set finds a set of the table and checks what it holds.
func (l *lowering) set(name string, key ruleset.Key) (*ruleset.Set, error) {
	s, ok := l.tableSets[name]
	if !ok {
		return nil, fmt.Errorf("there is no set %q", name)
	}
	if s.Key != key {
		return nil, fmt.Errorf("the set %q holds something else than what is looked up in it", name)
	}
	return s, nil
}
