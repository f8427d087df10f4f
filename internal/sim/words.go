package sim

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/packet"
)

// fieldNames are the fields in the words of nft.
var fieldNames = map[netfilter.Field]string{
	netfilter.NFProto: "family", netfilter.Proto: "protocol", netfilter.Src: "source", netfilter.Dst: "destination",
	netfilter.SrcPort: "source port", netfilter.DstPort: "destination port", netfilter.ICMPType: "ICMP type", netfilter.ICMPCode: "ICMP code",
	netfilter.ICMPv6Type: "ICMPv6 type", netfilter.ICMPv6Code: "ICMPv6 code", netfilter.TCPFlags: "TCP flags",
	netfilter.TCPOption: "TCP option", netfilter.Length: "length", netfilter.TTL: "TTL", netfilter.DSCP: "DSCP", netfilter.ECN: "ECN",
	netfilter.FragmentOffset: "fragment offset", netfilter.MoreFragments: "more fragments", netfilter.SrcMAC: "source MAC",
	netfilter.DstMAC: "destination MAC", netfilter.EtherType: "ether type", netfilter.VLAN: "VLAN", netfilter.PacketType: "packet type",
	netfilter.InIface: "in by", netfilter.OutIface: "out by", netfilter.InBridgePort: "in by port", netfilter.OutBridgePort: "out by port",
	netfilter.Bridged: "bridged", netfilter.InKind: "kind of interface in", netfilter.OutKind: "kind of interface out",
	netfilter.SrcType: "source's type", netfilter.DstType: "destination's type", netfilter.SrcTypeIn: "source's type there",
	netfilter.DstTypeIn: "destination's type there", netfilter.DstTypeOut: "destination's type there", netfilter.ReverseRoute: "way back",
	netfilter.Mark: "mark", netfilter.Priority: "priority", netfilter.CtState: "connection's state", netfilter.CtStatus: "connection's status",
	netfilter.CtDirection: "direction", netfilter.CtMark: "connection's mark", netfilter.CtHelper: "helper",
	netfilter.CtOrigSrc: "original source", netfilter.CtOrigDst: "dialled address", netfilter.CtOrigSrcPort: "original source port",
	netfilter.CtOrigDstPort: "dialled port", netfilter.SocketFound: "socket", netfilter.SocketWildcard: "socket of all addresses",
	netfilter.UID: "user", netfilter.GID: "group", netfilter.CGroup: "control group",
}

// FieldName is a field in the words of nft.
func FieldName(f netfilter.Field) string {
	if name := fieldNames[f]; name != "" {
		return name
	}
	return fmt.Sprintf("field %d", f)
}

// whyNot says what a match that doesn't hold asks for, and what the packet has; of one that isn't known, what isn't.
func (w *walk) whyNot(m netfilter.Match) string {
	switch m := m.(type) {
	case netfilter.Compare:
		if _, k := w.test(m.Field, m.Mask, &m.Values); k == unknown {
			return fmt.Sprintf("%s is not known, and it asks for %s", FieldName(m.Field), w.wanted(&m))
		}
		return fmt.Sprintf("%s is %s, not %s", FieldName(m.Field), w.valueText(m.Field), w.wanted(&m))
	case netfilter.In:
		name := "@" + m.Set
		if m.Set == "" {
			name = "the set"
		}
		if w.set(m.Set, m.Elements) == nil {
			return "set " + m.Set + " is not known"
		}
		return fmt.Sprintf("%s is %sin %s", w.fieldsText(m.Fields), unlessText(!m.Not, "not "), name)
	case netfilter.Any:
		if m.Not {
			return "one of what it excludes holds"
		}
		return "none of what it asks for holds"
	case netfilter.Stateful:
		return m.Text + ": a first packet doesn't meet it"
	case netfilter.Opaque:
		return "not understood: " + m.Text
	}
	return ""
}

func unlessText(b bool, text string) string {
	if b {
		return text
	}
	return ""
}

func (w *walk) fieldsText(fields []netfilter.Field) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = FieldName(f) + " " + w.valueText(f)
	}
	return strings.Join(words, ", ")
}

// valueText is what the packet has.
func (w *walk) valueText(f netfilter.Field) string {
	var text string
	var k knowledge
	switch f.Kind() {
	case netfilter.Address:
		var a netip.Addr
		a, k = w.pk.address(w, f)
		text = a.String()
	case netfilter.Name:
		text, k = w.pk.name(w, f)
		if text == "" {
			text = "none"
		}
		text = ifaceName(text)
	default:
		var n uint64
		n, k = w.pk.number(w, f)
		text = numberText(f, n)
	}
	switch k {
	case lacks:
		return "none"
	case unknown:
		return "not known"
	}
	return text
}

