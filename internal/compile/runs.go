package compile

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"quaywall/internal/ruleset"
)

// longRun is how many plain rules for a family a run of rules may come to before it becomes maps: a look-up costs about
// as much as a few rules, and a short list is easier to read.
const longRun = 4

// reachable leaves out rules that match nothing, and those behind a rule that matches everything.
func reachable(rules []*rule, f fams) []*rule {
	var kept []*rule
	for _, r := range rules {
		if r.dead(f) {
			continue
		}
		kept = append(kept, r)
		if r.covers(f) {
			break
		}
	}
	return kept
}

// list writes rules, in order, to the end of a chain. It tells whether the last of them matches everything, so that
// nothing behind it is ever reached.
func (w *writer) list(ch *ruleset.Chain, rules []*rule, f fams) (decided bool) {
	rules = reachable(rules, f)
	for len(rules) > 0 {
		n, axis := longestRun(rules)
		run := rules[:n]
		if plainSize(run, axis) > longRun {
			w.run(ch, run, axis, f)
		} else {
			for _, r := range run {
				add(ch, w.c.plain(r, f)...)
				decided = decided || r.covers(f)
			}
		}
		rules = rules[n:]
	}
	return decided
}

// longestRun finds how many of the first rules differ only in one address, and which.
func longestRun(rules []*rule) (n int, axis ruleset.Field) {
	n, axis = runLength(rules, ruleset.Src), ruleset.Src
	if byDst := runLength(rules, ruleset.Dst); byDst > n {
		n, axis = byDst, ruleset.Dst
	}
	return max(n, 1), axis
}

// runLength is 0 where not even the first rule can be resolved along the axis.
func runLength(rules []*rule, axis ruleset.Field) int {
	n := 0
	for n < len(rules) && rules[n].along(axis).mappable() && rules[n].likeBut(rules[0], axis) {
		n++
	}
	return n
}

// along is the side of a rule at one end of the packet.
func (r *rule) along(axis ruleset.Field) *side {
	switch {
	case axis == ruleset.Src:
		return r.src
	case r.at == nil:
		return r.dst
	case r.dst == nil:
		return r.at
	}
	return nil
}

// likeBut tells whether two rules ask the same of everything but the address along the axis.
func (r *rule) likeBut(o *rule, axis ruleset.Field) bool {
	if r.quals != o.quals {
		return false
	}
	if axis == ruleset.Dst {
		return r.src.sameAs(o.src)
	}
	return r.dst.sameAs(o.dst) && r.at.sameAs(o.at)
}

func (s *side) sameAs(o *side) bool {
	return s == o || s != nil && o != nil && s.key == o.key
}

// plainSize is how many plain rules a run would take for a family.
func plainSize(run []*rule, axis ruleset.Field) int {
	total := 0
	for _, r := range run {
		if s := r.along(axis); s.mappable() {
			total += s.size()
		}
	}
	return total
}

// run writes a run of rules as a look-up for each family.
func (w *writer) run(ch *ruleset.Chain, run []*rule, axis ruleset.Field, f fams) {
	shared := *run[0]
	if axis == ruleset.Src {
		shared.src = nil
	} else {
		shared.dst, shared.at = nil, nil
	}
	for fam := range families {
		if !f[fam] {
			continue
		}
		name := w.addressMap(run, axis, fam)
		if name == "" {
			continue
		}
		for _, matches := range w.c.conditions(&shared, fam) {
			add(ch, ruleset.Rule{Matches: matches, Lookup: &ruleset.Lookup{By: axis, Map: name}})
		}
	}
}

// addressMap gives the name of the map that a run comes to in a family, "" where that has no elements.
func (w *writer) addressMap(run []*rule, axis ruleset.Field, fam int) string {
	key := []byte{byte(fam), byte(axis)}
	for _, r := range run {
		key = binary.AppendUvarint(key, uint64(r.id))
	}
	known := w.name + string(key)
	if i, ok := w.c.maps[known]; ok {
		return w.c.lookups[i].Name
	}
	elements := resolve(run, axis, fam)
	if len(elements) == 0 {
		return ""
	}
	w.maps++
	name := w.c.names.claim(fmt.Sprintf("%s-map%dv%d", w.name, w.maps, 4+2*fam))
	w.c.maps[known] = len(w.c.lookups)
	w.c.lookups = append(w.c.lookups, ruleset.Map{Name: name, Key: families[fam].AddrKey(), Elements: elements})
	return name
}

// stretch is a range of addresses that a rule of a run, by its index, is about.
type stretch struct {
	from, to netip.Addr
	rule     int
}

// lowest is a heap of stretches, the one whose rule comes first on top.
type lowest []stretch

func (h lowest) Len() int           { return len(h) }
func (h lowest) Less(i, j int) bool { return h[i].rule < h[j].rule }
func (h lowest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lowest) Push(x any)        { *h = append(*h, x.(stretch)) }
func (h *lowest) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// resolve sweeps over the addresses of a run and gives disjoint elements, each with the verdict of the first rule that
// is about it.
func resolve(run []*rule, axis ruleset.Field, fam int) []ruleset.Element {
	var all []stretch
	for i, r := range run {
		for _, x := range r.along(axis).resolve(fam) {
			all = append(all, stretch{x.From(), x.To(), i})
		}
	}
	slices.SortFunc(all, func(a, b stretch) int {
		return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.rule, b.rule))
	})
	b := elementBuilder{run: run}
	var open lowest
	var at netip.Addr
	for next := 0; next < len(all) || len(open) > 0; {
		if len(open) == 0 {
			at = all[next].from
		}
		for ; next < len(all) && all[next].from == at; next++ {
			heap.Push(&open, all[next])
		}
		top := open[0]
		if top.to.Less(at) {
			heap.Pop(&open)
			continue
		}
		end := top.to
		if next < len(all) && !end.Less(all[next].from) {
			end = all[next].from.Prev()
		}
		b.add(at, end, top.rule)
		if at = end.Next(); !at.IsValid() {
			break
		}
	}
	return b.elements
}

// elementBuilder collects elements and joins those that touch and come from one rule.
type elementBuilder struct {
	run      []*rule
	elements []ruleset.Element
	owner    int // the rule of the last element
}

func (b *elementBuilder) add(from, to netip.Addr, rule int) {
	if n := len(b.elements); n > 0 && b.owner == rule && b.elements[n-1].Addrs.To().Next() == from {
		b.elements[n-1].Addrs = netipx.IPRangeFrom(b.elements[n-1].Addrs.From(), to)
		return
	}
	r := b.run[rule]
	b.elements = append(b.elements, ruleset.Element{Addrs: netipx.IPRangeFrom(from, to), Verdict: r.verdict, Origin: r.origin})
	b.owner = rule
}
