package compile

import (
	"slices"

	"quaywall/internal/netset"
)

// class is all ports that the same rules are about, in the same order. ICMP types are treated as ports.
type class struct {
	ports []netset.Ports // sorted; none touches the next
	rules []*rule
}

// span is a rule on a range of ports, or of ICMP types.
type span struct {
	first, last uint16
	rule        *rule
}

// event is a rule that begins or ends at a port, packed so that events sort fast, and in the order in which the rules
// that are about a port change least: by port, ends before beginnings, ends from the last rule to the first.
type event uint64

const (
	eventBegins = 1 << 32
	eventPort   = 33 // bits that the port is shifted by
)

func beginning(port uint16, id int) event {
	return event(port)<<eventPort | eventBegins | event(uint32(id))
}
func ending(last uint16, id int) event { return event(uint32(last)+1)<<eventPort | event(^uint32(id)) }

func (e event) port() uint32 { return uint32(e >> eventPort) }

func (e event) rule() (id int, begins bool) {
	if e&eventBegins != 0 {
		return int(uint32(e)), true
	}
	return int(^uint32(e)), false
}

func sortedEvents(spans []span) []event {
	list := make([]event, 0, 2*len(spans))
	for _, s := range spans {
		list = append(list, beginning(s.first, s.rule.id), ending(s.last, s.rule.id))
	}
	slices.Sort(list)
	return list
}

// active is the rules that are about the port that a sweep has come to.
type active struct {
	count []int32 // of ranges that hold the port, by id: those of a rule may overlap
	n     int     // rules with a count
	sum   [2]uint64
	keep  bool
	ids   []int32 // the rules with a count, sorted; only with keep
}

func (a *active) apply(e event) {
	id, begins := e.rule()
	before := a.count[id]
	if begins {
		a.count[id]++
	} else {
		a.count[id]--
	}
	if before != 0 && a.count[id] != 0 {
		return
	}
	a.sum[0] ^= fingerprint(uint64(id), 0x9e3779b97f4a7c15)
	a.sum[1] ^= fingerprint(uint64(id), 0xc2b2ae3d27d4eb4f)
	if begins {
		a.n++
	} else {
		a.n--
	}
	if a.keep {
		i, _ := slices.BinarySearch(a.ids, int32(id))
		if begins {
			a.ids = slices.Insert(a.ids, i, int32(id))
		} else {
			a.ids = slices.Delete(a.ids, i, i+1)
		}
	}
}

// fingerprint mixes a number by the finisher of splitmix64. Two of them, 128 bits, tell sets of rules apart: that two
// sets have the same sums doesn't happen, and the sweep needs to compare no lists.
func fingerprint(x, seed uint64) uint64 {
	x = (x + 1) * seed
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// sweep calls visit for each range of ports that the same rules are about, in order; ports without rules are left out.
func sweep(spans []span, a *active, visit func(ports netset.Ports)) {
	last := 0
	for _, s := range spans {
		last = max(last, s.rule.id)
	}
	a.count = make([]int32, last+1)
	list := sortedEvents(spans)
	for i := 0; i < len(list); {
		at := list[i].port()
		for ; i < len(list) && list[i].port() == at; i++ {
			a.apply(list[i])
		}
		if a.n > 0 {
			visit(netset.Ports{First: uint16(at), Last: uint16(list[i].port() - 1)})
		}
	}
}

// classify sorts the ports of spans into classes, ordered by their first port. The rules of base are about every port
// and are in every class.
func classify(spans []span, base []*rule) []class {
	byID := map[int32]*rule{}
	for _, s := range spans {
		byID[int32(s.rule.id)] = s.rule
	}
	var classes []class
	index := map[[2]uint64]int{}
	a := &active{keep: true}
	sweep(spans, a, func(ports netset.Ports) {
		i, known := index[a.sum]
		if !known {
			i = len(classes)
			index[a.sum] = i
			classes = append(classes, class{rules: merge(base, a.ids, byID)})
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
	a := &active{}
	sweep(spans, a, func(netset.Ports) {
		if !seen[a.sum] {
			seen[a.sum] = true
			total += a.n + base
		}
	})
	return total
}

// merge joins rules that are sorted by id with others given by sorted ids.
func merge(base []*rule, ids []int32, byID map[int32]*rule) []*rule {
	all := make([]*rule, 0, len(base)+len(ids))
	for _, id := range ids {
		for len(base) > 0 && base[0].id < int(id) {
			all, base = append(all, base[0]), base[1:]
		}
		all = append(all, byID[id])
	}
	return append(all, base...)
}
