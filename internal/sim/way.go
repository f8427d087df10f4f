package sim

import (
	"fmt"
	"net/netip"

	"quaywall/internal/netfilter"
	"quaywall/internal/snapshot"
)

// ending is how a leg ended.
type ending struct {
	kind  endKind
	place Place  // of what was dropped or rejected
	why   string // where no rule did it: a sentence without a full stop
	next  string // and what to do, likewise
}

type endKind uint8

const (
	endDropped endKind = iota
	endRejected
	endLocal // at a socket of the host's
	endSent  // out of w.pk.out
)

// stopped is the ending that a chain made.
func (w *walk) stopped(f fate) ending {
	if f == rejected {
		return ending{kind: endRejected, place: w.ended}
	}
	return ending{kind: endDropped, place: w.ended, why: w.lost.why, next: w.lost.next}
}

// refuse is an ending that no rule made but the kernel.
func (w *walk) refuse(text, why, next string) ending {
	w.tell("%s", why)
	return ending{kind: endDropped, place: kernelPlace(text), why: why, next: next}
}

// tell notes what isn't a chain's doing.
func (w *walk) tell(format string, args ...any) {
	w.steps = append(w.steps, Step{Leg: w.leg, Text: fmt.Sprintf(format, args...)})
}

// arrive has the packet come in by an interface, and by a port of it where that is a bridge.
func (w *walk) arrive(in, port string) ending {
	p := &w.pk
	p.in, p.inPort, p.out, p.local = in, "", "", false
	p.bridged = w.staysOnBridge()
	bridge := w.s.net.isBridge(in)
	if f := w.atDevice(netfilter.Ingress, port); f != accepted {
		return w.stopped(f)
	}
	calls := bridge && w.bridgeCalls()
	if bridge {
		p.inPort = port
		if f := w.atBridge(netfilter.Prerouting); f != accepted {
			return w.stopped(f)
		}
	}
	if !calls {
		p.inPort = ""
		if p.bridged {
			return w.acrossBridge(false)
		}
	}
	if f := w.atDevice(netfilter.Ingress, in); f != accepted && !p.bridged {
		return w.stopped(f)
	}
	if p.family == nfIPv6 && (p.src.IsLoopback() || p.dst.IsLoopback()) {
		return w.refuse("loopback address", "the kernel takes no packet of ::1 from any interface but lo", "Dial another address of this host")
	}
	if f := w.atHook(netfilter.Prerouting); f != accepted {
		return w.stopped(f)
	}
	if p.bridged = p.bridged && w.staysOnBridge(); p.bridged {
		return w.acrossBridge(true)
	}
	p.inPort = ""
	return w.routeIn()
}

// staysOnBridge tells whether a packet goes from port to port of the bridge that it comes in by: both ends are behind it.
func (w *walk) staysOnBridge() bool {
	p := &w.pk
	if !w.s.net.isBridge(p.in) || w.addrType(p.dst, "") != typeUnicast {
		return false
	}
	to, kind := w.route(&asked{dst: p.dst, in: p.in})
	if kind != typeUnicast || to.Dev != p.in || to.Via.IsValid() {
		return false
	}
	if w.addrType(p.src, "") == typeLocal {
		return true
	}
	from, kind := w.route(&asked{dst: p.src, in: p.in})
	return kind == typeUnicast && from.Dev == p.in && !from.Via.IsValid()
}

// bridgeCalls tells whether packets of bridges meet the hooks of IP.
func (w *walk) bridgeCalls() bool {
	name := "net.bridge.bridge-nf-call-ip6tables"
	if w.pk.family == nfIPv4 {
		name = "net.bridge.bridge-nf-call-iptables"
	}
	if v, ok := w.s.net.sysctl(name); ok {
		return v != 0
	}
	// Where other numbers are known and this isn't, the module isn't there.
	if w.s.host.Has(snapshot.PartSysctls) && len(w.s.host.Sysctls) > 0 {
		return false
	}
	if w.pk.bridged {
		w.assume("%s is not known; it is taken to be 1, as Docker sets it", name)
	}
	return true
}

