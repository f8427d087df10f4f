package analyze

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/snapshot"
)

// Endpoint is something that can be dialled, by one way, and who gets there.
type Endpoint struct {
	Target  // Addr is unspecified where it is the same for all addresses of this host
	Owner   Owner
	Way     Way
	OpenTo  []Opening // from where a packet may get there; none where it is closed
	Certain bool      // each of them does, whatever it is that isn't known
	Doubts  []*netfilter.Rule
	dialled netip.Addr // one of the addresses, for who wants to look closer
}

// Witness is a target that a single packet can be sent to: the endpoint, by one of its addresses.
func (e Endpoint) Witness() Target { return Target{e.Proto, e.dialled, e.Port} }

// Owner is who serves an endpoint.
type Owner struct {
	Kind string // "process", "container", "" for nobody known
	Name string
}

// Opening is a part of the world that something is open to.
type Opening struct {
	Iface string // that packets come in by
	Name  string // "any", or of the set that it is; "" where it is neither
	Addrs netset.Set
	All   netset.Set // that may come by the interface at all
}

// Audit finds everything that can be dialled on a host, in both families at a time, by port. Sets are names for sets of
// addresses. The error is ErrTooLarge, or the context's.
func Audit(ctx context.Context, h *snapshot.Host, sets map[string]netset.Set) ([]Endpoint, error) {
	families := []netfilter.Family{netfilter.IPv4, netfilter.IPv6}
	found, errs := make([][]Endpoint, len(families)), make([]error, len(families))
	var group errgroup.Group
	for i, family := range families {
		group.Go(func() error {
			found[i], errs[i] = audit(ctx, h, family, sets, false)
			return nil
		})
	}
	_ = group.Wait() // each error is looked at below
	for i, family := range families {
		if errors.Is(errs[i], ErrTooLarge) { // one family after the other: each may take much
			found[i], errs[i] = audit(ctx, h, family, sets, true)
		}
	}
	if err := cmp.Or(errs...); err != nil {
		return nil, err
	}
	all := slices.Concat(found...)
	slices.SortStableFunc(all, func(x, y Endpoint) int {
		return cmp.Or(cmp.Compare(x.Port, y.Port), cmp.Compare(x.Proto, y.Proto), x.Addr.Compare(y.Addr))
	})
	return all, nil
}

// audit is Audit in one family, for all packets at once or narrowed to those that are asked about.
func audit(ctx context.Context, h *snapshot.Host, family netfilter.Family, sets map[string]netset.Set, narrowed bool) (all []Endpoint, err error) {
	defer stopped(&err)
	a := New(h, family)
	if !narrowed {
		limit(ctx, a.Universe, mostAtOnce)
		return a.endpoints(sets), nil
	}
	limit(ctx, a.Universe, mostOfHost)
	var targets []Target
	for _, c := range a.candidates() {
		for _, addr := range a.addresses(c.Addr) {
			targets = append(targets, Target{c.Proto, addr, c.Port})
		}
	}
	a.scout(targets)
	return a.endpoints(sets), nil
}

// candidate is a target to be dialled, by an address or by all of the host's.
type candidate struct {
	Target
	owner Owner
}

func (a *Analyzer) endpoints(sets map[string]netset.Set) []Endpoint {
	var all []Endpoint
	for _, c := range a.candidates() {
		var found []Endpoint
		addresses := a.addresses(c.Addr)
		for _, addr := range addresses {
			for _, w := range a.Dial(Target{c.Proto, addr, c.Port}) {
				found = append(found, a.endpoint(c, addr, w, sets))
			}
		}
		all = append(all, open(merge(found, c.Addr, len(addresses)), c)...)
	}
	return all
}

// open leaves out ways that are closed, where there is another. What is closed altogether is told once.
func open(all []Endpoint, c candidate) []Endpoint {
	ways := slices.DeleteFunc(slices.Clone(all), func(e Endpoint) bool { return len(e.OpenTo) == 0 })
	switch {
	case len(ways) > 0:
		return ways
	case len(all) > 0:
		return all[:1]
	}
	return []Endpoint{{Target: c.Target, Owner: c.owner, Certain: true, dialled: c.Addr}}
}

