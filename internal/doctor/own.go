package doctor

import (
	"fmt"
	"slices"

	"quaywall/internal/netfilter"
)

// quaywallThere tells whether rules of quaywall's are in the kernel.
func (x *exam) quaywallThere() bool { return len(x.ownPlaces()) > 0 }

// ownPlaces are the backends that hold rules of quaywall's.
func (x *exam) ownPlaces() []string {
	var places []string
	add := func(place string) {
		if !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	for _, t := range x.host.Rules.Tables {
		switch {
		case t.Dialect == netfilter.NFT && t.Name == "quaywall":
			add("nft")
		case t.Dialect != netfilter.NFT && slices.ContainsFunc(t.Chains, func(c *netfilter.Chain) bool { return netfilter.IsOwnChain(c.Name) }):
			add(map[netfilter.Dialect]string{netfilter.IPTablesNFT: "iptables-nft", netfilter.IPTablesLegacy: "iptables-legacy"}[t.Dialect])
		}
	}
	return places
}

// quaywall looks after quaywall's own rules.
func (x *exam) quaywall() {
	places := x.ownPlaces()
	switch {
	case len(places) > 1:
		x.add(Finding{ID: "quaywall-twice", Severity: Warning, Title: "more than one backend holds rules of quaywall's",
			Means: "a packet has to pass both policies", Evidence: places, Do: "quaywall apply takes the older ones out", Fix: Apply})
	case len(places) == 0 && x.facts.Applied:
		x.add(Finding{ID: "quaywall-gone", Severity: Fault, Title: "quaywall's policy is not in force, though it was put in force and not taken out",
			Means: "this host is as open as without it", Evidence: []string{"no table and no chain of quaywall's is in the kernel"},
			Do: "quaywall apply; with quaywall-agent running it comes back by itself", Fix: Apply})
		return
	}
	if lost := x.lostJumps(); len(lost) > 0 {
		x.add(Finding{ID: "quaywall-bypassed", Severity: Fault, Title: "quaywall's chains are there, and not all packets are led to them",
			Means: "what isn't led to them is not judged", Evidence: lost, Do: "quaywall apply", Fix: Apply})
	} else if x.facts.Drift {
		x.add(Finding{ID: "quaywall-drift", Severity: Fault, Title: "the kernel does not hold what quaywall put into it",
			Means: "somebody changed quaywall's rules: what is let in is not what the policy says", Evidence: []string{"quaywall status --verbose shows the difference"},
			Do: "quaywall apply", Fix: Apply})
	}
}

// lostJumps finds chains of quaywall's in mangle that their hook doesn't lead to first.
func (x *exam) lostJumps() []string {
	var lost []string
	for _, t := range x.host.Rules.Tables {
		if t.Dialect == netfilter.NFT || t.Name != "mangle" || t.Chain("QUAYWALL-gate") == nil {
			continue
		}
		if hook := t.Chain("PREROUTING"); hook == nil || len(hook.Rules) == 0 || !leadsTo(hook.Rules[0], "QUAYWALL-gate") {
			lost = append(lost, fmt.Sprintf("the first rule of %s PREROUTING doesn't lead to QUAYWALL-gate", name(t)))
		}
	}
	return lost
}
