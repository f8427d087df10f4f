// Package rulewalk leads one packet through a ruleset, naively: rule by rule, set by set, as the kernel would.
//
//	host := rulewalk.Host{AddrType: func(a netip.Addr) ruleset.AddrType { … }}
//	r, err := rulewalk.Walk(&rs.Tables[0], ruleset.Prerouting, pk, host)
//
// Be aware: for tests alone. A limit is never over and a log never full.
package rulewalk

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/packet"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

// Host is what the rules ask that the packet doesn't know.
type Host struct {
	AddrType func(netip.Addr) ruleset.AddrType
	DNAT     bool // the packet's destination was rewritten
	Over     bool // each source is over each limit
}

// Result is what became of a packet.
type Result struct {
	Kind  ruleset.Kind // Accept, Drop, TCPReset or Unreachable
	Lines []string     // policy lines of the rules and elements that counted the packet, in order
	Logs  []string     // prefixes by which it was logged
	Rules int          // how many rules it met
	Path  []string     // the chains it passed
}

// Walk leads a packet through the base chains of a hook, in the order of their priorities: what one accepts comes to the
// next. Where there is none, it is accepted.
func Walk(t *ruleset.Table, hook ruleset.Hook, pk packet.Packet, host Host) (Result, error) {
	w := walker{table: t, pk: pk, host: host, result: Result{Kind: ruleset.Accept}}
	var base []ruleset.Chain
	for _, ch := range t.Chains {
		if ch.Base != nil && ch.Base.Hook == hook {
			base = append(base, ch)
		}
	}
	slices.SortStableFunc(base, func(a, b ruleset.Chain) int { return cmp.Compare(a.Base.Priority, b.Base.Priority) })
	for _, ch := range base {
		if _, err := w.chain(ch.Name); err != nil || w.result.Kind != ruleset.Accept {
			return w.result, err
		}
	}
	return w.result, nil
}

type walker struct {
	table  *ruleset.Table
	pk     packet.Packet
	host   Host
	result Result
}

// chain walks a chain and tells whether the packet's fate is settled.
func (w *walker) chain(name string) (done bool, err error) {
	i := slices.IndexFunc(w.table.Chains, func(c ruleset.Chain) bool { return c.Name == name })
	if i < 0 {
		return true, fmt.Errorf("there is no chain %s", name)
	}
	if len(w.result.Path) > 100 {
		return true, fmt.Errorf("the packet goes round in circles: %v", w.result.Path)
	}
	w.result.Path = append(w.result.Path, name)
	for _, r := range w.table.Chains[i].Rules {
		w.result.Rules++
		holds, err := w.matches(r.Matches)
		if err != nil {
			return true, fmt.Errorf("chain %s: %w", name, err)
		}
		if !holds {
			continue
		}
		if left, done, err := w.act(r); left || err != nil {
			return done, err
		}
	}
	return false, nil
}

// act does what a rule says. left tells that the packet leaves the chain, done that its fate is settled.
func (w *walker) act(r ruleset.Rule) (left, done bool, err error) {
	if r.Log != nil {
		w.result.Logs = append(w.result.Logs, r.Log.Prefix)
	}
	if r.Counter && r.Origin.Line != "" {
		w.result.Lines = append(w.result.Lines, r.Origin.Line)
	}
	if r.Lookup == nil {
		return w.verdict(r.Verdict)
	}
	i := slices.IndexFunc(w.table.Maps, func(m ruleset.Map) bool { return m.Name == r.Lookup.Map })
	if i < 0 {
		return true, true, fmt.Errorf("there is no map %s", r.Lookup.Map)
	}
	for _, e := range w.table.Maps[i].Elements {
		if w.isIn(e, w.table.Maps[i].Key, r.Lookup.By) {
			if e.Origin.Line != "" {
				w.result.Lines = append(w.result.Lines, e.Origin.Line)
			}
			return w.verdict(e.Verdict)
		}
	}
	return false, false, nil
}

func (w *walker) isIn(e ruleset.Element, key ruleset.Key, by ruleset.Field) bool {
	if key == ruleset.Port {
		return policy.HasPorts(w.pk.Proto) && e.Ports.Contains(w.port(by))
	}
	return e.Addrs.Contains(w.addr(by))
}

func (w *walker) verdict(v ruleset.Verdict) (left, done bool, err error) {
	switch v.Kind {
	case ruleset.Continue:
		return false, false, nil
	case ruleset.Return:
		return true, false, nil
	case ruleset.Jump:
		done, err = w.chain(v.Chain)
		return done, done, err
	case ruleset.Goto:
		done, err = w.chain(v.Chain)
		return true, done, err
	}
	w.result.Kind = v.Kind
	return true, true, nil
}