// acrossBridge has the packet leave by another port of its bridge.
func (w *walk) acrossBridge(calls bool) ending {
	p := &w.pk
	p.out, p.outPort = p.in, ""
	if calls {
		p.outPort = outside
	}
	w.tell("it goes from port to port of the bridge %s%s", p.in, map[bool]string{false: ", past the rules of IP: bridge-nf-call is off"}[calls])
	if f := w.atBridge(netfilter.Forward); f != accepted {
		return w.stopped(f)
	}
	if calls {
		if f := w.atHook(netfilter.Forward); f != accepted {
			return w.stopped(f)
		}
		p.in, p.inPort = "", ""
		if f := w.atHook(netfilter.Postrouting); f != accepted {
			return w.stopped(f)
		}
	}
	if f := w.atBridge(netfilter.Postrouting); f != accepted {
		return w.stopped(f)
	}
	return ending{kind: endSent}
}

// route is the host's route. Where routes aren't known, what is dialled is this host's, and everything else is outside.
func (w *walk) route(q *asked) (snapshot.Route, int) {
	if w.isTaken(q.dst) {
		return snapshot.Route{Type: typeLocal, Dev: "lo"}, typeLocal
	}
	r, kind := w.s.net.route(q)
	if q.unread {
		w.assume("a routing rule isn't understood; it is read without what isn't")
	}
	if kind == noRoute && !w.s.host.Has(snapshot.PartRoutes) {
		w.assume("the routes are not known: %s is taken to be behind an interface that is none of Docker's", q.dst)
		return snapshot.Route{Type: typeUnicast, Dev: outside}, typeUnicast
	}
	return r, kind
}

// isTaken tells whether an address is taken for this host's, for want of its addresses.
func (w *walk) isTaken(a netip.Addr) bool {
	return w.derived.taken == a && a.IsValid()
}

func (w *walk) addrType(a netip.Addr, dev string) int {
	if w.isTaken(a) {
		return typeLocal
	}
	return w.s.net.addrType(a, dev)
}

// routeIn decides where a packet that came in goes.
func (w *walk) routeIn() ending {
	p := &w.pk
	if e, ok := w.isMartian(); !ok {
		return e
	}
	kind := w.addrType(p.dst, "")
	if kind == typeBroadcast || kind == typeMulticast {
		w.tell("it is for many, this host among them")
		return w.input()
	}
	r, kind := w.route(&asked{src: p.src, dst: p.dst, in: p.in, mark: p.mark, proto: p.proto, sport: p.sport, dport: p.dport})
	if kind == typeLocal || kind == typeAnycast {
		w.tell("routing: %s is an address of this host", p.dst)
		if e, ok := w.hasHonestSource(); !ok {
			return e
		}
		return w.input()
	}
	if e, ok := w.forwards(); !ok {
		return e
	}
	if kind != typeUnicast {
		return w.unrouted(kind)
	}
	if e, ok := w.hasHonestSource(); !ok {
		return e
	}
	w.tell("routing: %s is behind %s%s", p.dst, ifaceName(r.Dev), via(r))
	return w.forward(r)
}

func via(r snapshot.Route) string {
	if r.Via.IsValid() {
		return ", by way of " + r.Via.String()
	}
	return ""
}

func ifaceName(name string) string {
	if name == outside {
		return "an interface that isn't known"
	}
	return name
}

func (w *walk) unrouted(kind int) ending {
	text := map[int]string{typeBlackhole: "blackhole route", typeUnreachable: "unreachable route", typeProhibit: "prohibit route"}[kind]
	if text == "" {
		text = "no route"
	}
	return w.refuse(text, fmt.Sprintf("routing has no way to %s (%s)", w.pk.dst, text), "Add a route to "+w.pk.dst.String())
}

