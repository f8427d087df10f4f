package analyze

import (
	"fmt"
	"slices"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
)

// in is the packets whose fields are in a set, or are not.
func (s *space) in(r rule, m netfilter.In, st state) bdd.Set {
	there := bdd.All
	for _, f := range m.Fields {
		there = s.And(there, s.there(f, st))
	}
	if there == bdd.None {
		return bdd.None
	}
	set, known := s.setOf(r, m, st)
	return s.either(r, there, set, known, m.Not)
}

func (s *space) setOf(r rule, m netfilter.In, st state) (bdd.Set, bool) {
	if m.Set == "" {
		return s.elements(r, m.Fields, m.Elements, st)
	}
	if s.open != nil { // rules stay, what is in a set comes and goes
		return s.bit(netfilter.NoField, fmt.Sprint("set ", m.Set, m.Fields)), true
	}
	named := s.facts.set(r.table, m.Set)
	if named == nil {
		return bdd.None, false
	}
	return s.namedSet(r, m.Fields, named, st, 0)
}

// mostLists is how deep sets of sets are nested at most: ipset has one level.
const mostLists = 2

func (s *space) namedSet(r rule, fields []netfilter.Field, named *netfilter.Set, st state, depth int) (bdd.Set, bool) {
	if len(named.Members) > 0 {
		set := bdd.None
		for _, name := range named.Members {
			member := s.facts.set(r.table, name)
			if member == nil || depth >= mostLists {
				return bdd.None, false
			}
			one, known := s.namedSet(r, fields, member, st, depth+1)
			if !known {
				return bdd.None, false
			}
			set = s.Or(set, one)
		}
		return set, true
	}
	set, known := s.elements(r, fields, named.Elements, st)
	if known && !named.Addrs.IsEmpty() {
		var plain bdd.Set
		plain, known = s.values(r, netfilter.Compare{Field: fields[0], Values: netfilter.Values{Addrs: named.Addrs}}, st)
		set = s.Or(plain, set)
	}
	if named.Unread != "" {
		set = s.Or(set, s.unknown(r, "set "+named.Name+": "+named.Unread))
	}
	return set, known
}

// elements is the packets whose fields are in one of the elements.
func (s *space) elements(r rule, fields []netfilter.Field, all []netfilter.Element, st state) (bdd.Set, bool) {
	if slices.ContainsFunc(all, func(e netfilter.Element) bool { return e.Not }) {
		return s.inOrder(r, fields, all, st)
	}
	return s.anyOf(r, fields, inRows(all), st)
}

// inRows makes one of elements that stand in a row and differ in their last number alone: in ipset each port is an element.
func inRows(all []netfilter.Element) []netfilter.Element {
	var rows []netfilter.Element
	for _, e := range all {
		last := len(e.Key) - 1
		if n := len(rows); n > 0 && last >= 0 && isRow(rows[n-1].Key, e.Key) {
			into := &rows[n-1].Key[last].Numbers
			*into = append(*into, e.Key[last].Numbers...)
			continue
		}
		e.Key = slices.Clone(e.Key)
		if last >= 0 {
			e.Key[last].Numbers = slices.Clone(e.Key[last].Numbers)
		}
		rows = append(rows, e)
	}
	return rows
}

// isRow tells whether two keys differ in their last number alone.
func isRow(a, b []netfilter.Values) bool {
	last := len(b) - 1
	isNumber := func(v netfilter.Values) bool { return len(v.Numbers) > 0 && v.Addrs.IsEmpty() && len(v.Names) == 0 }
	return len(a) == len(b) && isNumber(a[last]) && isNumber(b[last]) && slices.EqualFunc(a[:last], b[:last], func(x, y netfilter.Values) bool {
		return slices.Equal(x.Numbers, y.Numbers) && slices.Equal(x.Names, y.Names) && x.Addrs.Equal(y.Addrs)
	})
}

// anyOf is the packets whose fields are in one of some elements. It goes by halves: the two are of one size, and none is rebuilt
// for each element.
func (s *space) anyOf(r rule, fields []netfilter.Field, all []netfilter.Element, st state) (bdd.Set, bool) {
	switch len(all) {
	case 0:
		return bdd.None, true
	case 1:
		return s.element(r, fields, all[0], st)
	}
	a, known := s.anyOf(r, fields, all[:len(all)/2], st)
	if !known {
		return bdd.None, false
	}
	b, known := s.anyOf(r, fields, all[len(all)/2:], st)
	return s.Or(a, b), known
}

// inOrder asks one element after the other: the first that holds a packet decides.
func (s *space) inOrder(r rule, fields []netfilter.Field, all []netfilter.Element, st state) (bdd.Set, bool) {
	set := bdd.None
	for _, e := range slices.Backward(all) {
		one, known := s.element(r, fields, e, st)
		switch {
		case !known:
			return bdd.None, false
		case e.Not:
			set = s.Diff(set, one)
		default:
			set = s.Or(set, one)
		}
	}
	return set, true
}

func (s *space) element(r rule, fields []netfilter.Field, e netfilter.Element, st state) (bdd.Set, bool) {
	set := bdd.All
	for i, part := range e.Key {
		if i == len(fields) {
			break
		}
		one, known := s.values(r, netfilter.Compare{Field: fields[i], Values: part}, st)
		if !known {
			return bdd.None, false
		}
		set = s.And(set, one)
	}
	return set, true
}
