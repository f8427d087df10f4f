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
// that routes lead to the peer by and the one that has the local address, which differ where ways there and back do.
func (f finder) interfacesOf(s sockets.Socket) []string {
	if s.Iface != 0 {
		if i, err := netlink.LinkByIndex(s.Iface); err == nil {
			return []string{i.Attrs().Name}
		}
	}
	var names []string
	if name := routeTo(s.Remote.Addr(), s.Local.Addr()); name != "" {
		names = append(names, name)
	}
	for _, name := range f.locals[s.Local.Addr()] {
		if name != "lo" && !slices.Contains(names, name) { // an address kept on lo is reached by other interfaces
			names = append(names, name)
		}
	}
	return names
}

// routeTo is the interface by which packets for a peer leave; "" where there is no route.
func routeTo(peer, local netip.Addr) string {
	routes, err := netlink.RouteGetWithOptions(peer.AsSlice(), &netlink.RouteGetOptions{SrcAddr: local.AsSlice()})
	if err != nil || len(routes) == 0 {
		return ""
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}
