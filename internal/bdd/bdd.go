// Package bdd holds sets of bit strings as reduced ordered binary decision diagrams (Bryant 1986), with complemented edges
// (Brace, Rudell and Bryant 1990).
//
//	u := bdd.New()
//	port := bdd.Field{First: 32, Bits: 16}
//	web := u.Or(u.Equal(port, bdd.Small(80)), u.Equal(port, bdd.Small(443)))
//	rest := u.Diff(web, u.Range(port, bdd.Small(0), bdd.Small(100)))   // equal sets are the same Set
//
// A variable is one bit; those of lower numbers are asked first, and there are at most 65,535. Two sets are equal where they are the same value.
//
// Be aware: a Universe only grows, so that it is for one analysis and thrown away then; it is not safe for use by several
// goroutines. The order of the fields decides whether a diagram is small or beyond all bounds.
package bdd

// Set is a set of bit strings of one Universe.
type Set uint32

// The two sets that every universe has.
const (
	None Set = 0
	All  Set = 1
)

// Not is the complement. It costs nothing.
func (s Set) Not() Set { return s ^ 1 }

// node asks a variable: lo is what is left where it is 0, hi where it is 1. lo is never a complemented edge, so that each
// set has one form.
type node struct {
	variable uint32
	lo, hi   Set
}

// leaf is the variable of the terminal node, behind all others.
const leaf = ^uint32(0)

// Universe is the diagrams of an analysis.
type Universe struct {
	nodes   []node
	table   []uint32 // of hashes: index of a node, 0 for none
	results []result
	watch   func(nodes int) error
}

// Stopped is what an operation panics with that was not to go on.
type Stopped struct{ Err error }

// Watch has somebody asked, every 65,536 nodes, whether to go on. Where the answer is an error, the operation that is under way
// panics with Stopped.
func (u *Universe) Watch(goOn func(nodes int) error) { u.watch = goOn }

// watchEvery is after how many nodes somebody is asked, a power of two.
const watchEvery = 1 << 16

// result is a remembered result of an operation.
type result struct {
	op, a, b uint32
	is       Set
}

// Sizes at the beginning, powers of two. Both tables grow with the nodes.
const (
	firstTable   = 1 << 12
	firstResults = 1 << 12
	mostResults  = 1 << 20
)

// New makes a universe.
func New() *Universe {
	return &Universe{nodes: []node{{variable: leaf}}, table: make([]uint32, firstTable), results: make([]result, firstResults)}
}

// Nodes is how many nodes there are: 12 bytes each, and 4 to 8 in the table.
func (u *Universe) Nodes() int { return len(u.nodes) }

func hash(a, b, c uint32) uint32 {
	h := (uint64(a)*0x9e3779b97f4a7c15 ^ uint64(b)*0xc2b2ae3d27d4eb4f ^ uint64(c)*0x165667b19e3779f9)
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}

// make gives the set that asks a variable.
func (u *Universe) make(variable uint32, lo, hi Set) Set {
	if lo == hi {
		return lo
	}
	if lo&1 != 0 {
		return u.make(variable, lo.Not(), hi.Not()).Not()
	}
	mask := uint32(len(u.table) - 1)
	at := hash(variable, uint32(lo), uint32(hi)) & mask
	for ; u.table[at] != 0; at = (at + 1) & mask {
		if n := &u.nodes[u.table[at]]; n.variable == variable && n.lo == lo && n.hi == hi {
			return Set(u.table[at] << 1)
		}
	}
	index := uint32(len(u.nodes))
	if index&(watchEvery-1) == 0 && u.watch != nil {
		if err := u.watch(len(u.nodes)); err != nil {
			panic(Stopped{err})
		}
	}
	u.nodes = append(u.nodes, node{variable, lo, hi})
	u.table[at] = index
	if len(u.nodes)*2 > len(u.table) {
		u.grow()
	}
	return Set(index << 1)
}

// grow doubles the tables. What was remembered is forgotten: it would be in other places.
func (u *Universe) grow() {
	u.table = make([]uint32, 2*len(u.table))
	mask := uint32(len(u.table) - 1)
	for i, n := range u.nodes[1:] {
		at := hash(n.variable, uint32(n.lo), uint32(n.hi)) & mask
		for ; u.table[at] != 0; at = (at + 1) & mask {
		}
		u.table[at] = uint32(i + 1)
	}
	if len(u.results) < mostResults {
		u.results = make([]result, 2*len(u.results))
	}
}

// ask gives what a set asks first, and what is left of it where that is 0 and where it is 1.
func (u *Universe) ask(s Set) (variable uint32, lo, hi Set) {
	n := &u.nodes[s>>1]
	c := s & 1
	return n.variable, n.lo ^ c, n.hi ^ c
}

// at is what is left of a set where a variable that it doesn't ask before is 0, and where it is 1.
func (u *Universe) at(s Set, variable uint32) (lo, hi Set) {
	if v, lo, hi := u.ask(s); v == variable {
		return lo, hi
	}
	return s, s
}

// Operations that are remembered.
const (
	opAnd uint32 = iota + 1
	opExists
)

func (u *Universe) remembered(op, a, b uint32) (*result, bool) {
	r := &u.results[hash(op, a, b)&uint32(len(u.results)-1)]
	return r, r.op == op && r.a == a && r.b == b
}

// remember keeps a result; the table may have grown since it was asked for.
func (u *Universe) remember(op, a, b uint32, is Set) Set {
	r, _ := u.remembered(op, a, b)
	*r = result{op, a, b, is}
	return is
}

// And is what is in both sets.
func (u *Universe) And(a, b Set) Set {
	switch {
	case a == None || b == None || a == b.Not():
		return None
	case a == All || a == b:
		return b
	case b == All:
		return a
	case a > b:
		a, b = b, a
	}
	if r, ok := u.remembered(opAnd, uint32(a), uint32(b)); ok {
		return r.is
	}
	v := min(u.nodes[a>>1].variable, u.nodes[b>>1].variable)
	alo, ahi := u.at(a, v)
	blo, bhi := u.at(b, v)
	return u.remember(opAnd, uint32(a), uint32(b), u.make(v, u.And(alo, blo), u.And(ahi, bhi)))
}

// Or is what is in one of the sets, or in both.
func (u *Universe) Or(a, b Set) Set { return u.And(a.Not(), b.Not()).Not() }

// Diff is what is in a and not in b.
func (u *Universe) Diff(a, b Set) Set { return u.And(a, b.Not()) }
