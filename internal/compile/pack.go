package compile

import (
	"fmt"

	"quaywall/internal/ruleset"
)

const (
	// manyChains is how many small classes of a protocol may have a chain each. iptables-nft takes time in proportion to
	// the square of the number of chains: 44 s for 10,000, 0.2 s for 1,000.
	manyChains = 1024
	// maxPack bounds how many small classes share a chain where there are more, and so what a packet meets there.
	maxPack = 16
	// smallClass is how many plain rules for a family a class may come to and be small.
	smallClass = 2
)

// pack joins small classes, so that a chain serves several, where there are so many that each can't have its own. In a
// joined class every rule asks for its port itself.
func (w *writer) pack(proto uint8, classes []class) []class {
	var small, packed []class
	for _, c := range classes {
		c.rules = reachable(c.rules, bothFamilies)
		if isSmall(c.rules) {
			small = append(small, c)
		} else {
			packed = append(packed, c)
		}
	}
	size := min((len(small)+manyChains-1)/manyChains, maxPack)
	if size <= 1 {
		return classes
	}
	for len(small) > 0 {
		n := min(size, len(small))
		packed = append(packed, join(proto, small[:n]))
		small = small[n:]
	}
	return packed
}

// isSmall tells whether a class takes a chain, and that one is short.
func isSmall(rules []*rule) bool {
	if len(rules) == 0 || rules[0].covers(bothFamilies) {
		return false
	}
	size := 0
	for _, r := range rules {
		size += r.src.size() * r.dst.size() * r.at.size()
	}
	return size <= smallClass
}

// join makes one class of several.
func join(proto uint8, classes []class) class {
	var all class
	for _, c := range classes {
		all.ports = append(all.ports, c.ports...)
		its := []ruleset.Match{ruleset.ProtoMatch{Proto: proto}, ruleset.PortMatch{Field: ruleset.DstPort, Ports: c.ports}}
		for _, r := range c.rules {
			v := *r
			v.traffic = append(its[:len(its):len(its)], r.traffic...)
			v.quals = fmt.Sprintf("%v/%s", c.ports, r.quals)
			all.rules = append(all.rules, &v)
		}
	}
	return all
}
