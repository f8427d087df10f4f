package trace

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/kernel/nft"
	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/sim"
	"quaywall/internal/watch/nftrace"
)

// way makes a packet's way of its events.
type way struct {
	*names
	Packet
	now   packet.Packet // as it was seen last
	hook  string        // that it was at last
	base  nftrace.Event // the first event of the base chain at hand
	depth map[string]int
	last  met
	final *netfilter.Verdict // of the last event
	word  string             // and in words
}

// packet is what became of a packet.
func (n *names) packet(s *seen) *Packet {
	w := &way{names: n, Packet: Packet{Time: s.begun, Verdict: string(sim.Unknown), Path: []sim.Step{}}}
	w.now, _ = n.decode(s.first)
	w.Packet.Packet, w.Flags, w.Mark = w.now.String(), flagsText(w.now), s.last.Mark
	w.From, w.To = n.containers[w.now.Src], n.containers[w.now.Dst]
	for _, e := range s.events {
		w.add(e)
	}
	w.finish(s)
	return &w.Packet
}

// add adds an event.
func (w *way) add(e nftrace.Event) {
	m := w.of(e)
	if w.begins(e) || len(w.Path) == 0 { // or how its base chain began was lost
		w.begin(e, m)
	}
	step := &w.Path[len(w.Path)-1]
	w.last, w.final, w.word = m, e.Verdict, ""
	switch {
	case e.Kind == nftrace.Rule || m.rule != nil: // a rule without conditions is told as the end of its chain by iptables-legacy
		w.rule(step, e, m)
	case e.Kind == nftrace.Policy:
		if e.Legacy && m.chain.Base != nil {
			w.final = &netfilter.Verdict{Kind: m.chain.Base.Policy}
		}
		w.word = verdictWord(w.final)
		step.Verdict = "policy " + w.word
	}
}

// begins tells whether an event is the first one of a base chain.
func (w *way) begins(e nftrace.Event) bool {
	if !e.Legacy {
		return e.Header != nil
	}
	same := w.base.Legacy && w.base.Table == e.Table
	return !same || isBuiltIn(e.Chain) && w.base.Chain != e.Chain
}

// isBuiltIn tells whether a chain of iptables is one that hooks call.
func isBuiltIn(chain string) bool {
	return slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, chain)
}

// begin begins the step of a base chain.
func (w *way) begin(e nftrace.Event, m met) {
	chain := *m.chain
	if chain.Base == nil { // not known, but for iptables-legacy, whose chains are named by hook
		chain.Base = &netfilter.Base{}
	}
	step := sim.StepOf(m.table, &chain)
	if m.chain.Base == nil {
		step.Hook = ""
		if e.Legacy {
			step.Hook = strings.ToLower(e.Chain)
		}
	}
	w.move(e, step.Hook)
	w.base, w.depth = e, map[string]int{}
	w.Path = append(w.Path, step)
}

// move tells of what happened between two base chains: the packet was rewritten, and routed.
func (w *way) move(e nftrace.Event, hook string) {
	pk, ok := w.decode(e)
	if !ok {
		return
	}
	if pk.Src != w.now.Src || pk.Dst != w.now.Dst || pk.SrcPort != w.now.SrcPort || pk.DstPort != w.now.DstPort {
		w.rewritten(pk)
	}
	switch {
	case hook == w.hook || hook == "":
	case hook == "input":
		w.tell("routing: to this host itself")
	case hook == "forward":
		w.tell("routing: out by %s", pk.Out)
	case hook == "output":
		w.tell("sent by this host, out by %s", pk.Out)
	case hook == "prerouting" && w.hook != "":
		w.tell("it comes back in by %s", pk.In)
	}
	w.now = pk
	if hook != "" {
		w.hook = hook
	}
}

func (w *way) tell(format string, args ...any) {
	w.Path = append(w.Path, sim.Step{Text: fmt.Sprintf(format, args...)})
}

