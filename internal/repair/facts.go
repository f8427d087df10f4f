package repair

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/inventory"
	"quaywall/internal/policy"
)

// Facts are what Docker says of its networks and containers, as far as its rules depend on it.
type Facts struct {
	Networks  []inventory.Network
	Published []inventory.Published
	Addrs     map[string][]netip.Addr // the addresses of each running container, by its name
	// Others are interfaces that are here and no bridges of Networks', and the bridges of networks that the engine lists and
	// that are not here: what is about them is not gone.
	Others []inventory.Interface
}

// network finds the network of a bridge.
func (f Facts) network(bridge string) bool {
	return slices.ContainsFunc(f.Networks, func(n inventory.Network) bool { return n.Bridge == bridge })
}

// runs tells whether a running container has an address.
func (f Facts) runs(a netip.Addr) bool {
	for _, addrs := range f.Addrs {
		if slices.Contains(addrs, a) {
			return true
		}
	}
	return false
}

// publishes tells whether a container with an address publishes a port of its own, by a port of the host; 0 is any.
func (f Facts) publishes(a netip.Addr, proto string, inner, outer uint16) bool {
	return slices.ContainsFunc(f.Published, func(p inventory.Published) bool {
		return protoNames[p.Proto] == proto && p.Target == inner && (outer == 0 || p.Port == outer) && slices.Contains(f.Addrs[p.Container], a)
	})
}

var protoNames = map[uint8]string{policy.TCP: "tcp", policy.UDP: "udp", policy.SCTP: "sctp"}

// isOurs tells whether a rule of a built-in chain is one that this engine writes.
func (f Facts) isOurs(table, chain string, r rule) bool {
	at := table + " " + chain
	switch {
	case r.strange || r.target == "":
		return false
	case isDockers(r.target):
		return at == "filter FORWARD" || at == "nat PREROUTING" || at == "nat OUTPUT"
	case at == "nat POSTROUTING" && (r.target == "MASQUERADE" || r.target == "SNAT"):
		return f.isHairpin(r) || (r.src != "" || r.srcType == "LOCAL") && f.namesBridges(r)
	case at == "filter FORWARD" && (r.target == "ACCEPT" || r.target == "DROP"):
		return r.src+r.dst+r.proto == "" && (r.state == "" || r.state == "RELATED,ESTABLISHED") && f.namesBridges(r)
	case at == "raw PREROUTING" && r.target == "DROP":
		return r.dst != "" && (f.isLoopbackPort(r) || f.namesBridges(r))
	}
	return false
}

// isHairpin tells whether a rule is about what a container dials of itself by a port of the host.
func (f Facts) isHairpin(r rule) bool {
	p, ok := parsePrefix(r.src)
	return ok && r.src == r.dst && r.dport != "" && p.IsSingleIP() && f.inSubnet(p.Addr())
}

// isLoopbackPort tells whether a rule keeps others out of a port that is published on this host's loopback address.
func (f Facts) isLoopbackPort(r rule) bool {
	p, ok := parsePrefix(r.dst)
	return ok && r.in == "!lo" && slices.ContainsFunc(f.Published, func(o inventory.Published) bool {
		return o.Addr == p.Addr() && protoNames[o.Proto] == r.proto && fmt.Sprint(o.Port) == r.dport
	})
}

// namesBridges tells whether a rule names interfaces, and nothing but the engine's bridges.
func (f Facts) namesBridges(r rule) bool {
	names := r.bridges()
	return len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return !f.network(n) })
}

// isCurrent tells whether a rule of Docker's is about networks and containers that are there.
func (f Facts) isCurrent(r rule) bool {
	for _, name := range r.bridges() {
		if name != "lo" && !f.network(name) {
			return false
		}
	}
	if r.to != "" {
		return f.leadsToPublished(r)
	}
	for _, p := range r.prefixes() {
		if !f.isThere(p, r) {
			return false
		}
	}
	return true
}

