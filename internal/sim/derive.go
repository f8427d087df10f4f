package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/snapshot"
)

// What is taken where a query leaves it out: a client far away, and a port that a client would have.
const (
	usualPort      = 40000
	usualProxyPort = 40001
)

var usualClients = map[bool]netip.Addr{true: netip.MustParseAddr("198.51.100.77"), false: netip.MustParseAddr("2001:db8:ffff::77")}

// derived is a query filled in.
type derived struct {
	pk        pkt
	in        string // "" for what the host itself sends
	port      string // of a bridge
	container *snapshot.Container
	within    bool              // it never leaves the container
	aside     *inventory.Unseen // a network whose packets pass by this host, from or to a container of it
	cannot    string            // why it is never sent, a sentence without a full stop
	taken     netip.Addr        // an address that is taken for this host's
	assumed   []string
}

func (d *derived) assume(format string, args ...any) {
	d.assumed = append(d.assumed, fmt.Sprintf(format, args...))
}

// zone is the interface that a packet of the host's to an address of a link, or to a group, leaves by, where the query says it.
func (d *derived) zone(p *pkt) string {
	if d.in == "" && p.dst.Is6() && (p.dst.IsLinkLocalUnicast() || p.dst.IsMulticast()) && p.dst == d.pk.dst {
		return d.pk.out
	}
	return ""
}

// derive fills in what a query leaves out.
func (s *Sim) derive(q packet.Query) (derived, error) {
	d := derived{pk: pkt{proto: q.Proto, icmpType: q.ICMPType, icmpCode: q.ICMPCode, flags: q.Flags, family: nfIPv6, state: q.State,
		socket: q.Socket}, in: q.In}
	d.pk.tuple = tuple{q.Src.WithZone(""), q.Dst.WithZone(""), q.SrcPort, q.DstPort}
	if q.Dst.Is4() {
		d.pk.family = nfIPv4
	}
	if hasPorts(q.Proto) && q.SrcPort == 0 {
		d.pk.sport = usualPort
	}
	switch zone := q.Src.Zone(); {
	case q.Container != "":
		err := s.fromContainer(&d, q.Container)
		return d, err
	case q.FromHost:
		d.pk.out = q.Dst.Zone()
		s.fromHost(&d)
		return d, nil
	case q.In == "" && zone != "":
		d.in = zone
	}
	s.fromOutside(&d)
	d.aside = s.unseenBy(s.containerAt(d.pk.dst), d.in)
	s.port(&d)
	return d, nil
}

