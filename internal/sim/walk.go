package sim

import (
	"fmt"
	"math"
	"slices"

	"quaywall/internal/netfilter"
	"quaywall/internal/ruleset"
)

// walk is one way of a packet through the host, for one set of answers to what isn't known.
type walk struct {
	s       *Sim
	o       Options
	derived derived
	pk      pkt
	leg     string
	steps   []Step
	hops    []Hop
	choices []choice
	looked  *int // rules, on all ways of the packet
	asked   int  // how many of the choices have been met
	assumed []string

	// Of the base chain in hand.
	chain   *chain
	step    *Step
	hook    netfilter.Hook
	nat     bool               // translations count
	near    int                // rules noted that nearly matched
	element *netfilter.Element // of the set that a match of the rule in hand found the packet in

	// Of the request: what decided, should all go well, and what ended a leg.
	accepts []acceptance
	ended   Place
	lost    ending // how routing anew ended, where it did
	ct      *conn  // the connection of the packets in hand
}

// acceptance is a base chain that let the packet on.
type acceptance struct {
	place Place
	hook  netfilter.Hook
	named bool // a rule did, not the policy
}

// fate is what a chain makes of a packet.
type fate uint8

const (
	goesOn   fate = iota // to the rule behind the jump, or to the policy
	accepted             // by this base chain
	dropped
	rejected
)

// assume notes what is taken for granted, once.
func (w *walk) assume(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(w.assumed, text) {
		w.assumed = append(w.assumed, text)
	}
}

// choose answers a question that nothing answers: one of n ways, 0 the first time.
func (w *walk) choose(n int, d doubt) int {
	if w.asked == len(w.choices) {
		w.choices = append(w.choices, choice{0, n, d})
	}
	w.asked++
	return w.choices[w.asked-1].pick
}

// lastChoice is the doubt that this way differs by from the one before.
func (w *walk) lastChoice() doubt {
	for i := len(w.choices) - 1; i >= 0; i-- {
		if w.choices[i].pick > 0 {
			return w.choices[i].doubt
		}
	}
	return doubt{}
}

// base leads the packet through a base chain.
func (w *walk) base(c *chain, hook netfilter.Hook) fate {
	step := StepOf(c.table, c.Chain)
	step.Leg = w.leg
	w.steps = append(w.steps, step)
	w.step, w.hook, w.near = &w.steps[len(w.steps)-1], hook, 0
	f := w.rules(c, 0)
	place := Place{Table: w.step.Table, Chain: c.Name}
	if f != goesOn {
		w.step.Verdict = [...]string{"", "accept", "drop", "reject"}[f]
		place = w.decider(place)
	} else {
		f = accepted
		w.step.Verdict = "policy accept"
		if c.Base.Policy == netfilter.Drop {
			f, w.step.Verdict = dropped, "policy drop"
		}
		place.Text = w.step.Verdict
	}
	if w.o.Fast && !w.o.All && f == accepted && len(w.step.Rules) == 0 {
		w.steps = w.steps[:len(w.steps)-1] // nothing there had to do with the packet
	}
	if f != accepted {
		w.ended = place
	} else if w.leg == Request && c.Base.Type != netfilter.NAT {
		w.accepts = append(w.accepts, acceptance{place, hook, place.Rule > 0})
	}
	return f
}

// decider is the rule that ended the base chain in hand: the last one that was noted to have matched, or where the policy has
// no line for that, the one on the way to it that the policy has a line for.
func (w *walk) decider(p Place) Place {
	depth := math.MaxInt
	for i, r := range slices.Backward(w.step.Rules) {
		if r.Matched == no.String() || r.Depth >= depth {
			continue
		}
		if depth == math.MaxInt || r.PolicyLine != "" {
			p = w.placeOf(p.Table, i)
		}
		if depth = r.Depth; p.PolicyLine != "" {
			break
		}
	}
	return p
}

// placeOf is the place of a rule that was noted.
func (w *walk) placeOf(table string, at int) Place {
	r := w.step.Rules[at]
	p := Place{Table: table, Chain: r.Chain, Rule: r.Rule, Text: r.Text, PolicyLine: r.PolicyLine}
	if r.PolicyLine != "" {
		p.note = ruleset.ParseOrigin(r.Comment).Note
	}
	return p
}

// maxDepth is how deep the kernel takes jumps in nf_tables; those of xtables may be as deep as there are chains.
const maxDepth = 16

// tooDeep tells why jumps can't be so in a kernel; "" where they can. A dump that was written by hand may have them.
func tooDeep(c *chain, depth int) string {
	switch {
	case depth > len(c.index.chains):
		return "its jumps go round in a circle"
	case depth > maxDepth && c.table.Dialect == netfilter.NFT:
		return "its jumps are deeper than the 16 that the kernel takes"
	}
	return ""
}

