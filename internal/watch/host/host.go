// Package host reads what a host's network looks like now: interfaces and addresses, and Docker's bridges as far as
// their names give them away.
//
//	links, err := host.Interfaces()
//	networks := host.Networks(links)
//
// Be aware: what is read belongs to the network namespace of the calling operating system thread. Networks is a guess
// for when Docker's API does not answer: a bridge that the option com.docker.network.bridge.name named is missing, and
// names and ids are those of the bridges.
package host

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"quaywall/internal/inventory"
)

// attempts bounds how often a listing is asked for that the kernel says changed while it was written.
const attempts = 5

// Interfaces are the network interfaces, sorted by name.
func Interfaces() ([]inventory.Interface, error) {
	links, addrs, err := linksAndAddrs()
	if err != nil {
		return nil, err
	}
	return interfaces(links, addrs), nil
}

func linksAndAddrs() ([]netlink.Link, []netlink.Addr, error) {
	links, err := whole("interfaces", netlink.LinkList)
	if err != nil {
		return nil, nil, err
	}
	addrs, err := whole("addresses", func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	return links, addrs, err
}

// whole asks until the answer is consistent.
func whole[T any](what string, list func() ([]T, error)) ([]T, error) {
	var err error
	for range attempts {
		var all []T
		if all, err = list(); err == nil {
			return all, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return nil, fmt.Errorf("listing the host's %s by netlink: %w", what, err)
}

func interfaces(links []netlink.Link, addrs []netlink.Addr) []inventory.Interface {
	names := namesOf(links)
	prefixes := make(map[int][]netip.Prefix, len(links))
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok {
			prefixes[a.LinkIndex] = append(prefixes[a.LinkIndex], p)
		}
	}
	all := make([]inventory.Interface, 0, len(links))
	for _, l := range links {
		all = append(all, oneInterface(l, names, prefixes[l.Attrs().Index]))
	}
	slices.SortFunc(all, func(a, b inventory.Interface) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func oneInterface(l netlink.Link, names map[int]string, addrs []netip.Prefix) inventory.Interface {
	a := l.Attrs()
	slices.SortFunc(addrs, comparePrefix)
	return inventory.Interface{
		Name: a.Name, Index: a.Index, Kind: kind(l), Master: names[a.MasterIndex], Parent: parent(l, names),
		Up: a.Flags&net.FlagUp != 0, Addrs: addrs,
	}
}

// parent is the interface that carries a VLAN. Other kinds use the attribute for other things: a veth for its peer,
// whose index may be one of another namespace.
func parent(l netlink.Link, names map[int]string) string {
	if l.Type() != "vlan" {
		return ""
	}
	return names[l.Attrs().ParentIndex]
}

// kind is IFLA_INFO_KIND. The library calls an interface without one "device".
func kind(l netlink.Link) string {
	switch t := l.Type(); t {
	case "device":
		return ""
	case "tuntap": // the library's word for what the kernel calls tun, be it tun or tap
		return "tun"
	default:
		return t
	}
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr.Unmap(), bits), true
}

// Networks are the Docker networks that the names of bridges give away, sorted by name. Their subnets are those of the
// bridges' addresses, link-local ones left out.
func Networks(links []inventory.Interface) []inventory.Network {
	var all []inventory.Network
	for _, l := range links {
		if l.Kind == "bridge" && inventory.IsDockerBridgeName(l.Name) {
			all = append(all, inventory.Network{Name: l.Name, Bridge: l.Name, Subnets: subnets(l.Addrs)})
		}
	}
	return all
}

func subnets(addrs []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addrs {
		if !a.Addr().IsLinkLocalUnicast() {
			all = append(all, a.Masked())
		}
	}
	return slices.Compact(all)
}

// comparePrefix orders by address, then by length.
func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
