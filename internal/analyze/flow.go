package analyze

import (
	"context"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
)

// flow is packets of one family and of any kind on their way through a table: forwards to find out which of them get to
// each rule, and backwards to find out what becomes of them.
//
// What becomes of packets is a relation of packets and codes: one code for each thing that may become of a packet, and for
// coming back from each chain. A packet without a code is one of which more is done than deciding on it (it is told of,
// marked, kept in a set), or of which it isn't known.
type flow struct {
	*space
	table   *netfilter.Table
	only    bdd.Set // the packets that there are
	bounds  map[*netfilter.Rule]bounds
	effects map[*netfilter.Rule]*effect
	reach   map[*netfilter.Chain]bdd.Set // what may get to a chain
	hits    map[*netfilter.Rule]bdd.Set  // what may get to a rule, and meet its matches
	returns map[*netfilter.Chain]bdd.Set // what may come back of all packets, from chains that change nothing
	changes map[*netfilter.Chain]bool    // those that do
	entered map[entering]bdd.Set         // what may come back from those
	codes   map[string]uint64
	becomes map[*netfilter.Chain]bdd.Set // what becomes of packets that enter a chain, without its redundant rules
	parts   map[*netfilter.Chain]relation
}

// entering is packets that enter a chain.
type entering struct {
	*netfilter.Chain
	in bdd.Set
}

// relation is what becomes of packets that enter a chain, by whether they come back.
type relation struct{ ends, returns bdd.Set } // returns asks for no code

// atEnd is the code for the end of a chain, in relations of packets and rules; else rules have their place in the chain, from 1.
const atEnd = 1<<24 - 1

// effect is what a rule does to packets that it matches.
type effect struct {
	side    bool // it does more than to decide
	assigns []netfilter.Assign
	exits   []exit
	onward  bool // what takes no exit goes on with the next rule
}

// exit is a way out of a rule, for some of its packets.
type exit struct {
	when  bounds
	kind  netfilter.VerdictKind
	chain *netfilter.Chain // of Jump and Goto
	code  uint64           // of what ends; 0 for what nobody knows
}

func newFlow(ctx context.Context, t *netfilter.Table, family netfilter.Family, ifaces []string) *flow {
	w := &flow{space: newOpenSpace(family, ifaces), table: t, only: bdd.All, bounds: map[*netfilter.Rule]bounds{}, effects: map[*netfilter.Rule]*effect{},
		reach: map[*netfilter.Chain]bdd.Set{}, hits: map[*netfilter.Rule]bdd.Set{}, returns: map[*netfilter.Chain]bdd.Set{},
		changes: map[*netfilter.Chain]bool{}, entered: map[entering]bdd.Set{}, codes: map[string]uint64{}, becomes: map[*netfilter.Chain]bdd.Set{}, parts: map[*netfilter.Chain]relation{}}
	limit(ctx, w.Universe, mostOfTable)
	return w
}

// entry is what may get to a base chain at all.
func (w *flow) entry(b *netfilter.Base) bdd.Set {
	in, out := w.Equal(w.field(netfilter.InIface), bdd.Small(0)), w.Equal(w.field(netfilter.OutIface), bdd.Small(0))
	set := w.Range(w.field(netfilter.CtState), bdd.Small(0), bdd.Small(4))
	switch b.Hook {
	case netfilter.Prerouting, netfilter.Input:
		set = w.And(set, w.And(in.Not(), out))
	case netfilter.Forward:
		set = w.And(set, w.And(in.Not(), out.Not()))
	case netfilter.Output:
		set = w.And(set, w.And(in, out.Not()))
	case netfilter.Postrouting, netfilter.Egress:
		set = w.Diff(set, out)
	case netfilter.Ingress:
		set = w.Diff(set, in)
	}
	if b.Type == netfilter.NAT { // what begins a connection, or one that belongs to another
		state := w.field(netfilter.CtState)
		set = w.And(set, w.Or(w.Equal(state, bdd.Small(0)), w.Equal(state, bdd.Small(2))))
	}
	return set
}

// all leads packets through all chains, which are in the order in which they lead to each other.
func (w *flow) all(chains []*netfilter.Chain) {
	for i := range chains { // from the last: those that a chain leads to are known by then
		c := chains[len(chains)-1-i]
		w.changes[c] = w.changesAny(c)
	}
	for _, c := range chains {
		if c.Base != nil {
			w.reach[c] = w.And(w.only, w.entry(c.Base))
		}
	}
	for _, c := range chains {
		w.walk(c, w.reach[c], true)
	}
}