// rules leads the packet through a chain's rules.
func (w *walk) rules(c *chain, depth int) fate {
	if why := tooDeep(c, depth); why != "" {
		return w.either(doubt{w.place(c, nil), why}, goesOn, accepted, dropped)
	}
	before := w.chain
	defer func() { w.chain = before }()
	w.chain = c
	if w.o.Fast {
		if ix := c.jumps(); ix != nil {
			return w.candidates(c, ix, depth)
		}
	}
	for _, r := range c.Rules {
		if left, f := w.rule(r, depth); left {
			return f
		}
	}
	return goesOn
}

// candidates leads the packet through those rules of a long chain that may match it.
func (w *walk) candidates(c *chain, ix *jumpIndex, depth int) fate {
	list := ix.of(w.pk.dst, w.pk.dport)
	for i := list.next(0); i >= 0; i = list.next(i + 1) {
		if left, f := w.rule(c.Rules[i], depth); left {
			return f
		}
	}
	return goesOn
}

// either goes one of several ways that nothing tells apart.
func (w *walk) either(d doubt, ways ...fate) fate { return ways[w.choose(len(ways), d)] }

// rule tries a rule. left tells that the packet leaves the chain, with f.
func (w *walk) rule(r *netfilter.Rule, depth int) (left bool, f fate) {
	w.lookAt()
	w.element = nil
	got, failed := w.holdsAll(r.Matches)
	if got != no || isStateful(r.Matches[failed]) {
		w.assumeFresh(r.Matches)
	}
	if got == no {
		if w.o.All || w.isNear(r, failed) {
			at := w.note(r, depth, no)
			w.step.Rules[at].Failed = w.whyNot(r.Matches[failed])
		}
		return false, goesOn
	}
	at := w.note(r, depth, got)
	if got == perhaps {
		why := w.whyNot(r.Matches[failed])
		w.step.Rules[at].Failed = why
		if isHarmless(r) || w.choose(2, doubt{w.place(w.chain, r), why}) == 0 {
			return false, goesOn
		}
	}
	return w.act(r, at, depth)
}

func isStateful(m netfilter.Match) bool {
	_, ok := m.(netfilter.Stateful)
	return ok
}

// maxNear is how many rules of a base chain are noted that nearly matched.
const maxNear = 8

// isNear tells whether a rule that didn't match is worth telling of: it asks for this very address or port, and all but one
// of its matches hold.
func (w *walk) isNear(r *netfilter.Rule, failed int) bool {
	if w.near >= maxNear || len(r.Matches) < 2 || len(r.Actions) == 0 {
		return false
	}
	specific := false
	for i, m := range r.Matches {
		if i == failed {
			continue
		}
		if i > failed && w.holds(m) == no {
			return false
		}
		specific = specific || isSpecific(m)
	}
	if specific {
		w.near++
	}
	return specific
}

// isSpecific tells whether a match asks for certain addresses or ports.
func isSpecific(m netfilter.Match) bool {
	switch m := m.(type) {
	case netfilter.Compare:
		switch m.Field {
		case netfilter.Src, netfilter.Dst, netfilter.DstPort, netfilter.CtOrigDst, netfilter.CtOrigDstPort:
			return !m.Not
		}
	case netfilter.In:
		return !m.Not
	}
	return false
}

