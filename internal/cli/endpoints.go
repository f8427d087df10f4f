package cli

import (
	"cmp"
	"net/netip"
	"slices"

	"quaywall/internal/exposure"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
	"quaywall/internal/watch/sockets"
)

// endpoints are what can be dialled on this host from outside: published ports, listening sockets, and ping.
func endpoints(inv *inventory.Inventory) ([]exposure.Endpoint, error) {
	socks, err := sockets.List()
	if err != nil {
		return nil, err
	}
	socks = slices.DeleteFunc(socks, func(s sockets.Socket) bool { return !s.Listening || s.Local.Addr().IsLoopback() })
	chosen := sockets.EphemeralPorts()
	socks = slices.DeleteFunc(socks, func(s sockets.Socket) bool { return isClient(s, chosen) })
	owners, _ := sockets.Owners() // one whose process can't be seen is listed as well
	return mergeEndpoints(inv.Published, socks, owners), nil
}

// isClient tells whether a UDP socket is most likely one that sends and waits for answers: somebody holds it, and the
// kernel chose its port. (Sockets of the kernel's own, WireGuard's for one, have no inode.)
func isClient(s sockets.Socket, chosen sockets.PortRange) bool {
	return s.Proto == policy.UDP && s.Inode != 0 && chosen.Contains(s.Local.Port())
}

// mergeEndpoints makes one list of published ports and sockets. docker-proxy's sockets are the published ports' own, and
// two sockets of one owner that differ by family are one endpoint.
func mergeEndpoints(published []inventory.Published, socks []sockets.Socket, owners map[uint64]sockets.Process) []exposure.Endpoint {
	var all []exposure.Endpoint
	for _, p := range published {
		all = append(all, exposure.Endpoint{Proto: p.Proto, Addr: p.Addr, Port: p.Port, Owner: p.Container, Container: true})
	}
	for _, s := range socks {
		taken := func(e exposure.Endpoint) bool {
			return e.Container && e.Proto == s.Proto && e.Port == s.Local.Port() && e.Addr == s.Local.Addr()
		}
		if !slices.ContainsFunc(all, taken) {
			all = append(all, exposure.Endpoint{Proto: s.Proto, Addr: s.Local.Addr().WithZone(""), Port: s.Local.Port(),
				Owner: owners[s.Inode].Name})
		}
	}
	all = append(all, exposure.Endpoint{Proto: policy.ICMP})
	return joinFamilies(all, published)
}

// joinFamilies makes one of endpoints that differ by family alone. An IPv6 wildcard socket takes IPv4 connections too
// unless it says otherwise, and where it says so there is an IPv4 socket beside it.
func joinFamilies(all []exposure.Endpoint, published []inventory.Published) []exposure.Endpoint {
	found := slices.Clone(all)
	for i, e := range found {
		if !e.Addr.IsValid() || !e.Addr.IsUnspecified() {
			continue
		}
		other := e
		other.Addr = netip.IPv4Unspecified()
		if e.Addr.Is4() {
			other.Addr = netip.IPv6Unspecified()
		}
		dual := !e.Container && e.Addr.Is6() && !publishedIPv4(published, e)
		if dual || slices.Contains(found, other) {
			all[i].Addr = netip.Addr{}
		}
	}
	slices.SortFunc(all, compareEndpoints)
	return slices.CompactFunc(all, func(a, b exposure.Endpoint) bool { return a == b })
}

// publishedIPv4 tells whether an IPv6 socket's port is a container's over IPv4.
func publishedIPv4(published []inventory.Published, e exposure.Endpoint) bool {
	return slices.ContainsFunc(published, func(p inventory.Published) bool {
		return p.Addr.Is4() && p.Proto == e.Proto && p.Port == e.Port
	})
}

// compareEndpoints sorts by protocol and port, ping last.
func compareEndpoints(a, b exposure.Endpoint) int {
	rank := func(e exposure.Endpoint) int {
		if e.Proto == policy.ICMP {
			return 256
		}
		return int(e.Proto)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Port, b.Port), a.Addr.Compare(b.Addr), cmp.Compare(a.Owner, b.Owner))
}
