package guard

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quaywall/internal/watch/sockets"
)

const (
	protoTCP = unix.IPPROTO_TCP
	protoUDP = unix.IPPROTO_UDP
)

// interfacesOf are the interfaces by which a connection's packets come in: where the socket isn't bound to one, the one
// that routes lead to the peer by and the one that has the local address, which differ where ways there and back do. From
// a container there is one way.
func (f *finder) interfacesOf(s sockets.Socket) []string {
	if s.Iface != 0 {
		if i, err := netlink.LinkByIndex(s.Iface); err == nil {
			return []string{i.Attrs().Name}
		}
	}
	var names []string
	// Each interface has a route for link-local addresses: which of them is taken says nothing.
	if name := routeTo(s.Remote.Addr(), s.Local.Addr()); name != "" && !s.Remote.Addr().IsLinkLocalUnicast() {
		if f.inv.IsDockerBridge(name) {
			return []string{name}
		}
		names = append(names, name)
	}
	for _, name := range f.locals[s.Local.Addr()] {
		if name != "lo" && !slices.Contains(names, name) { // an address kept on lo is reached by other interfaces
			names = append(names, name)
		}
	}
	return names
}

// routeTo is the interface by which packets for a peer leave, from a local address where one is given; "" where there is no
// route.
func routeTo(peer, local netip.Addr) string {
	routes, err := netlink.RouteGetWithOptions(peer.AsSlice(), &netlink.RouteGetOptions{SrcAddr: local.AsSlice()}) // of no address: nil
	if err != nil || len(routes) == 0 {
		return ""
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}
