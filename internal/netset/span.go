package netset

import (
	"cmp"
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
)

// number is an address as a number, of one family.
type number[T any] interface {
	comparable
	compare(T) int
	next() T // of the last address the first
	prev() T // of the first address the last
}

// num4 is an IPv4 address, num6 an IPv6 address. A set of a million IPv4 addresses so takes 8 MB, where ranges of
// netip.Addr would take 48.
type (
	num4 uint32
	num6 struct{ hi, lo uint64 }
)

func (a num4) compare(b num4) int { return cmp.Compare(a, b) }
func (a num4) next() num4         { return a + 1 }
func (a num4) prev() num4         { return a - 1 }

func (a num4) addr() netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(a))
	return netip.AddrFrom4(b)
}

func from4(a netip.Addr) num4 {
	b := a.As4()
	return num4(binary.BigEndian.Uint32(b[:]))
}

func (a num6) compare(b num6) int {
	if a.hi != b.hi {
		return cmp.Compare(a.hi, b.hi)
	}
	return cmp.Compare(a.lo, b.lo)
}

func (a num6) next() num6 {
	if a.lo++; a.lo == 0 {
		a.hi++
	}
	return a
}

func (a num6) prev() num6 {
	if a.lo == 0 {
		a.hi--
	}
	a.lo--
	return a
}

func (a num6) addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b)
}

func from6(a netip.Addr) num6 {
	b := a.As16()
	return num6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// span is a range of addresses, both ends included.
type span[T number[T]] struct{ first, last T }

// normal sorts spans and joins those that overlap or touch, in place.
func normal[T number[T]](s []span[T]) []span[T] {
	byFirst := func(a, b span[T]) int { return a.first.compare(b.first) }
	if !slices.IsSortedFunc(s, byFirst) {
		slices.SortFunc(s, byFirst)
	}
	joined := s[:0]
	for _, x := range s {
		joined = join(joined, x)
	}
	return joined
}

// join appends a span that begins nowhere before the last one of a list.
func join[T number[T]](list []span[T], x span[T]) []span[T] {
	if n := len(list) - 1; n >= 0 {
		last := &list[n].last
		if x.first.compare(*last) <= 0 || x.first == (*last).next() {
			if x.last.compare(*last) > 0 {
				*last = x.last
			}
			return list
		}
	}
	return append(list, x)
}

func union[T number[T]](a, b []span[T]) []span[T] {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := make([]span[T], 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].first.compare(b[0].first) <= 0 {
			out, a = join(out, a[0]), a[1:]
		} else {
			out, b = join(out, b[0]), b[1:]
		}
	}
	return out
}

// behind gives the spans of a list that end at an address or behind it. It gallops: a few addresses are looked up in a
// list of a million without going through it.
func behind[T number[T]](list []span[T], a T) []span[T] {
	step := 1
	for step < len(list) && list[step-1].last.compare(a) < 0 {
		step *= 2
	}
	from, to := step/2, min(step, len(list))
	i, _ := slices.BinarySearchFunc(list[from:to], a, func(x span[T], a T) int { return x.last.compare(a) })
	return list[from+i:]
}

// intersections goes through what two lists have in common.
func intersections[T number[T]](a, b []span[T]) iter.Seq[span[T]] {
	return func(yield func(span[T]) bool) {
		for len(a) > 0 && len(b) > 0 {
			if a[0].first.compare(b[0].first) < 0 {
				a, b = b, a
			}
			if b = behind(b, a[0].first); len(b) == 0 {
				return
			}
			x := a[0]
			if b[0].first.compare(x.first) > 0 {
				x.first = b[0].first
			}
			if b[0].last.compare(x.last) < 0 {
				x.last = b[0].last
			}
			if x.first.compare(x.last) <= 0 && !yield(x) {
				return
			}
			if a[0].last.compare(b[0].last) <= 0 {
				a = a[1:]
			} else {
				b = b[1:]
			}
		}
	}
}

func intersect[T number[T]](a, b []span[T]) []span[T] { return slices.Collect(intersections(a, b)) }

func overlap[T number[T]](a, b []span[T]) bool {
	for range intersections(a, b) {
		return true
	}
	return false
}

func subtract[T number[T]](a, b []span[T]) []span[T] {
	if len(a) == 0 || len(b) == 0 {
		return a
	}
	out := make([]span[T], 0, len(a))
	for _, x := range a {
		b = behind(b, x.first)
		out = cut(out, x, b)
	}
	return out
}

// cut appends what is left of a span when others, none of them before it, are taken out.
func cut[T number[T]](out []span[T], x span[T], others []span[T]) []span[T] {
	for _, o := range others {
		if o.first.compare(x.last) > 0 {
			break
		}
		if o.first.compare(x.first) > 0 {
			out = append(out, span[T]{x.first, o.first.prev()})
		}
		if o.last.compare(x.last) >= 0 {
			return out
		}
		x.first = o.last.next()
	}
	return append(out, x)
}

func contains[T number[T]](s []span[T], a T) bool {
	i, found := slices.BinarySearchFunc(s, a, func(x span[T], a T) int { return x.first.compare(a) })
	return found || i > 0 && a.compare(s[i-1].last) <= 0
}
