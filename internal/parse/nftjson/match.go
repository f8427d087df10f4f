package nftjson

import (
	"math"
	"strings"

	"quaywall/internal/netfilter"
)

// match reads a match statement, and adds the matches that it is. One that can't be said is Opaque.
func (r *rule) match(n *node) {
	left, right := alone(n.get("left")), alone(n.get("right"))
	op := n.str("op")
	if left == nil || right == nil || !r.readMatch(left, op, right) {
		r.opaque(statementText("match", n))
	}
}

// alone is what a concatenation of one part is of: nft 1.1.7 writes one around "fib saddr . mark . iif".
func alone(n *node) *node {
	if n == nil {
		return nil
	}
	key, v := n.only()
	if key != "concat" {
		return n
	}
	var first *node
	for part := range v.each {
		if first != nil {
			return n
		}
		first = part
	}
	if first == nil {
		return n
	}
	return first
}

func (r *rule) readMatch(left *node, op string, right *node) bool {
	parts, ok := r.operands(left)
	if !ok {
		return false
	}
	if parts[0].stateful != "" {
		r.require(parts)
		r.add(netfilter.Stateful{Kind: parts[0].stateful, Text: matchText(left, op, right)})
		return true
	}
	var m netfilter.Match
	if key, v := right.only(); right.kind == str && len(right.text) > 1 && right.text[0] == '@' || key == "set" || len(parts) > 1 {
		m, ok = r.in(parts, op, right, key, v)
	} else {
		m, ok = r.compare(parts[0], op, right)
	}
	if !ok {
		return false
	}
	r.require(parts)
	r.add(m)
	return true
}

// require adds what must hold for a packet to have these parts, where it doesn't follow from the table or from a match that
// the rule has already.
func (r *rule) require(parts []operand) {
	for i := range parts {
		for _, n := range parts[i].needs {
			r.needs(n)
		}
	}
}

func (r *rule) needs(n need) {
	known := n == needIPv4 && r.nfproto() == nfprotoIPv4 || n == needIPv6 && r.nfproto() == nfprotoIPv6 ||
		n.field == netfilter.Proto && r.proto == n.value
	if n.field != netfilter.NoField && !known {
		r.add(r.p.is(n))
	}
}

// add adds a match to the rule, and remembers what it says about the headers.
func (r *rule) add(m netfilter.Match) {
	r.separate()
	if c, ok := m.(netfilter.Compare); ok && !c.Not && c.Mask == 0 && len(c.Numbers) == 1 && c.Numbers[0].First == c.Numbers[0].Last {
		switch c.Field {
		case netfilter.NFProto:
			r.family = c.Numbers[0].First
		case netfilter.Proto:
			r.proto = c.Numbers[0].First
		}
	}
	r.matches = append(r.matches, m)
}

func (r *rule) opaque(text string) { r.add(netfilter.Opaque{Text: text}) }

// in reads a look-up in a set, named or not. One part with a list of values of its own is a comparison.
func (r *rule) in(parts []operand, op string, right *node, key string, set *node) (netfilter.Match, bool) {
	if op != "==" && op != "!=" && op != "in" || !allPlain(parts) {
		return nil, false
	}
	not := op == "!="
	if right.kind == str && strings.HasPrefix(right.text, "@") {
		return netfilter.In{Fields: fields(parts), Set: right.text[1:], Not: not}, len(right.text) > 1
	}
	if key != "set" {
		set = right
	}
	if len(parts) == 1 && parts[0].typ != typeBool {
		if c, ok := r.any(parts[0], set, not); ok {
			return c, true
		}
		return nil, false
	}
	elements, ok := r.elements(parts, set)
	return netfilter.In{Fields: fields(parts), Elements: elements, Not: not}, ok
}

func allPlain(parts []operand) bool {
	for _, o := range parts {
		if !o.isPlain() {
			return false
		}
	}
	return true
}

func fields(parts []operand) []netfilter.Field {
	all := make([]netfilter.Field, len(parts))
	for i, o := range parts {
		all[i] = o.field
	}
	return all
}

// any is a comparison with the values of a set without a name.
func (r *rule) any(o operand, set *node, not bool) (netfilter.Match, bool) {
	b := builder{typ: o.typ}
	for n := range set.each {
		value, _ := unwrap(n)
		if value == nil || !b.add(value) {
			return nil, false
		}
	}
	return netfilter.Compare{Field: o.field, Values: b.done(), Not: not}, true
}

// elements reads the elements of a set without a name.
func (r *rule) elements(parts []operand, set *node) ([]netfilter.Element, bool) {
	types := make([]*datatype, len(parts))
	for i, o := range parts {
		types[i] = o.typ
	}
	var all, rest []netfilter.Element
	for n := range set.each {
		e, ok := r.p.element(n, types)
		if !ok {
			return nil, false
		}
		if isWildcard(n) {
			rest = append(rest, e)
		} else {
			all = append(all, e)
		}
	}
	return append(all, rest...), true
}

