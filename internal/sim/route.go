package sim

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"quaywall/internal/inventory"
	"quaywall/internal/netfilter"
	"quaywall/internal/snapshot"
)

// network is a host's interfaces and routes, prepared.
type network struct {
	host    *snapshot.Host
	ifaces  map[string]*inventory.Interface
	byIndex []*inventory.Interface
	links   map[string]*snapshot.Link
	tables  map[tableKey]*routeTable
	rules   map[bool][]snapshot.RoutingRule // by "is IPv4"
	inside  map[string]bool                 // bridges of Docker's
	blind   bool                            // neither routes nor addresses are known
	gates   map[netip.Addr]bool             // addresses that Docker's bridges would have, where that isn't known
}

type tableKey struct {
	is4  bool
	name string
}

// routeTable finds routes by prefix, the longest first.
type routeTable struct {
	lengths []int
	routes  map[netip.Prefix][]*snapshot.Route
}

func newNetwork(h *snapshot.Host) *network {
	n := &network{host: h, ifaces: map[string]*inventory.Interface{}, links: map[string]*snapshot.Link{}, tables: map[tableKey]*routeTable{},
		rules: map[bool][]snapshot.RoutingRule{}, inside: map[string]bool{}, gates: map[netip.Addr]bool{}}
	for i := range h.Inventory.Interfaces {
		n.ifaces[h.Inventory.Interfaces[i].Name] = &h.Inventory.Interfaces[i]
		n.byIndex = append(n.byIndex, &h.Inventory.Interfaces[i])
	}
	slices.SortStableFunc(n.byIndex, func(a, b *inventory.Interface) int { return cmp.Compare(a.Index, b.Index) })
	for i := range h.Links {
		n.links[h.Links[i].Name] = &h.Links[i]
	}
	for _, b := range h.Inventory.Bridges() {
		n.inside[b] = true
	}
	routes := h.Routes
	if !h.Has(snapshot.PartRoutes) || len(routes) == 0 {
		routes = n.guessRoutes()
	}
	for i := range routes {
		n.add(&routes[i])
	}
	n.addOwn(routes)
	for _, t := range n.tables {
		for _, list := range t.routes {
			slices.SortStableFunc(list, func(a, b *snapshot.Route) int { return cmp.Compare(a.Metric, b.Metric) })
		}
	}
	n.addRules(h.Policies)
	return n
}

func (n *network) add(r *snapshot.Route) {
	key := tableKey{r.Dst.Addr().Is4(), r.Table}
	t := n.tables[key]
	if t == nil {
		t = &routeTable{routes: map[netip.Prefix][]*snapshot.Route{}}
		n.tables[key] = t
	}
	p := r.Dst.Masked()
	if !slices.Contains(t.lengths, p.Bits()) {
		t.lengths = append(t.lengths, p.Bits())
		slices.SortFunc(t.lengths, func(a, b int) int { return cmp.Compare(b, a) })
	}
	t.routes[p] = append(t.routes[p], r)
}

// addOwn has the host's addresses be local where a list of routes lacks them: one that was written while addresses came and went
// isn't whole.
func (n *network) addOwn(routes []snapshot.Route) {
	own := map[netip.Addr]bool{}
	for i := range routes {
		if routes[i].Type == typeLocal && routes[i].Dst.IsSingleIP() {
			own[routes[i].Dst.Addr()] = true
		}
	}
	for _, i := range n.byIndex {
		for _, p := range i.Addrs {
			if i.Up && !own[p.Addr()] {
				n.add(&snapshot.Route{Table: "local", Type: typeLocal, Dst: netip.PrefixFrom(p.Addr(), p.Addr().BitLen()), Dev: i.Name, Src: p.Addr()})
			}
		}
	}
}

// addRules takes the routing policy; where there is none it is the kernel's own.
func (n *network) addRules(rules []snapshot.RoutingRule) {
	for _, r := range rules {
		is4 := r.Family != netfilter.IPv6
		n.rules[is4] = append(n.rules[is4], r)
	}
	for _, is4 := range []bool{true, false} {
		family := netfilter.IPv6
		if is4 {
			family = netfilter.IPv4
		}
		if len(n.rules[is4]) == 0 {
			for i, table := range []string{"local", "main", "default"} {
				n.rules[is4] = append(n.rules[is4], snapshot.RoutingRule{Family: family, Priority: 32765*min(i, 1) + i, Table: table,
					Action: "lookup", SuppressPrefix: -1})
			}
		}
		slices.SortStableFunc(n.rules[is4], func(a, b snapshot.RoutingRule) int { return cmp.Compare(a.Priority, b.Priority) })
	}
}

