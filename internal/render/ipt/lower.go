package ipt

import (
	"cmp"
	"errors"
	"fmt"

	"quaywall/internal/ruleset"
)

// lowering turns the chains of a table into those of one family.
//
// Chains are reached by -g alone, so RETURN always leads back to the built-in chain and means "accept". What in the
// ruleset returns to the middle of a chain is written as a -g to a chain that holds the rest of it: a chain that is jumped
// to is lowered once for each place that it returns to.
type lowering struct {
	family    ruleset.Family
	chains    map[string]*ruleset.Chain
	tableSets map[string]*ruleset.Set
	maps      map[string]*ruleset.Map
	sets      setList
	leaving   map[string]bool // chains that packets come to which came in by no interface
	arriving  bool            // the chain at hand is none of them
	rejects   bool

	wanted []work
	known  map[string]bool // names of chains that are written or wanted
	trees  map[string]string
	out    []*Chain
}

// place is where a chain goes on at its end: the zero place is the built-in chain.
type place struct {
	chain string // the lowered name
	depth int
}

// work is a chain to be lowered.
type work struct {
	name  string // the lowered name
	chain *ruleset.Chain
	end   place
}

// maxDepth is how deep jumps may nest. The kernel's own limit is 16 chains.
const maxDepth = 16

func newLowering(family ruleset.Family, t *ruleset.Table, sets setList) (*lowering, error) {
	l := &lowering{family: family, sets: sets, leaving: t.ReachedFrom(ruleset.Output, ruleset.Postrouting), chains: map[string]*ruleset.Chain{}, tableSets: map[string]*ruleset.Set{},
		maps: map[string]*ruleset.Map{}, known: map[string]bool{}, trees: map[string]string{}}
	for i := range t.Chains {
		l.chains[t.Chains[i].Name] = &t.Chains[i]
	}
	for i := range t.Sets {
		l.tableSets[t.Sets[i].Name] = &t.Sets[i]
	}
	for i := range t.Maps {
		l.maps[t.Maps[i].Name] = &t.Maps[i]
	}
	if len(l.chains) != len(t.Chains) || len(l.tableSets) != len(t.Sets) || len(l.maps) != len(t.Maps) {
		return nil, errors.New("two chains, sets or maps have the same name")
	}
	return l, nil
}

// need asks for a chain that goes on at a place, and gives the name that it will have.
func (l *lowering) need(chain string, end place) string {
	name := chainName(chain)
	if end.chain != "" {
		name = derivedName(name, end.chain[len(Prefix):])
	}
	if !l.known[name] {
		l.known[name] = true
		l.wanted = append(l.wanted, work{name, l.chains[chain], end})
	}
	return name
}

// all lowers the chains that were asked for, and those that they ask for.
func (l *lowering) all() ([]Chain, error) {
	for len(l.wanted) > 0 {
		w := l.wanted[0]
		l.wanted = l.wanted[1:]
		if err := l.lower(w); err != nil {
			return nil, err
		}
	}
	var chains []Chain
	for _, c := range l.out {
		chains = append(chains, *c)
	}
	return chains, nil
}

// open begins a chain.
func (l *lowering) open(name string) *Chain {
	l.known[name] = true
	c := &Chain{Name: name}
	l.out = append(l.out, c)
	return c
}

func (c *Chain) add(words ...string) { c.Rules = append(c.Rules, Rule{join(words...)}) }

