// Package recheck tells which of the connections that run a policy denies.
//
//	j := recheck.New(p, inv, recheck.Host{Routes: routes, Listens: listens, Ephemeral: ports})
//	for _, f := range flows { v := j.Judge(f) }
//	set := j.Cut(denied) // what keeps them from coming back
//
// A connection is judged as its first packet would be if it was made anew, by package eval. What connection tracking
// doesn't keep is found out as well as it can be, and what may be allowed is never denied: the interface that packets
// come in by is any that routes lead back by, and where only some of them are denied the connection is Uncertain; so is
// one whose beginning was not seen where it can't be told who dialled.
//
// Be aware: hygiene is about first packets and judges no connection that runs. A container's own connection to the
// outside and an answer to it are one flow here. Limits don't count: who is in, is within.
package recheck

import (
	"net/netip"
	"slices"

	"quaywall/internal/eval"
	"quaywall/internal/inventory"
	"quaywall/internal/packet"
	"quaywall/internal/policy"
)

// Tuple is one direction of a flow. Protocols without ports have none.
type Tuple struct {
	Proto    uint8
	Src, Dst netip.AddrPort
}

// Reversed is the other direction where no address is rewritten.
func (t Tuple) Reversed() Tuple { return Tuple{t.Proto, t.Dst, t.Src} }

// Flow is a connection that runs.
type Flow struct {
	Orig, Reply Tuple // what either side sends, before its addresses are rewritten; Orig is that of whoever was seen first
	Master      Tuple // Orig of the connection that brought this one about (RELATED); the zero Tuple for none
	MidStream   bool  // its beginning was not seen: whoever was seen first need not have dialled

	ID   uint32 // of connection tracking, as what follows
	Zone uint16
	Key  []byte // Orig as the kernel wrote it (CTA_TUPLE_ORIG), which tells more of protocols without ports
}

// Host is what a policy doesn't say and an inventory doesn't hold.
type Host struct {
	Routes    []Route
	Listens   func(proto uint8, at netip.AddrPort) bool // whether something on the host waits for connections there
	Ephemeral func(port uint16) bool                    // whether the kernel chooses the port for programs that name none
}

// Route is where packets to some addresses leave.
type Route struct {
	To    netip.Prefix
	Iface string
}

// Verdict is what becomes of a connection.
type Verdict struct {
	Denied    bool
	Uncertain bool   // it may be denied, and isn't
	Line      string // the policy line that denies it: "policy.yaml:12", "default"; "" for what always holds
}

// Judge judges connections. It is made for one policy on one host.
type Judge struct {
	policy *policy.Policy
	inv    *inventory.Inventory
	host   Host
	locals map[netip.Addr][]string // the host's addresses, and the interfaces that have them
	routes map[netip.Prefix][]string
	bits   [2][]int // the lengths of the routes' prefixes, of IPv4 and of IPv6
	ifaces bool     // the policy asks by which interface a packet comes or goes
	known  map[first]Verdict
	about  map[traffic]*policy.Policy // the policy without rules about other traffic
}

// traffic is what rules are about.
type traffic struct {
	proto uint8
	port  uint16
}

// first is what a first packet is judged by.
type first struct {
	proto    uint8
	src, dst netip.Addr
	port     uint16
}

// New makes a Judge.
func New(p *policy.Policy, inv *inventory.Inventory, h Host) *Judge {
	lenient := *p
	lenient.Hygiene = false
	j := &Judge{policy: &lenient, inv: inv, host: h, locals: map[netip.Addr][]string{}, routes: map[netip.Prefix][]string{},
		known: map[first]Verdict{}, about: map[traffic]*policy.Policy{}, ifaces: AsksForInterfaces(p)}
	for _, i := range inv.Interfaces {
		for _, a := range i.Addrs {
			addr := a.Addr().Unmap().WithZone("")
			j.locals[addr] = append(j.locals[addr], i.Name)
		}
	}
	for _, r := range h.Routes {
		j.addRoute(r)
	}
	return j
}

// Update tells what listens by now.
func (j *Judge) Update(h Host) { j.host.Listens, j.host.Ephemeral = h.Listens, h.Ephemeral }

