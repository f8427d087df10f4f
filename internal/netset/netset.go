// Package netset holds sets of addresses and of ports.
//
// A Set is an immutable set of IPv4 and IPv6 addresses, kept as sorted ranges that neither overlap nor touch, the two
// families apart. Each operation takes time in proportion to the ranges of the sets, or less, and 8 or 32 bytes a range.
//
// Be aware: an IPv4-mapped IPv6 address is unmapped when it is added, and zones are dropped.
package netset

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// Set is a set of addresses of both families. The zero value is empty.
type Set struct {
	v4 []span[num4]
	v6 []span[num6]
}

// Builder collects a Set. The zero value is ready for use.
type Builder struct {
	v4   []span[num4]
	v6   []span[num6]
	errs []error
}

// Add puts a range into the set. Both ends must be of one family and in order.
func (b *Builder) Add(r netipx.IPRange) {
	from, to := r.From().Unmap(), r.To().Unmap()
	switch {
	case !from.IsValid() || from.Is4() != to.Is4() || to.Less(from.WithZone(to.Zone())):
		b.errs = append(b.errs, fmt.Errorf("invalid range %v-%v", from, to))
	case from.Is4():
		b.v4 = append(b.v4, span[num4]{from4(from), from4(to)})
	default:
		b.v6 = append(b.v6, span[num6]{from6(from), from6(to)})
	}
}

// Len is how many ranges were added, those that touch or hold each other too.
func (b *Builder) Len() int { return len(b.v4) + len(b.v6) }

// AddAddr puts one address into the set.
func (b *Builder) AddAddr(a netip.Addr) { b.Add(netipx.IPRangeFrom(a, a)) }

// AddPrefix puts a prefix into the set; host bits are ignored.
func (b *Builder) AddPrefix(p netip.Prefix) {
	b.Add(netipx.RangeOfPrefix(netip.PrefixFrom(p.Addr().WithZone(""), p.Bits())))
}

// AddSet puts all of another set into the set.
func (b *Builder) AddSet(s Set) {
	b.v4 = append(b.v4, s.v4...)
	b.v6 = append(b.v6, s.v6...)
}

// Set is what was collected. Invalid ranges are errors; the Builder is empty afterwards.
func (b *Builder) Set() (Set, error) {
	s := Set{slices.Clip(normal(b.v4)), slices.Clip(normal(b.v6))}
	err := errors.Join(b.errs...)
	*b = Builder{}
	if err != nil {
		return Set{}, err
	}
	return s, nil
}

// Of is the set of these prefixes. Invalid ones are left out.
func Of(prefixes ...netip.Prefix) Set {
	var b Builder
	for _, p := range prefixes {
		if p.IsValid() {
			b.AddPrefix(p)
		}
	}
	s, _ := b.Set() // every prefix is valid
	return s
}

// OfAddrs is the set of these addresses. Invalid ones are left out.
func OfAddrs(addrs ...netip.Addr) Set {
	var b Builder
	for _, a := range addrs {
		if a.IsValid() {
			b.AddAddr(a)
		}
	}
	s, _ := b.Set() // every address is valid
	return s
}

// MustParse reads a list such as "10.0.0.0/8 192.0.2.1 2001:db8::1-2001:db8::9", for tests and tables; it panics on
// a mistake.
func MustParse(list string) Set {
	var b Builder
	for _, f := range strings.Fields(list) {
		r, err := ParseRange(f)
		if err != nil {
			panic(err)
		}
		b.Add(r)
	}
	s, err := b.Set()
	if err != nil {
		panic(err)
	}
	return s
}

// ParseRange reads an address, a prefix (host bits refused) or a range FIRST-LAST.
func ParseRange(s string) (netipx.IPRange, error) {
	switch {
	case strings.Contains(s, "/"):
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return netipx.IPRange{}, fmt.Errorf("%q is not a prefix", s)
		}
		if p != p.Masked() {
			return netipx.IPRange{}, fmt.Errorf("%s has bits set behind its length: %s is meant?", s, p.Masked())
		}
		return netipx.RangeOfPrefix(p), nil
	case strings.Contains(s, "-"):
		r, err := netipx.ParseIPRange(s)
		if err != nil {
			return netipx.IPRange{}, fmt.Errorf("%q is not a range of addresses, FIRST-LAST", s)
		}
		return r, nil
	default:
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netipx.IPRange{}, fmt.Errorf("%q is not an address", s)
		}
		return netipx.IPRangeFrom(a.Unmap(), a.Unmap()), nil
	}
}