func (l *lowering) lower(w work) error {
	b := &body{l: l, work: w, current: l.open(w.name)}
	l.arriving = !l.leaving[w.chain.Name]
	for i, r := range w.chain.Rules {
		if err := b.rule(r); err != nil {
			where := fmt.Sprintf("chain %s, rule %d", w.chain.Name, i+1)
			if c := r.Origin.Comment(); c != "" {
				where += " (" + c + ")"
			}
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	if w.end.chain != "" {
		b.current.add("-g", w.end.chain)
	}
	return nil
}

// body is a chain that is being lowered.
type body struct {
	l *lowering
	work
	current *Chain // where the next rule goes
	derived int    // chains made on the way
	rest    *Chain // what follows the rule at hand, where something goes on there
}

// derive begins another chain of this one.
func (b *body) derive() *Chain {
	for {
		b.derived++
		name := derivedName(b.name, fmt.Sprint(b.derived))
		if !b.l.known[name] {
			return b.l.open(name)
		}
	}
}

// after is the place behind the rule at hand.
func (b *body) after() place {
	if b.rest == nil {
		b.rest = b.derive()
	}
	return place{b.rest.Name, b.end.depth + 1}
}

// action is what one rule of iptables does with a packet that its condition let through.
type action struct {
	ports   *ruleset.PortMatch // a further condition
	match   string             // a further condition
	target  string             // "" does nothing
	comment string
}

// outcome is what is done with a packet that a rule matches, as actions in their order.
type outcome struct {
	actions []action
	comment string // of the rule as a whole
	final   bool   // no packet goes on to the next rule
	pure    bool   // every packet goes on to the next rule
	inOrder bool   // the actions must be done one after the other, for a packet that matched once
}

func (b *body) rule(r ruleset.Rule) error {
	c, err := b.l.condition(r.Matches)
	if err != nil || c.never {
		return err
	}
	o, err := b.outcome(r, c)
	if err != nil || len(o.actions) == 0 {
		return err
	}
	if err := b.emit(b.current, c, o); err != nil {
		return err
	}
	if b.rest != nil {
		b.current.add("-g", b.rest.Name)
		b.current, b.rest = b.rest, nil
	}
	return nil
}

// outcome is what a rule does, without its conditions.
func (b *body) outcome(r ruleset.Rule, c *condition) (outcome, error) {
	o := outcome{comment: commentOf(r)}
	if r.Log != nil {
		o.actions = append(o.actions, action{target: logTarget(r.Log)})
		o.inOrder = true
	}
	if r.Lookup != nil {
		return o, b.lookup(&o, r, c)
	}
	target, err := b.target(r.Verdict)
	if err != nil {
		return o, err
	}
	o.final = r.Verdict.Kind != ruleset.Continue && r.Verdict.Kind != ruleset.Jump
	o.pure = r.Verdict.Kind == ruleset.Continue
	if o.pure && (r.Log != nil || !r.Counter) {
		return o, nil
	}
	o.actions = append(o.actions, action{target: target})
	return o, nil
}

// commentOf is a rule's comment. Every rule of iptables counts, and counts for the line that its comment begins with: one
// that is not to count says what it is for alone.
func commentOf(r ruleset.Rule) string {
	if !r.Counter {
		return r.Origin.Note
	}
	return r.Origin.Comment()
}

func logTarget(g *ruleset.Log) string {
	return fmt.Sprintf("-j NFLOG --nflog-prefix %s --nflog-group %d", quote(text(g.Prefix, maxPrefix)), g.Group)
}

// target is a verdict as a target.
func (b *body) target(v ruleset.Verdict) (string, error) {
	switch v.Kind {
	case ruleset.Drop:
		return "-j DROP", nil
	case ruleset.TCPReset, ruleset.Unreachable:
		b.l.rejects = true
		return "-g " + rejectChain, nil
	case ruleset.Accept:
		return "-j RETURN", nil
	case ruleset.Continue:
		return "", nil
	case ruleset.Return:
		if b.end.chain != "" {
			return "-g " + b.end.chain, nil
		}
		return "-j RETURN", nil
	case ruleset.Goto:
		return b.into(v.Chain, b.end)
	case ruleset.Jump:
		return b.into(v.Chain, b.after())
	}
	return "", fmt.Errorf("unknown verdict %d", v.Kind)
}

func (b *body) into(chain string, end place) (string, error) {
	switch c, ok := b.l.chains[chain]; {
	case !ok:
		return "", fmt.Errorf("there is no chain %q", chain)
	case c.Base != nil:
		return "", fmt.Errorf("%q is a base chain, it can't be jumped to", chain)
	case end.depth > maxDepth:
		return "", fmt.Errorf("jumps to %q nest too deep, or go round in a circle", chain)
	}
	return "-g " + b.l.need(chain, end), nil
}

// emit writes a rule to the end of a chain. Where one rule of iptables can't say it, a chain of its own says the rest:
// that way a packet is logged once, and counts once for a rate, however many alternatives a condition has.
func (b *body) emit(ch *Chain, c *condition, o outcome) error {
	variants := c.variants()
	single := len(o.actions) == 1
	switch {
	case len(variants) == 0:
		return nil
	case len(variants) == 1 && variants[0] == "" && len(c.rates) == 0:
		o.actions[len(o.actions)-1].comment = cmp.Or(o.actions[len(o.actions)-1].comment, o.comment)
		o.comment = ""
		return b.direct(ch, c, o)
	case single && (len(variants) == 1 || o.final && len(c.rates) == 0),
		len(variants) == 1 && len(c.rates) == 0 && !o.inOrder:
		return b.direct(ch, c, o)
	}
	sub := b.derive()
	word := "-g"
	if o.pure {
		word = "-j"
	}
	inner := c.transport()
	text := o.comment
	if len(variants) > 1 && len(c.rates) > 0 {
		inner.rates, text = c.rates, "" // what isn't within the rate doesn't count
	} else {
		variants[0] = join(variants[0], join(c.rates...))
		o.comment, o.inOrder = "", false
	}
	for _, v := range variants {
		ch.add(v, comment(text), word, sub.Name)
	}
	if err := b.emit(sub, inner, o); err != nil {
		return err
	}
	if !o.pure && (!o.final || len(inner.rates) > 0) {
		sub.add("-g", b.after().chain)
	}
	return nil
}

// direct writes a rule for each variant of the condition and each action.
func (b *body) direct(ch *Chain, c *condition, o outcome) error {
	for _, a := range o.actions {
		with := c.clone()
		if a.ports != nil {
			if err := with.addPorts(b.l, *a.ports); err != nil {
				return err
			}
		}
		text := a.comment
		if text == "" {
			text = o.comment
		}
		for _, v := range with.variants() {
			ch.add(v, join(c.rates...), a.match, comment(text), a.target)
		}
	}
	return nil
}
