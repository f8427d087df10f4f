package sim

import (
	"net/netip"
	"strings"

	"quaywall/internal/netfilter"
)

// holds tells whether a match holds for the packet.
func (w *walk) holds(m netfilter.Match) tri {
	switch m := m.(type) {
	case netfilter.Compare:
		return w.compare(&m)
	case netfilter.In:
		return w.isIn(&m)
	case netfilter.Any:
		return w.any(&m)
	case netfilter.Stateful:
		return is(m.Fresh)
	}
	return perhaps
}

// holdsAll tells whether all matches hold, and which is the first that doesn't.
func (w *walk) holdsAll(matches []netfilter.Match) (all tri, failed int) {
	all, failed = yes, -1
	for i, m := range matches {
		got := w.holds(m)
		if got == no {
			return no, i
		}
		if got < all {
			all, failed = got, i
		}
	}
	return all, failed
}

// assumeFresh notes that limits and the like were met as by a first packet, where the rule hung on nothing else.
func (w *walk) assumeFresh(matches []netfilter.Match) {
	for _, m := range matches {
		if _, ok := m.(netfilter.Stateful); !ok && w.holds(m) == no {
			return
		}
	}
	for _, m := range matches {
		if s, ok := m.(netfilter.Stateful); ok {
			w.assume("a limit or the like is met as by a first packet: %s", s.Text)
		}
	}
}

func (w *walk) compare(c *netfilter.Compare) tri {
	switch {
	case c.AddrMask.IsValid():
		return w.compareMasked(c)
	case c.Field == netfilter.CtLabel:
		return w.compareLabels(c)
	}
	got, k := w.test(c.Field, c.Mask, &c.Values)
	if k == lacks {
		return no
	}
	return got.unless(c.Not)
}

// compareMasked compares addresses under a mask that is no prefix.
func (w *walk) compareMasked(c *netfilter.Compare) tri {
	a, k := w.pk.address(w, c.Field)
	switch {
	case k == lacks || a.Is4() != c.AddrMask.Is4():
		return no
	case k == unknown:
		return perhaps
	}
	b, mask := a.AsSlice(), c.AddrMask.AsSlice()
	for i := range b {
		b[i] &= mask[i]
	}
	a, _ = netip.AddrFromSlice(b)
	return is(c.Addrs.Contains(a)).unless(c.Not)
}

// compareLabels tells whether the connection has one of these labels: it may have many.
func (w *walk) compareLabels(c *netfilter.Compare) tri {
	if w.pk.ct == nil {
		return no
	}
	has := false
	for n := range uint64(128) {
		has = has || w.pk.ct.labels[n/64]>>(n%64)&1 != 0 && numbered(c.Numbers, n)
	}
	return is(has).unless(c.Not)
}

// test tells whether a field has one of these values, and whether the packet has the field.
func (w *walk) test(f netfilter.Field, mask uint64, v *netfilter.Values) (tri, knowledge) {
	var k knowledge
	var found bool
	switch f.Kind() {
	case netfilter.Address:
		a, got := w.pk.address(w, f)
		k, found = got, got == has && v.Addrs.Contains(a)
	case netfilter.Name:
		name, got := w.pk.name(w, f)
		if name == outside {
			return w.isOutside(v.Names), has
		}
		k, found = got, got == has && named(v.Names, name)
	default:
		n, got := w.pk.number(w, f)
		if mask != 0 {
			n &= mask
		}
		k, found = got, got == has && numbered(v.Numbers, n)
	}
	if k == unknown {
		return perhaps, k
	}
	return is(found), k
}

// lacking tells whether the packet has a field at all.
func (w *walk) lacking(f netfilter.Field) knowledge {
	_, k := w.test(f, 0, &netfilter.Values{})
	return k
}

func numbered(ranges []netfilter.Range, n uint64) bool {
	for _, r := range ranges {
		if r.First <= n && n <= r.Last {
			return true
		}
	}
	return false
}

// globOf takes a name apart: what it begins with, and whether anything may follow.
func globOf(name string) (prefix string, glob bool) {
	if plain, escaped := strings.CutSuffix(name, "\\*"); escaped {
		return plain + "*", false
	}
	return strings.CutSuffix(name, "*")
}

func isGlob(name string) bool {
	_, glob := globOf(name)
	return glob
}

func named(names []string, name string) bool {
	for _, n := range names {
		if prefix, glob := globOf(n); prefix == name || glob && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// isOutside tells whether the interface that isn't known, one outside, may have one of these names.
func (w *walk) isOutside(names []string) tri {
	best := no
	for _, n := range names {
		switch {
		case n == "*":
			return yes
		case n != "lo" && !w.s.net.isInside(n):
			best = perhaps
		}
	}
	return best
}

func (w *walk) isIn(m *netfilter.In) tri {
	for _, f := range m.Fields {
		switch w.lacking(f) {
		case lacks:
			return no
		case unknown:
			return perhaps
		}
	}
	s := w.set(m.Set, m.Elements)
	if s == nil {
		return perhaps
	}
	element, in := w.find(s, m.Fields)
	if s.Dynamic {
		w.assume("set %s holds what it held when it was read", m.Set)
	}
	if in == yes && element != nil && !m.Not {
		w.element = element
	}
	return in.unless(m.Not)
}

// set finds a set that a rule of the chain in hand names.
func (w *walk) set(name string, elements []netfilter.Element) *set {
	if name == "" {
		return &set{Set: &netfilter.Set{Elements: elements}, all: true}
	}
	return w.s.sets[w.chain.index.sets[name]]
}

func (w *walk) any(m *netfilter.Any) tri {
	best := no
	for _, list := range m.Of {
		all, _ := w.holdsAll(list)
		if best = max(best, all); best == yes {
			break
		}
	}
	return best.unless(m.Not)
}