// isMartian refuses addresses that never come by a wire. ok tells that it is none.
func (w *walk) isMartian() (e ending, ok bool) {
	p := &w.pk
	bad := func(what string) (ending, bool) {
		return w.refuse("martian", fmt.Sprintf("the kernel takes no packet with %s from %s", what, ifaceName(p.in)), "Use another address"), false
	}
	if p.src.IsMulticast() || p.family == nfIPv4 && p.src == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return bad("the source " + p.src.String())
	}
	if p.family == nfIPv6 {
		return ending{}, true
	}
	if zero := p.dst.As4()[0] == 0; zero {
		return bad("the destination " + p.dst.String())
	}
	if p.src.As4()[0] == 0 && w.addrType(p.dst, "") != typeBroadcast {
		return bad("the source " + p.src.String())
	}
	if p.src.IsLoopback() || p.dst.IsLoopback() {
		if !w.routesLoopback(p.in) {
			return bad("a loopback address (route_localnet is 0)")
		}
	}
	return ending{}, true
}

// routesLoopback tells whether packets with a loopback address may come in or leave by an interface.
func (w *walk) routesLoopback(dev string) bool {
	const name = "route_localnet"
	v, known := w.s.net.orAll(dev, name)
	if known || w.s.host.Has(snapshot.PartSysctls) {
		return v != 0
	}
	return w.choose(2, doubt{kernelPlace(name), "the kernel's settings aren't in the snapshot"}) != 0
}

// kernelPlace is where the kernel itself decides.
func kernelPlace(text string) Place { return Place{Table: "kernel", Chain: "routing", Text: text} }

// hasHonestSource checks an IPv4 source as the kernel does: nobody else has this host's addresses, and with rp_filter the way
// back must lead where the packet came from.
func (w *walk) hasHonestSource() (e ending, ok bool) {
	p := &w.pk
	if p.family != nfIPv4 || p.src.IsUnspecified() {
		return ending{}, true
	}
	next := fmt.Sprintf("Use an address of the sender's own network, or see net.ipv4.conf.%s.rp_filter", p.in)
	accepts, _ := w.s.net.orAll(p.in, "accept_local")
	if w.addrType(p.src, "") == typeLocal && accepts == 0 {
		return w.refuse("accept_local = 0", fmt.Sprintf("the source %s is an address of this host, and comes in by %s", p.src, ifaceName(p.in)), next), false
	}
	filter, known := w.s.net.orAll(p.in, "rp_filter")
	if !known {
		filter = 1
	}
	if filter == 0 || p.in == outside {
		return ending{}, true
	}
	r, kind := w.route(&asked{src: p.dst, dst: p.src})
	if kind == typeUnicast && (r.Dev == p.in || filter == 2 || r.Dev == outside) || kind == typeLocal && accepts != 0 {
		return ending{}, true
	}
	if !known {
		w.assume("net.ipv4.conf.*.rp_filter is not known; it is taken to be 0")
		return ending{}, true
	}
	text := fmt.Sprintf("rp_filter = %d", filter)
	return w.refuse(text, fmt.Sprintf("rp_filter: the way back to %s doesn't lead out of %s", p.src, p.in), next), false
}

// forwards tells whether the host forwards what comes in by the interface.
func (w *walk) forwards() (e ending, ok bool) {
	p := &w.pk
	name, v, known := "net.ipv6.conf.all.forwarding", 0, false
	if p.family == nfIPv4 {
		name = "net.ipv4.ip_forward"
		if v, known = w.s.net.conf(true, p.in, "forwarding"); !known {
			v, known = w.s.net.sysctl(name)
		}
	} else {
		v, known = w.s.net.sysctl(name)
	}
	switch {
	case !known:
		w.assume("%s is not known; it is taken to be 1", name)
	case v == 0:
		return w.refuse(name+" = 0", fmt.Sprintf("%s is not this host's, and this host forwards nothing: %s is 0", p.dst, name), "Set "+name+" to 1"), false
	}
	if p.family == nfIPv6 && (p.src.IsLinkLocalUnicast() || p.src.IsUnspecified()) && !p.dst.IsLinkLocalUnicast() {
		return w.refuse("link-local source", fmt.Sprintf("%s is an address of one link, and no packet from it is forwarded", p.src), "Use a global source address"), false
	}
	return ending{}, true
}

