package collect

import (
	"cmp"
	"net/netip"
	"slices"

	"quaywall/internal/inventory"
	"quaywall/internal/snapshot"
)

// Types of routes (RTN_* of rtnetlink).
const (
	unicast = 1
	local   = 2
)

// guessAddrs gives interfaces the addresses that the routes tell of: the kernel has a route of type local for each, and one to
// the network that it is in. An interface that only routes name is added.
func guessAddrs(interfaces []inventory.Interface, routes []snapshot.Route) []inventory.Interface {
	for _, r := range routes {
		if r.Dev == "" || r.Type != local || r.Table != "local" {
			continue
		}
		i := slices.IndexFunc(interfaces, func(i inventory.Interface) bool { return i.Name == r.Dev })
		if i < 0 {
			i = len(interfaces)
			interfaces = append(interfaces, inventory.Interface{Name: r.Dev, Up: true})
		}
		a := r.Src
		if !a.IsValid() {
			a = r.Dst.Addr()
		}
		known := slices.ContainsFunc(interfaces[i].Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
		if !known && (r.Dst.IsSingleIP() || a != r.Dst.Addr()) {
			interfaces[i].Addrs = append(interfaces[i].Addrs, netip.PrefixFrom(a, min(r.Dst.Bits(), lengthOf(a, r.Dev, routes))))
		}
	}
	slices.SortStableFunc(interfaces, func(a, b inventory.Interface) int { return cmp.Compare(a.Name, b.Name) })
	return interfaces
}

// lengthOf is that of the network which an address of an interface is in: of the shortest route to neighbours that holds it.
func lengthOf(a netip.Addr, dev string, routes []snapshot.Route) int {
	length := a.BitLen()
	for _, r := range routes {
		isNear := r.Type == unicast && r.Dev == dev && !r.Via.IsValid() && r.Dst.Bits() > 0
		if isNear && r.Dst.Contains(a) && (!r.Src.IsValid() || r.Src == a) {
			length = min(length, r.Dst.Bits())
		}
	}
	return length
}

// guessNetworks are the networks that containers are in, where Docker's list of them isn't there: each is behind the bridge
// that its addresses belong to.
func guessNetworks(interfaces []inventory.Interface, containers []snapshot.Container) []inventory.Network {
	var all []inventory.Network
	for _, c := range containers {
		for _, e := range c.Networks {
			if slices.ContainsFunc(all, func(n inventory.Network) bool { return n.Name == e.Network }) {
				continue
			}
			for _, i := range interfaces {
				if leadsTo(i, e) {
					all = append(all, networkOf(e.Network, i))
					break
				}
			}
		}
	}
	return all
}

// leadsTo tells whether an interface is the bridge that an endpoint is on. One of an unknown kind is, if it has the gateway's
// address.
func leadsTo(i inventory.Interface, e snapshot.Endpoint) bool {
	return slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool {
		near := slices.ContainsFunc(e.Addrs, p.Contains)
		return near && (i.Kind == bridge || i.Kind == "" && (slices.Contains(e.Gateways, p.Addr()) || inventory.IsDockerBridgeName(i.Name)))
	})
}

const bridge = "bridge"

func networkOf(name string, i inventory.Interface) inventory.Network {
	n := inventory.Network{Name: name, Bridge: i.Name}
	for _, p := range i.Addrs {
		if !p.Addr().IsLinkLocalUnicast() {
			n.Subnets = append(n.Subnets, p.Masked())
		}
	}
	return n
}
