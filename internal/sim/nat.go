package sim

import (
	"fmt"
	"net/netip"

	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
)

// translate rewrites the connection's addresses, once for each end, and accepts the packet.
func (w *walk) translate(r *netfilter.Rule, t netfilter.Translate, at int) (ends, left bool, f fate) {
	if !w.nat || w.pk.ct == nil {
		w.did(at, "accept")
		return true, true, accepted
	}
	addr, port, ok := w.target(t)
	if !ok {
		d := doubt{w.place(w.chain, r), "where it translates to isn't known"}
		f = w.either(d, goesOn, accepted, dropped)
		return true, f != goesOn, f
	}
	if !addr.IsValid() && (t.Kind == netfilter.Masquerade || t.Kind == netfilter.Redirect) {
		w.did(at, "drop: the interface has no address")
		return true, true, dropped
	}
	w.did(at, "%s to %s", [...]string{"dnat", "snat", "masquerade", "redirect", "netmap"}[t.Kind], natText(addr, port))
	w.step.Rules[at].Before = w.pk.String()
	if w.isDstHook() {
		w.rewriteDst(addr, port)
	} else {
		w.rewriteSrc(addr, port)
	}
	w.step.Rules[at].After = w.pk.String()
	return true, true, accepted
}

func natText(addr netip.Addr, port uint16) string {
	if !addr.IsValid() {
		return fmt.Sprintf("port %d", port)
	}
	return end(addr, port)
}

// isDstHook tells whether translation at the hook in hand rewrites destinations; else it rewrites sources.
func (w *walk) isDstHook() bool { return w.hook == netfilter.Prerouting || w.hook == netfilter.Output }

func (w *walk) rewriteDst(addr netip.Addr, port uint16) {
	c := w.pk.ct
	if addr.IsValid() {
		w.pk.dst = addr
	}
	if port != 0 && hasPorts(w.pk.proto) {
		w.pk.dport = port
	}
	c.now.dst, c.now.dport = w.pk.dst, w.pk.dport
	c.dnat = c.now.dst != c.orig.dst || c.now.dport != c.orig.dport
	c.dstDone = true
}

func (w *walk) rewriteSrc(addr netip.Addr, port uint16) {
	c := w.pk.ct
	if addr.IsValid() {
		w.pk.src = addr
	}
	if port != 0 && hasPorts(w.pk.proto) {
		w.pk.sport = port
	}
	c.now.src, c.now.sport = w.pk.src, w.pk.sport
	c.snat = c.now.src != c.orig.src || c.now.sport != c.orig.sport
	c.srcDone = true
}

// target is the address and the port that a translation leads to; the zero ones keep what the packet has.
func (w *walk) target(t netfilter.Translate) (addr netip.Addr, port uint16, ok bool) {
	addrs, ports := t.Addrs, t.Ports
	if len(t.Fields) > 0 {
		s := w.set(t.Map, t.Elements)
		if s == nil {
			return addr, 0, false
		}
		e, in := w.find(s, t.Fields)
		if in != yes || e == nil {
			return addr, 0, false
		}
		addrs, ports = targetOf(e)
	}
	if len(ports) > 0 {
		port = w.portWithin(t, ports)
	}
	switch t.Kind {
	case netfilter.Masquerade:
		addr = w.s.net.sourceFor(w.pk.out, w.pk.dst)
	case netfilter.Redirect:
		addr = w.redirect()
	case netfilter.Netmap:
		addr = w.netmap(addrs)
	default:
		addr = w.firstOf(addrs)
	}
	return addr, port, true
}

func targetOf(e *netfilter.Element) (addrs netfilter.Values, ports []netfilter.Range) {
	for _, v := range e.To {
		if !v.Addrs.IsEmpty() {
			addrs = v
		}
		if len(v.Numbers) > 0 {
			ports = v.Numbers
		}
	}
	return addrs, ports
}

// portWithin is the port that a translation gives: the packet's own where that is among them, else the first.
func (w *walk) portWithin(t netfilter.Translate, ports []netfilter.Range) uint16 {
	own := w.pk.sport
	if w.isDstHook() {
		own = w.pk.dport
	}
	if t.Base != 0 && own >= t.Base {
		return uint16(ports[0].First) + own - t.Base
	}
	if !t.Random && numbered(ports, uint64(own)) {
		return own
	}
	if t.Random || len(ports) > 1 || ports[0].First != ports[0].Last {
		w.assume("of the ports that a rule translates to, the first is taken: %d", ports[0].First)
	}
	return uint16(ports[0].First)
}

