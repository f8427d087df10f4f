package eval

import (
	"net/netip"

	"go4.org/netipx"

	"quaywall/internal/inventory"
)

// host answers what an address or an interface is to this host.
type host struct {
	inv *inventory.Inventory
	in  string // the interface that the packet comes in by, "" for one of the host's own
}

// isLocal tells whether an address is assigned to an interface here, or is a loopback address.
func (h host) isLocal(a netip.Addr) bool {
	return a.IsLoopback() || h.anyPrefix(func(p netip.Prefix) bool { return p.Addr() == a })
}

// isAnycast tells whether an address is the router anycast address of an IPv6 network here (RFC 4291, 2.6.1). Networks
// of one or two addresses have none.
func (h host) isAnycast(a netip.Addr) bool {
	return h.anyPrefix(func(p netip.Prefix) bool {
		return p.Addr().Is6() && p.Bits() < 127 && p.Masked().Addr() == a
	})
}

// isBroadcast tells whether an address reaches all hosts of an IPv4 network here.
func (h host) isBroadcast(a netip.Addr) bool {
	if a.Is4() && (a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || a.As4()[0] == 0) {
		return true
	}
	return h.anyPrefix(func(p netip.Prefix) bool {
		return p.Addr().Is4() && p.Bits() < 31 && netipx.PrefixLastIP(p) == a
	})
}

// isOwn tells whether an address is this host's alone: local, or an anycast address that it answers.
func (h host) isOwn(a netip.Addr) bool { return h.isLocal(a) || h.isAnycast(a) }

// isDialled tells whether a packet to this address is for this host, be it among others.
func (h host) isDialled(a netip.Addr) bool {
	return h.isOwn(a) || h.isToMany(a)
}

// isToMany tells whether a packet to this address is for others too.
func (h host) isToMany(a netip.Addr) bool { return h.isBroadcast(a) || a.IsMulticast() }

// anyPrefix tells whether one of the host's addresses is so. A link-local one is the host's on its own link alone: on another
// link the same address is another machine's, or nobody's.
func (h host) anyPrefix(is func(netip.Prefix) bool) bool {
	for _, i := range h.inv.Interfaces {
		for _, p := range i.Addrs {
			far := h.in != "" && h.in != i.Name && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()
			if !far && is(netip.PrefixFrom(p.Addr().WithZone(""), p.Bits())) {
				return true
			}
		}
	}
	return false
}

// isBridge tells whether an interface is a Docker bridge. Docker's two fixed names are, whether or not they exist. None is
// that leads to others than containers too.
func (h host) isBridge(name string) bool {
	for _, s := range h.inv.Shared {
		if s.Bridge == name {
			return false
		}
	}
	if name == "docker0" || name == "docker_gwbridge" {
		return true
	}
	for _, n := range h.inv.Networks {
		if n.Bridge == name && name != "" {
			return true
		}
	}
	return false
}

// isBridgeOf tells whether an interface is the bridge of one of these networks.
func (h host) isBridgeOf(name string, networks []string) bool {
	for _, n := range h.inv.Networks {
		if n.Bridge == name && overlap([]string{n.Name}, networks) {
			return true
		}
	}
	return false
}

// isUnclear tells whether one of these networks may have any bridge, for all that is known.
func (h host) isUnclear(networks []string) bool {
	for _, name := range networks {
		if _, known := h.inv.Network(name); !known && !h.inv.Docker.Reachable {
			return true
		}
	}
	return false
}

// isContainer tells whether an address is a container's own: in a subnet of Docker's, and not this host's.
func (h host) isContainer(a netip.Addr) bool {
	return !h.isDialled(a) && len(h.networksOf(a)) > 0
}

// networksOf are the Docker networks that an address is in.
func (h host) networksOf(a netip.Addr) []inventory.Network {
	var in []inventory.Network
	for _, n := range h.inv.Networks {
		for _, s := range n.Subnets {
			if s.Contains(a) {
				in = append(in, n)
				break
			}
		}
	}
	return in
}
