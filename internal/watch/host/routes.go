package host

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/recheck"
)

// Routes are the routes to other hosts, of all tables: which of them a packet takes, rules and marks may decide.
func Routes() ([]recheck.Route, error) {
	links, err := whole("interfaces", netlink.LinkList)
	if err != nil {
		return nil, err
	}
	names := namesOf(links)
	all, err := whole("routes", listRoutes)
	if err != nil {
		return nil, err
	}
	var routes []recheck.Route
	for _, r := range all {
		if r.Type != unix.RTN_UNICAST {
			continue
		}
		to := routePrefix(r)
		if name := names[r.LinkIndex]; name != "" {
			routes = append(routes, recheck.Route{To: to, Iface: name})
		}
		for _, hop := range r.MultiPath {
			if name := names[hop.LinkIndex]; name != "" {
				routes = append(routes, recheck.Route{To: to, Iface: name})
			}
		}
	}
	return routes, nil
}

// listRoutes are the routes of all tables.
func listRoutes() ([]netlink.Route, error) {
	filter := netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	return netlink.RouteListFiltered(netlink.FAMILY_ALL, &filter, netlink.RT_FILTER_TABLE)
}

// routePrefix is where a route leads to; the library gives a default route no destination in some versions.
func routePrefix(r netlink.Route) netip.Prefix {
	if p, ok := prefix(r.Dst); ok {
		return p.Masked()
	}
	if r.Family == netlink.FAMILY_V6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}
