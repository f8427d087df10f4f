package bdd

import (
	"cmp"
	"maps"
	"slices"
)

// Field is a number within a bit string: variables in a row, its highest bit first.
type Field struct {
	First uint32 // variable of the highest bit
	Bits  uint32 // at most 128
}

// end is the variable behind the field.
func (f Field) end() uint32 { return f.First + f.Bits }

// Value is a number of up to 128 bits.
type Value struct{ Hi, Lo uint64 }

// Compare orders numbers.
func (v Value) Compare(o Value) int { return cmp.Or(cmp.Compare(v.Hi, o.Hi), cmp.Compare(v.Lo, o.Lo)) }

// bit is the bit of a field of so many bits, counted from its highest one.
func (v Value) bit(i, bits uint32) bool {
	if shift := bits - 1 - i; shift >= 64 {
		return v.Hi>>(shift-64)&1 != 0
	} else {
		return v.Lo>>shift&1 != 0
	}
}

func (v Value) set(i, bits uint32) Value {
	if shift := bits - 1 - i; shift >= 64 {
		v.Hi |= 1 << (shift - 64)
	} else {
		v.Lo |= 1 << shift
	}
	return v
}

// most is the largest number of so many bits.
func most(bits uint32) Value {
	switch {
	case bits > 64:
		return Value{1<<(bits-64) - 1, ^uint64(0)}
	case bits == 64:
		return Value{0, ^uint64(0)}
	}
	return Value{0, 1<<bits - 1}
}

// Small is a number of at most 64 bits.
func Small(n uint64) Value { return Value{0, n} }

// Interval is numbers, both ends included.
type Interval struct{ First, Last Value }

// Equal is the strings whose field has a value.
func (u *Universe) Equal(f Field, v Value) Set { return u.Masked(f, most(f.Bits), v) }

// Masked is the strings whose field has, in the bits of a mask, those of a value.
func (u *Universe) Masked(f Field, mask, v Value) Set {
	s := All
	for i := f.Bits; i > 0; i-- {
		switch {
		case !mask.bit(i-1, f.Bits):
		case v.bit(i-1, f.Bits):
			s = u.make(f.First+i-1, None, s)
		default:
			s = u.make(f.First+i-1, s, None)
		}
	}
	return s
}

// Range is the strings whose field is in an interval.
func (u *Universe) Range(f Field, first, last Value) Set {
	return u.Ranges(f, []Interval{{first, last}})
}

// Ranges is the strings whose field is in one of these intervals, which are in order and do not overlap.
func (u *Universe) Ranges(f Field, all []Interval) Set {
	return u.ranges(f, 0, Value{}, all)
}

// ranges builds the part of a field from bit i on, where those before are prefix. The intervals are those that meet it.
func (u *Universe) ranges(f Field, i uint32, prefix Value, all []Interval) Set {
	if len(all) == 0 {
		return None
	}
	last := prefix
	for j := i; j < f.Bits; j++ {
		last = last.set(j, f.Bits)
	}
	if all[0].First.Compare(prefix) <= 0 && all[0].Last.Compare(last) >= 0 {
		return All
	}
	upper := prefix.set(i, f.Bits)
	lo, hi := len(all), 0
	for lo > 0 && all[lo-1].First.Compare(upper) >= 0 {
		lo--
	}
	for hi < len(all) && all[hi].Last.Compare(upper) < 0 {
		hi++
	}
	return u.make(f.First+i, u.ranges(f, i+1, prefix, all[:lo]), u.ranges(f, i+1, upper, all[hi:]))
}

// Cofactor is what is left of a set where a field has a value: a set that doesn't ask the field.
func (u *Universe) Cofactor(s Set, f Field, v Value) Set {
	for {
		variable, lo, hi := u.ask(s)
		switch {
		case variable < f.First:
			return u.exists(u.And(s, u.Equal(f, v)), f.First, f.end())
		case variable >= f.end():
			return s
		case v.bit(variable-f.First, f.Bits):
			s = hi
		default:
			s = lo
		}
	}
}

// Exists is the strings that are in the set for some value of the field.
func (u *Universe) Exists(s Set, f Field) Set { return u.exists(s, f.First, f.end()) }