// rewritten tells that a packet has other addresses now: by the rule that it met last, or since its connection has.
func (w *way) rewritten(pk packet.Packet) {
	before, after := w.ends(w.now), w.ends(pk)
	if len(w.Path) > 0 && w.last.rule != nil && slices.ContainsFunc(w.last.rule.Actions, isTranslate) {
		if rules := w.Path[len(w.Path)-1].Rules; len(rules) > 0 {
			rules[len(rules)-1].Before, rules[len(rules)-1].After = before, after
			return
		}
	}
	w.Path = append(w.Path, sim.Step{Text: "connection tracking rewrites it as its connection", Before: before, After: after})
}

func (w *way) rule(step *sim.Step, e nftrace.Event, m met) {
	r := sim.RuleStep{Chain: e.Chain, Depth: w.depth[e.Chain], Rule: m.number, Matched: "yes", PolicyLine: w.policyLine(m, w.now)}
	if m.rule != nil {
		r.Text, r.Comment = m.rule.Text, cmp.Or(m.rule.Comment, r.PolicyLine)
	} else {
		r.Text = fmt.Sprintf("a rule that is not known any more (handle %d)", e.Handle)
	}
	r.Did, w.final = did(e, m.rule)
	w.word = r.Did
	step.Rules = append(step.Rules, r)
	switch w.final.Kind {
	case netfilter.Jump, netfilter.Goto:
		w.depth[w.final.Chain] = r.Depth + 1
	case netfilter.Accept, netfilter.Drop, netfilter.Queue:
		step.Verdict = r.Did
	}
}

// verdictWord is accept or drop.
func verdictWord(v *netfilter.Verdict) string {
	if v != nil && v.Kind == netfilter.Drop {
		return "drop"
	}
	return "accept"
}

// finish says what became of the packet, and why.
func (w *way) finish(s *seen) {
	if s.ended {
		w.passed(s)
		return
	}
	switch {
	case s.cut:
		w.Why = fmt.Sprintf("It met more than %d rules, of which no more are shown.", maxEvents)
	case w.final != nil && w.final.Kind == netfilter.Drop:
		w.stopped()
	case w.final != nil && w.final.Kind == netfilter.Queue:
		w.Why = "It was handed to a program (queue), and was not seen again."
	default:
		where := "before all rules"
		if w.hook != "" {
			where = "at " + w.hook
		}
		w.Why = fmt.Sprintf("It was seen %s last, and no rule is known to have stopped it: routing has no way for it, the kernel takes it for a martian, "+
			"it is on its way still, or some of what the kernel told had no room.", where)
	}
}

// stopped is for a packet that a rule stopped.
func (w *way) stopped() {
	w.Verdict = string(sim.Drop)
	if strings.HasSuffix(w.word, string(sim.Reject)) {
		w.Verdict = string(sim.Reject)
	}
	place := sim.PlaceOf(w.last.table, w.last.chain, w.last.rule)
	place.Rule = w.last.number
	if w.last.rule == nil {
		place.Rule = 0
	}
	step := w.Path[len(w.Path)-1]
	// Quaywall's rules decide by maps that lead to the chain for what is denied: the line is that of the way there.
	for _, r := range slices.Backward(step.Rules) {
		if place.PolicyLine == "" {
			place.PolicyLine = r.PolicyLine
		}
	}
	w.DecidedBy = &place
	verb := map[string]string{"drop": "drops", "reject": "rejects"}[w.Verdict]
	w.Why = fmt.Sprintf("%s %s it.", upper(place.String()), verb)
}

// passed is for a packet that got through.
func (w *way) passed(s *seen) {
	w.Verdict = string(sim.Accept)
	hook := "postrouting"
	if s.last.Chain == nft.TraceInput {
		hook = "input"
	}
	w.move(s.last, hook)
	w.To = w.containers[w.now.Dst]
	if hook == "input" {
		w.Why = fmt.Sprintf("No rule stopped it: it got to this host itself (%s).", w.end(w.now.Dst, w.now.DstPort))
		return
	}
	w.Why = fmt.Sprintf("No rule stopped it: it left by %s (%s).", w.now.Out, w.ends(w.now))
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
