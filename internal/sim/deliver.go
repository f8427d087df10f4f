package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
	"quaywall/internal/snapshot"
)

// result is how one way ended.
type result struct {
	verdict   Verdict
	delivered Delivery
	decided   *Place
	reachable tri
	why, hint string
	steps     []Step
	hops      []Hop
	assumed   []string

	doubt           *doubt // the first that ways differ by
	other           Verdict
	verdictDiffers  bool
	deliveryDiffers bool
}

// merge takes in how another way ended, which differs by a doubt.
func (r *result) merge(o *result, d doubt) {
	if r.verdict != o.verdict || r.delivered != o.delivered || r.reachable != o.reachable {
		if r.doubt == nil || r.verdict != o.verdict && !r.verdictDiffers {
			r.doubt, r.other = &d, o.verdict
		}
	}
	r.verdictDiffers = r.verdictDiffers || r.verdict != o.verdict
	r.deliveryDiffers = r.deliveryDiffers || r.delivered != o.delivered
	if r.reachable != o.reachable {
		r.reachable = perhaps
	}
	for _, a := range o.assumed {
		if !slices.Contains(r.assumed, a) {
			r.assumed = append(r.assumed, a)
		}
	}
}

// open tells whether there is nothing left that another way could put in doubt.
func (r *result) open() bool { return r.verdictDiffers && r.reachable == perhaps }

// run leads the packet through the host once, and its answer back.
func (w *walk) run(d derived) *result {
	w.assumed = append(w.assumed, d.assumed...)
	w.leg, w.pk = Request, d.pk
	if d.cannot != "" {
		w.tell("%s", d.cannot)
		at := kernelPlace("no source address")
		return w.result(&result{verdict: Drop, delivered: Delivery{Kind: "none"}, why: upper(d.cannot) + ".", decided: &at})
	}
	if d.within {
		return w.result(w.stayWithin(d))
	}
	if d.pk.state == packet.Established || d.pk.state == packet.Related {
		w.begin(d)
	}
	w.tell("%s comes %s", d.pk.String(), w.whence(d))
	if d.aside != nil {
		return w.result(w.passBy(d))
	}
	e := w.send(d)
	if e.kind == endDropped || e.kind == endRejected {
		return w.result(w.refused(e))
	}
	return w.result(w.deliver(e))
}

// stayWithin is what becomes of a packet that a container sends to itself.
func (w *walk) stayWithin(d derived) *result {
	c := d.container
	r := &result{verdict: Accept, reachable: w.s.listens(c, d.pk.proto, d.pk.dport, false), delivered: Delivery{Kind: "container", Name: c.Name,
		Address: d.pk.dst.String(), Port: d.pk.dport, Source: d.pk.src.String(), SourcePort: d.pk.sport}}
	if !hasPorts(d.pk.proto) {
		r.reachable = yes
	}
	r.why = fmt.Sprintf("%s is container %s itself: the packet never leaves it.", d.pk.dst, c.Name)
	w.tell("%s stays within container %s", d.pk.String(), c.Name)
	return r
}

// passBy is what becomes of a packet on a link that a container has an interface of its own on: of this host's rules only those at
// the link's ingress see it.
func (w *walk) passBy(d derived) *result {
	r := &result{verdict: Accept, reachable: perhaps, delivered: Delivery{Kind: "remote", Name: d.in, Address: d.pk.dst.String(), Port: d.pk.dport}}
	r.why = fmt.Sprintf("No rule of this host sees it: network %s is %s on %s. Whether %s answers isn't known here.",
		d.aside.Name, d.aside.Driver, d.in, end(d.pk.dst, d.pk.dport))
	if d.container == nil {
		if f := w.atDevice(netfilter.Ingress, d.in); f != accepted {
			return w.refused(w.stopped(f))
		}
		c := w.s.containerAt(d.pk.dst)
		r.delivered.Kind, r.delivered.Name = "container", c.Name
		r.reachable = w.s.listens(c, d.pk.proto, d.pk.dport, false)
		r.why = fmt.Sprintf("Container %s is on that link itself (network %s, %s): no other rule of this host sees it.", c.Name, d.aside.Name, d.aside.Driver)
	}
	r.delivered.Source, r.delivered.SourcePort = d.pk.src.String(), d.pk.sport
	w.tell("it passes by this host's rules")
	return r
}