func (u *Universe) exists(s Set, from, to uint32) Set {
	v, lo, hi := u.ask(s)
	if v >= to {
		return s
	}
	key := from<<16 | to
	if r, ok := u.remembered(opExists, uint32(s), key); ok {
		return r.is
	}
	l, h := u.exists(lo, from, to), u.exists(hi, from, to)
	is := None
	if v < from {
		is = u.make(v, l, h)
	} else {
		is = u.Or(l, h)
	}
	return u.remember(opExists, uint32(s), key, is)
}

// Intervals are the values of a field that are in a set which asks nothing but this field, in order, joined.
func (u *Universe) Intervals(s Set, f Field) []Interval {
	var all []Interval
	u.walk(s, f, f.First, Value{}, func(first, last Value) {
		if n := len(all); n > 0 && next(all[n-1].Last) == first {
			all[n-1].Last = last
		} else {
			all = append(all, Interval{first, last})
		}
	})
	return all
}

func next(v Value) Value {
	v.Lo++
	if v.Lo == 0 {
		v.Hi++
	}
	return v
}

func (u *Universe) walk(s Set, f Field, variable uint32, prefix Value, found func(first, last Value)) {
	if s == None {
		return
	}
	i := variable - f.First
	if s == All || i >= f.Bits {
		last := prefix
		for ; i < f.Bits; i++ {
			last = last.set(i, f.Bits)
		}
		found(prefix, last)
		return
	}
	lo, hi := u.at(s, variable)
	u.walk(lo, f, variable+1, prefix, found)
	u.walk(hi, f, variable+1, prefix.set(i, f.Bits), found)
}

// Witness gives a string of a set that is not None, as the values of these fields: the lowest, bit by bit.
func (u *Universe) Witness(s Set, fields []Field) []Value {
	values := make([]Value, len(fields))
	for s != All && s != None {
		v, lo, hi := u.ask(s)
		if s = lo; lo != None {
			continue
		}
		s = hi
		for i, f := range fields {
			if v >= f.First && v < f.end() {
				values[i] = values[i].set(v-f.First, f.Bits)
			}
		}
	}
	return values
}

// Asks tells whether a set depends on a field.
func (u *Universe) Asks(s Set, f Field) bool {
	seen := map[Set]bool{}
	var visit func(s Set) bool
	visit = func(s Set) bool {
		s &^= 1
		v, lo, hi := u.ask(s)
		if v >= f.end() || seen[s] {
			return false
		}
		seen[s] = true
		return v >= f.First || visit(lo) || visit(hi)
	}
	return visit(s)
}

// Classes divides the values of a field: those for which the same is left of a set stand together, by what is left.
func (u *Universe) Classes(s Set, f Field) map[Set][]Interval {
	cuts := map[Value]bool{{}: true}
	seen := map[Set]bool{}
	var visit func(s Set)
	visit = func(s Set) {
		s &^= 1
		v, lo, hi := u.ask(s)
		switch {
		case v >= f.end() || seen[s]:
			return
		case v >= f.First:
			u.cuts(s, f, 0, Value{}, cuts)
		default:
			visit(lo)
			visit(hi)
		}
		seen[s] = true
	}
	visit(s)
	firsts := slices.SortedFunc(maps.Keys(cuts), Value.Compare)
	classes := map[Set][]Interval{}
	for i, first := range firsts {
		last := most(f.Bits)
		if i+1 < len(firsts) {
			last = before(firsts[i+1])
		}
		left := u.Cofactor(s, f, first)
		if own := classes[left]; len(own) > 0 && next(own[len(own)-1].Last) == first {
			own[len(own)-1].Last = last
		} else {
			classes[left] = append(own, Interval{first, last})
		}
	}
	return classes
}

// cuts notes the values at which what is left of a set may change.
func (u *Universe) cuts(s Set, f Field, i uint32, prefix Value, cuts map[Value]bool) {
	cuts[prefix] = true
	v, lo, hi := u.ask(s)
	if v >= f.end() {
		return
	}
	upper := prefix.set(i, f.Bits)
	if v > f.First+i {
		lo, hi = s, s
		if i+1 == f.Bits {
			return
		}
	}
	u.cuts(lo, f, i+1, prefix, cuts)
	u.cuts(hi, f, i+1, upper, cuts)
}

func before(v Value) Value {
	if v.Lo == 0 {
		v.Hi--
	}
	v.Lo--
	return v
}