// All is every address of both families.
func All() Set { return Set{All4().v4, All6().v6} }

// All4 is every IPv4 address, All6 every IPv6 address.
func All4() Set { return Set{v4: []span[num4]{{0, ^num4(0)}}} }

// All6 is every IPv6 address.
func All6() Set { return Set{v6: []span[num6]{{num6{}, num6{}.prev()}}} }

// LinkLocal is the IPv6 addresses that each link has for itself (RFC 4291, 2.5.6).
func LinkLocal() Set { return Of(netip.MustParsePrefix("fe80::/10")) }

// Contains tells whether an address is in the set.
func (s Set) Contains(a netip.Addr) bool {
	switch a = a.Unmap(); {
	case a.Is4():
		return contains(s.v4, from4(a))
	case a.Is6():
		return contains(s.v6, from6(a))
	}
	return false
}

// IsEmpty tells whether no address is in the set.
func (s Set) IsEmpty() bool { return len(s.v4)+len(s.v6) == 0 }

// Len is the number of ranges.
func (s Set) Len() int { return len(s.v4) + len(s.v6) }

// Each goes through the set's ranges, sorted, IPv4 first; they neither overlap nor touch.
func (s Set) Each() iter.Seq[netipx.IPRange] {
	return func(yield func(netipx.IPRange) bool) {
		for _, x := range s.v4 {
			if !yield(netipx.IPRangeFrom(x.first.addr(), x.last.addr())) {
				return
			}
		}
		for _, x := range s.v6 {
			if !yield(netipx.IPRangeFrom(x.first.addr(), x.last.addr())) {
				return
			}
		}
	}
}

// Ranges are the ranges of Each. A set of a million takes 48 MB in this form.
func (s Set) Ranges() []netipx.IPRange {
	if s.IsEmpty() {
		return nil
	}
	return slices.AppendSeq(make([]netipx.IPRange, 0, s.Len()), s.Each())
}

// Prefixes are the fewest prefixes that make up the set, sorted, IPv4 first.
func (s Set) Prefixes() []netip.Prefix {
	var all []netip.Prefix
	for r := range s.Each() {
		all = r.AppendPrefixes(all)
	}
	return all
}

// V4 is the IPv4 part of the set.
func (s Set) V4() Set { return Set{v4: s.v4} }

// V6 is the IPv6 part of the set.
func (s Set) V6() Set { return Set{v6: s.v6} }

// Union is what is in either set.
func (s Set) Union(o Set) Set { return Set{union(s.v4, o.v4), union(s.v6, o.v6)} }

// Subtract is what is in s and not in o.
func (s Set) Subtract(o Set) Set { return Set{subtract(s.v4, o.v4), subtract(s.v6, o.v6)} }

// Intersect is what is in both sets.
func (s Set) Intersect(o Set) Set { return Set{intersect(s.v4, o.v4), intersect(s.v6, o.v6)} }

// Overlaps tells whether an address is in both sets.
func (s Set) Overlaps(o Set) bool { return overlap(s.v4, o.v4) || overlap(s.v6, o.v6) }

// Complement is every address of both families that is not in the set.
func (s Set) Complement() Set { return All().Subtract(s) }

// Equal tells whether two sets hold the same addresses.
func (s Set) Equal(o Set) bool { return slices.Equal(s.v4, o.v4) && slices.Equal(s.v6, o.v6) }

// String lists the set as a policy would write it: addresses, prefixes and ranges with spaces between.
func (s Set) String() string { return string(s.text()) }

// text is String, without a string for each range.
func (s Set) text() []byte {
	b := make([]byte, 0, 16*s.Len())
	for r := range s.Each() {
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = appendRange(b, r)
	}
	return b
}

// FormatRange writes a range as an address, a prefix or FIRST-LAST, whichever is exact.
func FormatRange(r netipx.IPRange) string { return string(appendRange(nil, r)) }

func appendRange(b []byte, r netipx.IPRange) []byte {
	if r.From() == r.To() {
		return r.From().AppendTo(b)
	}
	if p, ok := r.Prefix(); ok {
		return p.AppendTo(b)
	}
	return r.AppendTo(b)
}

// MarshalText is String, so that a Set can be kept in a file.
func (s Set) MarshalText() ([]byte, error) { return s.text(), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Set) UnmarshalText(text []byte) error {
	var b Builder
	for f := range strings.FieldsSeq(string(text)) {
		r, err := ParseRange(f)
		if err != nil {
			return err
		}
		b.Add(r)
	}
	got, err := b.Set()
	if err != nil {
		return err
	}
	*s = got
	return nil
}