func (w *flow) changesAny(c *netfilter.Chain) bool {
	for _, r := range c.Rules {
		e := w.exits(rule{r, c, w.table})
		if len(e.assigns) > 0 {
			return true
		}
		for _, x := range e.exits {
			if x.chain != nil && w.changes[x.chain] {
				return true
			}
		}
	}
	return false
}

// bound is the packets that meet a rule's matches.
func (w *flow) bound(r rule) bounds {
	b, known := w.bounds[r.Rule]
	if !known {
		b = w.space.bound(func() bdd.Set { return w.space.all(r, r.Matches, state{}) })
		w.bounds[r.Rule] = b
	}
	return b
}

// walk leads packets through a chain, and gives those that may come back. What gets where is noted, or is not.
func (w *flow) walk(c *netfilter.Chain, in bdd.Set, note bool) (returned bdd.Set) {
	for _, r := range c.Rules {
		if in == bdd.None {
			break
		}
		placed := rule{r, c, w.table}
		hit := w.And(in, w.bound(placed).may)
		if note {
			w.hits[r] = w.met(placed, in, hit)
		}
		if hit == bdd.None {
			continue
		}
		on, back := w.through(placed, hit, note)
		in = w.Or(w.Diff(in, w.bound(placed).must), on)
		returned = w.Or(returned, back)
	}
	return w.Or(returned, in)
}

// met is what meets a rule's matches, or those in front of one that may change something when it is asked.
func (w *flow) met(r rule, in, hit bdd.Set) bdd.Set {
	pure := impure(r.Matches)
	if pure == len(r.Matches) {
		return hit
	}
	return w.And(in, w.space.bound(func() bdd.Set { return w.space.all(r, r.Matches[:pure], state{}) }).may)
}

// through leads packets through what a rule does: those that go on with the next one, and those that come back from the chain.
func (w *flow) through(r rule, hit bdd.Set, note bool) (on, back bdd.Set) {
	e := w.exits(r)
	for _, a := range e.assigns {
		hit = w.assigned(hit, a)
	}
	for _, x := range e.exits {
		taken := w.And(hit, x.when.may)
		hit = w.Diff(hit, x.when.must)
		switch x.kind {
		case netfilter.Continue:
			on = w.Or(on, taken)
		case netfilter.Return:
			back = w.Or(back, taken)
		case netfilter.Jump:
			on = w.Or(on, w.enter(x.chain, taken, note))
		case netfilter.Goto:
			back = w.Or(back, w.enter(x.chain, taken, note))
		}
	}
	if e.onward {
		on = w.Or(on, hit)
	}
	return on, back
}

// enter leads packets into a chain, and gives those that may come back.
func (w *flow) enter(c *netfilter.Chain, in bdd.Set, note bool) bdd.Set {
	if note {
		w.reach[c] = w.Or(w.reach[c], in)
	}
	if w.changes[c] {
		key := entering{c, in}
		out, known := w.entered[key]
		if !known {
			out = w.walk(c, in, false)
			w.entered[key] = out
		}
		return out
	}
	all, known := w.returns[c]
	if !known {
		all = w.walk(c, bdd.All, false)
		w.returns[c] = all
	}
	return w.And(in, all)
}

// exits is what a rule does.
func (w *flow) exits(r rule) *effect {
	e := w.effects[r.Rule]
	if e == nil {
		e = &effect{onward: true}
		for _, a := range r.Actions {
			if !e.onward {
				break
			}
			w.act(e, r, a)
		}
		if len(e.exits) == 0 {
			e.side = true // it is there to count, at the least
		}
		w.effects[r.Rule] = e
	}
	return e
}

// always is when an exit is taken by all packets, perhaps when nobody knows.
var (
	always  = bounds{bdd.All, bdd.All}
	perhaps = bounds{bdd.All, bdd.None}
)

func (w *flow) act(e *effect, r rule, a netfilter.Action) {
	switch a := a.(type) {
	case netfilter.Verdict:
		w.verdict(e, a, always)
	case netfilter.Reject:
		e.exits, e.onward = append(e.exits, exit{always, netfilter.Drop, nil, w.code(describe(a))}), false
	case netfilter.Lookup:
		w.lookUp(e, r, a)
	case netfilter.Translate:
		if len(a.Fields) > 0 { // by a map: nobody is told apart
			e.exits = append(e.exits, exit{perhaps, netfilter.Accept, nil, 0})
			return
		}
		e.exits, e.onward = append(e.exits, exit{always, netfilter.Accept, nil, w.code(describe(a))}), false
	case netfilter.TProxy, netfilter.OpaqueAction:
		e.side = true
		e.exits = append(e.exits, exit{perhaps, netfilter.Queue, nil, 0})
	case netfilter.Assign:
		e.side, e.assigns = true, append(e.assigns, a)
	case netfilter.Untrack:
		e.side, e.assigns = true, append(e.assigns, netfilter.Assign{Field: netfilter.CtState, Mask: 7, Value: 4})
	case netfilter.Log, netfilter.Note, netfilter.Update:
		e.side = true
	}
}

