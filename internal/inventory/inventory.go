// Package inventory is what a host has at one moment, in no library's types: interfaces, addresses, Docker networks
// and published ports.
//
// Be aware: it is a snapshot and never changes; a new one is made instead. It holds nothing of a container's
// environment or command line.
package inventory

import (
	"net/netip"
	"slices"
	"strings"
)

// Inventory is a host at one moment. The zero value is a host of which nothing is known: no Docker, no interfaces.
type Inventory struct {
	Docker     Docker
	Interfaces []Interface // sorted by name
	Networks   []Network   // Docker's networks that have a bridge here, sorted by name
	Published  []Published // sorted by protocol, port, address
	Unseen     []Unseen    // sorted by name
	Shared     []Shared    // sorted by name; none of them is among Networks
}

// Docker is what is known of the engine.
type Docker struct {
	Reachable bool   `json:"reachable"`         // its API answered; without it Networks come from interface names and Published is empty
	Version   string `json:"version,omitempty"` // "20.10.24"; "" where it did not answer
	Problem   string `json:"problem,omitempty"` // why it did not answer, a sentence for a person; "" where it did, or where there is no Docker
}

// Interface is a network interface of the host.
type Interface struct {
	Name   string
	Index  int
	Kind   string // "bridge", "veth", "vlan", "vrf", "wireguard", … as the kernel calls it; "" for plain devices
	Master string // the bridge, bond or VRF it is a port of
	Parent string // of a VLAN: the interface that carries it
	Up     bool
	Addrs  []netip.Prefix // with host bits: the address and the length of its network
}

// Network is a Docker network with a bridge on this host.
type Network struct {
	Name     string         `json:"name"` // Docker's name; the bridge's where Docker did not answer
	ID       string         `json:"id,omitempty"`
	Bridge   string         `json:"bridge"` // name of the bridge interface
	Subnets  []netip.Prefix `json:"subnets,omitempty"`
	Internal bool           `json:"internal,omitempty"`
	// NoMasquerade is the option that lets containers keep their own addresses on the way out.
	NoMasquerade bool `json:"no_masquerade,omitempty"`
	// Gateway modes of IPv4 and IPv6 (Docker 27.0 and newer): "nat", "nat-unprotected", "routed", "isolated"; "" is nat.
	Mode4 string `json:"mode4,omitempty"`
	Mode6 string `json:"mode6,omitempty"`
}

// Published is a port that Docker publishes on the host.
type Published struct {
	Addr      netip.Addr // host address; unspecified for all of its family
	Proto     uint8      // IP protocol number: TCP, UDP or SCTP
	Port      uint16     // port that a client dials
	Container string     // name without the leading slash
	Networks  []string   // Docker networks that the container is in, sorted
	Target    uint16     // port inside of the container
}

// Unseen is a Docker network whose packets pass by the host's rules: its containers have interfaces of their own on the
// network that Parent is in.
type Unseen struct {
	Name   string
	Driver string // "macvlan" or "ipvlan"
	Parent string // an interface of this host
}

// Shared is a Docker network whose bridge others than containers are on as well, through Port: what comes in by it may come
// from anywhere.
type Shared struct {
	Name   string
	Bridge string
	Port   string // an interface of this host
}

// Bridges are the names of all Docker bridges, sorted.
func (inv *Inventory) Bridges() []string {
	names := make([]string, 0, len(inv.Networks))
	for _, n := range inv.Networks {
		names = append(names, n.Bridge)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Network finds a Docker network by its name.
func (inv *Inventory) Network(name string) (Network, bool) {
	for _, n := range inv.Networks {
		if n.Name == name {
			return n, true
		}
	}
	return Network{}, false
}

// Remembering is the inventory with networks that were there before, for a time in which Docker doesn't answer: they come back
// with it, under the same bridges. What was made of the name of such a bridge alone, they replace.
func (inv *Inventory) Remembering(before []Network) *Inventory {
	if inv.Docker.Reachable || len(before) == 0 {
		return inv
	}
	with := *inv
	with.Networks = slices.DeleteFunc(slices.Clone(before), func(n Network) bool { return inv.IsShared(n.Bridge) })
	for _, n := range inv.Networks {
		if !slices.ContainsFunc(before, func(b Network) bool { return b.Bridge == n.Bridge }) {
			with.Networks = append(with.Networks, n)
		}
	}
	slices.SortStableFunc(with.Networks, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return &with
}

// IsDockerBridge tells whether an interface is a bridge of Docker's with nobody but containers on it, for all that is known:
// one that has a network, or a name as Docker gives it.
func (inv *Inventory) IsDockerBridge(name string) bool {
	is := func(n Network) bool { return n.Bridge == name }
	return !inv.IsShared(name) && (IsDockerBridgeName(name) || slices.ContainsFunc(inv.Networks, is))
}

// IsShared tells whether an interface is a bridge of Docker's that others than containers are on.
func (inv *Inventory) IsShared(name string) bool {
	return slices.ContainsFunc(inv.Shared, func(s Shared) bool { return s.Bridge == name })
}

// IsDockerBridgeName tells whether Docker itself names bridges like that: docker0, docker_gwbridge, or br- and twelve
// hex digits. A bridge named by the option com.docker.network.bridge.name is known only from the API.
func IsDockerBridgeName(name string) bool {
	if name == "docker0" || name == "docker_gwbridge" {
		return true
	}
	digits, ok := strings.CutPrefix(name, "br-")
	return ok && len(digits) == 12 && strings.Trim(digits, "0123456789abcdef") == ""
}