// isStale tells whether a rule that was this engine's is about a network or a container that is gone. One of which that
// can't be told, or that somebody else's may be by now, is neither current nor stale: it is left where it is, and not put
// back.
func (f Facts) isStale(r rule) bool {
	if f.mayBeOthers(r) {
		return false
	}
	if slices.ContainsFunc(r.bridges(), func(name string) bool { return name != "lo" && !f.network(name) }) {
		return true
	}
	if r.to != "" {
		return !f.leadsToPublished(r)
	}
	return slices.ContainsFunc(r.prefixes(), func(p netip.Prefix) bool {
		return p.IsSingleIP() && !f.isThere(p, r)
	})
}

// mayBeOthers tells whether a rule names one of the other interfaces, or an address that one leads to.
func (f Facts) mayBeOthers(r rule) bool {
	addrs := r.prefixes()
	if to, err := netip.ParseAddrPort(r.to); err == nil {
		addrs = append(addrs, netip.PrefixFrom(to.Addr(), to.Addr().BitLen()))
	}
	return slices.ContainsFunc(f.Others, func(o inventory.Interface) bool {
		leads := func(p netip.Prefix) bool {
			return !f.inSubnet(p.Addr()) && slices.ContainsFunc(o.Addrs, func(a netip.Prefix) bool { return a.Contains(p.Addr()) })
		}
		return o.Name != "lo" && slices.Contains(r.bridges(), o.Name) || slices.ContainsFunc(addrs, leads)
	})
}

// leadsToPublished judges DNAT: to a container that runs and publishes just that.
func (f Facts) leadsToPublished(r rule) bool {
	to, err := netip.ParseAddrPort(r.to)
	outer, bad := strconv.ParseUint(r.dport, 10, 16)
	return err == nil && bad == nil && f.publishes(to.Addr(), r.proto, to.Port(), uint16(outer))
}

// isThere judges an address that a rule names: a network's, or that of a container that runs and, where the rule names a
// port of one container, publishes it.
func (f Facts) isThere(p netip.Prefix, r rule) bool {
	if !p.IsSingleIP() {
		return f.isSubnet(p) || p.Addr().IsLoopback() // which Docker leaves out of what it rewrites
	}
	if !f.runs(p.Addr()) {
		// The address of a network that is gone, or one of the host's that a port is published on.
		return r.src == "" && !f.inSubnet(p.Addr()) && r.out == ""
	}
	link := r.src != "" && r.src != r.dst
	port, err := strconv.ParseUint(r.dport, 10, 16)
	if r.dport == "" || link {
		return true
	}
	return err == nil && f.publishes(p.Addr(), r.proto, uint16(port), 0)
}

func (f Facts) isSubnet(p netip.Prefix) bool {
	return slices.ContainsFunc(f.Networks, func(n inventory.Network) bool { return slices.Contains(n.Subnets, p.Masked()) })
}

func (f Facts) inSubnet(a netip.Addr) bool {
	return slices.ContainsFunc(f.Networks, func(n inventory.Network) bool {
		return slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(a) })
	})
}

// lacks lists what Docker's rules of a family have to have, by what Docker says, and lack. What a version of Docker may do
// in another way is not asked for.
func (f Facts) lacks(d dump, v6 bool) []string {
	var all []string
	lack := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, at := range [][2]string{{"nat", "PREROUTING"}, {"nat", "OUTPUT"}} {
		if !leadsTo(d.rules(at[0], at[1]), "DOCKER") {
			lack("%s %s has no rule that leads to DOCKER", at[0], at[1])
		}
	}
	for _, at := range [][2]string{{"nat", "DOCKER"}, {"filter", "DOCKER"}} {
		if !d.has(at[0], at[1]) {
			lack("%s has no chain %s", at[0], at[1])
		}
	}
	for _, chain := range []string{userChain, "DOCKER-ISOLATION-STAGE-1", "DOCKER-FORWARD"} {
		if d.has("filter", chain) && !leadsTo(d.rules("filter", "FORWARD"), chain) && !leadsTo(d.rules("filter", "DOCKER-FORWARD"), chain) {
			lack("filter FORWARD has no rule that leads to %s", chain)
		}
	}
	if !v6 && !d.has("filter", userChain) {
		lack("filter has no chain %s", userChain)
	}
	for _, n := range f.Networks {
		f.lacksNetwork(d, n, v6, lack)
	}
	for _, p := range f.Published {
		f.lacksPort(d, p, v6, lack)
	}
	return all
}