// isHarmless tells whether nothing hangs on a rule's matching.
func isHarmless(r *netfilter.Rule) bool {
	for _, a := range r.Actions {
		switch a := a.(type) {
		case netfilter.Log, netfilter.Note, netfilter.Update:
		case netfilter.Verdict:
			if a.Kind != netfilter.Continue {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// note writes a rule down.
func (w *walk) note(r *netfilter.Rule, depth int, matched tri) int {
	w.step.Rules = append(w.step.Rules, RuleStep{Chain: w.chain.Name, Depth: depth, Rule: r.Number, Text: r.Text, Comment: r.Comment,
		PolicyLine: PolicyLine(w.chain.table, w.chain.Name, r.Comment), Matched: matched.String()})
	if e := w.element; e != nil && matched != no {
		w.elementOrigin(len(w.step.Rules)-1, e)
	}
	return len(w.step.Rules) - 1
}

// elementOrigin has a rule that a set or a map decided for be of the element's origin.
func (w *walk) elementOrigin(at int, e *netfilter.Element) {
	rs := &w.step.Rules[at]
	if line := PolicyLine(w.chain.table, w.chain.Name, e.Comment); line != "" {
		rs.PolicyLine = line
	}
	if rs.Comment == "" {
		rs.Comment = e.Comment
	}
}

// place is a rule of a chain, or with nil its policy.
func (w *walk) place(c *chain, r *netfilter.Rule) Place { return PlaceOf(c.table, c.Chain, r) }

// act does what a rule says, action by action.
func (w *walk) act(r *netfilter.Rule, at, depth int) (left bool, f fate) {
	for _, a := range r.Actions {
		var ends bool
		switch a := a.(type) {
		case netfilter.Verdict:
			ends, left, f = w.verdict(r, a, at, depth)
		case netfilter.Lookup:
			ends, left, f = w.lookup(r, a, at, depth)
		case netfilter.Reject:
			w.did(at, "reject")
			return true, rejected
		case netfilter.Translate:
			ends, left, f = w.translate(r, a, at)
		case netfilter.OpaqueAction:
			ends, left, f = w.opaque(r, a, at)
		case netfilter.TProxy:
			ends, left, f = w.tproxy(a, at)
		default:
			w.change(a, at)
		}
		if ends {
			return left, f
		}
	}
	return false, goesOn
}

// did notes what a rule did.
func (w *walk) did(at int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if before := w.step.Rules[at].Did; before != "" {
		text = before + ", " + text
	}
	w.step.Rules[at].Did = text
}

// verdict does what a verdict says. ends tells that the rule is done.
func (w *walk) verdict(r *netfilter.Rule, v netfilter.Verdict, at, depth int) (ends, left bool, f fate) {
	switch v.Kind {
	case netfilter.Continue:
		return false, false, goesOn
	case netfilter.Accept:
		w.did(at, "accept")
		return true, true, accepted
	case netfilter.Drop:
		w.did(at, "drop")
		return true, true, dropped
	case netfilter.Return:
		w.did(at, "return")
		return true, true, goesOn
	case netfilter.Queue:
		w.did(at, "queue")
		return true, true, w.either(doubt{w.place(w.chain, r), "what the program behind the queue says isn't known"}, accepted, dropped)
	}
	word := "jump"
	if v.Kind == netfilter.Goto {
		word = "goto"
	}
	w.did(at, "%s %s", word, v.Chain)
	if f = w.enter(r, v.Chain, depth); f == goesOn {
		w.forget(at)
	}
	return true, f != goesOn || v.Kind == netfilter.Goto, f
}

// enter goes into a chain. What is in one that isn't in the dump nobody knows.
func (w *walk) enter(r *netfilter.Rule, name string, depth int) fate {
	if c := w.chain.index.chains[name]; c != nil {
		return w.rules(c, depth+1)
	}
	return w.either(doubt{w.place(w.chain, r), "chain " + name + " is not in the rules"}, goesOn, accepted, dropped)
}

// lookup finds a verdict in a map. A packet that isn't in it goes on to the next rule.
func (w *walk) lookup(r *netfilter.Rule, l netfilter.Lookup, at, depth int) (ends, left bool, f fate) {
	s := w.set(l.Map, l.Elements)
	if s == nil {
		d := doubt{w.place(w.chain, r), "map " + l.Map + " is not in the rules"}
		f = w.either(d, goesOn, accepted, dropped)
		return true, f != goesOn, f
	}
	e, in := w.find(s, l.Fields)
	if in == perhaps && w.choose(2, doubt{w.place(w.chain, r), "what it looks up isn't known"}) == 0 {
		in = no
	}
	if in == no || e == nil || e.Verdict == nil {
		w.did(at, "not in the map")
		return true, false, goesOn
	}
	w.elementOrigin(at, e)
	return w.verdict(r, *e.Verdict, at, depth)
}

// opaque goes every way that an action may lead which isn't understood.
func (w *walk) opaque(r *netfilter.Rule, a netfilter.OpaqueAction, at int) (ends, left bool, f fate) {
	w.did(at, "%s (not understood)", a.Text)
	f = w.either(doubt{w.place(w.chain, r), "what " + a.Text + " does isn't understood"}, goesOn, accepted, dropped)
	return f != goesOn, f != goesOn, f
}

// change does what changes the packet or nothing at all.
func (w *walk) change(a netfilter.Action, at int) {
	switch a := a.(type) {
	case netfilter.Assign:
		w.assign(a, at)
	case netfilter.Untrack:
		if w.pk.ct != nil {
			return // seen before: it came over lo
		}
		w.pk.untracked = true
		w.did(at, "not tracked")
	case netfilter.Log:
		w.did(at, "log")
	}
}

// assign writes a field. The fields that no rule asks for afterwards here are left as they are.
func (w *walk) assign(a netfilter.Assign, at int) {
	var to *uint64
	switch a.Field {
	case netfilter.CtLabel:
		if w.pk.ct != nil && a.Value < 128 {
			w.pk.ct.labels[a.Value/64] |= 1 << (a.Value % 64)
			w.did(at, "connection label %d", a.Value)
		}
		return
	case netfilter.Mark:
		to = &w.pk.mark
	case netfilter.CtMark:
		if w.pk.ct == nil {
			return
		}
		to = &w.pk.ct.mark
	default:
		return
	}
	value := a.Value
	switch a.From {
	case netfilter.NoField:
	case netfilter.CtMark:
		if w.pk.ct == nil {
			return
		}
		value = w.pk.ct.mark & a.FromMask
	case netfilter.Mark:
		value = w.pk.mark & a.FromMask
	default:
		n, _ := w.pk.number(w, a.From)
		value = n & a.FromMask
	}
	*to = *to&^a.Mask ^ value
	name := "mark"
	if a.Field == netfilter.CtMark {
		name = "connection mark"
	}
	w.did(at, "%s 0x%x", name, *to)
}
