package analyze

import (
	"net/netip"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
)

// translation is a rewriting of the destination, by a rule and for some of its packets.
type translation struct {
	rule  rule
	addr  netip.Addr // zero keeps the packet's
	port  uint16     // 0 keeps the packet's
	base  uint16     // 0, or the port that goes to port: those behind it go to those behind
	local bool       // to this host: redirect
	vague bool       // to one of several, or one that isn't known
}

// translate notes what becomes of the destination. The first rule that says so counts.
func (w *walker) translate(r rule, a netfilter.Translate, st state, set bdd.Set, accepted flows) {
	if st.nat != nil || a.Kind == netfilter.SNAT || a.Kind == netfilter.Masquerade {
		w.add(accepted, st, set)
		return
	}
	elements := a.Elements
	if m := w.table.Set(a.Map); m != nil {
		elements = m.Elements
	}
	if len(a.Fields) == 0 {
		st.nat = w.translation(r, a.Kind, a.Addrs, a.Ports, a.Base, -1)
		w.add(accepted, st, set)
		return
	}
	for i, e := range elements {
		key, known := w.element(r, a.Fields, e, st)
		if !known {
			key = w.unknown(r, r.Text)
		}
		hit := w.And(set, key)
		set = w.Diff(set, hit)
		addrs, ports := destination(e.To)
		with := st
		with.nat = w.translation(r, a.Kind, addrs, ports, 0, i)
		w.add(accepted, with, hit)
	}
	w.add(accepted, st, set) // a packet that no element holds breaks the rule off, and goes on unchanged
}

// destination reads what a map leads to: an address, a port, or both.
func destination(to []netfilter.Values) (addrs netfilter.Values, ports []netfilter.Range) {
	for _, v := range to {
		if v.Addrs.IsEmpty() {
			ports = v.Numbers
		} else {
			addrs = v
		}
	}
	return addrs, ports
}

type translationKey struct {
	rule    *netfilter.Rule
	element int // of its map; -1 for none
}

// translation gives one for a rule and element, always the same: states are compared by it.
func (s *space) translation(r rule, kind netfilter.NATKind, addrs netfilter.Values, ports []netfilter.Range, base uint16, element int) *translation {
	key := translationKey{r.Rule, element}
	if t := s.translations[key]; t != nil {
		return t
	}
	t := &translation{rule: r, local: kind == netfilter.Redirect}
	own := addrs.Addrs.V4()
	if s.family == netfilter.IPv6 {
		own = addrs.Addrs.V6()
	}
	switch ranges := own.Ranges(); {
	case len(ranges) == 0:
	case len(ranges) == 1 && ranges[0].From() == ranges[0].To():
		t.addr = ranges[0].From()
	default:
		t.addr, t.vague = ranges[0].From(), true
	}
	switch {
	case len(ports) == 0:
	case len(ports) == 1 && ports[0].First == ports[0].Last:
		t.port = uint16(ports[0].First)
	case len(ports) == 1 && base != 0:
		t.port, t.base = uint16(ports[0].First), base
	default:
		t.port, t.vague = uint16(ports[0].First), true
	}
	t.vague = t.vague || kind == netfilter.Netmap
	s.translations[key] = t
	return t
}

// shifted is the port that a port becomes.
func (t *translation) shifted(port uint16) uint16 {
	if t.base == 0 {
		return t.port
	}
	return t.port + port - t.base
}