// fromHost finds the source that the host would send by.
func (s *Sim) fromHost(d *derived) {
	d.in = ""
	if !d.pk.src.IsValid() {
		d.pk.src = s.net.ownSource(d.pk.dst, d.pk.out)
	}
	if !d.pk.src.IsValid() {
		d.pk.src = unspecified(d.pk.dst)
		if s.host.Has(snapshot.PartAddrs) && !s.net.blind {
			d.cannot = fmt.Sprintf("this host has no address to send to %s from", d.pk.dst)
		} else {
			d.assume("the host's addresses are not known: its source is not known either")
		}
	}
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// ownSource is the address that the host sends to a destination from.
func (n *network) ownSource(dst netip.Addr, dev string) netip.Addr {
	if dst.IsLoopback() || n.addrType(dst, "") == typeLocal {
		return dst
	}
	q := asked{dst: dst, out: dev}
	r, kind := n.route(&q)
	if kind == noRoute || kind > typeMulticast {
		return netip.Addr{}
	}
	if r.Src.IsValid() && r.Src.Is4() == dst.Is4() {
		return r.Src
	}
	if a := n.sourceFor(r.Dev, dst); a.IsValid() {
		return a
	}
	for _, i := range n.host.Inventory.Interfaces {
		for _, p := range i.Addrs {
			if a := p.Addr(); a.Is4() == dst.Is4() && !a.IsLoopback() && !(a.Is6() && a.IsLinkLocalUnicast()) {
				return a
			}
		}
	}
	return netip.Addr{}
}

// fromOutside finds the interface and the source of a packet that comes in.
func (s *Sim) fromOutside(d *derived) {
	n := s.net
	is4 := d.pk.dst.Is4()
	if n.blind {
		s.fromUnknown(d)
		return
	}
	if d.pk.src.IsValid() {
		if d.in == "" {
			d.in = s.cameBy(d)
		}
		return
	}
	if d.in == "" {
		d.in = s.outsideIface(is4, d.pk.dst)
	}
	d.pk.src = s.client(d.in, d.pk.dst)
	d.assume("the packet is taken to come from %s by %s", d.pk.src, ifaceName(d.in))
}

// cameBy is the interface that routes lead to the source by; "" where the source is the host itself.
func (s *Sim) cameBy(d *derived) string {
	if s.net.addrType(d.pk.src, "") == typeLocal {
		return ""
	}
	r, kind := s.net.route(&asked{dst: d.pk.src})
	if kind == typeUnicast && r.Dev != "" {
		return r.Dev
	}
	in := s.outsideIface(d.pk.dst.Is4(), d.pk.dst)
	d.assume("no route leads to %s; it is taken to come in by %s", d.pk.src, ifaceName(in))
	return in
}

// outsideIface is where strangers come in: where the default route leads, else the first interface of the family.
func (s *Sim) outsideIface(is4 bool, dst netip.Addr) string {
	if dst.Is6() && dst.IsLinkLocalUnicast() {
		for _, i := range s.host.Inventory.Interfaces {
			if s.net.has(i.Name, dst) {
				return i.Name
			}
		}
	}
	r, kind := s.net.route(&asked{dst: usualClients[is4]})
	if kind == typeUnicast && r.Dev != "" {
		return r.Dev
	}
	for _, i := range s.host.Inventory.Interfaces {
		isOurs := slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
		if isOurs && !s.net.isInside(i.Name) && i.Master == "" {
			return i.Name
		}
	}
	return outside
}

// client is an address that may come in by an interface: one far away where the default route leads there, else a
// neighbour.
func (s *Sim) client(in string, dst netip.Addr) netip.Addr {
	far := usualClients[dst.Is4()]
	linkLocal := dst.Is6() && dst.IsLinkLocalUnicast()
	if r, kind := s.net.route(&asked{dst: far}); kind == typeUnicast && r.Dev == in && !linkLocal {
		return far
	}
	if i := s.net.ifaces[in]; i != nil {
		for _, p := range i.Addrs {
			if p.Addr().Is4() == dst.Is4() && (p.Addr().Is4() || p.Addr().IsLinkLocalUnicast() == linkLocal) && p.Bits() < p.Addr().BitLen() {
				return neighbour(p)
			}
		}
	}
	return far
}

// neighbour is another address of an interface's network.
func neighbour(p netip.Prefix) netip.Addr {
	if next := p.Addr().Next(); p.Contains(next) && p.Masked().Contains(next.Next()) {
		return next
	}
	return p.Addr().Prev()
}

// fromUnknown fills in a query to a host of which the rules alone are known.
func (s *Sim) fromUnknown(d *derived) {
	r, kind := s.net.route(&asked{dst: d.pk.src})
	if d.in == "" && d.pk.src.IsValid() && kind == typeUnicast {
		d.in = r.Dev
	}
	if d.in == "" {
		d.in = outside
		d.assume("the packet is taken to come in by an interface that is none of Docker's")
	}
	if !d.pk.src.IsValid() {
		d.pk.src = usualClients[d.pk.dst.Is4()]
		d.assume("the packet is taken to come from %s", d.pk.src)
	}
	_, kind = s.net.route(&asked{dst: d.pk.dst})
	if kind == noRoute && !s.net.isInside(d.in) {
		d.taken = d.pk.dst
		d.assume("the host's addresses are not known: %s is taken for one of them", d.pk.dst)
	}
}

// port is the port of the bridge that the packet comes in by.
func (s *Sim) port(d *derived) {
	i := s.net.ifaces[d.in]
	if i != nil && i.Master != "" && s.net.isBridge(i.Master) {
		d.in, d.port = i.Master, d.in
		return
	}
	if !s.net.isBridge(d.in) {
		return
	}
	ports := 0
	for _, x := range s.host.Inventory.Interfaces {
		if x.Master == d.in {
			d.port = x.Name
			ports++
		}
	}
	if ports != 1 {
		d.port = outside
	}
}

// fromContainer finds a container's address and the bridge that it is on.
func (s *Sim) fromContainer(d *derived, name string) error {
	c := s.container(name)
	if c == nil {
		return s.noContainer(name)
	}
	if other, ok := strings.CutPrefix(c.Mode, "container:"); ok {
		if c = s.container(other); c == nil {
			return fmt.Errorf("container %s shares the network of container %s, which is not known", name, other)
		}
	}
	d.container = c
	if c.Mode == "host" {
		s.fromHost(d)
		return nil
	}
	if d.pk.dst.IsLoopback() || s.containerAt(d.pk.dst) == c {
		d.within = true
		if !d.pk.src.IsValid() {
			d.pk.src = d.pk.dst
		}
		return nil
	}
	bridge, addr, leads := s.endpointFor(c, d.pk.dst)
	if !s.host.Has(snapshot.PartNetworks) && s.isTorn(c, d.pk.dst) {
		return fmt.Errorf("container %s is in several networks, and which of them leads out isn't known without Docker's list of them; write the packet's source and in BRIDGE instead", name)
	}
	d.in = bridge
	if !d.pk.src.IsValid() {
		d.pk.src = addr
	}
	switch {
	case bridge == "" && s.unseenBy(c, "") != nil:
		s.fromAside(d, c)
	case bridge == "" && !s.host.Has(snapshot.PartNetworks):
		return fmt.Errorf("container %s: the networks are not known, nor an interface that has its addresses; write the packet's source and in IFACE instead", name)
	case bridge == "":
		d.cannot = fmt.Sprintf("container %s is on no bridge of this host, and its packets don't pass its rules", c.Name)
	case !d.pk.src.IsValid():
		d.cannot = fmt.Sprintf("container %s has no %s address, and can't send there", c.Name, familyName(d.pk.family))
		d.pk.src = unspecified(d.pk.dst)
	case !leads:
		d.cannot = fmt.Sprintf("container %s has no route to %s: none of its networks leads out", c.Name, d.pk.dst)
	}
	s.port(d)
	return nil
}

// unseenBy is the network by which a container has an interface of its own on the link of an interface, or with "" of any; nil
// for none.
func (s *Sim) unseenBy(c *snapshot.Container, parent string) *inventory.Unseen {
	if c == nil {
		return nil
	}
	for i, u := range s.host.Inventory.Unseen {
		if (parent == "" || u.Parent == parent) && slices.ContainsFunc(c.Networks, func(e snapshot.Endpoint) bool { return e.Network == u.Name }) {
			return &s.host.Inventory.Unseen[i]
		}
	}
	return nil
}

// fromAside has a container send by an interface of its own. The kernel keeps that apart from its parent, the host's.
func (s *Sim) fromAside(d *derived, c *snapshot.Container) {
	d.aside = s.unseenBy(c, "")
	d.in = d.aside.Parent
	i := slices.IndexFunc(c.Networks, func(e snapshot.Endpoint) bool { return e.Network == d.aside.Name })
	e := c.Networks[i]
	if !d.pk.src.IsValid() {
		d.pk.src = ofFamily(e.Addrs, d.pk.dst)
	}
	gateway := ofFamily(e.Gateways, d.pk.dst)
	switch parent := s.net.ifaces[d.in]; {
	case !d.pk.src.IsValid():
		d.cannot = fmt.Sprintf("container %s has no %s address, and can't send there", c.Name, familyName(d.pk.family))
		d.pk.src = unspecified(d.pk.dst)
	case s.net.addrType(d.pk.dst, "") == typeLocal:
		d.cannot = fmt.Sprintf("container %s and this host share %s, and the kernel keeps the two apart", c.Name, d.in)
	case parent != nil && slices.ContainsFunc(parent.Addrs, func(p netip.Prefix) bool { return p.Contains(d.pk.dst) }):
	case e.Gateways != nil && !gateway.IsValid():
		d.cannot = fmt.Sprintf("container %s has no route to %s: network %s has no gateway", c.Name, d.pk.dst, e.Network)
	case gateway.IsValid() && s.net.addrType(gateway, "") == typeLocal:
		d.cannot = fmt.Sprintf("container %s has this host for its gateway, and shares %s with it: the kernel keeps the two apart", c.Name, d.in)
	}
}

func familyName(family uint8) string {
	if family == nfIPv4 {
		return "IPv4"
	}
	return "IPv6"
}

func (s *Sim) noContainer(name string) error {
	if !s.host.Has(snapshot.PartContainers) {
		return fmt.Errorf("container %s: the containers are not known; write the packet's source and in BRIDGE instead", name)
	}
	return fmt.Errorf("there is no container %s", name)
}

// container finds a container by its name or its ID, of which the beginning will do.
func (s *Sim) container(name string) *snapshot.Container {
	for i, c := range s.host.Containers {
		if c.Name == name || c.ID == name || len(name) >= 12 && strings.HasPrefix(c.ID, name) {
			return &s.host.Containers[i]
		}
	}
	return nil
}

// endpointFor is the bridge that a container would send to a destination by, and its address there: of the network that the
// destination is in, else of the first that isn't internal. leads tells whether there is a way there at all.
func (s *Sim) endpointFor(c *snapshot.Container, dst netip.Addr) (bridge string, addr netip.Addr, leads bool) {
	better := -1
	for _, e := range c.Networks {
		n, ok := s.host.Inventory.Network(e.Network)
		if !ok {
			continue
		}
		a := ofFamily(e.Addrs, dst)
		rank := rankOf(n, e, a, dst)
		if rank > better {
			better, bridge, addr = rank, n.Bridge, a
		}
	}
	return bridge, addr, better != nowhere
}

// isTorn tells whether several of a container's networks might lead to an address.
func (s *Sim) isTorn(c *snapshot.Container, dst netip.Addr) bool {
	ways := 0
	for _, e := range c.Networks {
		n, _ := s.host.Inventory.Network(e.Network)
		switch rankOf(n, e, ofFamily(e.Addrs, dst), dst) {
		case near:
			return false
		case internal, outward:
			ways++
		}
	}
	return ways > 1
}

// Ranks of a container's networks on the way to an address.
const (
	alien    = iota // it has no address of that family there
	nowhere         // nothing but the network's own addresses is behind it
	internal        // a way out, of an internal network
	outward
	near // the address is in it
)

func rankOf(n inventory.Network, e snapshot.Endpoint, a, dst netip.Addr) int {
	switch {
	case !a.IsValid():
		return alien
	case slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(dst) }):
		return near
	case e.Gateways != nil && !ofFamily(e.Gateways, dst).IsValid():
		return nowhere
	case n.Internal:
		return internal
	}
	return outward
}

func ofFamily(addrs []netip.Addr, like netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}
