package nft

import (
	"iter"

	"golang.org/x/sys/unix"
)

// Live is what the kernel holds of the table already, for Transaction.
type Live struct {
	Table *Table             // nil where there is none
	Sets  map[string]Summary // of the sets that were read
}

// Transaction gives the messages that make the table what the kernel holds, as one transaction. What is there already is
// changed rather than deleted: base chains of the same hook stay, so that each packet meets the old rules or the new ones
// and never, for an instant, a chain that is still empty or empty already; sets that hold the same stay, with their
// counters and, where they are limits, with the sources that they know. A table that was put to sleep is made anew.
func Transaction(t *Table, live Live) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		w := &writer{table: t, live: live, yield: yield}
		if live.Table != nil && live.Table.Flags != 0 {
			w.say(DeleteTable(t.Name))
			w.live = Live{}
		}
		w.say(AddTable(t.Name))
		w.index()
		if w.live.Table != nil {
			w.say(flushRules(t.Name))
			w.deleteSets()
			w.deleteChains()
		}
		w.chains()
		w.sets()
		w.rules()
	}
}

// writer says messages until nobody listens any more.
type writer struct {
	table    *Table
	live     Live
	planned  map[string]Summary
	old, new map[string]*Chain
	yield    func(Message, error) bool
	done     bool
}

func (w *writer) say(m Message) { w.sayOr(m, nil) }

func (w *writer) sayOr(m Message, err error) {
	if !w.done {
		w.done = !w.yield(m, err) || err != nil
	}
}

// index makes what is there and what is wanted easy to find.
func (w *writer) index() {
	w.planned, w.new = map[string]Summary{}, chainsByName(w.table)
	if w.live.Table != nil {
		w.old = chainsByName(w.live.Table)
	}
	for i := range w.table.Sets {
		w.planned[w.table.Sets[i].Name] = w.table.Sets[i].Summarize()
	}
}

// keepsSet tells whether the kernel has a set already as it is wanted.
func (w *writer) keepsSet(name string) bool {
	live, ok := w.live.Sets[name]
	planned, wanted := w.planned[name]
	return ok && wanted && live == planned
}

// keepsChain tells whether the kernel has a chain already, rules aside.
func (w *writer) keepsChain(name string) bool {
	live, planned := w.old[name], w.new[name]
	if live == nil || planned == nil || (live.Base == nil) != (planned.Base == nil) {
		return false
	}
	return live.Base == nil || *live.Base == *planned.Base
}

// deleteSets comes before deleteChains: maps refer to chains, in older kernels until they are emptied.
func (w *writer) deleteSets() {
	for i := range w.live.Table.Sets {
		s := &w.live.Table.Sets[i]
		if w.keepsSet(s.Name) {
			continue
		}
		if s.Flags&unix.NFT_SET_MAP != 0 {
			w.say(flushSet(w.table.Name, s.Name))
		}
		w.say(deleteSet(w.table.Name, s.Name))
	}
}

func (w *writer) deleteChains() {
	for i := range w.live.Table.Chains {
		if name := w.live.Table.Chains[i].Name; !w.keepsChain(name) {
			w.say(deleteChain(w.table.Name, name))
		}
	}
}

func (w *writer) chains() {
	for i := range w.table.Chains {
		if c := &w.table.Chains[i]; !w.keepsChain(c.Name) {
			w.say(addChain(w.table.Name, c))
		}
	}
}

// sets come before rules: as long as no rule uses a map, the kernel needn't look for loops with each of its elements.
func (w *writer) sets() {
	for i := range w.table.Sets {
		s := &w.table.Sets[i]
		if w.keepsSet(s.Name) {
			continue
		}
		w.say(addSet(w.table.Name, s, uint32(i+1), w.planned[s.Name]))
		for m := range addElements(w.table.Name, s) {
			if w.say(m); w.done {
				return
			}
		}
	}
}

func (w *writer) rules() {
	for i := range w.table.Chains {
		c := &w.table.Chains[i]
		for j := range c.Rules {
			if w.done {
				return
			}
			w.sayOr(addRule(w.table.Name, c.Name, &c.Rules[j]))
		}
	}
}

func chainsByName(t *Table) map[string]*Chain {
	chains := make(map[string]*Chain, len(t.Chains))
	for i := range t.Chains {
		chains[t.Chains[i].Name] = &t.Chains[i]
	}
	return chains
}
