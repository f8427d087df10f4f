package analyze

import (
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/snapshot"
)

// Types of addresses (RTN_* of rtnetlink).
const (
	typeUnicast   = 1
	typeLocal     = 2
	typeBroadcast = 3
	typeAnycast   = 4
	typeMulticast = 5
)

// addrTypes are those that an address may be of.
var addrTypes = []int{typeUnicast, typeLocal, typeBroadcast, typeAnycast, typeMulticast}

// hostFacts answers what rules ask of the host. A func is nil where the snapshot lacks what it needs.
type hostFacts struct {
	kinds map[string]string                    // of interfaces
	types func(t int, iface string) netset.Set // the addresses of a type, of one interface or with "" of all
	wayTo func(iface string) netset.Set        // the addresses that are routed out of an interface
	set   func(t *netfilter.Table, name string) *netfilter.Set
	first map[string]netip.Addr // the first address of an interface, of this family and not link-local
}

// routing is a host's routes of one family, as sets of addresses.
type routing struct {
	byType map[int]netset.Set
	onLink map[string]map[int]netset.Set // by interface and type
	byDev  map[string]netset.Set         // unicast, by the interface that they leave by
	all    netset.Set
}

func factsOf(h *snapshot.Host, family netfilter.Family) hostFacts {
	f := hostFacts{kinds: map[string]string{}, first: map[string]netip.Addr{}}
	for _, i := range h.Inventory.Interfaces {
		f.kinds[i.Name] = i.Kind
		of := func(p netip.Prefix) bool {
			return p.Addr().Is4() == (family == netfilter.IPv4) && !p.Addr().IsLinkLocalUnicast()
		}
		if at := slices.IndexFunc(i.Addrs, of); at >= 0 {
			f.first[i.Name] = i.Addrs[at].Addr()
		}
	}
	f.set = func(t *netfilter.Table, name string) *netfilter.Set {
		if t.Dialect == netfilter.NFT {
			return t.Set(name)
		}
		return h.Rules.Set(name)
	}
	if !h.Has(snapshot.PartRoutes) {
		return f
	}
	r := routingOf(h.Routes, family)
	f.types = r.types
	if plainPolicies(h.Policies) {
		f.wayTo = func(iface string) netset.Set { return r.byDev[iface] }
	}
	return f
}

// plainPolicies tells whether the routing policy is the kernel's own: the tables local, main and default.
func plainPolicies(all []snapshot.RoutingRule) bool {
	return !slices.ContainsFunc(all, func(r snapshot.RoutingRule) bool {
		return !slices.Contains([]string{"local", "main", "default", "255", "254", "253"}, r.Table) ||
			r.From.IsValid() || r.To.IsValid() || r.In != "" || r.Out != "" || r.MarkMask != 0 || r.Not || r.Unread != ""
	})
}

// routingOf divides the addresses among the routes: of two that hold an address, the longer prefix has it, then the table
// local, then the lower metric.
func routingOf(routes []snapshot.Route, family netfilter.Family) *routing {
	r := &routing{byType: map[int]netset.Set{}, onLink: map[string]map[int]netset.Set{}, byDev: map[string]netset.Set{}, all: netset.All4()}
	if family == netfilter.IPv6 {
		r.all = netset.All6()
	}
	sorted := slices.DeleteFunc(slices.Clone(routes), func(x snapshot.Route) bool {
		return x.Dst.Addr().Is4() != (family == netfilter.IPv4) || x.Down || !slices.Contains([]string{"local", "main", "default"}, x.Table)
	})
	slices.SortStableFunc(sorted, precedence)
	var taken netset.Set
	for _, x := range sorted {
		prefix := netset.Of(x.Dst)
		mine := prefix.Subtract(taken)
		taken = taken.Union(prefix)
		r.byType[x.Type] = r.byType[x.Type].Union(mine)
		if x.Type == typeUnicast {
			r.byDev[x.Dev] = r.byDev[x.Dev].Union(mine)
		}
		if r.onLink[x.Dev] == nil {
			r.onLink[x.Dev] = map[int]netset.Set{}
		}
		r.onLink[x.Dev][x.Type] = r.onLink[x.Dev][x.Type].Union(prefix)
	}
	multicast := netset.Of(netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"))
	r.byType[typeMulticast] = multicast.Intersect(r.all)
	r.byType[typeBroadcast] = r.byType[typeBroadcast].Union(netset.Of(netip.MustParsePrefix("255.255.255.255/32"))).Intersect(r.all)
	return r
}

// precedence orders routes as the kernel asks them: the table local first, then long prefixes before short ones.
func precedence(a, b snapshot.Route) int {
	if a, b := a.Table == "local", b.Table == "local"; a != b {
		if a {
			return -1
		}
		return 1
	}
	if a.Dst.Bits() != b.Dst.Bits() {
		return b.Dst.Bits() - a.Dst.Bits()
	}
	return a.Metric - b.Metric
}

// types are the addresses of a type. What no route holds is unicast to the match addrtype, since it is nothing else.
func (r *routing) types(t int, iface string) netset.Set {
	if t == typeUnicast {
		others := netset.Set{}
		for _, o := range addrTypes[1:] {
			others = others.Union(r.types(o, iface))
		}
		return r.all.Subtract(others)
	}
	if iface != "" && t != typeMulticast {
		return r.onLink[iface][t].Intersect(r.all)
	}
	return r.byType[t]
}

// dev is the interface that a packet to an address leaves by, "" where it is for the host or there is no way.
func (r *routing) dev(a netip.Addr) string {
	for name, set := range r.byDev {
		if set.Contains(a) {
			return name
		}
	}
	return ""
}

// eachName tells of each interface that rules name.
func eachName(rules *netfilter.Rules, tell func(string)) {
	for _, t := range rules.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				eachNameOf(r.Matches, tell)
				for _, a := range r.Actions {
					if l, ok := a.(netfilter.Lookup); ok {
						eachNameIn(l.Fields, l.Elements, tell)
					}
				}
			}
		}
		for _, s := range t.Sets {
			eachNameInKeys(s.Elements, tell)
		}
	}
	for _, s := range rules.Sets {
		eachNameInKeys(s.Elements, tell)
	}
}

func eachNameOf(matches []netfilter.Match, tell func(string)) {
	for _, m := range matches {
		switch m := m.(type) {
		case netfilter.Compare:
			if m.Field == netfilter.InIface || m.Field == netfilter.OutIface {
				eachOf(m.Names, tell)
			}
		case netfilter.In:
			eachNameIn(m.Fields, m.Elements, tell)
		case netfilter.Any:
			for _, of := range m.Of {
				eachNameOf(of, tell)
			}
		}
	}
}

func eachNameIn(fields []netfilter.Field, elements []netfilter.Element, tell func(string)) {
	if slices.Contains(fields, netfilter.InIface) || slices.Contains(fields, netfilter.OutIface) {
		eachNameInKeys(elements, tell)
	}
}

func eachNameInKeys(elements []netfilter.Element, tell func(string)) {
	for _, e := range elements {
		for _, part := range e.Key {
			eachOf(part.Names, tell)
		}
	}
}

func eachOf(names []string, tell func(string)) {
	for _, n := range names {
		if !strings.Contains(n, "/") {
			tell(n)
		}
	}
}
