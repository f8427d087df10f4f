package analyze

import (
	"net/netip"
	"strconv"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
)

// translation is a rewriting of the destination, by a rule and for some of its packets.
type translation struct {
	rule  rule
	addr  netip.Addr // zero keeps the packet's
	port  uint16     // 0 keeps the packet's
	base  uint16     // 0, or the port that goes to port: those behind it go to those behind
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
	switch {
	case a.Kind == netfilter.Redirect:
		w.redirect(r, a, st, set, accepted)
		return
	case len(a.Fields) == 0:
		st.nat = w.translation(r, a, a.Addrs, a.Ports, "")
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
		with.nat = w.translation(r, a, addrs, ports, strconv.Itoa(i))
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

// redirect sends packets to the interface that they came in by: to its first address. By one that has none they are dropped.
func (w *walker) redirect(r rule, a netfilter.Translate, st state, set bdd.Set, accepted flows) {
	for _, name := range w.ifaces {
		if addr, ok := w.facts.first[name]; ok {
			st.nat = w.translation(r, a, netfilter.Values{Addrs: netset.OfAddrs(addr)}, a.Ports, name)
			w.add(accepted, st, w.And(set, w.names(netfilter.InIface, []string{name})))
		}
	}
}

type translationKey struct {
	rule *netfilter.Rule
	part string // of its packets: which element of a map, or which interface; "" for all
}

// translation gives one for a rule and a part of its packets, always the same: states are compared by it.
func (s *space) translation(r rule, a netfilter.Translate, addrs netfilter.Values, ports []netfilter.Range, part string) *translation {
	key := translationKey{r.Rule, part}
	if t := s.translations[key]; t != nil {
		return t
	}
	t := &translation{rule: r}
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
	case len(ports) == 1 && a.Base != 0:
		t.port, t.base = uint16(ports[0].First), a.Base
	default:
		t.port, t.vague = uint16(ports[0].First), true
	}
	t.vague = t.vague || a.Kind == netfilter.Netmap
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
