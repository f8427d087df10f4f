package cover

import (
	"slices"

	"quaywall/internal/netset"
)

// query is one question to an index.
type query struct {
	index  *Index
	region Region
	trees  []*tree
}

// covered tells whether the rules decide on all of the region's addresses for this traffic.
func (q *query) covered(t Traffic) bool {
	above := q.at(nil, root)
	switch t.Proto {
	case AnyProto:
		return q.decided(above)
	case Published:
		// Rules for all that can be published would do as well.
		above = q.at(above, nodeKey{proto: Published})
		for _, proto := range publishable {
			if !q.below(above, nodeKey{proto: uint16(proto)}, 0, 65535) {
				return false
			}
		}
		return true
	}
	return q.below(above, nodeKey{proto: uint16(t.Proto)}, int(t.First), int(t.Last))
}

// at adds the nodes of a key, one of each tree that has it, to those above it.
func (q *query) at(above []*node, k nodeKey) []*node {
	found := slices.Clip(above)
	for _, t := range q.trees {
		if n := t.nodes[k]; n != nil {
			found = append(found, n)
		}
	}
	return found
}

// below tells whether a range within a node's traffic is decided on, by the nodes above it, it and those below it.
func (q *query) below(above []*node, k nodeKey, first, last int) bool {
	nodes := q.at(above, k)
	inside := first <= k.first() && k.last() <= last
	deeper := slices.ContainsFunc(nodes[len(above):], func(n *node) bool { return n.below })
	if inside || !deeper {
		if q.decided(nodes) {
			return true
		}
		if !deeper {
			return false
		}
	}
	for i := range fanOut {
		if c := k.child(i); c.first() <= last && first <= c.last() && !q.below(nodes, c, first, last) {
			return false
		}
	}
	return true
}

// decided tells whether the rules of some nodes together decide on all of the region's sources and destinations.
func (q *query) decided(nodes []*node) bool {
	if len(nodes) == 0 {
		return false
	}
	for _, f := range q.region.From {
		from := q.left(f, nodes, func(n *node) *runs { return &n.from })
		if from.IsEmpty() {
			continue
		}
		for _, t := range q.region.To {
			to := q.left(t, nodes, func(n *node) *runs { return &n.to })
			if !to.IsEmpty() && !q.boxed(from, to, boxes(nodes)) {
				return false
			}
		}
	}
	return true
}

// left is what the nodes' sets leave of a set.
func (q *query) left(a Addrs, nodes []*node, of func(*node) *runs) netset.Set {
	for _, n := range nodes {
		for _, b := range of(n).sets {
			if a.Set.IsEmpty() {
				return a.Set
			}
			a = q.index.subtract(a, b)
		}
	}
	return a.Set
}

// subtract remembers what takes long.
func (x *Index) subtract(a, b Addrs) Addrs {
	switch {
	case b.ID == Any.ID || a.ID != 0 && a.ID == b.ID:
		return Addrs{}
	case !a.Set.Overlaps(b.Set):
		return a
	case a.ID == 0 || b.ID == 0 || a.Set.Len() < large && b.Set.Len() < large:
		return Addrs{Set: a.Set.Subtract(b.Set)}
	}
	key := [2]int{a.ID, b.ID}
	if found, ok := x.memo[key]; ok {
		return found
	}
	left := Addrs{ID: x.nextID, Set: a.Set.Subtract(b.Set)}
	x.nextID--
	x.memo[key] = left
	return left
}

// boxes are the rules with a source and a destination, the most special ones first: they are the likeliest to help.
func boxes(nodes []*node) [][]box {
	var all [][]box
	for _, n := range slices.Backward(nodes) {
		if len(n.both) > 0 {
			all = append(all, n.both)
		}
	}
	return all
}

// boxed tells whether rules with a source and a destination decide on all pairs of two sets: what is outside of a rule's
// sources is up to those behind it, and so are, within its sources, the destinations outside of its own.
func (q *query) boxed(from, to netset.Set, rules [][]box) bool {
	if from.IsEmpty() || to.IsEmpty() {
		return true
	}
	for ; len(rules) > 0; rules = rules[1:] {
		for i, b := range rules[0] {
			if q.index.budget--; q.index.budget < 0 {
				return false
			}
			if b.from.Overlaps(from) && b.to.Overlaps(to) {
				rest := append([][]box{rules[0][i+1:]}, rules[1:]...)
				return q.boxed(from.Subtract(b.from), to, rest) && q.boxed(from.Intersect(b.from), to.Subtract(b.to), rest)
			}
		}
	}
	return false
}
