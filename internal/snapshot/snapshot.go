// Package snapshot is everything about one host's packets at one moment: its rules, interfaces, routes, sockets, and what
// Docker says.
//
// Package collect reads a snapshot from a folder that another host's "quaywall snapshot" or ordinary tools wrote, or takes one
// of this host. Explain, audit, diff and doctor work on it and on nothing else.
//
// Be aware: any part but the rules may be missing. What is missing is named in Missing, with what can't be known without it,
// and is empty here: whoever uses a part asks Has first where empty means something else than unknown.
package snapshot

import (
	"fmt"
	"net/netip"
	"slices"

	"quaywall/internal/diag"
	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
)

// Host is a host at one moment.
type Host struct {
	Rules     netfilter.Rules
	Inventory inventory.Inventory // interfaces, Docker's networks and published ports
	Links     []Link              // more of the interfaces, in the order of Inventory.Interfaces
	Routes    []Route             // of all tables, in the kernel's order
	Policies  []RoutingRule       // routing policy, by priority; never empty: without them they are the kernel's own three
	Sockets   []Socket
	// Sysctls by their names with dots: "net.ipv4.ip_forward". One of an interface with a dot in its name has a slash there,
	// as sysctl writes it.
	Sysctls    map[string]string
	Containers []Container
	Missing    []Missing
	Problems   diag.List // what of the files isn't understood, with its place
}

// Part is a part of a snapshot that may be missing.
type Part string

// The parts.
const (
	PartRules4     Part = "IPv4 rules"
	PartRules6     Part = "IPv6 rules"
	PartNFT        Part = "nf_tables"
	PartSets       Part = "ipset sets"
	PartLinks      Part = "interfaces"
	PartAddrs      Part = "addresses"
	PartRoutes     Part = "routes"
	PartPolicies   Part = "routing rules"
	PartSockets    Part = "sockets"
	PartSysctls    Part = "sysctls"
	PartNetworks   Part = "Docker networks"
	PartContainers Part = "containers"
)

// Missing is a part that is not there, or could not be read whole.
type Missing struct {
	Part Part
	File string // that it would be in
	Why  string // "it is not there", or what could not be read, with its line
	So   string // what is not known for want of it, a sentence
}

// NotThere is why a part is missing whose file isn't there.
const NotThere = "it is not there"

// Absent tells whether a part's file isn't there, rather than can't be read.
func (m Missing) Absent() bool { return m.Why == NotThere }

// String is what isn't known, and why.
func (m Missing) String() string { return fmt.Sprintf("%s (%s: %s)", m.So, m.File, m.Why) }

// Has tells whether a part is there whole.
func (h *Host) Has(p Part) bool {
	for _, m := range h.Missing {
		if m.Part == p {
			return false
		}
	}
	return true
}

// NoDocker is why containers are missing of a host that has no Docker.
const NoDocker = "there is no Docker"

// WithoutDocker tells whether the host is known to have no Docker.
func (h *Host) WithoutDocker() bool {
	return slices.ContainsFunc(h.Missing, func(m Missing) bool { return m.Part == PartContainers && m.Why == NoDocker })
}

// Link is what an inventory leaves out of an interface.
type Link struct {
	Name  string
	MAC   string // "02:42:ac:11:00:02", "" for none
	Peer  int    // of a veth: the index of its other end, in whichever namespace; 0 where it isn't known
	Modes string // of a macvlan, ipvlan or WireGuard interface: what ip -d says of its mode
}

// Route is a route of one of the host's tables.
type Route struct {
	Table  string // "main", "local", "100"
	Type   int    // RTN_UNICAST (1), RTN_LOCAL (2), RTN_BROADCAST (3), RTN_ANYCAST (4), RTN_MULTICAST (5), RTN_BLACKHOLE (6), RTN_UNREACHABLE (7), RTN_PROHIBIT (8), RTN_THROW (9)
	Dst    netip.Prefix
	Via    netip.Addr // zero for none
	Dev    string
	Src    netip.Addr // the source address that it prefers, zero for none
	Metric int
	Down   bool // linkdown, dead
}

// RoutingRule is a rule of the routing policy (ip rule).
type RoutingRule struct {
	Family   netfilter.Family // IPv4 or IPv6
	Priority int
	Not      bool
	From, To netip.Prefix // zero for all
	In, Out  string
	Mark     uint32
	MarkMask uint32 // 0 where the mark doesn't matter
	Proto    uint8  // 0 for any
	SrcPorts [2]uint16
	DstPorts [2]uint16 // first and last, 0 and 0 for any
	Table    string    // that is looked into, "" for the other actions
	Action   string    // "lookup", "blackhole", "unreachable", "prohibit", "goto"
	Goto     int
	// SuppressPrefix: a route found by a prefix of at most this length is passed over; -1 for none.
	SuppressPrefix int
	Unread         string // what of it isn't understood, "" for nothing
}

// Socket is a socket that something may be sent to without having been asked for: one that listens, or a datagram socket.
type Socket struct {
	Proto   uint8      // IP protocol number
	Addr    netip.Addr // unspecified for all of its family
	Both    bool       // an IPv6 socket that takes IPv4 as well
	Port    uint16
	Dev     string // that it is bound to, "" for any
	Process string // "docker-proxy", "" where it isn't known
	PID     int
	// To is where a docker-proxy forwards to, as far as its published port tells; zero for others.
	To        netip.AddrPort
	Container string
	// Idle: Docker itself holds a published port, so that nobody else takes it, and serves nobody there: userland-proxy is off.
	Idle bool
}

// Container is a running container.
type Container struct {
	Name     string // without the leading slash
	ID       string
	Mode     string // network mode: "bridge", "host", "none", "container:ID", a network's name
	Networks []Endpoint
	Exposed  []Port // what its image says that it listens on; nobody promises that it does
}

// Endpoint is a container's place in a network.
type Endpoint struct {
	Network string // Docker's name
	Addrs   []netip.Addr
	MAC     string
	// Gateways are those that lead out of the network, at most one of each family. Empty and not nil, it leads nowhere but to its
	// own addresses; nil where that isn't told.
	Gateways []netip.Addr
}

// Port is a port of a protocol.
type Port struct {
	Proto uint8
	Port  uint16
}
