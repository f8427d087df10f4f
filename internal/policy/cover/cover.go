// Package cover finds rules that earlier rules leave nothing to.
//
// An Index takes rules one by one, each as the Region of packets that it decides on:
//
//	if index.Covers(region) { … } // no packet of it gets past the rules that were added
//	index.Add(region)
//
// It is exact over protocol, port, source and destination, also where only several rules together cover one; what makes
// up a Scope is compared as it is written. Ten thousand rules with sets of a million addresses take some tenths of a second:
// ports are a tree of sixteen branches a level, large sets are kept as they are, and what was subtracted from what is
// remembered.
//
// Be aware: Covers errs on one side only. Where it can't tell at a reasonable price (many rules with both a source and a
// destination that only together cover another), it says no.
package cover

import (
	"maps"
	"slices"
	"strings"

	"quaywall/internal/netset"
)

// Region is what a rule decides on.
type Region struct {
	Scope    Scope
	Traffic  []Traffic
	From, To []Addrs // each the union of these; never empty
}

// Addrs is a set of addresses with an identity. Sets of the same ID but 0 are the same set, and what is computed of them
// is remembered; sets that are used once have ID 0.
type Addrs struct {
	ID  int
	Set netset.Set
}

// Any is every address.
var Any = Addrs{ID: -1, Set: netset.All()}

// Published is the pseudo-protocol of the ports that Docker publishes, whichever they are; AnyProto is all protocols.
const (
	Published = 256
	AnyProto  = 257
)

// publishable are the protocols that Docker publishes ports of: TCP, UDP and SCTP.
var publishable = []int{6, 17, 132}

// Traffic is a range of the 16 bits by which a protocol's packets differ: the destination port, or type and code of
// ICMP. Of protocols without such a thing, and of the pseudo-protocols, it is 0 to 65535.
type Traffic struct {
	Proto       int
	First, Last uint16
}

// Index is the rules that were added. The zero value has none.
type Index struct {
	trees  map[string]*tree // by Scope.key
	memo   map[[2]int]Addrs // what is left of one set without another
	nextID int
	budget int // of looking at rules with a source and a destination
}

// boxBudget is how often a rule with both a source and a destination may be looked at, over all questions.
const boxBudget = 1_000_000

// New is an index without rules.
func New() *Index {
	return &Index{trees: map[string]*tree{}, memo: map[[2]int]Addrs{}, nextID: -2, budget: boxBudget}
}

// Add adds the rule that decides on a region.
func (x *Index) Add(r Region) {
	key := r.Scope.key()
	t := x.trees[key]
	if t == nil {
		t = &tree{scope: r.Scope, nodes: map[nodeKey]*node{}}
		x.trees[key] = t
	}
	for _, traffic := range r.Traffic {
		t.add(traffic, r)
	}
}

// Covers tells whether the rules that were added decide on all of a region.
func (x *Index) Covers(r Region) bool {
	q := query{index: x, region: r, trees: x.covering(r.Scope)}
	return !slices.ContainsFunc(r.Traffic, func(t Traffic) bool { return !q.covered(t) })
}

// manyScopes is where comparing each with each would take too long.
const manyScopes = 64

// covering gives the trees whose rules hold wherever a scope does.
func (x *Index) covering(s Scope) []*tree {
	var found []*tree
	if len(x.trees) > manyScopes {
		for _, wider := range s.widened() {
			if t := x.trees[wider.key()]; t != nil {
				found = append(found, t)
			}
		}
		return found
	}
	for _, key := range slices.Sorted(maps.Keys(x.trees)) {
		if t := x.trees[key]; t.scope.covers(s) {
			found = append(found, t)
		}
	}
	return found
}

// Scope is what else a rule asks for.
type Scope struct {
	On       []string // interfaces or globs; empty is every one
	Networks []string // Docker networks; empty is every one
	Kind     Kind
	Network  string // with KindNetwork
}

// Kind is the kind of a destination.
type Kind uint8

// Rules of KindPlain have addresses for a destination, of KindHost this host whatever its addresses are, of KindNetwork
// a Docker network's containers: for those only rules of the same network count.
const (
	KindPlain Kind = iota
	KindHost
	KindNetwork
)

func (s Scope) key() string {
	return strings.Join(s.On, ",") + " " + strings.Join(s.Networks, ",") + " " + string(rune('0'+s.Kind)) + s.Network
}

// widened are the likeliest scopes that cover one, itself first.
func (s Scope) widened() []Scope {
	all := []Scope{s}
	add := func(change func(*Scope)) {
		for _, w := range slices.Clone(all) {
			change(&w)
			if !slices.ContainsFunc(all, func(x Scope) bool { return x.key() == w.key() }) {
				all = append(all, w)
			}
		}
	}
	add(func(w *Scope) { w.On = nil })
	add(func(w *Scope) { w.Networks = nil })
	if s.Kind == KindHost {
		add(func(w *Scope) { w.Kind = KindPlain })
	}
	return all
}

// covers tells whether a rule of scope s holds wherever one of scope o does.
func (s Scope) covers(o Scope) bool {
	switch {
	case s.Kind == KindNetwork || o.Kind == KindNetwork:
		if s.Kind != o.Kind || s.Network != o.Network {
			return false
		}
	case s.Kind == KindHost && o.Kind == KindPlain:
		return false
	}
	return subset(o.On, s.On, globCovers) && subset(o.Networks, s.Networks, func(a, b string) bool { return a == b })
}

// subset tells whether each of some names is covered by one of others, where none are all.
func subset(some, others []string, covers func(other, name string) bool) bool {
	if len(others) == 0 {
		return true
	}
	if len(some) == 0 {
		return false
	}
	return !slices.ContainsFunc(some, func(name string) bool {
		return !slices.ContainsFunc(others, func(other string) bool { return covers(other, name) })
	})
}

// globCovers tells whether all that matches one pattern matches another.
func globCovers(wide, narrow string) bool {
	prefix, isGlob := strings.CutSuffix(wide, "*")
	return wide == narrow || isGlob && strings.HasPrefix(narrow, prefix)
}