func leadsTo(rules []string, chain string) bool {
	return slices.ContainsFunc(rules, func(spec string) bool { return parseRule(spec).target == chain })
}

func (f Facts) lacksNetwork(d dump, n inventory.Network, v6 bool, lack func(string, ...any)) {
	mode := n.Mode4
	if v6 {
		mode = n.Mode6
	}
	names := func(spec string) bool { return slices.Contains(parseRule(spec).bridges(), n.Bridge) }
	for _, subnet := range n.Subnets {
		if subnet.Addr().Is6() != v6 {
			continue
		}
		if !slices.ContainsFunc(append(d.rules("filter", "FORWARD"), d.rules("filter", "DOCKER-FORWARD")...), names) && !n.Internal {
			lack("filter FORWARD has no rules of network %s", n.Name)
		}
		if d.has("filter", "DOCKER-ISOLATION-STAGE-1") && !slices.ContainsFunc(d.rules("filter", "DOCKER-ISOLATION-STAGE-1"), names) {
			lack("filter DOCKER-ISOLATION-STAGE-1 has no rules of network %s", n.Name)
		}
		if n.Internal || n.NoMasquerade || mode == "routed" || mode == "isolated" {
			continue
		}
		if !slices.ContainsFunc(d.rules("nat", "POSTROUTING"), func(spec string) bool {
			r := parseRule(spec)
			p, ok := parsePrefix(r.src)
			return ok && p == subnet && (r.target == "MASQUERADE" || r.target == "SNAT")
		}) {
			lack("nat POSTROUTING does not masquerade network %s", n.Name)
		}
	}
}

func (f Facts) lacksPort(d dump, p inventory.Published, v6 bool, lack func(string, ...any)) {
	addrs := slices.DeleteFunc(slices.Clone(f.Addrs[p.Container]), func(a netip.Addr) bool { return a.Is6() != v6 })
	if p.Addr.Is6() != v6 || len(addrs) == 0 || f.isRouted(p, v6) {
		return
	}
	name := fmt.Sprintf("port %d/%s of %s", p.Port, protoNames[p.Proto], p.Container)
	if !slices.ContainsFunc(d.rules("nat", "DOCKER"), func(spec string) bool {
		r := parseRule(spec)
		to, err := netip.ParseAddrPort(r.to)
		return err == nil && r.proto == protoNames[p.Proto] && r.dport == fmt.Sprint(p.Port) && to.Port() == p.Target && slices.Contains(addrs, to.Addr())
	}) {
		lack("nat DOCKER has no rule for %s", name)
	}
	if !slices.ContainsFunc(d.rules("filter", "DOCKER"), func(spec string) bool {
		r := parseRule(spec)
		dst, ok := parsePrefix(r.dst)
		return ok && r.target == "ACCEPT" && r.proto == protoNames[p.Proto] && r.dport == fmt.Sprint(p.Target) && slices.Contains(addrs, dst.Addr())
	}) {
		lack("filter DOCKER has no rule for %s", name)
	}
}

// isRouted tells whether a port may be published without DNAT, by a gateway mode of one of the container's networks.
func (f Facts) isRouted(p inventory.Published, v6 bool) bool {
	return slices.ContainsFunc(f.Networks, func(n inventory.Network) bool {
		mode := n.Mode4
		if v6 {
			mode = n.Mode6
		}
		return slices.Contains(p.Networks, n.Name) && strings.TrimPrefix(mode, "nat") != ""
	})
}