func (w *walk) input() ending {
	if f := w.atHook(netfilter.Input); f != accepted {
		return w.stopped(f)
	}
	return ending{kind: endLocal}
}

func (w *walk) forward(r snapshot.Route) ending {
	w.pk.out = r.Dev
	if f := w.atHook(netfilter.Forward); f != accepted {
		return w.stopped(f)
	}
	return w.post()
}

// post has the packet leave the host.
func (w *walk) post() ending {
	p := &w.pk
	if f := w.atHook(netfilter.Postrouting); f != accepted {
		return w.stopped(f)
	}
	if w.s.net.isBridge(p.out) {
		for _, h := range []netfilter.Hook{netfilter.Output, netfilter.Postrouting} {
			if f := w.atBridge(h); f != accepted {
				return w.stopped(f)
			}
		}
	}
	if f := w.atDevice(netfilter.Egress, p.out); f != accepted {
		return w.stopped(f)
	}
	return ending{kind: endSent}
}

// depart has the host itself send the packet.
func (w *walk) depart() ending {
	p := &w.pk
	p.local, p.in, p.inPort, p.bridged = true, "", "", false
	if !w.reroute() {
		return ending{kind: endDropped, place: w.ended, why: w.lost.why, next: w.lost.next}
	}
	w.tell("routing: %s", map[bool]string{true: "to this host itself, by lo", false: "out by " + ifaceName(p.out)}[p.out == "lo"])
	if f := w.atHook(netfilter.Output); f != accepted {
		return w.stopped(f)
	}
	if p.out != "lo" {
		return w.post()
	}
	if f := w.atHook(netfilter.Postrouting); f != accepted {
		return w.stopped(f)
	}
	p.in, p.out, p.local = "lo", "", false
	if f := w.atHook(netfilter.Prerouting); f != accepted {
		return w.stopped(f)
	}
	return w.input()
}

// reroute finds the interface by which a packet of the host's leaves. Without one it is lost.
func (w *walk) reroute() bool {
	p := &w.pk
	r, kind := w.route(&asked{src: p.src, dst: p.dst, mark: p.mark, proto: p.proto, sport: p.sport, dport: p.dport, out: w.derived.zone(p)})
	before := p.out
	switch kind {
	case typeLocal, typeAnycast:
		p.out = "lo"
	case typeUnicast, typeBroadcast, typeMulticast:
		p.out = r.Dev
	default:
		w.lost = w.unrouted(kind)
		w.ended = w.lost.place
		return false
	}
	if p.family == nfIPv4 && p.src.IsLoopback() && p.out != "lo" && !w.routesLoopback(p.out) {
		w.lost = w.refuse("martian", "no packet from 127.0.0.1 leaves by "+ifaceName(p.out)+" (route_localnet is 0)",
			"Dial another address of this host")
		w.ended = w.lost.place
		return false
	}
	if before != "" && before != p.out {
		w.tell("routed anew: out by %s", ifaceName(p.out))
	}
	return true
}

// connection is the packet's connection, as it begins or as it was.
func (w *walk) connection() *conn {
	if w.ct != nil {
		return w.ct
	}
	c := &conn{orig: w.pk.tuple, now: w.pk.tuple, icmp: [2]uint8{w.pk.icmpType, w.pk.icmpCode}}
	if w.pk.reply {
		c.orig, c.now = w.pk.reversed(), w.pk.reversed()
	}
	w.ct = c
	return c
}