// guessRoutes are the routes that follow from addresses, or where these aren't known either from what Docker's rules say of
// its bridges.
func (n *network) guessRoutes() []snapshot.Route {
	var routes []snapshot.Route
	for name, i := range n.ifaces {
		for _, p := range i.Addrs {
			length := p.Addr().BitLen()
			routes = append(routes, snapshot.Route{Table: "local", Type: typeLocal, Dst: netip.PrefixFrom(p.Addr(), length), Dev: name, Src: p.Addr()})
			if p.Bits() < length {
				routes = append(routes, snapshot.Route{Table: "main", Type: typeUnicast, Dst: p.Masked(), Dev: name, Src: p.Addr()})
			}
		}
	}
	n.blind = len(routes) == 0
	for _, loopback := range []string{"127.0.0.0/8", "::1/128"} {
		routes = append(routes, snapshot.Route{Table: "local", Type: typeLocal, Dst: netip.MustParsePrefix(loopback), Dev: "lo"})
	}
	for _, w := range n.host.Inventory.Networks {
		if n.ifaces[w.Bridge] != nil && n.host.Has(snapshot.PartAddrs) {
			continue // its addresses tell
		}
		for _, p := range w.Subnets {
			routes = append(routes, snapshot.Route{Table: "main", Type: typeUnicast, Dst: p.Masked(), Dev: w.Bridge})
		}
	}
	if n.blind {
		routes = append(routes, n.routesOfRules()...)
	}
	return routes
}

// routesOfRules are the bridges that rules tell of: where containers are, "-s SUBNET ! -o BRIDGE" masquerades, and
// "-d CONTAINER -o BRIDGE" lets in.
func (n *network) routesOfRules() (routes []snapshot.Route) {
	for _, t := range n.host.Rules.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				dev, addrs := bridgeOf(r)
				for p := range prefixesOf(addrs) {
					routes = append(routes, snapshot.Route{Table: "main", Type: typeUnicast, Dst: p, Dev: dev})
					n.inside[dev] = true
					n.gates[p.Addr().Next()] = n.gates[p.Addr().Next()] || p.Bits() < p.Addr().BitLen()
				}
			}
		}
	}
	return routes
}

// bridgeOf is the interface and the addresses behind it that a rule tells of.
func bridgeOf(r *netfilter.Rule) (dev string, addrs *netfilter.Compare) {
	var src, dst, out *netfilter.Compare
	for _, m := range r.Matches {
		c, ok := m.(netfilter.Compare)
		switch {
		case !ok:
		case c.Field == netfilter.Src && !c.Not:
			src = &c
		case c.Field == netfilter.Dst && !c.Not:
			dst = &c
		case c.Field == netfilter.OutIface && len(c.Names) == 1 && !isGlob(c.Names[0]):
			out = &c
		}
	}
	if out == nil || len(r.Actions) == 0 {
		return "", nil
	}
	_, masquerades := r.Actions[len(r.Actions)-1].(netfilter.Translate)
	switch {
	case out.Not && masquerades && src != nil && dst == nil:
		return out.Names[0], src
	case !out.Not && !masquerades && dst != nil:
		return out.Names[0], dst
	}
	return "", nil
}

func prefixesOf(c *netfilter.Compare) func(func(netip.Prefix) bool) {
	return func(yield func(netip.Prefix) bool) {
		if c == nil {
			return
		}
		for _, p := range c.Addrs.Prefixes() {
			if p.Bits() > 0 && !yield(p) {
				return
			}
		}
	}
}

// isInside tells whether an interface is lo or a bridge of Docker's.
func (n *network) isInside(name string) bool {
	return name == "lo" || n.inside[name] || inventory.IsDockerBridgeName(name)
}

func (n *network) kind(name string) (string, knowledge) {
	if name == "" {
		return "", lacks
	}
	i := n.ifaces[name]
	if i == nil {
		return "", unknown
	}
	return i.Kind, has
}

func (n *network) isBridge(name string) bool {
	i := n.ifaces[name]
	return i != nil && i.Kind == "bridge" || n.inside[name] || inventory.IsDockerBridgeName(name)
}

