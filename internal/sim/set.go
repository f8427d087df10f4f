package sim

import (
	"net/netip"
	"slices"
	"sort"

	"quaywall/internal/netfilter"
)

// longSet is from how many elements on a set is prepared to be searched.
const longSet = 16

// set is a set, prepared to be searched by the first part of its elements.
type set struct {
	*netfilter.Set
	addrs   []span[netip.Addr] // sorted; nil where they overlap
	numbers []span[uint64]
	names   map[string][]int // plain names
	globs   []int            // elements with a pattern
	all     bool             // look through all
}

// span is a range of an element's first part.
type span[T any] struct {
	first, last T
	element     int
}

func newSet(x *netfilter.Set) *set {
	s := &set{Set: x, all: len(x.Elements) < longSet}
	if !s.all {
		s.prepare()
	}
	return s
}

func (s *set) prepare() {
	s.names = map[string][]int{}
	for i, e := range s.Elements {
		if len(e.Key) == 0 {
			s.all = true
			return
		}
		key := e.Key[0]
		for r := range key.Addrs.Each() {
			s.addrs = append(s.addrs, span[netip.Addr]{r.From(), r.To(), i})
		}
		for _, r := range key.Numbers {
			s.numbers = append(s.numbers, span[uint64]{r.First, r.Last, i})
		}
		for _, name := range key.Names {
			if isGlob(name) {
				s.globs = append(s.globs, i)
			} else {
				s.names[name] = append(s.names[name], i)
			}
		}
	}
	slices.SortStableFunc(s.addrs, func(a, b span[netip.Addr]) int { return a.first.Compare(b.first) })
	slices.SortStableFunc(s.numbers, func(a, b span[uint64]) int { return compare(a.first, b.first) })
	s.all = overlaps(s.addrs, netip.Addr.Compare) || overlaps(s.numbers, compare)
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// overlaps tells whether sorted spans share something without being of one value.
func overlaps[T any](spans []span[T], cmp func(a, b T) int) bool {
	for i := 1; i < len(spans); i++ {
		a, b := spans[i-1], spans[i]
		same := cmp(a.first, b.first) == 0 && cmp(a.last, b.last) == 0
		if cmp(b.first, a.last) <= 0 && !same {
			return true
		}
	}
	return false
}

// within are the elements whose span holds a value: neighbours, where several do.
func within[T any](spans []span[T], v T, cmp func(a, b T) int) []int {
	i := sort.Search(len(spans), func(i int) bool { return cmp(spans[i].last, v) >= 0 })
	var found []int
	for ; i < len(spans) && cmp(spans[i].first, v) <= 0; i++ {
		found = append(found, spans[i].element)
	}
	return found
}

// find looks for the packet's fields in a set, and gives the element that says so, nil for a plain address.
func (w *walk) find(s *set, fields []netfilter.Field) (*netfilter.Element, tri) {
	if len(s.Members) > 0 {
		return w.findInMembers(s, fields)
	}
	if len(fields) == 0 {
		return nil, perhaps
	}
	element, in := w.findElement(s, fields)
	if element == nil && !s.Addrs.IsEmpty() {
		got, _ := w.test(fields[0], 0, &netfilter.Values{Addrs: s.Addrs})
		in = max(in, got)
	}
	if in == no && element == nil && s.Unread != "" {
		in = perhaps
	}
	return element, in
}

// findElement looks through the elements: the first that holds says whether the packet is in the set.
func (w *walk) findElement(s *set, fields []netfilter.Field) (*netfilter.Element, tri) {
	if s.all {
		for i := range s.Elements {
			if got := w.holdsKey(s.Elements[i].Key, fields); got != no {
				return &s.Elements[i], got.unless(s.Elements[i].Not)
			}
		}
		return nil, no
	}
	list, sure := w.mayHold(s, fields[0])
	if !sure {
		return nil, perhaps
	}
	for _, i := range list {
		if got := w.holdsKey(s.Elements[i].Key, fields); got != no {
			return &s.Elements[i], got.unless(s.Elements[i].Not)
		}
	}
	return nil, no
}

// mayHold are the elements whose first part may hold the packet's field. sure is false where the field isn't known.
func (w *walk) mayHold(s *set, f netfilter.Field) (list []int, sure bool) {
	var known knowledge
	switch f.Kind() {
	case netfilter.Address:
		var a netip.Addr
		if a, known = w.pk.address(w, f); known == has {
			list = within(s.addrs, a, netip.Addr.Compare)
		}
	case netfilter.Name:
		var name string
		if name, known = w.pk.name(w, f); known == has {
			list = append(slices.Clone(s.names[name]), s.globs...)
			slices.Sort(list)
		}
	default:
		var n uint64
		if n, known = w.pk.number(w, f); known == has {
			list = within(s.numbers, n, compare)
		}
	}
	return list, known != unknown
}

// holdsKey tells whether the fields are, part by part, in an element.
func (w *walk) holdsKey(key []netfilter.Values, fields []netfilter.Field) tri {
	if len(key) > len(fields) {
		return perhaps
	}
	all := yes
	for i := range key {
		got, _ := w.test(fields[i], 0, &key[i])
		all = min(all, got)
		if all == no {
			return no
		}
	}
	return all
}

// findInMembers looks into the sets of a list one after the other.
func (w *walk) findInMembers(s *set, fields []netfilter.Field) (*netfilter.Element, tri) {
	best := no
	for _, name := range s.Members {
		member := w.s.named[name]
		if member == nil {
			best = max(best, perhaps)
			continue
		}
		e, in := w.find(w.s.sets[member], fields)
		if in == yes {
			return e, yes
		}
		best = max(best, in)
	}
	return nil, best
}