// verdict adds the way out that a verdict is.
func (w *flow) verdict(e *effect, v netfilter.Verdict, when bounds) {
	x := exit{when: when, kind: v.Kind}
	switch v.Kind {
	case netfilter.Continue:
		if when == always {
			return
		}
	case netfilter.Accept:
		x.code = w.code(accepts)
	case netfilter.Drop:
		x.code = w.code(drops)
	case netfilter.Jump, netfilter.Goto:
		if x.chain = w.table.Chain(v.Chain); x.chain == nil {
			e.side = true // the dump was cut
			return
		}
	}
	e.exits = append(e.exits, x)
	e.onward = e.onward && when != always
}

// What becomes of packets, beside being rejected or translated.
const (
	accepts = "accept"
	drops   = "drop"
)

// lookUp adds the ways out of a verdict map: one for each verdict that is in it. No two of its elements hold the same packet.
func (w *flow) lookUp(e *effect, r rule, l netfilter.Lookup) {
	byVerdict := map[netfilter.Verdict][]netfilter.Element{}
	var order []netfilter.Verdict
	for _, x := range mapped(w.table, l) {
		if x.Verdict == nil {
			continue
		}
		if byVerdict[*x.Verdict] == nil {
			order = append(order, *x.Verdict)
		}
		byVerdict[*x.Verdict] = append(byVerdict[*x.Verdict], x)
	}
	for _, v := range order {
		when := w.space.bound(func() bdd.Set {
			set, known := w.elements(r, l.Fields, byVerdict[v], state{})
			if !known {
				return w.doubt()
			}
			return set
		})
		w.verdict(e, v, when)
	}
}

// code is the number of what becomes of a packet.
func (w *flow) code(what string) uint64 {
	n, known := w.codes[what]
	if !known {
		n = uint64(len(w.codes) + 1)
		w.codes[what] = n
	}
	return n
}

func (w *flow) coded(code uint64) bdd.Set {
	if code == 0 {
		return bdd.None
	}
	return w.Equal(codes, bdd.Small(code))
}

// back is what becomes of packets that come to the end of a chain, or return.
func (w *flow) back(c *netfilter.Chain) bdd.Set {
	switch {
	case c.Base == nil:
		return w.coded(w.code("back from " + c.Name))
	case c.Base.Policy == netfilter.Drop:
		return w.coded(w.code(drops))
	}
	return w.coded(w.code(accepts))
}

// with is what becomes of packets within a set that meet a rule's matches, if next is what becomes of those that go on.
func (w *flow) with(r rule, next, within bdd.Set) bdd.Set {
	e := w.exits(r)
	if e.side {
		return bdd.None
	}
	becomes := bdd.None
	on := w.taking(e, within, func(x exit, taken bdd.Set) {
		switch x.kind {
		case netfilter.Continue:
			taken = w.And(taken, next)
		case netfilter.Return:
			taken = w.And(taken, w.back(r.chain))
		case netfilter.Jump:
			taken = w.inside(x.chain, taken, next)
		case netfilter.Goto:
			taken = w.inside(x.chain, taken, w.back(r.chain))
		default:
			taken = w.And(taken, w.coded(x.code))
		}
		becomes = w.Or(becomes, taken)
	})
	return w.Or(becomes, w.And(on, next))
}

// taking tells which of packets within a set surely take each way out of a rule, and gives what surely goes on past all of them.
func (w *flow) taking(e *effect, within bdd.Set, tell func(x exit, taken bdd.Set)) (on bdd.Set) {
	for _, x := range e.exits {
		tell(x, w.And(within, x.when.must))
		within = w.Diff(within, x.when.may)
	}
	if !e.onward {
		return bdd.None
	}
	return within
}

// inside is what becomes of packets that enter a chain, if next is what becomes of those that come back.
func (w *flow) inside(c *netfilter.Chain, in, next bdd.Set) bdd.Set {
	p := w.relation(c)
	return w.Or(w.And(in, p.ends), w.And(w.And(in, p.returns), next))
}

func (w *flow) relation(c *netfilter.Chain) relation {
	p, known := w.parts[c]
	if !known {
		back := w.back(c)
		p = relation{w.Diff(w.becomes[c], back), w.Exists(w.And(w.becomes[c], back), codes)}
		w.parts[c] = p
	}
	return p
}