// asked is what a route is looked for by.
type asked struct {
	src, dst netip.Addr
	in, out  string // out restricts to routes by it
	mark     uint64
	proto    uint8
	sport    uint16
	dport    uint16
	unread   bool // set where a routing rule stood in the way that isn't understood
}

// errors of routing, as types of routes.
const noRoute = 0

// route finds the route to a destination; of one that is refused the type says how, and noRoute that there is none.
func (n *network) route(q *asked) (snapshot.Route, int) {
	rules := n.rules[q.dst.Is4()]
	strict := q.dst.Is6() && (q.dst.IsLinkLocalUnicast() || q.dst.IsMulticast() || q.dst.IsLoopback()) // rt6_need_strict
	for i := 0; i < len(rules); i++ {
		r := &rules[i]
		if !n.applies(r, q) {
			continue
		}
		switch r.Action {
		case "blackhole":
			return snapshot.Route{}, typeBlackhole
		case "unreachable":
			return snapshot.Route{}, typeUnreachable
		case "prohibit":
			return snapshot.Route{}, typeProhibit
		case "goto":
			for i+1 < len(rules) && rules[i+1].Priority < r.Goto {
				i++
			}
			continue
		}
		found := n.tables[tableKey{q.dst.Is4(), r.Table}].find(q, strict, r.SuppressPrefix)
		if found == nil || found.Type == typeThrow {
			continue
		}
		return *found, found.Type
	}
	return snapshot.Route{}, noRoute
}

// find finds the best route of a table.
func (t *routeTable) find(q *asked, strict bool, suppress int) *snapshot.Route {
	if t == nil {
		return nil
	}
	for _, length := range t.lengths {
		if length <= suppress {
			break
		}
		p, err := q.dst.WithZone("").Prefix(length)
		if err != nil {
			continue
		}
		for _, r := range t.routes[p] {
			dev := q.out
			if strict && dev == "" && q.in != "" {
				dev = q.in
			}
			// A local address is the host's whatever interface it is asked for.
			if dev != "" && r.Dev != dev && r.Dev != "" && (strict || r.Type == typeUnicast) {
				continue
			}
			return r
		}
	}
	return nil
}

// applies tells whether a routing rule is for a packet.
func (n *network) applies(r *snapshot.RoutingRule, q *asked) bool {
	if r.Unread != "" {
		q.unread = true
	}
	in := q.in
	if in == "" {
		in = "lo" // the kernel's own name for what the host sends
	}
	holds := (!r.From.IsValid() || r.From.Contains(q.src)) && (!r.To.IsValid() || r.To.Contains(q.dst)) &&
		(r.In == "" || r.In == in) && (r.Out == "" || r.Out == q.out) &&
		(r.MarkMask == 0 || uint32(q.mark)&r.MarkMask == r.Mark&r.MarkMask) && (r.Proto == 0 || r.Proto == q.proto) &&
		withinPorts(r.SrcPorts, q.sport) && withinPorts(r.DstPorts, q.dport)
	return holds != r.Not
}

func withinPorts(ports [2]uint16, p uint16) bool {
	return ports == [2]uint16{} || ports[0] <= p && p <= ports[1]
}