func (w *walk) result(r *result) *result {
	r.steps, r.hops, r.assumed = w.steps, w.hops, w.assumed
	return r
}

// send leads a packet that comes as the query says.
func (w *walk) send(d derived) ending {
	if d.in == "" {
		return w.depart()
	}
	return w.arrive(d.in, d.port)
}

// begin finds the connection that a packet belongs to: the one that its first packet would begin now.
func (w *walk) begin(d derived) {
	steps, hops, accepts, assumed := w.steps, w.hops, w.accepts, w.assumed
	w.pk.state = packet.New
	if w.pk.proto == protoTCP {
		w.pk.flags = packet.SYN
	}
	w.send(d)
	w.steps, w.hops, w.accepts, w.assumed = steps, hops, accepts, assumed
	w.pk = d.pk
	w.lost, w.ended = ending{}, Place{}
	if w.ct != nil {
		w.ct.dstDone, w.ct.srcDone = true, true
		if w.ct.dnat || w.ct.snat {
			w.assume("its connection is translated as one that begins now would be")
		}
		if w.ct.mark != 0 {
			w.assume("its connection has the mark that one that begins now would get: 0x%x", w.ct.mark)
		}
	}
}

// whence says where the packet begins.
func (w *walk) whence(d derived) string {
	switch {
	case d.in == "" && d.container != nil:
		return "from container " + d.container.Name + ", which has this host's network"
	case d.in == "":
		return "from this host"
	case d.container != nil:
		return "from container " + d.container.Name + ", in by " + d.in
	case d.port != "" && d.port != outside:
		return "in by " + d.port + " of " + d.in
	}
	return "in by " + ifaceName(d.in)
}

// refused is a request that got nowhere.
func (w *walk) refused(e ending) *result {
	r := &result{verdict: Drop, delivered: Delivery{Kind: "none"}, decided: &e.place}
	if e.kind == endRejected {
		r.verdict = Reject
	}
	r.why, r.hint = w.whyRefused(e), w.hintRefused(e)
	return r
}

// deliver finds who takes the packet, and leads the answer back.
func (w *walk) deliver(e ending) *result {
	r := &result{verdict: Accept, decided: w.decidedBy()}
	at := w.pk
	var answer ending
	defer func() {
		if r.delivered.Source == "" && r.delivered != (Delivery{Kind: "proxy"}) {
			r.delivered.Source, r.delivered.SourcePort = at.src.String(), at.sport
		}
	}()
	switch e.kind {
	case endLocal:
		sock := w.localDelivery(r)
		if sock != nil && r.delivered.Kind == "proxy" && w.s.proxyTarget(sock).IsValid() {
			if problem := w.proxied(sock, r); problem {
				return r
			}
		}
		if r.reachable == no {
			return r
		}
		w.leg = Answer
		w.answerOf(w.answersFrom(sock, at))
		answer = w.depart()
	default:
		w.farDelivery(r)
		if r.reachable == no {
			return r
		}
		w.leg = Answer
		w.answerOf(at)
		answer = w.arrive(at.out, w.portOf(at.out))
	}
	if w.derived.pk.state == packet.New || w.derived.pk.state == packet.Established {
		w.judgeAnswer(r, answer)
	}
	return r
}

// pktinfo is the first release of Docker whose docker-proxy answers UDP from the address that was dialled.
const pktinfo = 28

