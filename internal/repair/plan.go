package repair

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	render "quaywall/internal/render/ipt"
)

// change is what has to be done to a family's tables.
type change struct {
	payload    strings.Builder // for iptables-restore --noflush
	missing    []string        // rules and chains that come back, "nat -A DOCKER …"
	stale      []string        // rules of what is gone
	structural bool            // more is missing than rules of single containers
	dropsStale bool            // rules of what is gone go
}

// plan compares Docker's part of a family, as it was, with what is there, for what runs now: rules of what is gone are not
// put back, and go where they are found if dropStale says so; rules that Docker wrote since stay.
func (f Facts) plan(was map[string]*Part, d dump, dropStale bool) *change {
	c := &change{dropsStale: dropStale}
	for _, name := range tables {
		p, live := was[name], d[name]
		if live == nil {
			live = &table{policies: map[string]string{}, chains: map[string][]string{}}
		}
		if p == nil {
			p = &Part{}
		}
		w := &writer{table: name, change: c}
		f.ownChains(w, p, live)
		f.placed(w, p, live)
		w.end()
	}
	return c
}

// writer writes the payload of one table.
type writer struct {
	*change
	table       string
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

func (w *writer) left(chain, spec string) {
	w.stale = append(w.stale, w.table+" -A "+chain+" "+spec)
}

// ownChains fills Docker's chains anew where they lack something or hold something of what is gone. Naming a chain empties
// it, and all takes effect at COMMIT.
func (f Facts) ownChains(w *writer, p *Part, live *table) {
	if _, whole := live.chains["DOCKER"]; !whole && p.Forward == "DROP" && len(p.Chains) > 0 {
		// The table was made anew since, or its chains were deleted by who opened it: Docker had closed it.
		if live.policies["FORWARD"] != "DROP" {
			w.lost("FORWARD", "policy DROP")
			w.heads.WriteString(":FORWARD DROP [0:0]\n")
		}
	}
	names := slices.Sorted(maps.Keys(p.Chains))
	for _, chain := range names {
		there, exists := live.chains[chain]
		for _, spec := range without(there, f.notStale(there)) {
			w.left(chain, spec)
		}
		if w.dropsStale {
			there = f.notStale(there)
		}
		want := f.wanted(chain, p.Chains[chain], there)
		if exists && slices.Equal(want, live.chains[chain]) {
			continue
		}
		if !exists {
			w.missing = append(w.missing, w.table+" -N "+chain)
			w.structural = true
		}
		for _, spec := range without(want, there) {
			w.lost(chain, spec)
		}
		fmt.Fprintf(&w.heads, ":%s - [0:0]\n", chain)
		for _, spec := range want {
			fmt.Fprintf(&w.body, "-A %s %s\n", chain, spec)
		}
	}
}

// wanted is what a chain of Docker's shall hold: what it held, as far as it is current, and what Docker wrote since. In
// the administrator's chain what is there stays; only where nothing is left, Docker's own last rule comes back.
func (f Facts) wanted(chain string, was, there []string) []string {
	if chain == userChain {
		if len(there) > 0 {
			return there
		}
		return was
	}
	want := f.current(was)
	if len(without(want, there)) == 0 {
		return there // in Docker's own order
	}
	for _, spec := range without(there, want) {
		want = slices.Insert(want, placeOf(spec, want), spec)
	}
	return want
}

// notStale leaves out rules of what is gone.
func (f Facts) notStale(rules []string) []string {
	return slices.DeleteFunc(slices.Clone(rules), func(s string) bool { return f.isStale(parseRule(s)) })
}

// placeOf is where Docker would have put a rule: what lets a bridge's own packets pass comes first, all else before what
// ends the chain.
func placeOf(spec string, rules []string) int {
	if r := parseRule(spec); r.target == "RETURN" && r.in != "" {
		return 0
	}
	for i, s := range rules {
		if r := parseRule(s); r.target == "DROP" || s == "-j RETURN" {
			return i
		}
	}
	return len(rules)
}

// without are the rules of a that b lacks.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// placed puts Docker's rules of built-in chains back, each behind the one that it stood behind, the first at the top, and
// takes those of what is gone out.
func (f Facts) placed(w *writer, p *Part, live *table) {
	for _, chain := range slices.Sorted(maps.Keys(live.policies)) {
		var rules []string
		for _, spec := range live.chains[chain] {
			if r := parseRule(spec); f.isOurs(w.table, chain, r) && f.isStale(r) {
				w.left(chain, spec)
				if w.dropsStale {
					fmt.Fprintf(&w.body, "-D %s %s\n", chain, spec)
					continue
				}
			}
			rules = append(rules, spec)
		}
		w.insert(chain, rules, f.current(p.Placed[chain]))
	}
	for _, chain := range slices.Sorted(maps.Keys(p.Placed)) {
		if _, there := live.policies[chain]; !there { // the whole table is gone, and comes back with the first rule
			w.insert(chain, nil, f.current(p.Placed[chain]))
		}
	}
}

// insert writes what makes wanted rules stand among those that are there. Quaywall's own jumps stay first.
func (w *writer) insert(chain string, rules, wanted []string) {
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
		rules = slices.Insert(rules, at, spec)
		at++
		fmt.Fprintf(&w.body, "-I %s %d %s\n", chain, at, spec)
	}
}
