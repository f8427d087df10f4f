package repair

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	render "quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
)

// change is what has to be done to a family's tables.
type change struct {
	payload    strings.Builder // for iptables-restore --noflush
	missing    []string        // rules and chains that come back, "nat -A DOCKER …"
	stale      []Past          // rules of what is gone
	structural bool            // more is missing than rules of single containers
}

// plan compares Docker's part of a family, as it was, with what is there, for what runs now: rules of what is gone are not
// put back, and go where they are found if dropStale says so; all others stay where they are.
func (f Facts) plan(was *Snapshot, family ruleset.Family, d dump, dropStale bool) *change {
	c := &change{}
	parts := was.of(family, f)
	for _, name := range tables {
		p, live := parts[name], d[name]
		if live == nil {
			live = &table{policies: map[string]string{}, chains: map[string][]string{}}
		}
		if p == nil {
			p = &Part{}
		}
		w := &writer{change: c, table: name, isStale: func(chain, spec string) bool {
			return was.has(family, name, chain, spec) && f.isStale(parseRule(spec))
		}, dropStale: dropStale, family: family}
		f.ownChains(w, p, live)
		f.placed(w, p, live)
		w.end()
	}
	return c
}

// writer writes the payload of one table.
type writer struct {
	*change
	family      ruleset.Family
	table       string
	isStale     func(chain, spec string) bool
	dropStale   bool
	heads, body strings.Builder
}

func (w *writer) end() {
	if w.heads.Len()+w.body.Len() > 0 {
		fmt.Fprintf(&w.payload, "*%s\n%s%sCOMMIT\n", w.table, w.heads.String(), w.body.String())
	}
}

func (w *writer) lost(chain, spec string) {
	w.missing = append(w.missing, w.table+" -A "+chain+" "+spec)
	w.structural = w.structural || !parseRule(spec).isOfContainer()
}

// ownChains puts what Docker's chains lack into them. They are neither emptied nor filled anew: another engine on this host
// has its rules in the same chains, and may be writing just now.
func (f Facts) ownChains(w *writer, p *Part, live *table) {
	if _, whole := live.chains["DOCKER"]; !whole && p.Forward == "DROP" && len(p.Chains) > 0 {
		// The table was made anew since, or its chains were deleted by who opened it: Docker had closed it.
		if live.policies["FORWARD"] != "DROP" {
			w.lost("FORWARD", "policy DROP")
			w.heads.WriteString(":FORWARD DROP [0:0]\n")
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(p.Chains)) {
		there, exists := live.chains[chain]
		if !exists {
			w.missing = append(w.missing, w.table+" -N "+chain)
			w.structural = true
			fmt.Fprintf(&w.heads, ":%s - [0:0]\n", chain)
		}
		switch {
		case chain != userChain:
			w.insert(chain, w.withoutStale(chain, there), f.current(p.Chains[chain]), behind)
		case len(there) == 0: // what the administrator had there, nobody knows; Docker's own last rule comes back
			w.insert(chain, nil, p.Chains[chain], behind)
		}
	}
}

// withoutStale leaves out the rules of what is gone, and has them deleted.
func (w *writer) withoutStale(chain string, rules []string) []string {
	return slices.DeleteFunc(slices.Clone(rules), func(spec string) bool {
		if !w.isStale(chain, spec) {
			return false
		}
		w.stale = append(w.stale, Past{Family: w.family, Table: w.table, Chain: chain, Spec: spec, Out: true})
		if w.dropStale {
			fmt.Fprintf(&w.body, "-D %s %s\n", chain, spec)
		}
		return w.dropStale
	})
}

// behind is where a rule goes in a chain of Docker's, if it stood behind the first so many: what ends the chain, or ends it
// for a bridge, goes behind what was written since.
func behind(at int, spec string, rules []string) int {
	if spec == lastReturn {
		return len(rules)
	}
	for parseRule(spec).target == "DROP" && at < len(rules) && parseRule(rules[at]).target != "DROP" && rules[at] != lastReturn {
		at++
	}
	return at
}

// lastReturn ends chains of Docker's.
const lastReturn = "-j RETURN"

// placeOf is where Docker would have put a rule: what lets a bridge's own packets pass comes first, all else before what
// ends the chain.
func placeOf(spec string, rules []string) int {
	if r := parseRule(spec); r.target == "RETURN" && r.in != "" {
		return 0
	}
	for i, s := range rules {
		if r := parseRule(s); r.target == "DROP" || s == lastReturn {
			return i
		}
	}
	return len(rules)
}

// placed puts Docker's rules of built-in chains back, each behind the one that it stood behind, the first at the top, and
// takes those of what is gone out.
func (f Facts) placed(w *writer, p *Part, live *table) {
	here := func(at int, _ string, _ []string) int { return at }
	for _, chain := range slices.Sorted(maps.Keys(live.policies)) {
		w.insert(chain, w.withoutStale(chain, live.chains[chain]), f.current(p.Placed[chain]), here)
	}
	for _, chain := range slices.Sorted(maps.Keys(p.Placed)) {
		if _, there := live.policies[chain]; !there { // the whole table is gone, and comes back with the first rule
			w.insert(chain, nil, f.current(p.Placed[chain]), here)
		}
	}
}

// insert writes what makes wanted rules stand among those that are there. Quaywall's own jumps stay first.
func (w *writer) insert(chain string, rules, wanted []string, place func(at int, spec string, rules []string) int) {
	at := 0
	for at < len(rules) && render.LeadsToOwn(rules[at]) {
		at++
	}
	for _, spec := range wanted {
		if i := slices.Index(rules, spec); i >= 0 {
			at = i + 1
			continue
		}
		w.lost(chain, spec)
		at = place(at, spec, rules)
		rules = slices.Insert(rules, at, spec)
		at++
		fmt.Fprintf(&w.body, "-I %s %d %s\n", chain, at, spec)
	}
}
