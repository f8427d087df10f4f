package analyze

import (
	"slices"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
)

// flows are packets on their way, by what became of them so far.
type flows map[state]bdd.Set

func (s *space) add(f flows, st state, set bdd.Set) {
	if set != bdd.None {
		f[st] = s.Or(f[st], set)
	}
}

func (s *space) addAll(f, more flows) {
	for st, set := range more {
		s.add(f, st, set)
	}
}

// walker leads packets through the chains of a table.
type walker struct {
	*space
	table *netfilter.Table
	depth int
	nat   bool // a chain of type NAT
}

// maxDepth is how many jumps are followed: the kernel allows 16 (nf_tables), or as many as chains (xtables).
const maxDepth = 256

// chain leads packets through a chain: those that are accepted, and those that come to its end or return. All others are
// dropped.
func (w *walker) chain(c *netfilter.Chain, in flows) (accepted, returned flows) {
	accepted, returned = flows{}, flows{}
	if w.depth++; w.depth > maxDepth { // a loop, which no kernel loads
		w.depth--
		return accepted, in
	}
	defer func() { w.depth-- }()
	for _, r := range c.Rules {
		if len(in) == 0 {
			break
		}
		in = w.rule(rule{r, c, w.table}, in, accepted, returned)
	}
	w.addAll(returned, in)
	return accepted, returned
}

// rule gives the packets that go on with the next rule.
func (w *walker) rule(r rule, in, accepted, returned flows) flows {
	if passive(r.Rule) {
		return in
	}
	on := flows{}
	for st, set := range in {
		hit := w.And(set, w.matches(r, st))
		w.add(on, st, w.Diff(set, hit))
		if hit != bdd.None {
			w.actions(r, r.Actions, st, hit, on, accepted, returned)
		}
	}
	return on
}

// passive tells whether a rule only counts or logs.
func passive(r *netfilter.Rule) bool {
	return !slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool {
		switch a := a.(type) {
		case netfilter.Log, netfilter.Note, netfilter.Update:
			return false
		case netfilter.Verdict:
			return a.Kind != netfilter.Continue
		}
		return true
	})
}

// actions does to packets what a rule does. What goes on is put to on.
func (w *walker) actions(r rule, actions []netfilter.Action, st state, set bdd.Set, on, accepted, returned flows) {
	for _, a := range actions {
		switch a := a.(type) {
		case netfilter.Verdict:
			if a.Kind != netfilter.Continue {
				w.verdict(a, st, set, on, accepted, returned)
				return
			}
		case netfilter.Reject:
			return
		case netfilter.Lookup:
			rest := w.lookup(r, a, st, set, on, accepted, returned)
			if rest == bdd.None {
				return
			}
			set = rest
		case netfilter.Translate:
			w.translate(r, a, st, set, accepted)
			return
		case netfilter.Assign:
			st = assign(st, a)
		case netfilter.Untrack:
			st.untracked = true
		case netfilter.TProxy, netfilter.OpaqueAction:
			set = w.anything(r, st, set, accepted)
		}
	}
	w.add(on, st, set)
}

func (w *walker) verdict(v netfilter.Verdict, st state, set bdd.Set, on, accepted, returned flows) {
	switch v.Kind {
	case netfilter.Accept:
		w.add(accepted, st, set)
	case netfilter.Return:
		w.add(returned, st, set)
	case netfilter.Queue: // its program may let it through
		w.add(accepted, st, w.And(set, w.unknown(rule{}, "a program decides")))
	case netfilter.Jump, netfilter.Goto:
		target := w.table.Chain(v.Chain)
		if target == nil {
			w.add(on, st, set)
			return
		}
		in, out := w.chain(target, flows{st: set})
		w.addAll(accepted, in)
		if v.Kind == netfilter.Goto {
			w.addAll(returned, out)
		} else {
			w.addAll(on, out)
		}
	}
}

// lookup leads packets where a verdict map says, and gives those that aren't in it.
func (w *walker) lookup(r rule, l netfilter.Lookup, st state, set bdd.Set, on, accepted, returned flows) bdd.Set {
	elements := l.Elements
	if m := w.table.Set(l.Map); m != nil {
		elements = m.Elements
	}
	for _, e := range elements {
		key, known := w.element(r, l.Fields, e, st)
		if !known {
			key = w.unknown(r, r.Text)
		}
		hit := w.And(set, key)
		if hit == bdd.None || e.Verdict == nil {
			continue
		}
		set = w.Diff(set, hit)
		if e.Verdict.Kind == netfilter.Continue {
			w.add(on, st, hit)
		} else {
			w.verdict(*e.Verdict, st, hit, on, accepted, returned)
		}
		if set == bdd.None {
			break
		}
	}
	return set
}

// anything does what somebody may do of whom nothing is known: accept, drop or let go on. It gives what goes on.
func (w *walker) anything(r rule, st state, set bdd.Set, accepted flows) bdd.Set {
	ends, lets := w.unknown(r, "ends: "+r.Text), w.unknown(r, "accepts: "+r.Text)
	w.add(accepted, st, w.And(set, w.And(ends, lets)))
	return w.Diff(set, ends)
}

// assign is a state once a mark was set.
func assign(st state, a netfilter.Assign) state {
	if a.Field == netfilter.CtLabel && a.Value < 128 {
		st.labels[a.Value/64] |= 1 << (a.Value % 64)
		return st
	}
	to := map[netfilter.Field]*uint32{netfilter.Mark: &st.mark, netfilter.CtMark: &st.ctMark}[a.Field]
	if to == nil { // of the rest no rule asks, or it is a doubt there
		return st
	}
	switch a.From {
	case netfilter.NoField:
		*to = *to&^uint32(a.Mask) ^ uint32(a.Value)
	case netfilter.Mark:
		*to = *to&^uint32(a.Mask) ^ st.mark&uint32(a.FromMask)
	case netfilter.CtMark:
		*to = *to&^uint32(a.Mask) ^ st.ctMark&uint32(a.FromMask)
	}
	return st
}