// answersFrom is a delivered packet as its answer has it. docker-proxy answered UDP from whichever address the routes choose, and
// not from the one that was dialled, which connection tracking takes for another connection, and the client for a stranger.
func (w *walk) answersFrom(sock *snapshot.Socket, at pkt) pkt {
	if sock == nil || sock.Process != "docker-proxy" || at.proto != protoUDP || !sock.Addr.IsUnspecified() {
		return at
	}
	from := w.s.net.ownSource(at.src, "")
	version := w.s.host.Inventory.Docker.Version
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	switch {
	case from == at.dst || !from.IsValid() || err == nil && n >= pktinfo:
		return at
	case err != nil && w.choose(2, doubt{kernelPlace("docker-proxy"), "the version of Docker isn't known, and before 28 it answers UDP from another address"}) == 0:
		return at
	}
	w.tell("docker-proxy answers from %s, to which the routes lead, and not from %s", from, at.dst)
	at.dst, at.ct = from, nil
	return at
}

// portOf is a port of a bridge that isn't known; "" for other interfaces.
func (w *walk) portOf(iface string) string {
	if w.s.net.isBridge(iface) {
		return outside
	}
	return ""
}

// decidedBy is what let a request through: quaywall's rule with a line of the policy, else the last rule at the hook that is
// for filtering, else the policy there.
func (w *walk) decidedBy() *Place {
	var rule, base *Place
	for i := range w.accepts {
		a := &w.accepts[i]
		filters := a.hook == netfilter.Input || a.hook == netfilter.Forward || a.hook == netfilter.Output
		switch {
		case a.place.PolicyLine != "":
			return &a.place
		case filters && a.named:
			rule = &a.place
		case filters:
			base = &a.place
		}
	}
	if rule != nil {
		return rule
	}
	return base
}

// localDelivery finds the socket that takes the packet.
func (w *walk) localDelivery(r *result) *snapshot.Socket {
	p := &w.pk
	r.delivered = Delivery{Kind: "host", Address: p.dst.String(), Port: p.dport}
	if !hasPorts(p.proto) {
		w.answeredByKernel(r)
		return nil
	}
	dst := netip.AddrPortFrom(p.dst, p.dport)
	if p.tproxy.IsValid() {
		dst = p.tproxy
	}
	sock := w.s.listener(p.proto, dst, p.in)
	switch {
	case w.derived.pk.state == packet.Invalid:
		r.reachable = perhaps
		r.why = "It reaches this host; what a socket makes of a packet of no connection isn't known."
		return nil
	case sock != nil && sock.Idle:
		r.reachable = no
		r.delivered.Name = sock.Process
		r.why = fmt.Sprintf("It reaches this host at %s, where Docker itself holds the published port and serves nobody: userland-proxy is off, and no rule translates this packet.", dst)
		r.hint = "Restart Docker, if its rules are gone; else dial another address of this host."
		w.tell("dockerd takes it at %s, and never answers", dst)
	case sock != nil && sock.Process == "dockerd" && !w.s.host.Has(snapshot.PartContainers):
		r.reachable = perhaps
		r.delivered.Name = sock.Process
		r.why = fmt.Sprintf("It reaches dockerd at %s; whether it is its API, or holds a published port for nobody, isn't known without the containers.", dst)
	case sock != nil:
		r.reachable = yes
		r.delivered.Name = sock.Process
		if sock.Container != "" {
			r.delivered.Name = sock.Container
		}
		if to := w.s.proxyTarget(sock); to.IsValid() {
			r.delivered = Delivery{Kind: "proxy", Name: w.s.ownerOf(sock, to), Address: to.Addr().String(), Port: to.Port()}
		} else if sock.Process == "docker-proxy" {
			r.delivered = Delivery{Kind: "proxy"}
			r.reachable = perhaps
			r.why = "Docker's proxy takes it; which container it leads to isn't known."
		}
		w.tell("%s takes it at %s", processName(sock), dst)
	case !w.s.host.Has(snapshot.PartSockets):
		r.reachable = perhaps
		r.why = fmt.Sprintf("It reaches this host; what listens there isn't in the snapshot, so whether %s is answered isn't known.", dst)
	case w.derived.pk.state != packet.New:
		r.reachable = perhaps
		r.why = "It reaches this host; whether a socket has this connection isn't known."
	default:
		r.reachable = no
		r.delivered.Name = ""
		r.why = fmt.Sprintf("It reaches this host, but nothing listens at %s/%s.", dst, packet.ProtoName(p.proto))
		r.hint = w.elsewhere(dst)
		w.tell("nothing listens at %s", dst)
	}
	return sock
}

