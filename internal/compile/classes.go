package compile

import (
	"cmp"
	"slices"

	"quaywall/internal/netset"
)

// class is all ports that the same rules are about, in the same order. ICMP types are treated as ports.
type class struct {
	ports []netset.Ports // sorted; none touches the next
	rules []*rule
}

// event is a rule that begins or ends at a port.
type event struct {
	at    uint32
	begin bool
	rule  *rule
}

func events(spans []span) []event {
	list := make([]event, 0, 2*len(spans))
	for _, s := range spans {
		list = append(list, event{uint32(s.first), true, s.rule}, event{uint32(s.last) + 1, false, s.rule})
	}
	slices.SortFunc(list, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return list
}

// active is the rules that are about the port the sweep has come to. A rule may be there more than once: its ranges
// may overlap.
type active struct {
	count map[*rule]int
	rules []*rule   // sorted by id
	sum   [2]uint64 // of the rules' fingerprints; equal sums are equal rules
}

func (a *active) apply(e event) {
	before := a.count[e.rule]
	if e.begin {
		a.count[e.rule]++
	} else {
		a.count[e.rule]--
	}
	i, _ := slices.BinarySearchFunc(a.rules, e.rule.id, func(r *rule, id int) int { return cmp.Compare(r.id, id) })
	switch after := a.count[e.rule]; {
	case before == 0:
		a.rules = slices.Insert(a.rules, i, e.rule)
	case after == 0:
		a.rules = slices.Delete(a.rules, i, i+1)
	default:
		return
	}
	for i, seed := range [2]uint64{0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f} {
		a.sum[i] ^= mix(uint64(e.rule.id)*2 + 1 + seed)
	}
}

// mix is the finisher of splitmix64: a fingerprint of 128 bits makes two sets of rules with one sum a thing that
// doesn't happen, and the sweep needs no comparison of lists.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// sweep calls visit for each range of ports that the same rules are about, in order; ports without rules are left out.
func sweep(spans []span, visit func(ports netset.Ports, a *active)) {
	list := events(spans)
	a := &active{count: map[*rule]int{}}
	for i := 0; i < len(list); {
		at := list[i].at
		for ; i < len(list) && list[i].at == at; i++ {
			a.apply(list[i])
		}
		if len(a.rules) > 0 {
			visit(netset.Ports{First: uint16(at), Last: uint16(list[i].at - 1)}, a)
		}
	}
}

// classify sorts the ports of spans into classes, ordered by their first port. The rules of base are about every port
// and are in every class.
func classify(spans []span, base []*rule) []class {
	var classes []class
	index := map[[2]uint64]int{}
	sweep(spans, func(ports netset.Ports, a *active) {
		i, known := index[a.sum]
		if !known {
			i = len(classes)
			index[a.sum] = i
			classes = append(classes, class{rules: merge(base, a.rules)})
		}
		c := &classes[i]
		if n := len(c.ports); n > 0 && uint32(c.ports[n-1].Last)+1 == uint32(ports.First) {
			c.ports[n-1].Last = ports.Last
			return
		}
		c.ports = append(c.ports, ports)
	})
	return classes
}

// cost is how many rules classify would give, over all classes; it is found without making them.
func cost(spans []span, base int) int {
	total := 0
	seen := map[[2]uint64]bool{}
	sweep(spans, func(_ netset.Ports, a *active) {
		if !seen[a.sum] {
			seen[a.sum] = true
			total += len(a.rules) + base
		}
	})
	return total
}

// merge joins two lists that are sorted by id.
func merge(a, b []*rule) []*rule {
	all := make([]*rule, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].id < b[0].id {
			all, a = append(all, a[0]), a[1:]
		} else {
			all, b = append(all, b[0]), b[1:]
		}
	}
	return append(append(all, a...), b...)
}
