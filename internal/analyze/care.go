package analyze

import (
	"net/netip"

	"quaywall/internal/bdd"
	"quaywall/internal/netfilter"
)

// spot is what is asked about at a stage.
type spot struct {
	proto uint8
	dst   netip.Addr
	port  uint16
	out   string
}

// spots are those that were asked about at each stage.
type spots map[stage]map[spot]bool

func (s spots) add(at stage, one spot) {
	if s[at] == nil {
		s[at] = map[spot]bool{}
	}
	s[at][one] = true
}

// care keeps an analysis to packets that somebody asks about: of a rule set that is too tangled for all packets at once, those
// few can be told all the same.
type care struct {
	known, wanted spots
	sets          map[stage]bdd.Set
}

// asks tells whether a stage was led through for packets at a place; one for which it wasn't is remembered.
func (a *Analyzer) asks(s stage, p place) bool {
	if a.care == nil {
		return true
	}
	one := spot{p.proto, p.dst, p.port, p.out}
	if a.care.known[s][one] {
		return true
	}
	a.care.wanted.add(s, one)
	return false
}

// cared are the packets that a stage is led through for.
func (a *Analyzer) cared(s stage) bdd.Set {
	if a.care == nil {
		return bdd.All
	}
	set, ok := a.care.sets[s]
	if !ok {
		for one := range a.care.known[s] {
			here := a.And(a.Equal(a.field(netfilter.Dst), number(one.dst)), a.Equal(a.field(netfilter.DstPort), bdd.Small(uint64(one.port))))
			here = a.And(here, a.Equal(a.field(netfilter.Proto), bdd.Small(uint64(one.proto))))
			set = a.Or(set, a.And(here, a.Equal(a.field(netfilter.OutIface), a.iface(one.out))))
		}
		a.care.sets[s] = set
	}
	return set
}

// scout finds out what has to be asked about at each stage to dial targets, and leads the rules through for that alone. A stage
// is asked about once what comes to it is known, so that this takes as many rounds as a way has stages.
func (a *Analyzer) scout(targets []Target) {
	a.care = &care{known: spots{}}
	for {
		a.care.wanted, a.care.sets = spots{}, map[stage]bdd.Set{}
		for _, t := range targets {
			a.Dial(t)
		}
		if len(a.care.wanted) == 0 {
			return
		}
		for s, all := range a.care.wanted {
			for one := range all {
				a.care.known.add(s, one)
			}
			a.forget(s)
		}
	}
}

// forget has a stage be led through anew.
func (a *Analyzer) forget(s stage) {
	for key := range a.hooks {
		if key.stage == s {
			delete(a.hooks, key)
		}
	}
	for key := range a.nat {
		if key.stage == s {
			delete(a.nat, key)
		}
	}
}