// candidates are the sockets of this host, what Docker publishes, and the containers' own addresses.
func (a *Analyzer) candidates() []candidate {
	var all []candidate
	known := map[Target]bool{}
	add := func(c candidate) {
		if !known[c.Target] {
			all = append(all, c)
			known[c.Target] = true
		}
	}
	for _, p := range a.host.Inventory.Published {
		if a.ours(p.Addr) {
			add(candidate{Target{p.Proto, p.Addr, p.Port}, Owner{"container", p.Container}})
		}
	}
	for i := range a.host.Sockets {
		s := &a.host.Sockets[i]
		owner := Owner{"process", s.Process}
		if s.Container != "" {
			owner = Owner{"container", s.Container}
		}
		switch {
		case a.ours(s.Addr):
			add(candidate{Target{s.Proto, s.Addr, s.Port}, owner})
		case s.Both && a.family == netfilter.IPv4:
			add(candidate{Target{s.Proto, netip.IPv4Unspecified(), s.Port}, owner})
		}
	}
	targets := targetsOf(a.host)
	for _, c := range a.host.Containers {
		a.inside(c, slices.Concat(c.Exposed, targets[c.Name]), add)
	}
	return all
}

// targetsOf are the ports that containers publish, as they serve them, by the containers' names.
func targetsOf(h *snapshot.Host) map[string][]snapshot.Port {
	targets := map[string][]snapshot.Port{}
	for _, p := range h.Inventory.Published {
		targets[p.Container] = append(targets[p.Container], snapshot.Port{Proto: p.Proto, Port: p.Target})
	}
	return targets
}

// inside lists a container's own addresses with the ports that it is known to serve.
func (a *Analyzer) inside(c snapshot.Container, ports []snapshot.Port, add func(candidate)) {
	for _, n := range c.Networks {
		for _, addr := range n.Addrs {
			for _, p := range ports {
				if a.ours(addr) {
					add(candidate{Target{p.Proto, addr, p.Port}, Owner{"container", c.Name}})
				}
			}
		}
	}
}

func (a *Analyzer) ours(addr netip.Addr) bool { return addr.Is4() == (a.family == netfilter.IPv4) }

// addresses are those that an endpoint is dialled by from outside.
func (a *Analyzer) addresses(bound netip.Addr) []netip.Addr {
	if !bound.IsUnspecified() {
		return []netip.Addr{bound}
	}
	var all []netip.Addr
	for _, i := range a.host.Inventory.Interfaces {
		for _, p := range i.Addrs {
			if addr := p.Addr().WithZone(""); a.ours(addr) && !addr.IsLoopback() && !slices.Contains(all, addr) {
				all = append(all, addr)
			}
		}
	}
	return all
}

func (a *Analyzer) endpoint(c candidate, addr netip.Addr, w Way, sets map[string]netset.Set) Endpoint {
	may := a.May(w)
	e := Endpoint{Target: Target{c.Proto, addr, c.Port}, Owner: c.owner, Way: w, dialled: addr}
	everybody := a.Everybody(addr)
	for _, iface := range slices.Sorted(maps.Keys(may)) {
		e.OpenTo = append(e.OpenTo, Opening{iface, nameOf(may[iface], everybody[iface], sets), may[iface], everybody[iface]})
	}
	e.Certain = !w.Vague && maps.EqualFunc(may, a.Must(w), netset.Set.Equal)
	if !e.Certain {
		e.Doubts = a.Doubts(w)
	}
	return e
}

// nameOf is what a person calls addresses that an interface may bring.
func nameOf(addrs, all netset.Set, sets map[string]netset.Set) string {
	if addrs.Equal(all) {
		return "any"
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		if sets[name].Intersect(all).Equal(addrs) {
			return name
		}
	}
	return ""
}

// merge makes one of endpoints that differ in nothing but which of the host's addresses was dialled, where all were.
func merge(all []Endpoint, bound netip.Addr, addresses int) []Endpoint {
	if !bound.IsUnspecified() {
		return all
	}
	var merged []Endpoint
	for len(all) > 0 {
		first := all[0]
		same, others := 0, []Endpoint(nil)
		for _, e := range all {
			if e.like(first) {
				same++
			} else {
				others = append(others, e)
			}
		}
		if same == addresses {
			first.Addr = bound
			merged, all = append(merged, first), others
		} else {
			merged, all = append(merged, first), all[1:]
		}
	}
	return merged
}

// like tells whether two endpoints are the same but for their address.
func (e Endpoint) like(o Endpoint) bool {
	return e.Way.Path == o.Way.Path && e.Owner == o.Owner && e.Certain == o.Certain && (e.Way.Path != ByDNAT || e.Way.To == o.Way.To) &&
		slices.EqualFunc(e.OpenTo, o.OpenTo, func(x, y Opening) bool {
			return strings.Compare(x.Iface, y.Iface) == 0 && x.Name == y.Name && x.Addrs.Equal(y.Addrs)
		})
}