// compare reads a comparison of one operand with one value, or with bits.
func (r *rule) compare(o operand, op string, right *node) (netfilter.Match, bool) {
	switch {
	case o.field == netfilter.TCPOption || o.field == netfilter.ExtHeader:
		v, ok := typeBool.number(right)
		has := netfilter.Values{Numbers: one(o.xor)}
		return netfilter.Compare{Field: o.field, Values: has, Not: (v == 0) != (op == "!=")}, ok && (op == "==" || op == "!=")
	case o.field == netfilter.ReverseRoute || o.field == netfilter.ReverseRouteLoose:
		return reverseRoute(o, op, right)
	case o.typ.kind != netfilter.Number:
		v, ok := r.p.valueOf(right, o.typ)
		return netfilter.Compare{Field: o.field, AddrMask: o.addrMask, Values: v, Not: op == "!="}, ok && (op == "==" || op == "!=" || op == "in")
	}
	if key, v := right.only(); key == "range" {
		return r.within(o, op, v)
	}
	c, ok := o.typ.constant(right)
	if !ok || right.kind == list && !o.typ.bits {
		return nil, false
	}
	if o.typ == typeState {
		return states(o, op, c)
	}
	return number64(o, op, c)
}

// reverseRoute compares the interface of the way back with none, which is written in as many ways as there are versions.
func reverseRoute(o operand, op string, right *node) (netfilter.Match, bool) {
	m := netfilter.Compare{Field: o.field, Values: netfilter.Values{Numbers: one(0)}, Not: op == "!="}
	switch right.text {
	case "true", "exists":
		m.Not = !m.Not
	case "", "0", "false", "missing":
	default:
		return nil, false
	}
	return m, right.kind != object && right.kind != list && (op == "==" || op == "!=")
}

func one(v uint64) []netfilter.Range { return []netfilter.Range{{First: v, Last: v}} }

// within is a comparison with a range of numbers.
func (r *rule) within(o operand, op string, pair *node) (netfilter.Match, bool) {
	first, last, ok := pair.pair()
	if !ok || op != "==" && op != "!=" || o.xor != 0 || o.shift != 0 || o.typ == typeState {
		return nil, false
	}
	from, ok1 := o.typ.number(first)
	to, ok2 := o.typ.number(last)
	values := netfilter.Values{Numbers: []netfilter.Range{{First: from, Last: to}}}
	return netfilter.Compare{Field: o.field, Mask: o.bits(), Values: values, Not: op == "!="}, ok1 && ok2
}

// bits is the mask as a match has it: 0 for all.
func (o operand) bits() uint64 {
	if o.mask == math.MaxUint64 {
		return 0
	}
	return o.mask
}

// number64 is a comparison of a number under a mask.
func number64(o operand, op string, c uint64) (netfilter.Match, bool) {
	switch op {
	case "==", "!=":
		return equal(o, c, op == "!="), true
	case "in", "!":
		// One of these bits, or none of them. A label is one bit, and known by its number.
		if o.field == netfilter.CtLabel {
			return netfilter.Compare{Field: o.field, Values: netfilter.Values{Numbers: one(c)}, Not: op == "!"}, o.isPlain()
		}
		o.mask &= c
		return equal(o, 0, op == "in"), o.xor == 0 && o.shift == 0
	}
	if o.xor != 0 || o.shift != 0 {
		return nil, false
	}
	m := netfilter.Compare{Field: o.field, Mask: o.bits()}
	switch {
	case op == "<" && c > 0:
		m.Numbers = []netfilter.Range{{Last: c - 1}}
	case op == ">" && c < math.MaxUint64:
		m.Numbers = []netfilter.Range{{First: c + 1, Last: math.MaxUint64}}
	case op == "<=":
		m.Numbers = []netfilter.Range{{Last: c}}
	case op == ">=":
		m.Numbers = []netfilter.Range{{First: c, Last: math.MaxUint64}}
	case op != "<" && op != ">":
		return nil, false
	}
	return m, true
}

// equal holds where ((field & mask) ^ xor) >> shift is c. Without values it never does.
func equal(o operand, c uint64, not bool) netfilter.Match {
	low := uint64(1)<<o.shift - 1
	m := netfilter.Compare{Field: o.field, Not: not}
	if o.mask == 0 || o.mask&^low != math.MaxUint64 {
		o.mask &^= low
		m.Mask = o.mask
	}
	want := (c<<o.shift ^ o.xor) &^ low
	if want&^o.mask == 0 {
		m.Numbers = one(want)
	}
	if o.mask == 0 {
		// No bit is compared, which a mask of 0 would not say.
		m = netfilter.Compare{Field: o.field, Not: not != (want == 0)}
	}
	return m
}

// states is a comparison of the state of a connection, of which a packet has one.
func states(o operand, op string, c uint64) (netfilter.Match, bool) {
	value := func(bit uint64) uint64 { return ((bit & o.mask) ^ o.xor) >> o.shift }
	var test func(bit uint64) bool
	switch op {
	case "in":
		test = func(bit uint64) bool { return value(bit)&c != 0 }
	case "!":
		test = func(bit uint64) bool { return value(bit)&c == 0 }
	case "==":
		test = func(bit uint64) bool { return value(bit) == c }
	case "!=":
		test = func(bit uint64) bool { return value(bit) != c }
	default:
		return nil, false
	}
	return netfilter.Compare{Field: o.field, Values: netfilter.Values{Numbers: statesOf(test)}}, true
}