func (w *walker) matches(all []ruleset.Match) (bool, error) {
	for _, m := range all {
		holds, err := w.match(m)
		if !holds || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (w *walker) match(m ruleset.Match) (bool, error) {
	pk := w.pk
	switch m := m.(type) {
	case ruleset.FamilyMatch:
		return w.family() == m.Family, nil
	case ruleset.IfaceMatch:
		in, err := w.ifaceIn(m)
		return in != m.Not, err
	case ruleset.AddrMatch:
		return w.addrMatch(m)
	case ruleset.IfaceAddrMatch:
		return w.ifaceAddrMatch(m)
	case ruleset.FlowMatch:
		return w.flowMatch(m)
	case ruleset.ProtoMatch:
		return w.isProto(m.Proto) != m.Not, nil
	case ruleset.PortMatch:
		in := false
		for _, p := range m.Ports {
			in = in || p.Contains(w.port(m.Field))
		}
		return in != m.Not, nil
	case ruleset.ICMPTypeMatch:
		proto := uint8(policy.ICMP)
		if m.Family == ruleset.IPv6 {
			proto = policy.ICMPv6
		}
		return w.isProto(proto) && slices.Contains(m.Types, pk.ICMPType) && (m.Code == nil || *m.Code == pk.ICMPCode), nil
	case ruleset.TCPFlagsMatch:
		return pk.Proto == policy.TCP && (pk.Flags&m.Mask == m.Value) != m.Not, nil
	case ruleset.CtStateMatch:
		return (m.States&states[pk.State] != 0) != m.Not, nil
	case ruleset.DNATMatch:
		return w.host.DNAT != m.Not, nil
	case ruleset.AddrTypeMatch:
		return (w.host.AddrType(w.addr(m.Field))&m.Types != 0) != m.Not, nil
	case ruleset.SocketMatch:
		return pk.Socket, nil
	case ruleset.RateMatch:
		return true, nil
	case ruleset.SourceRateMatch:
		return w.host.Over && w.family() == m.Family, nil
	}
	return false, fmt.Errorf("a match of type %T can't be walked", m)
}

var states = [...]ruleset.CtState{packet.New: ruleset.StateNew, packet.Established: ruleset.StateEstablished,
	packet.Related: ruleset.StateRelated, packet.Invalid: ruleset.StateInvalid, packet.Untracked: ruleset.StateUntracked}

func (w *walker) family() ruleset.Family {
	if w.pk.Dst.Is4() {
		return ruleset.IPv4
	}
	return ruleset.IPv6
}

// isProto is true for ICMP in IPv4 and ICMPv6 in IPv6 alone.
func (w *walker) isProto(proto uint8) bool {
	switch {
	case proto == policy.ICMP && w.family() != ruleset.IPv4, proto == policy.ICMPv6 && w.family() != ruleset.IPv6:
		return false
	}
	return w.pk.Proto == proto
}

func (w *walker) addr(f ruleset.Field) netip.Addr {
	if f == ruleset.Src {
		return w.pk.Src
	}
	return w.pk.Dst
}

func (w *walker) port(f ruleset.Field) uint16 {
	if f == ruleset.SrcPort {
		return w.pk.SrcPort
	}
	return w.pk.DstPort
}

func (w *walker) iface(f ruleset.Field) string {
	if f == ruleset.Out {
		return w.pk.Out
	}
	return w.pk.In
}

func (w *walker) set(name string) (ruleset.Set, error) {
	for _, s := range w.table.Sets {
		if s.Name == name {
			return s, nil
		}
	}
	return ruleset.Set{}, fmt.Errorf("there is no set %s", name)
}

func (w *walker) ifaceIn(m ruleset.IfaceMatch) (bool, error) {
	names := m.Names
	if m.Set != "" {
		s, err := w.set(m.Set)
		if err != nil {
			return false, err
		}
		names = s.Ifaces
	}
	for _, n := range names {
		if prefix, glob := strings.CutSuffix(n, "*"); n == w.iface(m.Field) || glob && strings.HasPrefix(w.iface(m.Field), prefix) {
			return true, nil
		}
	}
	return false, nil
}

func (w *walker) addrMatch(m ruleset.AddrMatch) (bool, error) {
	addrs := m.Addrs
	if m.Set != "" {
		s, err := w.set(m.Set)
		if err != nil {
			return false, err
		}
		addrs = s.Addrs
	}
	return w.family() == m.Family && addrs.Contains(w.addr(m.Field)) != m.Not, nil
}

func (w *walker) ifaceAddrMatch(m ruleset.IfaceAddrMatch) (bool, error) {
	s, err := w.set(m.Set)
	in := false
	for _, p := range s.Pairs {
		in = in || p.Iface == w.pk.In && p.Subnet.Contains(w.addr(m.Field))
	}
	return w.family() == m.Family && in != m.Not, err
}

func (w *walker) flowMatch(m ruleset.FlowMatch) (bool, error) {
	s, err := w.set(m.Set)
	server, client := netip.AddrPortFrom(w.pk.Src, w.pk.SrcPort), w.pk.Dst
	if m.Field == ruleset.Dst {
		server, client = netip.AddrPortFrom(w.pk.Dst, w.pk.DstPort), w.pk.Src
	}
	return slices.Contains(s.Flows, ruleset.Flow{Proto: w.pk.Proto, Server: server, Client: client}), err
}
