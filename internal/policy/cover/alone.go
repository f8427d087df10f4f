package cover

import "slices"

// Alone tells whether one rule by itself decides on all of a region.
func Alone(by, r Region) bool {
	return by.Scope.covers(r.Scope) && within(r.From, by.From) && within(r.To, by.To) &&
		!slices.ContainsFunc(r.Traffic, func(t Traffic) bool { return !t.within(by.Traffic) })
}

// within tells whether a union of sets is part of another one.
func within(some, others []Addrs) bool {
	return isAny(others) || !slices.ContainsFunc(some, func(a Addrs) bool {
		if slices.ContainsFunc(others, func(b Addrs) bool { return a.ID != 0 && a.ID == b.ID }) {
			return false
		}
		left := a.Set
		for _, b := range others {
			left = left.Subtract(b.Set)
		}
		return !left.IsEmpty()
	})
}

// within tells whether traffic is part of a union of others.
func (t Traffic) within(others []Traffic) bool {
	if t.within1(others) {
		return true
	}
	if t.Proto != Published {
		return false
	}
	for _, proto := range publishable {
		if !(Traffic{proto, 0, 65535}).within1(others) {
			return false
		}
	}
	return true
}

// within1 is within for one protocol: it goes through the range as far as any of the others reaches.
func (t Traffic) within1(others []Traffic) bool {
	next := int(t.First)
	for reached := true; reached && next <= int(t.Last); {
		reached = false
		for _, o := range others {
			if o.Proto == AnyProto {
				return true
			}
			if o.Proto == t.Proto && int(o.First) <= next && next <= int(o.Last) {
				next, reached = int(o.Last)+1, true
			}
		}
	}
	return next > int(t.Last)
}
