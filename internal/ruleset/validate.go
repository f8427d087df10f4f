package ruleset

import (
	"errors"
	"fmt"
)

// MaxName is the longest name of a chain, a set or a map, in bytes: with "QUAYWALL-" in front it is the longest that
// iptables takes for a chain (28), and it leaves ipset (31) room for more.
const MaxName = 19

// MaxDepth is how many chains a packet may pass from a base chain on, that one counted: fewer than the 16 that nf_tables
// allows, so that a backend has some for chains of its own.
const MaxDepth = 12

// Validate finds what no backend could load: names that are missing, too long or there twice, jumps, look-ups and sets
// that lead nowhere, loops, chains nested too deep, elements that overlap. All of it is told at once.
func (rs *Ruleset) Validate() error {
	var errs []error
	for i := range rs.Tables {
		v := validator{table: &rs.Tables[i]}
		v.run()
		for _, err := range v.errs {
			errs = append(errs, fmt.Errorf("table %s: %w", rs.Tables[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

type validator struct {
	table  *Table
	chains map[string]*Chain
	sets   map[string]*Set
	maps   map[string]*Map
	depth  map[string]int // of chains that were walked; -1 while they are
	errs   []error
}

func (v *validator) errorf(format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf(format, args...))
}

func (v *validator) run() {
	v.chains, v.maps = v.table.indexes()
	v.sets = map[string]*Set{}
	v.depth = map[string]int{}
	v.names()
	for i := range v.table.Chains {
		for j := range v.table.Chains[i].Rules {
			v.rule(&v.table.Chains[i], j)
		}
	}
	for i := range v.table.Maps {
		v.elements(&v.table.Maps[i])
	}
	for i := range v.table.Chains {
		if ch := &v.table.Chains[i]; ch.Base != nil {
			if d := v.walk(ch.Name); d > MaxDepth {
				v.errorf("chain %s leads through %d chains, %d are allowed", ch.Name, d, MaxDepth)
			}
			v.hook(ch, *ch.Base, map[string]bool{})
		}
	}
}

// names checks the names, and finds the sets.
func (v *validator) names() {
	taken := map[string]bool{}
	claim := func(kind, name string) {
		switch {
		case name == "":
			v.errorf("a %s has no name", kind)
		case len(name) > MaxName:
			v.errorf("the name of %s %s is longer than %d bytes", kind, name, MaxName)
		case taken[name]:
			v.errorf("the name %s is there twice", name)
		}
		taken[name] = true
	}
	for i := range v.table.Chains {
		claim("chain", v.table.Chains[i].Name)
	}
	for i := range v.table.Sets {
		claim("set", v.table.Sets[i].Name)
		v.sets[v.table.Sets[i].Name] = &v.table.Sets[i]
	}
	for i := range v.table.Maps {
		claim("map", v.table.Maps[i].Name)
	}
}

func (v *validator) rule(ch *Chain, i int) {
	r := &ch.Rules[i]
	at := fmt.Sprintf("chain %s, rule %d", ch.Name, i+1)
	v.verdict(at, r.Verdict)
	if r.Lookup != nil {
		v.lookup(at, *r.Lookup)
		if r.Verdict != (Verdict{}) {
			v.errorf("%s: a look-up and a verdict", at)
		}
	}
	ports := false
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ProtoMatch:
			ports = ports || !m.Not
		case PortMatch:
			if !ports {
				v.errorf("%s: ports of no protocol", at)
			}
		}
		if name, keys := setOf(m); name != "" {
			v.setRef(at, name, keys)
		}
	}
	if r.Lookup != nil && r.Lookup.By == DstPort && !ports {
		v.errorf("%s: looks up ports of no protocol", at)
	}
}

// setOf is the set that a match refers to, and the keys that it may have.
func setOf(m Match) (name string, keys []Key) {
	byFamily := func(f Family, key4, key6 Key) []Key {
		if f == IPv6 {
			return []Key{key6}
		}
		return []Key{key4}
	}
	switch m := m.(type) {
	case IfaceMatch:
		return m.Set, []Key{Iface}
	case AddrMatch:
		return m.Set, byFamily(m.Family, Addr4, Addr6)
	case IfaceAddrMatch:
		return m.Set, byFamily(m.Family, IfaceAddr4, IfaceAddr6)
	case FlowMatch:
		return m.Set, byFamily(m.Family, Flow4, Flow6)
	}
	return "", nil
}

func (v *validator) setRef(at, name string, keys []Key) {
	s, ok := v.sets[name]
	if !ok {
		v.errorf("%s: there is no set %s", at, name)
		return
	}
	for _, k := range keys {
		if s.Key == k {
			return
		}
	}
	v.errorf("%s: set %s holds something else", at, name)
}

func (v *validator) lookup(at string, l Lookup) {
	m, ok := v.maps[l.Map]
	switch {
	case !ok:
		v.errorf("%s: there is no map %s", at, l.Map)
	case (l.By == DstPort) != (m.Key == Port) || l.By != DstPort && l.By != Src && l.By != Dst:
		v.errorf("%s: map %s holds something else", at, l.Map)
	}
}

func (v *validator) verdict(at string, verdict Verdict) {
	if verdict.Kind != Jump && verdict.Kind != Goto {
		return
	}
	ch, ok := v.chains[verdict.Chain]
	switch {
	case !ok:
		v.errorf("%s: there is no chain %s", at, verdict.Chain)
	case ch.Base != nil:
		v.errorf("%s: leads to the base chain %s", at, verdict.Chain)
	}
}

func (v *validator) elements(m *Map) {
	for i, e := range m.Elements {
		at := fmt.Sprintf("map %s, element %d", m.Name, i+1)
		v.verdict(at, e.Verdict)
		switch e.Verdict.Kind {
		case Drop, Accept, Jump, Goto:
		default:
			v.errorf("%s: %s can't stand in a map", at, e.Verdict.Kind)
		}
		if !e.fits(m.Key) {
			v.errorf("%s: not a valid interval of the map's kind", at)
		} else if i > 0 && m.Elements[i-1].fits(m.Key) && !m.Elements[i-1].before(e, m.Key) {
			v.errorf("%s: overlaps the one before, or stands behind it", at)
		}
	}
}

func (e Element) fits(k Key) bool {
	switch k {
	case Port:
		return e.Ports.First <= e.Ports.Last
	case Addr4, Addr6:
		return e.Addrs.IsValid() && e.Addrs.From().Is4() == (k == Addr4)
	}
	return false
}

func (e Element) before(o Element, k Key) bool {
	if k == Port {
		return e.Ports.Last < o.Ports.First
	}
	return e.Addrs.To().Less(o.Addrs.From())
}

// walk gives how many chains a packet passes from this one on, at most. It tells of a loop once.
func (v *validator) walk(name string) int {
	switch d := v.depth[name]; {
	case d > 0:
		return d
	case d < 0:
		v.errorf("chain %s leads back to itself", name)
		return 0
	}
	v.depth[name] = -1
	deepest := 0
	for _, next := range v.table.follow(v.chains[name], v.maps) {
		if v.chains[next] != nil {
			deepest = max(deepest, v.walk(next))
		}
	}
	v.depth[name] = deepest + 1
	return deepest + 1
}

// hook checks that a chain and all it leads to ask for nothing that isn't known at a hook.
func (v *validator) hook(ch *Chain, b Base, seen map[string]bool) {
	if ch == nil || seen[ch.Name] {
		return
	}
	seen[ch.Name] = true
	for i := range ch.Rules {
		for _, m := range ch.Rules[i].Matches {
			if what := unknownAt(m, b); what != "" {
				v.errorf("chain %s, rule %d: %s isn't known in %s at priority %d", ch.Name, i+1, what, b.Hook, b.Priority)
			}
		}
	}
	for _, next := range v.table.follow(ch, v.maps) {
		v.hook(v.chains[next], b, seen)
	}
}

// connTrack is the priority at which connection tracking looks at packets, in prerouting and in output.
const connTrack = -200

// unknownAt says what a match asks for that the kernel doesn't know at a hook, "" where it does. Sockets are looked for
// by packets that come in alone (nft_socket, xt_socket).
func unknownAt(m Match, b Base) string {
	h, field, ok := b.Hook, Src, false
	switch m := m.(type) {
	case SocketMatch:
		if h != Prerouting && h != Input {
			return "a packet's socket"
		}
	case CtStateMatch, DNATMatch:
		if (h == Prerouting || h == Output) && b.Priority <= connTrack {
			return "a packet's connection"
		}
	case IfaceMatch:
		field, ok = m.Field, true
	case IfaceAddrMatch:
		field, ok = In, true
	}
	switch {
	case ok && field == Out && (h == Prerouting || h == Input):
		return "the interface that a packet leaves by"
	case ok && field == In && (h == Output || h == Postrouting):
		return "the interface that a packet comes in by"
	}
	return ""
}