func processName(s *snapshot.Socket) string {
	if s.Process == "" {
		return "a socket"
	}
	return s.Process
}

// answeredByKernel is what needs no socket.
func (w *walk) answeredByKernel(r *result) {
	p := &w.pk
	echo := p.proto == protoICMP && p.icmpType == 8 || p.proto == protoICMPv6 && p.icmpType == 128
	ignored, _ := w.s.net.sysctl("net.ipv4.icmp_echo_ignore_all")
	if p.family == nfIPv6 {
		ignored, _ = w.s.net.sysctl("net.ipv6.icmp.echo_ignore_all")
	}
	switch {
	case echo && ignored == 0:
		r.reachable, r.delivered.Name = yes, "kernel"
	case echo:
		r.reachable, r.why, r.hint = no, "It reaches this host, which answers no ping: icmp echo_ignore_all is set.", "Set echo_ignore_all to 0."
	default:
		r.reachable = perhaps
		r.why = "It reaches this host; whether anything there takes protocol " + packet.ProtoName(p.proto) + " isn't known."
	}
}

// listener finds the socket that a packet to an address and port is for: one of that very address before one of all.
func (s *Sim) listener(proto uint8, dst netip.AddrPort, in string) *snapshot.Socket {
	var best *snapshot.Socket
	for _, k := range s.listening()[snapshot.Port{Proto: proto, Port: dst.Port()}] {
		if k.Dev != "" && k.Dev != in {
			continue
		}
		addr := k.Addr.WithZone("")
		switch {
		case addr == dst.Addr():
			return k
		case addr.IsUnspecified() && (addr.Is4() == dst.Addr().Is4() || addr.Is6() && k.Both):
			if best == nil || best.Both && !k.Both {
				best = k
			}
		}
	}
	return best
}

// proxyTarget is where a docker-proxy leads to; zero for other sockets, and where it isn't known.
func (s *Sim) proxyTarget(k *snapshot.Socket) netip.AddrPort {
	if k.To.IsValid() || k.Process != "docker-proxy" {
		return k.To
	}
	for _, p := range s.host.Inventory.Published {
		if p.Proto != k.Proto || p.Port != k.Port {
			continue
		}
		c := s.container(p.Container)
		if c == nil {
			continue
		}
		if len(c.Networks) == 1 { // of several it isn't known which leads out
			if a := ofFamily(c.Networks[0].Addrs, netip.IPv4Unspecified()); a.IsValid() {
				return netip.AddrPortFrom(a, p.Target)
			}
		}
	}
	return netip.AddrPort{}
}

func (s *Sim) ownerOf(k *snapshot.Socket, to netip.AddrPort) string {
	if k.Container != "" {
		return k.Container
	}
	if c := s.containerAt(to.Addr()); c != nil {
		return c.Name
	}
	return ""
}

// containerAt is the container that has an address.
func (s *Sim) containerAt(a netip.Addr) *snapshot.Container { return s.containers()[a] }

// proxied follows the connection that docker-proxy makes to the container, and its answer. problem tells that it fails.
func (w *walk) proxied(sock *snapshot.Socket, r *result) (problem bool) {
	before := w.pk
	to := w.s.proxyTarget(sock)
	first := w.ct
	defer func() { w.ct = first }()
	w.ct = nil
	w.leg = ProxyRequest
	w.pk = pkt{proto: before.proto, flags: before.flags, family: nfIPv6, state: before.state, root: true}
	w.pk.tuple = tuple{w.s.net.ownSource(to.Addr(), ""), to.Addr(), usualProxyPort, to.Port()}
	if to.Addr().Is4() {
		w.pk.family = nfIPv4
	}
	w.tell("docker-proxy connects to %s itself: %s", to, w.pk.String())
	e := w.depart()
	if e.kind != endSent {
		r.reachable = no
		r.why = fmt.Sprintf("docker-proxy takes the connection, but its own to the container at %s is stopped: %s", to, w.whyRefused(e))
		r.hint = w.hintRefused(e)
		return true
	}
	at := w.pk
	r.delivered.Source, r.delivered.SourcePort = at.src.String(), at.sport
	w.leg = ProxyAnswer
	w.answerOf(at)
	if back := w.arrive(at.out, w.portOf(at.out)); back.kind != endLocal {
		r.reachable = no
		r.why = fmt.Sprintf("docker-proxy takes the connection, but the container's answer to it is stopped: %s", w.whyRefused(back))
		r.hint = w.hintRefused(back)
		return true
	}
	r.reachable = w.s.listens(w.s.containerAt(to.Addr()), before.proto, to.Port(), true)
	w.assumeListens(r, to)
	return false
}

