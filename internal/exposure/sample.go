package exposure

import (
	"net/netip"

	"quaywall/internal/netset"
	"quaywall/internal/policy"
)

// rangesTried bounds how many ranges of a set are tried, from its beginning and from its end.
const rangesTried = 8

// sampler chooses source addresses to try.
type sampler struct {
	p     *policy.Policy
	bySet map[string][]netip.Addr // what was chosen of a set
}

// of are addresses that the rules name, and of their neighbours, in one family.
func (s sampler) of(rules []policy.Rule, is4 bool) []netip.Addr {
	seen := map[netip.Addr]bool{}
	var all []netip.Addr
	for _, r := range rules {
		for _, addr := range s.named(r.From) {
			if addr.Is4() == is4 && !seen[addr] {
				seen[addr] = true
				all = append(all, addr)
			}
		}
	}
	return all
}

// named are addresses of what a from names, and some just outside of it, which "not" may mean.
func (s sampler) named(from policy.Addresses) []netip.Addr {
	all := edges(from.Inline)
	for _, name := range from.Sets {
		if _, ok := s.bySet[name]; !ok {
			set, _ := s.p.Set(name)
			s.bySet[name] = edges(set.Addrs)
		}
		all = append(all, s.bySet[name]...)
	}
	return all
}

// edges are the ends of a set's first and last ranges, and the addresses next to them.
func edges(set netset.Set) []netip.Addr {
	ranges := set.Ranges()
	var all []netip.Addr
	for i, r := range ranges {
		if i >= rangesTried && i < len(ranges)-rangesTried {
			continue
		}
		for _, addr := range []netip.Addr{r.From(), r.To(), r.From().Next(), r.From().Prev(), r.To().Next()} {
			if addr.IsValid() && !addr.IsUnspecified() {
				all = append(all, addr)
			}
		}
	}
	return all
}

// stranger is an address that no set and no rule names, as far as a few tries find one: of the networks that are
// reserved for documentation (RFC 5737, RFC 3849), else of others.
func (s sampler) stranger(is4 bool) netip.Addr {
	tries := []string{"198.51.100.77", "203.0.113.177", "192.0.2.99", "45.83.220.13", "151.101.7.211", "93.184.215.9"}
	if !is4 {
		tries = []string{"2001:db8:5555::77", "2001:db8:aaaa:bbbb::99", "2a0b:7777::5", "2606:4abc::7", "2400:cb99::3"}
	}
	var addr netip.Addr
	for _, t := range tries {
		if addr = netip.MustParseAddr(t); !s.isNamed(addr) {
			break
		}
	}
	return addr
}

func (s sampler) isNamed(addr netip.Addr) bool {
	for _, set := range s.p.Sets {
		if set.Addrs.Contains(addr) {
			return true
		}
	}
	for _, r := range s.p.Inbound {
		if r.From.Inline.Contains(addr) {
			return true
		}
	}
	return false
}
