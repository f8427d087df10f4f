package sim

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"quaywall/internal/netfilter"
	"quaywall/internal/ruleset"
)

// chain is a chain, prepared.
type chain struct {
	*netfilter.Chain
	table  *netfilter.Table
	index  *tableIndex
	routes bool // packets that it changed are routed anew

	once  sync.Once
	quick *jumpIndex // nil for short chains
}

// jumps finds the chain's rules; it is made when it is asked for.
func (c *chain) jumps() *jumpIndex {
	c.once.Do(func() { c.quick = indexRules(c.Rules) })
	return c.quick
}

// tableIndex finds what rules of a table name.
type tableIndex struct {
	chains map[string]*chain
	sets   map[string]*netfilter.Set
}

// index puts the base chains in the order of their hooks.
func (s *Sim) index() {
	s.hooks, s.bridge = map[hookKey][]*chain{}, map[netfilter.Hook][]*chain{}
	s.ingest = map[hookKey]map[string][]*chain{}
	// What was registered later is called first among equals, and dumps list what was registered first first.
	for _, t := range slices.Backward(s.host.Rules.Tables) {
		ix := s.indexTable(t)
		if t.Dormant {
			continue
		}
		for _, c := range slices.Backward(t.Chains) {
			if c.Base != nil && ix.chains[c.Name].Chain == c {
				s.register(ix.chains[c.Name])
			}
		}
	}
	byPriority := func(a, b *chain) int { return cmp.Compare(a.Base.Priority, b.Base.Priority) }
	s.nats = map[hookKey][]*chain{}
	for key, list := range s.hooks {
		slices.SortStableFunc(list, byPriority)
		for _, c := range list {
			if c.Base.Type == netfilter.NAT {
				s.nats[key] = append(s.nats[key], c)
			}
		}
	}
	for _, list := range s.bridge {
		slices.SortStableFunc(list, byPriority)
	}
	for _, devices := range s.ingest {
		for _, list := range devices {
			slices.SortStableFunc(list, byPriority)
		}
	}
}

func (s *Sim) indexTable(t *netfilter.Table) *tableIndex {
	ix := &tableIndex{chains: make(map[string]*chain, len(t.Chains)), sets: s.named}
	if t.Dialect == netfilter.NFT {
		ix.sets = make(map[string]*netfilter.Set, len(t.Sets))
		for _, x := range t.Sets {
			ix.sets[x.Name] = x
			s.sets[x] = newSet(x)
		}
	}
	for _, c := range t.Chains {
		p := &chain{Chain: c, table: t, index: ix}
		if b := c.Base; b != nil {
			p.routes = b.Hook == netfilter.Output && (b.Type == netfilter.Route || t.Dialect != netfilter.NFT && t.Name == "mangle")
		}
		ix.chains[c.Name] = p
	}
	return ix
}

// register hooks a base chain in.
func (s *Sim) register(c *chain) {
	b, t := c.Base, c.table
	switch {
	case t.Family == netfilter.ARP:
	case b.Hook == netfilter.Ingress || b.Hook == netfilter.Egress:
		for _, family := range familiesOf(t.Family) {
			key := hookKey{family, b.Hook}
			if s.ingest[key] == nil {
				s.ingest[key] = map[string][]*chain{}
			}
			for _, device := range b.Devices {
				s.ingest[key][device] = append(s.ingest[key][device], c)
			}
		}
	case t.Family == netfilter.Bridge:
		s.bridge[b.Hook] = append(s.bridge[b.Hook], c)
	default:
		for _, family := range familiesOf(t.Family) {
			key := hookKey{family, b.Hook}
			s.hooks[key] = append(s.hooks[key], c)
		}
	}
}

func familiesOf(f netfilter.Family) []uint8 {
	switch f {
	case netfilter.IPv4:
		return []uint8{nfIPv4}
	case netfilter.IPv6:
		return []uint8{nfIPv6}
	}
	return []uint8{nfIPv4, nfIPv6}
}

// longChain is from how many rules on a chain gets a jumpIndex.
const longChain = 32

// jumpIndex finds the rules of a long chain that may match a packet: those of its destination, those of its destination
// port, and those that ask for neither.
type jumpIndex struct {
	byDst  map[netip.Addr][]int32
	byPort map[uint64][]int32
	others []int32
}

func indexRules(rules []*netfilter.Rule) *jumpIndex {
	if len(rules) < longChain {
		return nil
	}
	ix := &jumpIndex{byDst: map[netip.Addr][]int32{}, byPort: map[uint64][]int32{}}
	for i, r := range rules {
		n := int32(i)
		if dst, ok := onlyDst(r); ok {
			ix.byDst[dst] = append(ix.byDst[dst], n)
		} else if port, ok := onlyPort(r); ok {
			ix.byPort[port] = append(ix.byPort[port], n)
		} else {
			ix.others = append(ix.others, n)
		}
	}
	return ix
}

// onlyDst is the one destination that a rule matches.
func onlyDst(r *netfilter.Rule) (netip.Addr, bool) {
	for _, m := range r.Matches {
		c, ok := m.(netfilter.Compare)
		if !ok || c.Field != netfilter.Dst || c.Not || c.AddrMask.IsValid() || c.Addrs.Len() != 1 {
			continue
		}
		for rng := range c.Addrs.Each() {
			if rng.From() == rng.To() {
				return rng.From(), true
			}
		}
	}
	return netip.Addr{}, false
}

// onlyPort is the one destination port that a rule matches.
func onlyPort(r *netfilter.Rule) (uint64, bool) {
	for _, m := range r.Matches {
		c, ok := m.(netfilter.Compare)
		if ok && c.Field == netfilter.DstPort && !c.Not && c.Mask == 0 && len(c.Numbers) == 1 && c.Numbers[0].First == c.Numbers[0].Last {
			return c.Numbers[0].First, true
		}
	}
	return 0, false
}

// candidates goes through the rules that may match, in order.
type candidates struct{ lists [3][]int32 }

func (ix *jumpIndex) of(dst netip.Addr, port uint16) candidates {
	return candidates{[3][]int32{ix.byDst[dst], ix.byPort[uint64(port)], ix.others}}
}

// next is the first one from a rule on; -1 where there is none.
func (c *candidates) next(from int32) int32 {
	best := int32(-1)
	for i := range c.lists {
		for len(c.lists[i]) > 0 && c.lists[i][0] < from {
			c.lists[i] = c.lists[i][1:]
		}
		if len(c.lists[i]) > 0 && (best < 0 || c.lists[i][0] < best) {
			best = c.lists[i][0]
		}
	}
	return best
}

// PolicyLine is the line of quaywall's policy that a comment names, "" where the rule isn't quaywall's.
func PolicyLine(t *netfilter.Table, chain, comment string) string {
	if comment == "" || t.Name != "quaywall" && !strings.HasPrefix(chain, "QUAYWALL") && !strings.HasPrefix(chain, "quaywall") {
		return ""
	}
	return ruleset.ParseOrigin(comment).Line
}
