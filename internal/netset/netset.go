// Package netset holds sets of addresses and of ports.
//
// A Set is an immutable set of IPv4 and IPv6 addresses, kept as sorted ranges that neither overlap nor touch. The
// algebra is that of netipx; what is added here is the zero value (the empty set), complements by family and the
// prefixes that the kernel's interfaces ask for.
//
// Be aware: an IPv4-mapped IPv6 address is unmapped when it is added, and zones are dropped.
package netset

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// Set is a set of addresses of both families. The zero value is empty.
type Set struct{ ips *netipx.IPSet }

// Builder collects a Set. The zero value is ready for use.
type Builder struct {
	b    netipx.IPSetBuilder
	errs []error
}

// Add puts a range into the set. Both ends must be of one family and in order.
func (b *Builder) Add(r netipx.IPRange) {
	r = netipx.IPRangeFrom(r.From().Unmap().WithZone(""), r.To().Unmap().WithZone(""))
	if !r.IsValid() {
		b.errs = append(b.errs, fmt.Errorf("invalid range %v-%v", r.From(), r.To()))
		return
	}
	b.b.AddRange(r)
}

// AddAddr puts one address into the set.
func (b *Builder) AddAddr(a netip.Addr) { b.Add(netipx.IPRangeFrom(a, a)) }

// AddPrefix puts a prefix into the set; host bits are ignored.
func (b *Builder) AddPrefix(p netip.Prefix) { b.Add(netipx.RangeOfPrefix(p)) }

// AddSet puts all of another set into the set.
func (b *Builder) AddSet(s Set) {
	if s.ips != nil {
		b.b.AddSet(s.ips)
	}
}

// Set is what was collected. Invalid ranges are errors; the Builder is empty afterwards.
func (b *Builder) Set() (Set, error) {
	ips, err := b.b.IPSet()
	err = errors.Join(append(b.errs, err)...)
	b.errs = nil
	if err != nil {
		return Set{}, err
	}
	return Set{ips}, nil
}

// Of is the set of these prefixes.
func Of(prefixes ...netip.Prefix) Set {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		b.AddPrefix(netip.PrefixFrom(p.Addr().Unmap().WithZone(""), p.Bits()))
	}
	return built(&b)
}

// OfAddrs is the set of these addresses.
func OfAddrs(addrs ...netip.Addr) Set {
	var b netipx.IPSetBuilder
	for _, a := range addrs {
		b.Add(a.Unmap().WithZone(""))
	}
	return built(&b)
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

// built is for builders that can't have failed.
func built(b *netipx.IPSetBuilder) Set {
	ips, err := b.IPSet()
	if err != nil {
		return Set{}
	}
	return Set{ips}
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

// everything holds all addresses of one family.
var (
	everything4 = netip.MustParsePrefix("0.0.0.0/0")
	everything6 = netip.MustParsePrefix("::/0")
)

// All is every address of both families.
func All() Set { return Of(everything4, everything6) }

// All4 is every IPv4 address, All6 every IPv6 address.
func All4() Set { return Of(everything4) }

// All6 is every IPv6 address.
func All6() Set { return Of(everything6) }

// Contains tells whether an address is in the set.
func (s Set) Contains(a netip.Addr) bool {
	return s.ips != nil && s.ips.Contains(a.Unmap().WithZone(""))
}

// IsEmpty tells whether no address is in the set.
func (s Set) IsEmpty() bool { return s.ips == nil || len(s.ips.Ranges()) == 0 }

// Ranges are the set's ranges, sorted, IPv4 first; they neither overlap nor touch.
func (s Set) Ranges() []netipx.IPRange {
	if s.ips == nil {
		return nil
	}
	return s.ips.Ranges()
}

// Prefixes are the fewest prefixes that make up the set, sorted, IPv4 first.
func (s Set) Prefixes() []netip.Prefix {
	if s.ips == nil {
		return nil
	}
	return s.ips.Prefixes()
}

// V4 is the IPv4 part of the set.
func (s Set) V4() Set { return s.Intersect(All4()) }

// V6 is the IPv6 part of the set.
func (s Set) V6() Set { return s.Intersect(All6()) }

// Union is what is in either set.
func (s Set) Union(o Set) Set {
	var b netipx.IPSetBuilder
	for _, x := range []Set{s, o} {
		if x.ips != nil {
			b.AddSet(x.ips)
		}
	}
	return built(&b)
}

// Subtract is what is in s and not in o.
func (s Set) Subtract(o Set) Set {
	if s.ips == nil || o.ips == nil {
		return s
	}
	var b netipx.IPSetBuilder
	b.AddSet(s.ips)
	b.RemoveSet(o.ips)
	return built(&b)
}

// Intersect is what is in both sets.
func (s Set) Intersect(o Set) Set {
	if s.ips == nil || o.ips == nil {
		return Set{}
	}
	var b netipx.IPSetBuilder
	b.AddSet(s.ips)
	b.Intersect(o.ips)
	return built(&b)
}

// Complement is every address of both families that is not in the set.
func (s Set) Complement() Set { return All().Subtract(s) }

// Equal tells whether two sets hold the same addresses.
func (s Set) Equal(o Set) bool {
	if s.IsEmpty() || o.IsEmpty() {
		return s.IsEmpty() && o.IsEmpty()
	}
	return s.ips.Equal(o.ips)
}

// String lists the set as a policy would write it: addresses, prefixes and ranges with spaces between.
func (s Set) String() string {
	var words []string
	for _, r := range s.Ranges() {
		words = append(words, FormatRange(r))
	}
	return strings.Join(words, " ")
}

// FormatRange writes a range as an address, a prefix or FIRST-LAST, whichever is exact.
func FormatRange(r netipx.IPRange) string {
	if r.From() == r.To() {
		return r.From().String()
	}
	if p, ok := r.Prefix(); ok {
		return p.String()
	}
	return r.From().String() + "-" + r.To().String()
}

// MarshalText is String, so that a Set can be kept in a file.
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Set) UnmarshalText(text []byte) error {
	var b Builder
	for _, f := range strings.Fields(string(text)) {
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