// addrType is what an address is to the host: RTN_*. With an interface, what it is to that one.
func (n *network) addrType(a netip.Addr, dev string) int {
	switch {
	case a.IsMulticast():
		return typeMulticast
	case a.Is4() && (a.As4()[0] == 0 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
		return typeBroadcast
	}
	q := asked{dst: a, in: dev}
	r := n.tables[tableKey{a.Is4(), "local"}].find(&q, a.Is6() && a.IsLinkLocalUnicast(), -1)
	if r == nil || dev != "" && r.Dev != dev {
		if r == nil && n.blind && n.gates[a] {
			return typeLocal
		}
		return typeUnicast
	}
	return r.Type
}

// leadsBack tells whether the way to a packet's source leads out of the interface that it came in by, or
// loosely out of any.
func (n *network) leadsBack(p *pkt, loosely bool) bool {
	if p.in == "lo" || p.src == netip.IPv6Unspecified() {
		return true // nft_fib_can_skip, rpfilter_is_loopback
	}
	q := asked{src: p.dst, dst: p.src}
	if p.family == nfIPv6 && !loosely {
		q.out = p.in
	}
	r, kind := n.route(&q)
	return kind == typeUnicast && (loosely || r.Dev == p.in)
}

// sourceFor is the address of an interface that it would send by to a destination.
func (n *network) sourceFor(dev string, dst netip.Addr) netip.Addr {
	q := asked{dst: dst, out: dev}
	r, kind := n.route(&q)
	if kind == typeUnicast && r.Src.IsValid() && r.Src.Is4() == dst.Is4() && n.has(dev, r.Src) {
		return r.Src
	}
	near := dst
	if r.Via.IsValid() {
		near = r.Via
	}
	return n.bestOn(dev, near)
}

// has tells whether an interface has an address.
func (n *network) has(dev string, a netip.Addr) bool {
	i := n.ifaces[dev]
	return i != nil && slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// bestOn is the address that an interface would send by to an address near it: one of its own whose network that is in, else
// its first; where it has none, one of another interface.
func (n *network) bestOn(dev string, near netip.Addr) netip.Addr {
	if near.Is6() {
		return n.best6(dev, near)
	}
	var first netip.Addr
	if i := n.ifaces[dev]; i != nil {
		for _, p := range i.Addrs {
			switch a := p.Addr(); {
			case !a.Is4() || a.IsLoopback():
			case p.Contains(near):
				return a
			case !first.IsValid():
				first = a
			}
		}
	}
	if first.IsValid() {
		return first
	}
	for _, i := range n.byIndex {
		for _, p := range i.Addrs {
			if a := p.Addr(); a.Is4() && !a.IsLoopback() {
				return a
			}
		}
	}
	return first
}

// best6 chooses a source as RFC 6724 has it: the address itself, one of the same scope, of the interface, with the longest
// common prefix.
func (n *network) best6(dev string, to netip.Addr) (best netip.Addr) {
	score := [4]int{-1}
	for _, i := range n.byIndex {
		for _, p := range i.Addrs {
			a := p.Addr()
			if a.Is4() || to.IsLinkLocalUnicast() && i.Name != dev {
				continue
			}
			s := [4]int{bit(a == to), bit(isNarrow(a) == isNarrow(to)), bit(i.Name == dev), min(common(a, to), p.Bits())}
			if slices.Compare(s[:], score[:]) > 0 {
				best, score = a, s
			}
		}
	}
	return best
}

// isNarrow tells whether an address is of one link or one host alone.
func isNarrow(a netip.Addr) bool { return a.IsLinkLocalUnicast() || a.IsLoopback() }

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// common is how many bits two addresses have in common at their beginning.
func common(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return 8*i + bits.LeadingZeros8(d)
		}
	}
	return 128
}

// addressOn is the address of an interface that REDIRECT leads to: the first of IPv4, the first of the same scope of IPv6.
func (n *network) addressOn(dev string, dst netip.Addr) netip.Addr {
	i := n.ifaces[dev]
	if i == nil {
		return netip.Addr{}
	}
	for _, p := range i.Addrs {
		a := p.Addr()
		if a.Is4() == dst.Is4() && (a.Is4() || a.IsLinkLocalUnicast() == dst.IsLinkLocalUnicast()) {
			return a
		}
	}
	return netip.Addr{}
}

// sysctl is a number of the host's; ok is false where the snapshot doesn't have it.
func (n *network) sysctl(name string) (int, bool) {
	text, ok := n.host.Sysctls[name]
	if !ok {
		return 0, false
	}
	var v int
	if _, err := fmt.Sscanf(text, "%d", &v); err != nil {
		return 0, false
	}
	return v, true
}

// conf is an interface's number: net.ipv4.conf.eth0.rp_filter. ok is false where the snapshot has it not, nor the one for all.
func (n *network) conf(is4 bool, dev, name string) (v int, ok bool) {
	family := "net.ipv6.conf."
	if is4 {
		family = "net.ipv4.conf."
	}
	if v, ok = n.sysctl(family + strings.ReplaceAll(dev, ".", "/") + "." + name); !ok {
		v, ok = n.sysctl(family + "all." + name)
	}
	return v, ok
}

// orAll is conf where the kernel takes the greater of the interface's number and the one for all.
func (n *network) orAll(dev, name string) (v int, ok bool) {
	v, ok = n.conf(true, dev, name)
	if all, ok := n.sysctl("net.ipv4.conf.all." + name); ok {
		return max(v, all), true
	}
	return v, ok
}