func (w *walk) assumeListens(r *result, at netip.AddrPort) {
	if r.reachable == yes {
		w.assume("the container listens at %s, as it is published or its image says", at)
	}
}

// listens tells whether a container listens at a port: it is taken to where it publishes the port, or its image says so.
func (s *Sim) listens(c *snapshot.Container, proto uint8, port uint16, published bool) tri {
	if published {
		return yes
	}
	if c == nil {
		return perhaps
	}
	for _, p := range s.host.Inventory.Published {
		if p.Target == port && p.Proto == proto && p.Container == c.Name {
			return yes
		}
	}
	if slices.Contains(c.Exposed, snapshot.Port{Proto: proto, Port: port}) {
		return yes
	}
	return perhaps
}

// farDelivery finds whom a packet goes to that leaves the host.
func (w *walk) farDelivery(r *result) {
	p := &w.pk
	at := netip.AddrPortFrom(p.dst, p.dport)
	owner := w.s.containerAt(p.dst)
	c := owner
	behind := w.s.isBehind(c, p.dst, p.out)
	if behind == no {
		c = nil
	}
	r.delivered = Delivery{Kind: "remote", Name: p.out, Address: p.dst.String(), Port: p.dport}
	inside := w.s.net.isInside(p.out)
	if c != nil || inside {
		r.delivered.Kind, r.delivered.Name = "container", ""
	}
	switch {
	case c != nil && w.s.containerAt(p.src) == c:
		r.reachable, r.delivered.Kind = no, "none"
		r.why = fmt.Sprintf("It gets to container %s, which takes no packet from a wire that has its own address, %s, for its source.", c.Name, p.src)
		r.hint = "Have the host masquerade it, or dial the container's other address from within."
	case c != nil:
		r.delivered.Name = c.Name
		r.reachable = w.s.listens(c, p.proto, p.dport, p.ct != nil && p.ct.dnat && p.ct.now.dst == p.dst)
		w.assumeListens(r, at)
		if !hasPorts(p.proto) {
			r.reachable = yes
		}
		if behind == perhaps && r.reachable == yes && (p.ct == nil || !p.ct.dnat) {
			r.reachable = perhaps
			r.why = fmt.Sprintf("It leaves by %s towards the address of container %s; whether that is on a network there isn't known.", ifaceName(p.out), c.Name)
		} else if r.reachable == perhaps {
			r.why = fmt.Sprintf("It reaches container %s; whether anything there listens at port %d isn't known.", c.Name, p.dport)
		}
		w.tell("container %s takes it at %s", c.Name, end(p.dst, p.dport))
	case owner != nil:
		r.reachable = no
		r.why = fmt.Sprintf("%s is the address of container %s, but the routes lead out of %s, where it isn't.", p.dst, owner.Name, ifaceName(p.out))
		r.hint = "Dial it from within its network, or from the link that it has an interface of its own on."
	case inside && w.s.host.Has(snapshot.PartContainers) && len(w.s.host.Containers) > 0 && w.s.net.isDocker(p.out):
		r.reachable, r.delivered.Kind = no, "none"
		r.why = fmt.Sprintf("It leaves by %s, but no container has the address %s.", p.out, p.dst)
		r.hint = "Dial an address that a container has."
	case inside:
		r.reachable = perhaps
		if p.ct != nil && p.ct.dnat {
			r.reachable = yes
			w.assumeListens(r, at)
		} else {
			r.why = fmt.Sprintf("It leaves by %s; which container has %s, and whether it listens, isn't known.", p.out, p.dst)
		}
	default:
		r.reachable = perhaps
		r.why = fmt.Sprintf("It leaves this host by %s; whether %s answers isn't known here.", ifaceName(p.out), end(p.dst, p.dport))
		w.tell("it leaves by %s", ifaceName(p.out))
	}
}

