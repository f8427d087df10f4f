package cover

import "quaywall/internal/netset"

// tree is the rules of one scope by traffic. Below the root are the protocols, below each four levels of sixteen
// branches: a port is a leaf, a range a few inner nodes.
type tree struct {
	scope Scope
	nodes map[nodeKey]*node
}

// nodeKey names a node: protocol, level (0 is all of the protocol, 4 one port) and the leading bits.
type nodeKey struct {
	proto  uint16
	level  uint8
	prefix uint16
}

const (
	levels = 4
	fanOut = 16
)

var root = nodeKey{proto: AnyProto}

// first and last are the ends of a node's range.
func (k nodeKey) first() int { return int(k.prefix) << (4 * (levels - k.level)) }
func (k nodeKey) last() int  { return k.first() + 1<<(4*(levels-k.level)) - 1 }

func (k nodeKey) child(i int) nodeKey { return nodeKey{k.proto, k.level + 1, k.prefix<<4 | uint16(i)} }

// node is what rules decide on in all of a node's traffic.
type node struct {
	from  runs // sources, by rules for any destination
	to    runs // destinations, by rules for any source
	both  []box
	below bool // nodes below it hold rules
}

// box is a rule with a source and a destination.
type box struct{ from, to netset.Set }

func (t *tree) node(k nodeKey) *node {
	n := t.nodes[k]
	if n == nil {
		n = &node{}
		t.nodes[k] = n
	}
	return n
}

func (t *tree) add(traffic Traffic, r Region) {
	if traffic.Proto == AnyProto {
		t.node(root).add(r)
		return
	}
	t.addAt(nodeKey{proto: uint16(traffic.Proto)}, int(traffic.First), int(traffic.Last), r)
}

// addAt adds a rule to the fewest nodes below k that make up its range.
func (t *tree) addAt(k nodeKey, first, last int, r Region) {
	n := t.node(k)
	if first <= k.first() && k.last() <= last {
		n.add(r)
		return
	}
	n.below = true
	for i := range fanOut {
		if c := k.child(i); c.first() <= last && first <= c.last() {
			t.addAt(c, first, last, r)
		}
	}
}

func (n *node) add(r Region) {
	anyFrom, anyTo := isAny(r.From), isAny(r.To)
	switch {
	case anyTo:
		n.from.add(r.From)
	case anyFrom:
		n.to.add(r.To)
	default:
		for _, f := range r.From {
			for _, t := range r.To {
				n.both = append(n.both, box{f.Set, t.Set})
			}
		}
	}
}

func isAny(parts []Addrs) bool { return len(parts) == 1 && parts[0].ID == Any.ID }

// runs is a growing union of sets. Small ones are merged, each with those of its own size, so that there are few and each
// address is moved seldom; large ones are kept as they are.
type runs struct{ sets []Addrs }

const large = 2048

func (u *runs) add(parts []Addrs) {
	for _, p := range parts {
		u.addOne(p)
	}
}

func (u *runs) addOne(p Addrs) {
	for _, s := range u.sets {
		if p.ID != 0 && s.ID == p.ID {
			return
		}
	}
	u.sets = append(u.sets, p)
	for n := len(u.sets); n > 1; n = len(u.sets) {
		a, b := u.sets[n-2], u.sets[n-1]
		if b.Set.Len() >= large || a.Set.Len() > 2*b.Set.Len() {
			return
		}
		u.sets = append(u.sets[:n-2], Addrs{Set: a.Set.Union(b.Set)})
	}
}