var typeNames = []string{"unspecified", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit"}

func numberText(f netfilter.Field, n uint64) string {
	switch f {
	case netfilter.Proto, netfilter.CtProto:
		return packet.ProtoName(uint8(n))
	case netfilter.CtState:
		if n <= uint64(packet.Untracked) {
			return packet.State(n).String()
		}
	case netfilter.SrcType, netfilter.DstType, netfilter.SrcTypeIn, netfilter.DstTypeIn, netfilter.DstTypeOut:
		if n < uint64(len(typeNames)) {
			return typeNames[n]
		}
	case netfilter.NFProto:
		return familyName(uint8(n))
	case netfilter.Mark, netfilter.CtMark, netfilter.CtStatus, netfilter.TCPFlags:
		return fmt.Sprintf("0x%x", n)
	case netfilter.SrcMAC, netfilter.DstMAC:
		return strings.ReplaceAll(fmt.Sprintf("% x", binary.BigEndian.AppendUint64(nil, n)[2:]), " ", ":")
	}
	return fmt.Sprint(n)
}

// maxWanted is how many values are named.
const maxWanted = 4

// wanted is what a comparison asks for.
func (w *walk) wanted(c *netfilter.Compare) string {
	var words []string
	for _, p := range c.Addrs.Ranges() {
		if words = append(words, rangeText(p.From(), p.To())); len(words) > maxWanted {
			break
		}
	}
	for _, r := range c.Numbers {
		text := numberText(c.Field, r.First)
		if r.Last != r.First {
			text += "-" + numberText(c.Field, r.Last)
		}
		words = append(words, text)
	}
	words = append(words, c.Names...)
	if len(words) > maxWanted {
		words = append(words[:maxWanted], "…")
	}
	text := strings.Join(words, ", ")
	if c.Not {
		return "anything but " + text
	}
	return text
}

func rangeText(from, to netip.Addr) string {
	if from == to {
		return from.String()
	}
	return from.String() + "-" + to.String()
}

// String is a place in short: "rule 3 of ip filter DOCKER".
func (p Place) String() string {
	switch {
	case p.Table == "kernel":
		return "the kernel (" + p.Text + ")"
	case p.PolicyLine != "":
		return fmt.Sprintf("%s (rule %d of %s %s)", p.PolicyLine, p.Rule, p.Table, p.Chain)
	case p.Rule == 0:
		return fmt.Sprintf("the policy of %s %s", p.Table, p.Chain)
	}
	return fmt.Sprintf("rule %d of %s %s", p.Rule, p.Table, p.Chain)
}

// whyRefused says in one sentence what stopped a packet.
func (w *walk) whyRefused(e ending) string {
	if e.why != "" {
		return upper(e.why) + "."
	}
	verb := "drops"
	if e.kind == endRejected {
		verb = "rejects"
	}
	switch {
	case e.place.PolicyLine != "":
		text := e.place.String()
		if !strings.Contains(e.place.PolicyLine, ":") { // no file's name
			text = upper(text)
		}
		if e.place.note != "" {
			return fmt.Sprintf("%s %s it: %s.", text, verb, e.place.note)
		}
		return fmt.Sprintf("%s %s it.", text, verb)
	case e.place.Rule > 0 && e.place.Text != "":
		return fmt.Sprintf("%s %s it: %s.", upper(e.place.String()), verb, e.place.Text)
	}
	return fmt.Sprintf("%s %s it: no rule there lets it through.", upper(e.place.String()), verb)
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// hintRefused says in one sentence what to change.
func (w *walk) hintRefused(e ending) string {
	p := &w.pk
	switch {
	case e.next != "":
		return e.next + "."
	case e.place.PolicyLine != "" && e.place.PolicyLine != "default":
		return fmt.Sprintf("To let it through, put an allow rule for %s above %s, and apply the policy.", w.service(), e.place.PolicyLine)
	case strings.HasSuffix(e.place.Table, " quaywall") || strings.HasPrefix(e.place.Chain, "QUAYWALL"):
		return fmt.Sprintf("To let it through, add an allow rule for %s to the policy, and apply it.", w.service())
	case strings.HasPrefix(e.place.Chain, "DOCKER-ISOLATION") || e.place.Chain == "DOCKER-INTERNAL":
		return "Connect both containers to one network, or dial a published port."
	case w.s.net.isInside(p.out) && p.out != "lo" && !w.s.net.isInside(p.in) && p.in != "":
		return fmt.Sprintf("Publish the port (docker run -p), or for other forwarding accept it in DOCKER-USER: -i %s -o %s.", ifaceName(p.in), p.out)
	}
	return fmt.Sprintf("Accept it before %s.", e.place)
}

// service is the dialled port as a policy writes it.
func (w *walk) service() string {
	p := &w.derived.pk
	if hasPorts(p.proto) {
		return fmt.Sprintf("%d/%s", p.dport, packet.ProtoName(p.proto))
	}
	return packet.ProtoName(p.proto)
}

// elsewhere says where the port that nothing listens at is listened at.
func (w *walk) elsewhere(dst netip.AddrPort) string {
	for _, k := range w.s.host.Sockets {
		if k.Proto == w.pk.proto && k.Port == dst.Port() {
			return fmt.Sprintf("%s listens at %s only: have it listen at %s too.", upper(processName(&k)), k.Addr, dst.Addr())
		}
	}
	return "Start what should listen there, or publish the port of the container that does."
}

// trace is the answer for a person, from all ways together.
func (r *result) trace(q packet.Query, d derived) *Trace {
	t := &Trace{Packet: q.String(), Verdict: r.verdict, DeliveredTo: r.delivered, DecidedBy: r.decided, Path: r.steps, Hops: r.hops, Why: r.why, Hint: r.hint,
		Assumptions: r.assumed}
	switch r.reachable {
	case yes, no:
		answered := r.reachable == yes
		t.Reachable = &answered
	}
	if t.Why == "" {
		t.Why = r.whyAccepted(d)
	}
	if t.Hint == "" && r.verdict == Accept {
		t.Hint = r.hintAccepted(d)
	}
	if r.doubt != nil {
		r.tellDoubt(t)
	}
	return t
}

// tellDoubt has the answer name the rule in doubt.
func (r *result) tellDoubt(t *Trace) {
	if r.deliveryDiffers {
		t.DeliveredTo = Delivery{Kind: "none"}
	}
	if r.verdictDiffers {
		t.Verdict = Unknown
		t.DecidedBy = &r.doubt.place
		t.Why = fmt.Sprintf("Whether it gets through hangs on %s, of which this can't be told: %s (if it matches: %s, else: %s).", r.doubt.place,
			r.doubt.why, r.other, r.verdict)
		t.Hint = "Look at that rule, or give a snapshot that holds what it asks for."
		return
	}
	t.Why += fmt.Sprintf(" Where it ends hangs on %s, of which this can't be told: %s.", r.doubt.place, r.doubt.why)
}

func (r *result) whyAccepted(d derived) string {
	to := map[string]string{"host": "this host", "remote": "out by " + r.delivered.Name, "container": "container " + r.delivered.Name,
		"proxy": "container " + r.delivered.Name + " through docker-proxy"}[r.delivered.Kind]
	switch {
	case r.delivered.Kind == "host" && r.delivered.Name != "":
		to = r.delivered.Name + " on this host"
	case r.delivered.Name == "":
		to = strings.Replace(to, "container ", "a container", 1)
	}
	by := "no rule stops it"
	if r.decided != nil && r.decided.Rule > 0 {
		by = r.decided.String() + " lets it through"
	}
	at := end(d.pk.dst, d.pk.dport)
	if r.delivered.Address != "" {
		a, _ := netip.ParseAddr(r.delivered.Address)
		if now := end(a, r.delivered.Port); now != at {
			at += ", rewritten to " + now
		}
	}
	return fmt.Sprintf("It reaches %s (%s): %s.", to, at, by)
}

func (r *result) hintAccepted(d derived) string {
	port := packet.ProtoName(d.pk.proto)
	if hasPorts(d.pk.proto) {
		port = fmt.Sprintf("%d/%s", d.pk.dport, port)
	}
	switch {
	case d.in == "":
		return ""
	case r.decided != nil && r.decided.PolicyLine != "":
		return fmt.Sprintf("To close it, change %s of the policy.", r.decided.PolicyLine)
	case r.delivered.Kind == "proxy" || r.delivered.Kind == "container":
		return fmt.Sprintf("To close it, don't allow %s in quaywall's policy: a rule in INPUT alone doesn't see all ways to a published port.", port)
	}
	return fmt.Sprintf("To close it, don't allow %s in quaywall's policy, or drop it in INPUT.", port)
}