// firstOf is the first of the addresses of the packet's family. Which of several the kernel takes hangs on a hash.
func (w *walk) firstOf(v netfilter.Values) netip.Addr {
	s := v.Addrs.V4()
	if w.pk.family == nfIPv6 {
		s = v.Addrs.V6()
	}
	for r := range s.Each() {
		if s.Len() > 1 || r.From() != r.To() {
			w.assume("of the addresses that a rule translates to, the first is taken: %s", r.From())
		}
		return r.From()
	}
	return netip.Addr{}
}

// redirect is the address of this host that a packet is led to.
func (w *walk) redirect() netip.Addr {
	if w.hook == netfilter.Output {
		if w.pk.family == nfIPv6 {
			return netip.IPv6Loopback()
		}
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return w.s.net.addressOn(w.pk.in, w.pk.dst)
}

// netmap keeps the host bits.
func (w *walk) netmap(v netfilter.Values) netip.Addr {
	from := w.pk.dst
	if !w.isDstHook() {
		from = w.pk.src
	}
	for r := range v.Addrs.Each() {
		p, ok := r.Prefix()
		if !ok || p.Addr().Is4() != from.Is4() {
			continue
		}
		b, n := from.AsSlice(), p.Addr().AsSlice()
		for i := range b {
			bits := min(8, max(0, p.Bits()-8*i))
			mask := byte(0xff << (8 - bits))
			b[i] = n[i]&mask | b[i]&^mask
		}
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	return from
}

// translations are what connection tracking does at its place in a hook: the chains of type nat for the first packet of a
// connection, and for every other packet what they did then.
func (w *walk) translations(chains []*chain, hook netfilter.Hook) fate {
	c := w.pk.ct
	if c == nil {
		return accepted
	}
	w.hook = hook
	dst := w.isDstHook()
	if done := dst && c.dstDone || !dst && c.srcDone; done || !w.opens() {
		w.rewriteKnown(dst, hook)
		return accepted
	}
	w.nat = true
	defer func() { w.nat = false }()
	for _, ch := range chains {
		if f := w.base(ch, hook); f != accepted {
			return f
		}
		if dst && c.dstDone || !dst && c.srcDone {
			return accepted
		}
	}
	if dst {
		w.rewriteDst(netip.Addr{}, 0)
	} else {
		w.rewriteSrc(netip.Addr{}, 0)
	}
	return accepted
}

// opens tells whether a packet is the first of its connection, as translation sees it.
func (w *walk) opens() bool {
	isError := w.pk.state == packet.Related && (w.pk.proto == protoICMP || w.pk.proto == protoICMPv6)
	return (w.pk.state == packet.New || w.pk.state == packet.Related) && !w.pk.reply && !isError
}

// rewriteKnown does again what was done to the connection's first packet, or on the way back undoes it.
func (w *walk) rewriteKnown(dst bool, hook netfilter.Hook) {
	c, before := w.pk.ct, w.pk.tuple
	to := c.now
	if w.pk.reply {
		to = c.orig.reversed()
	}
	if dst {
		w.pk.dst, w.pk.dport = to.dst, to.dport
	} else {
		w.pk.src, w.pk.sport = to.src, to.sport
	}
	if w.pk.tuple == before {
		return
	}
	old := w.pk
	old.tuple = before
	w.steps = append(w.steps, Step{Leg: w.leg, Hook: hookNames[hook], Text: "connection tracking rewrites it as it did the first packet's",
		Before: old.String(), After: w.pk.String()})
	if w.pk.reply {
		w.steps[len(w.steps)-1].Text = "connection tracking takes back what was rewritten on the way in"
	}
}

// tproxy has the packet delivered to a socket of this host; the target of iptables drops what there is none for.
func (w *walk) tproxy(t netfilter.TProxy, at int) (ends, left bool, f fate) {
	addr := w.firstOf(t.Addrs)
	if !addr.IsValid() {
		addr = w.s.net.addressOn(w.pk.in, w.pk.dst)
	}
	port := t.Port
	if port == 0 {
		port = w.pk.dport
	}
	w.pk.tproxy = netip.AddrPortFrom(addr, port)
	w.pk.mark = w.pk.mark&^t.Mask ^ t.Mark
	w.did(at, "to the socket at %s, mark 0x%x", w.pk.tproxy, w.pk.mark)
	isIPTables := w.chain.table.Dialect != netfilter.NFT
	return isIPTables, isIPTables, accepted
}