// before is what becomes of packets that get to a rule, if next is what becomes of those that get to the one behind it. Of a
// rule that may be taken out it is what becomes of them with it and without it, where that is the same.
func (w *flow) before(r rule, next bdd.Set, stays bool) bdd.Set {
	b := w.bound(r)
	if !stays {
		b.must = bdd.None
	}
	becomes := w.Or(w.Diff(next, b.may), w.with(r, next, b.must))
	if perhaps := w.Diff(b.may, b.must); perhaps != bdd.None {
		becomes = w.Or(becomes, w.And(w.with(r, next, perhaps), next))
	}
	return becomes
}

// resolved is a relation of a chain, where it is known what becomes of packets that come back from it.
func (w *flow) resolved(c *netfilter.Chain, becomes, behind bdd.Set) bdd.Set {
	if behind == bdd.None || c.Base != nil {
		return becomes
	}
	back := w.back(c)
	return w.Or(w.Diff(becomes, back), w.And(w.Exists(w.And(becomes, back), codes), behind))
}

// sameWithout tells whether the same becomes of all packets that a rule may decide on if they go on to the next one.
func (w *flow) sameWithout(r rule, next, behind bdd.Set) bool {
	hits := w.Diff(w.hits[r.Rule], w.passing(r, w.hits[r.Rule]))
	with, without := w.with(r, next, hits), w.And(hits, next)
	left := w.Diff(hits, w.Exists(w.And(with, without), codes))
	if left == bdd.None || behind == bdd.None {
		return left == bdd.None
	}
	with, without = w.resolved(r.chain, w.And(left, with), behind), w.resolved(r.chain, w.And(left, without), behind)
	return w.Diff(left, w.Exists(w.And(with, without), codes)) == bdd.None
}

// passing is what of packets within a set, that meet a rule's matches, goes on with the next rule as it came.
func (w *flow) passing(r rule, within bdd.Set) bdd.Set {
	passing := bdd.None
	on := w.taking(w.exits(r), within, func(x exit, taken bdd.Set) {
		switch x.kind {
		case netfilter.Continue:
			passing = w.Or(passing, taken)
		case netfilter.Jump:
			passing = w.Or(passing, w.And(taken, w.relation(x.chain).returns))
		}
	})
	return w.Or(passing, on)
}

// decider is which rule of a chain decides on packets that get to one of its rules, if by is which does behind it.
func (w *flow) decider(r rule, at int, by bdd.Set) bdd.Set {
	ends := w.ends(r, w.bound(r).must)
	return w.Or(w.Diff(by, ends), w.And(ends, w.coded(uint64(at)+1)))
}

// ends is what of packets that meet a rule's matches surely does not go on with the next rule. Of those that are changed on
// the way it isn't told.
func (w *flow) ends(r rule, hit bdd.Set) bdd.Set {
	e := w.exits(r)
	changes := len(e.assigns) > 0
	for _, x := range e.exits {
		changes = changes || x.chain != nil && w.changes[x.chain]
	}
	on, _ := w.through(r, hit, false)
	if changes && on != bdd.None {
		return bdd.None
	}
	return w.Diff(hit, on)
}

// takers tells of each rule of a chain what it matches, what of that comes to the chain, and which rules before it take that.
func (w *flow) takers(c *netfilter.Chain, tell func(r *netfilter.Rule, may, comes bdd.Set, takers []int)) {
	in, taken := w.reach[c], bdd.None
	for i, r := range c.Rules {
		placed := rule{r, c, w.table}
		b := w.bound(placed)
		comes := w.And(w.reach[c], b.may)
		if w.hits[r] == bdd.None {
			tell(r, b.may, comes, w.fewest(c, w.And(comes, taken)))
		}
		taken = w.Or(taken, w.And(w.ends(placed, w.And(in, b.must)), w.coded(uint64(i)+1)))
		on, _ := w.through(placed, w.And(in, b.may), false)
		in = w.Or(w.Diff(in, b.must), on)
	}
}

// fewest are the places of the rules that take packets: of one alone where it would take them all.
func (w *flow) fewest(c *netfilter.Chain, taken bdd.Set) (all []int) {
	packets := w.Exists(taken, codes)
	for _, code := range w.numbersOf(taken) {
		at := int(code - 1)
		placed := rule{c.Rules[at], c, w.table}
		if w.Diff(packets, w.ends(placed, w.bound(placed).must)) == bdd.None {
			return []int{at}
		}
		all = append(all, at)
	}
	return all
}

// numbersOf are the codes of a relation.
func (w *flow) numbersOf(relation bdd.Set) (all []uint64) {
	for _, i := range w.Intervals(w.Exists(relation, bdd.Field{Bits: codes.First}), codes) {
		for n := i.First.Lo; n <= i.Last.Lo; n++ {
			all = append(all, n)
		}
	}
	return all
}