// AsksForInterfaces tells whether a policy's verdict depends on the outside interface. Where it doesn't, no routes are
// needed.
func AsksForInterfaces(p *policy.Policy) bool {
	on := func(r policy.Rule) bool { return len(r.On) > 0 }
	return len(p.Trusted) > 0 || slices.ContainsFunc(p.Inbound, on) || slices.ContainsFunc(p.Egress, on) || slices.ContainsFunc(p.Outbound, on)
}

// AsksDocker tells whether a policy's verdict depends on what Docker publishes, or on its networks.
func AsksDocker(p *policy.Policy) bool {
	asks := func(r policy.Rule) bool {
		return len(r.Networks) > 0 || r.To.Network != "" || slices.ContainsFunc(r.What, func(t policy.Traffic) bool { return t.Published })
	}
	return slices.ContainsFunc(p.Inbound, asks) || slices.ContainsFunc(p.Egress, asks)
}

func (j *Judge) addRoute(r Route) {
	to := r.To.Masked()
	if !slices.Contains(j.routes[to], r.Iface) {
		j.routes[to] = append(j.routes[to], r.Iface)
	}
	f := family(to.Addr())
	if !slices.Contains(j.bits[f], to.Bits()) {
		j.bits[f] = append(j.bits[f], to.Bits())
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Judge tells whether the policy denies a connection.
func (j *Judge) Judge(f Flow) Verdict {
	if f.Master != (Tuple{}) {
		return j.tuple(f.Master)
	}
	if !f.MidStream {
		return j.tuple(f.Orig)
	}
	if dialled, ok := j.dialled(f); ok {
		return j.tuple(dialled)
	}
	a, b := j.tuple(f.Orig), j.tuple(f.Reply)
	if a.Denied && b.Denied {
		return a
	}
	return Verdict{Uncertain: a.Denied || b.Denied || a.Uncertain || b.Uncertain}
}

// dialled is what was dialled of a connection whose beginning was not seen, if that can be told: the end of this host
// where something listens, or else the other one.
func (j *Judge) dialled(f Flow) (Tuple, bool) {
	to, back := j.serves(f.Orig.Proto, f.Orig.Dst), j.serves(f.Reply.Proto, f.Reply.Dst)
	switch {
	case to != back && to:
		return f.Orig, true
	case to != back:
		return f.Reply, true
	case to: // both ends are this host's, or both could have been dialled
		return Tuple{}, false
	case j.dialledFrom(f.Orig.Dst, f.Orig.Src):
		return f.Reply, true
	case j.dialledFrom(f.Orig.Src, f.Orig.Dst):
		return f.Orig, true
	}
	return Tuple{}, false
}

// dialledFrom tells whether an end where nothing listens must be the one that dialled. What listens in a container isn't
// known: there it shows only by the ports.
func (j *Judge) dialledFrom(at, other netip.AddrPort) bool {
	if !j.host.Ephemeral(at.Port()) {
		return false
	}
	return j.isLocal(at.Addr()) || j.isContainer(at.Addr()) && !j.host.Ephemeral(other.Port())
}

// serves tells whether an address and port is one that clients dial here.
func (j *Judge) serves(proto uint8, at netip.AddrPort) bool {
	return j.isLocal(at.Addr()) && (j.host.Listens(proto, at) || j.isPublished(proto, at))
}

func (j *Judge) isPublished(proto uint8, at netip.AddrPort) bool {
	return slices.ContainsFunc(j.inv.Published, func(p inventory.Published) bool {
		return p.Proto == proto && p.Port == at.Port() && (p.Addr == at.Addr() || p.Addr.IsUnspecified() && p.Addr.Is4() == at.Addr().Is4())
	})
}

func (j *Judge) isLocal(a netip.Addr) bool { return a.IsLoopback() || j.locals[a] != nil }

// tuple judges what was dialled, each kind of first packet once.
func (j *Judge) tuple(t Tuple) Verdict {
	key := first{t.Proto, t.Src.Addr(), t.Dst.Addr(), t.Dst.Port()}
	v, ok := j.known[key]
	if !ok {
		v = j.evaluate(t)
		j.known[key] = v
	}
	return v
}

func (j *Judge) evaluate(t Tuple) Verdict {
	if t.Src.Addr().IsLoopback() || t.Dst.Addr().IsLoopback() {
		return Verdict{} // what comes from elsewhere to a loopback address never became a connection
	}
	pk := packet.Packet{Proto: t.Proto, Src: t.Src.Addr(), SrcPort: t.Src.Port(), Dst: t.Dst.Addr(), DstPort: t.Dst.Port(), State: packet.New}
	switch t.Proto {
	case policy.TCP:
		pk.Flags = packet.SYN
	case policy.ICMP:
		pk.ICMPType = 8 // what else there are connections of in ICMP is not seen any more
	case policy.ICMPv6:
		pk.ICMPType = 128
	}
	outgoing := j.isLocal(t.Src.Addr())
	allowed, denied := 0, 0
	var line string
	for _, name := range j.throughs(t, outgoing) {
		if pk.In = name; outgoing {
			pk.In, pk.Out = "", name
		}
		if d := eval.Evaluate(j.rulesAbout(t.Proto, t.Dst.Port()), j.inv, pk); d.Verb == policy.Allow {
			allowed++
		} else if denied++; denied == 1 {
			line = d.Origin
		}
	}
	switch {
	case denied == 0:
		return Verdict{}
	case allowed > 0:
		return Verdict{Uncertain: true}
	}
	return Verdict{Denied: true, Line: line}
}

// rulesAbout is the policy without the rules that are about other traffic whatever else they say: with thousands of rules
// and sources that is most of the work.
func (j *Judge) rulesAbout(proto uint8, port uint16) *policy.Policy {
	key := traffic{proto, port}
	if p := j.about[key]; p != nil {
		return p
	}
	p := *j.policy
	for _, rules := range []*[]policy.Rule{&p.Inbound, &p.Egress, &p.Outbound} {
		*rules = slices.DeleteFunc(slices.Clone(*rules), func(r policy.Rule) bool {
			return r.To.Network == "" && !slices.ContainsFunc(r.What, key.among)
		})
	}
	j.about[key] = &p
	return &p
}

// among tells whether the traffic may be of a kind that a rule names.
func (t traffic) among(w policy.Traffic) bool {
	return w.Published || w.Proto == 0 || w.Proto == t.proto && (!policy.HasPorts(t.proto) || w.Ports.Contains(t.port))
}

// outside stands for an interface of outside, whichever: no interface can be called that.
const outside = "(outside)"

// throughs are the interfaces that a first packet may come in by or, where the host sends it, leave by.
func (j *Judge) throughs(t Tuple, outgoing bool) []string {
	if outgoing {
		if names := j.towards(t.Dst.Addr()); len(names) > 0 && j.ifaces {
			return names
		}
		return []string{""}
	}
	if t.Dst.Addr().IsLinkLocalUnicast() { // of no other interface, whatever routes say
		return j.locals[t.Dst.Addr()]
	}
	var names []string
	for _, n := range j.inv.Networks {
		if slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(t.Src.Addr()) }) {
			names = append(names, n.Bridge)
		}
	}
	switch {
	case len(names) > 0:
		return names
	case !j.ifaces:
		return []string{outside}
	}
	names = j.towards(t.Src.Addr())
	for _, name := range j.locals[t.Dst.Addr()] {
		if name != "lo" && !slices.Contains(names, name) && !j.inv.IsDockerBridge(name) { // the way there may differ from the way back
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		return names
	}
	for _, i := range j.inv.Interfaces {
		if i.Up && i.Name != "lo" && !j.inv.IsDockerBridge(i.Name) {
			names = append(names, i.Name)
		}
	}
	return append(names, outside)
}

// towards are the interfaces that any route leads to an address by.
func (j *Judge) towards(a netip.Addr) []string {
	var names []string
	for _, bits := range j.bits[family(a)] {
		for _, name := range j.routes[netip.PrefixFrom(a, bits).Masked()] {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