// isBehind tells whether an interface leads to a container's address.
func (s *Sim) isBehind(c *snapshot.Container, a netip.Addr, iface string) tri {
	switch {
	case c == nil:
		return no
	case iface == outside:
		return perhaps
	}
	for _, e := range c.Networks {
		if n, known := s.host.Inventory.Network(e.Network); known && slices.Contains(e.Addrs, a) {
			return is(n.Bridge == iface)
		}
	}
	if s.host.Has(snapshot.PartNetworks) {
		return no
	}
	return perhaps
}

// isDocker tells whether a bridge is one of Docker's networks, of which all members are known.
func (n *network) isDocker(name string) bool {
	return slices.Contains(n.host.Inventory.Bridges(), name) && n.host.Has(snapshot.PartNetworks)
}

// answerOf turns a delivered packet into its answer.
func (w *walk) answerOf(p pkt) {
	a := pkt{tuple: p.reversed(), proto: p.proto, family: p.family, state: packet.Established, reply: true}
	a.icmpType = answerType(p.proto, p.icmpType)
	if p.proto == protoTCP {
		a.flags = packet.ACK
		if p.flags == packet.SYN {
			a.flags = packet.SYN | packet.ACK
		}
	}
	if p.ct == nil { // nobody knows what it answers
		a.reply, a.state = false, packet.New
		if p.proto == protoTCP {
			a.state = packet.Invalid
		}
	}
	w.ct = p.ct
	w.pk = a
	w.tell("the answer: %s", w.pk.String())
}

// judgeAnswer says whether an answer comes back to who asked.
func (w *walk) judgeAnswer(r *result, e ending) {
	want := w.derived.pk.tuple.reversed()
	fail := func(why, hint string) { r.reachable, r.why, r.hint = no, why, hint }
	asker := w.derived.in
	switch {
	case e.kind == endDropped || e.kind == endRejected:
		fail("The request gets through, but its answer is stopped: "+w.whyRefused(e), w.hintRefused(e))
	case (e.kind == endLocal) != (asker == ""):
		fail("The request gets through, but its answer goes astray: it ends at "+w.endPoint(e)+".", "Look at the routes and the translations.")
	case w.pk.tuple != want && hasPorts(w.pk.proto):
		fail(fmt.Sprintf("The request gets through, but the answer comes from %s and not from %s, which was asked: the asker throws it away.",
			end(w.pk.src, w.pk.sport), end(want.src, want.sport)), "Have the answer come back by this host: masquerade the request.")
	case e.kind == endSent && asker != outside && w.pk.out != asker && w.pk.out != outside:
		w.assume("the answer leaves by %s, not by %s where the request came from; the network there must take it", w.pk.out, asker)
	}
}

func (w *walk) endPoint(e ending) string {
	if e.kind == endLocal {
		return "this host"
	}
	return w.pk.out
}

// socketField is what the match on sockets finds.
func (w *walk) socketField(f netfilter.Field) (uint64, knowledge) {
	p := &w.pk
	if p.socket && w.leg == Request {
		return when(f == netfilter.SocketFound)
	}
	if !hasPorts(p.proto) {
		return 0, lacks
	}
	if p.reply && w.derived.in == "" {
		return when(f == netfilter.SocketFound)
	}
	k := w.s.listener(p.proto, netip.AddrPortFrom(p.dst, p.dport), p.in)
	switch {
	case k == nil && !w.s.host.Has(snapshot.PartSockets):
		return 0, unknown
	case k == nil && f == netfilter.SocketFound:
		return 0, has
	case k == nil:
		return 0, lacks
	case f == netfilter.SocketFound:
		return 1, has
	}
	return when(k.Addr.IsUnspecified())
}
