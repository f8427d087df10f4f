package nftjson

import (
	"math"
	"net/netip"
	"strings"

	"go4.org/netipx"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
)

// operand is an expression that is asked of a packet: a field, or ((field & mask) ^ xor) >> shift, which is all that the
// kernel makes of operations with constants.
type operand struct {
	field netfilter.Field
	typ   *datatype
	// needs are the headers that must be there: nft leaves matches out that follow from others.
	needs     [maxNeeds]need
	mask, xor uint64
	shift     uint
	// stateful is what holds sometimes, of numgen and its like; field is NoField then.
	stateful string
	addrMask netip.Addr // of addresses
}

const maxNeeds = 2

// need is a field that must have a value.
type need struct {
	field netfilter.Field
	value uint64
}

func plain(f netfilter.Field, t *datatype, needs ...need) operand {
	o := operand{field: f, typ: t, mask: math.MaxUint64}
	copy(o.needs[:], needs)
	return o
}

var (
	needIPv4 = need{netfilter.NFProto, nfprotoIPv4}
	needIPv6 = need{netfilter.NFProto, nfprotoIPv6}
)

func needProto(p uint64) need { return need{netfilter.Proto, p} }

// isPlain tells whether an operand is a field and nothing else.
func (o operand) isPlain() bool {
	return o.field != netfilter.NoField && o.mask == math.MaxUint64 && o.xor == 0 && o.shift == 0 && !o.addrMask.IsValid()
}

// operands are the parts of a concatenation, or one, until the next are asked for. It fails where one isn't a plain field.
func (r *rule) operands(n *node) ([]operand, bool) {
	parts := n
	if key, v := n.only(); key == "concat" {
		parts = v
	} else {
		o, ok := r.operand(n)
		r.parts = append(r.parts[:0], o)
		return r.parts, ok
	}
	all := r.parts[:0]
	for part := range parts.each {
		o, ok := r.operand(part)
		if !ok || !o.isPlain() {
			return nil, false
		}
		all = append(all, o)
	}
	r.parts = all
	return all, len(all) > 0
}

// operand reads an expression; it fails where that can't be said by a field.
func (r *rule) operand(n *node) (operand, bool) {
	key, v := n.only()
	switch key {
	case "payload":
		return r.payload(v)
	case "meta":
		return found(metaFields, v.str("key"))
	case "ct":
		return ctOperand(v)
	case "fib":
		return fibOperand(v)
	case "rt":
		return found(routeFields, v.str("key"))
	case "socket":
		return found(socketFields, v.str("key"))
	case "tcp option":
		number, ok := tcpOptions[v.str("name")]
		if !ok || v.get("field") != nil {
			return operand{}, false
		}
		return operand{field: netfilter.TCPOption, typ: typeBool, xor: number, needs: [maxNeeds]need{needProto(6)}}, true
	case "exthdr":
		number, ok := extHeaders[v.str("name")]
		if !ok || v.get("field") != nil {
			return operand{}, false
		}
		return operand{field: netfilter.ExtHeader, typ: typeBool, xor: number, needs: [maxNeeds]need{needIPv6}}, true
	case "numgen", "jhash", "symhash":
		inner, _ := r.operand(v.get("expr"))
		return operand{stateful: key, typ: typeNumber, needs: inner.needs}, true
	case "&", "|", "^", ">>":
		return r.operation(key, v)
	}
	return operand{}, false
}

func found(fields map[string]operand, key string) (operand, bool) {
	o, ok := fields[key]
	return o, ok
}

// operation is an operation of a field and a constant.
func (r *rule) operation(op string, n *node) (operand, bool) {
	left, right, ok := n.pair()
	if !ok {
		return operand{}, false
	}
	if _, v := left.only(); op == "&" && v.str("protocol") == "ip" && v.str("field") == "frag-off" {
		c, ok := typeNumber.constant(right)
		return plain(netfilter.FragmentOffset, typeNumber, needIPv4), ok && c == 0x1fff
	}
	o, ok := r.operand(left)
	if ok && op == "&" && o.typ.kind == netfilter.Address && o.isPlain() {
		o.addrMask, ok = o.typ.addr(right)
		return o, ok
	}
	if !ok || o.field == netfilter.NoField || o.typ.kind != netfilter.Number || o.typ == typeBool {
		return operand{}, false
	}
	c, ok := o.typ.constant(right)
	if !ok {
		return operand{}, false
	}
	if op == ">>" {
		o.shift += uint(min(c, 64))
		return o, o.shift < 64
	}
	c <<= o.shift
	switch op {
	case "&":
		o.mask, o.xor = o.mask&c, o.xor&c
	case "|":
		o.mask, o.xor = o.mask&^c, o.xor|c
	case "^":
		o.xor ^= c
	}
	return o, true
}

// constant is a number, or names whose bits count together.
func (t *datatype) constant(n *node) (uint64, bool) {
	if n.kind != object && n.kind != list {
		return t.number(n)
	}
	parts := n
	if key, v := n.only(); key == "|" {
		parts = v
	} else if n.kind != list {
		return 0, false
	}
	var all uint64
	for part := range parts.each {
		bits, ok := t.constant(part)
		if !ok {
			return 0, false
		}
		all |= bits
	}
	return all, true
}

var metaFields = map[string]operand{
	"length":    plain(netfilter.Length, typeNumber),
	"protocol":  plain(netfilter.EtherType, typeEther),
	"nfproto":   plain(netfilter.NFProto, typeFamily),
	"l4proto":   plain(netfilter.Proto, typeProto),
	"mark":      plain(netfilter.Mark, typeNumber),
	"iif":       plain(netfilter.InIface, typeName),
	"iifname":   plain(netfilter.InIface, typeName),
	"oif":       plain(netfilter.OutIface, typeName),
	"oifname":   plain(netfilter.OutIface, typeName),
	"iifkind":   plain(netfilter.InKind, typeName),
	"oifkind":   plain(netfilter.OutKind, typeName),
	"iifgroup":  plain(netfilter.InGroup, typeGroup),
	"oifgroup":  plain(netfilter.OutGroup, typeGroup),
	"skuid":     plain(netfilter.UID, typeUser),
	"skgid":     plain(netfilter.GID, typeUser),
	"rtclassid": plain(netfilter.Realm, typeNumber),
	"priority":  plain(netfilter.Priority, typePrio),
	"pkttype":   plain(netfilter.PacketType, typePacket),
	"secpath":   plain(netfilter.IPsecIn, typeBool),
	"ipsec":     plain(netfilter.IPsecIn, typeBool),
	"random":    {stateful: "random", typ: typeNumber},
	"time":      {stateful: "time", typ: typeNumber},
	"day":       {stateful: "time", typ: typeNumber},
	"hour":      {stateful: "time", typ: typeNumber},
}

var routeFields = map[string]operand{
	"classid": plain(netfilter.Realm, typeNumber),
	"ipsec":   plain(netfilter.IPsecOut, typeBool),
}

var socketFields = map[string]operand{
	"transparent": plain(netfilter.SocketTransparent, typeBool),
	"wildcard":    plain(netfilter.SocketWildcard, typeBool),
	"mark":        plain(netfilter.SocketMark, typeNumber),
}

// ctOperand reads a field of a connection. Those of addresses have their family in the key or, of old versions, beside it.
func ctOperand(n *node) (operand, bool) {
	key := n.str("key")
	family, rest, ok := strings.Cut(key, " ")
	if !ok {
		family, rest = n.str("family"), key
	}
	t := typeAddr4
	if family == "ip6" {
		t = typeAddr6
	}
	switch reply := n.str("dir") == "reply"; rest {
	case "saddr":
		return plain(pick(reply, netfilter.CtReplySrc, netfilter.CtOrigSrc), t, familyNeed(family)), true
	case "daddr":
		return plain(pick(reply, netfilter.CtReplyDst, netfilter.CtOrigDst), t, familyNeed(family)), true
	case "proto-src":
		return plain(pick(reply, netfilter.CtReplySrcPort, netfilter.CtOrigSrcPort), typeNumber), true
	case "proto-dst":
		return plain(pick(reply, netfilter.CtReplyDstPort, netfilter.CtOrigDstPort), typeNumber), true
	case "expiration", "bytes", "packets", "avgpkt":
		return operand{stateful: "ct " + rest, typ: typeNumber}, true
	}
	return found(ctFields, key)
}

func familyNeed(family string) need {
	switch family {
	case "ip":
		return needIPv4
	case "ip6":
		return needIPv6
	}
	return need{}
}

func pick(second bool, b, a netfilter.Field) netfilter.Field {
	if second {
		return b
	}
	return a
}

var ctFields = map[string]operand{
	"state":     plain(netfilter.CtState, typeState),
	"status":    plain(netfilter.CtStatus, typeStatus),
	"direction": plain(netfilter.CtDirection, typeDir),
	"mark":      plain(netfilter.CtMark, typeNumber),
	"label":     plain(netfilter.CtLabel, typeNumber),
	"zone":      plain(netfilter.CtZone, typeNumber),
	"protocol":  plain(netfilter.CtProto, typeProto),
	"helper":    plain(netfilter.CtHelper, typeName),
}

// fibOperand reads a look-up in the routes.
func fibOperand(n *node) (operand, bool) {
	var src, dst, in, out, mark bool
	for flag := range n.get("flags").each {
		switch flag.text {
		case "saddr":
			src = true
		case "daddr":
			dst = true
		case "iif":
			in = true
		case "oif":
			out = true
		case "mark":
			mark = true
		}
	}
	if n.str("result") != "type" {
		// The way back to the source: whether it leads out where the packet came in. The look-up by its mark is the one that
		// the kernel would do for an answer that has it, and no more than that is asked elsewhere either.
		o := plain(netfilter.ReverseRouteLoose, typeBool)
		if in {
			o.field = netfilter.ReverseRoute
		}
		return o, src && !dst && !out
	}
	var f netfilter.Field
	switch {
	case mark:
	case src && !in && !out:
		f = netfilter.SrcType
	case src && in && !out:
		f = netfilter.SrcTypeIn
	case src && out && !in:
		f = netfilter.SrcTypeOut
	case dst && !in && !out:
		f = netfilter.DstType
	case dst && in && !out:
		f = netfilter.DstTypeIn
	case dst && out && !in:
		f = netfilter.DstTypeOut
	}
	return plain(f, typeRoute), f != netfilter.NoField
}

// payload reads a field of a header, by its name or by its place.
func (r *rule) payload(n *node) (operand, bool) {
	if n.get("base") != nil {
		return r.raw(n)
	}
	header, field := n.str("protocol"), n.str("field")
	if o, ok := headerFields[header+" "+field]; ok {
		return o, true
	}
	if p, ok := transports[header]; ok && (field == "sport" || field == "dport") {
		o := plain(netfilter.DstPort, typeNumber)
		if field == "sport" {
			o.field = netfilter.SrcPort
		}
		if header != "th" {
			o.needs[0] = needProto(p)
		}
		return o, true
	}
	return operand{}, false
}

// transports are the headers that have ports.
var transports = map[string]uint64{"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136, "th": 0}

var headerFields = map[string]operand{
	"ip saddr":     plain(netfilter.Src, typeAddr4, needIPv4),
	"ip daddr":     plain(netfilter.Dst, typeAddr4, needIPv4),
	"ip protocol":  plain(netfilter.Proto, typeProto, needIPv4),
	"ip ttl":       plain(netfilter.TTL, typeNumber, needIPv4),
	"ip dscp":      plain(netfilter.DSCP, typeDSCP, needIPv4),
	"ip ecn":       plain(netfilter.ECN, typeECN, needIPv4),
	"ip length":    plain(netfilter.Length, typeNumber, needIPv4),
	"ip version":   plain(netfilter.NFProto, typeVersion),
	"ip6 version":  plain(netfilter.NFProto, typeVersion),
	"ip6 saddr":    plain(netfilter.Src, typeAddr6, needIPv6),
	"ip6 daddr":    plain(netfilter.Dst, typeAddr6, needIPv6),
	"ip6 nexthdr":  plain(netfilter.Proto, typeProto, needIPv6),
	"ip6 hoplimit": plain(netfilter.TTL, typeNumber, needIPv6),
	"ip6 dscp":     plain(netfilter.DSCP, typeDSCP, needIPv6),
	"ip6 ecn":      plain(netfilter.ECN, typeECN, needIPv6),
	"tcp flags":    plain(netfilter.TCPFlags, typeFlags, needProto(6)),
	"icmp type":    plain(netfilter.ICMPType, typeICMP, needIPv4, needProto(1)),
	"icmp code":    plain(netfilter.ICMPCode, typeICMPCode, needIPv4, needProto(1)),
	"icmpv6 type":  plain(netfilter.ICMPv6Type, typeICMP6, needIPv6, needProto(58)),
	"icmpv6 code":  plain(netfilter.ICMPv6Code, typeICMP6Code, needIPv6, needProto(58)),
	"ether saddr":  plain(netfilter.SrcMAC, typeMAC),
	"ether daddr":  plain(netfilter.DstMAC, typeMAC),
	"ether type":   plain(netfilter.EtherType, typeEther),
	"vlan id":      plain(netfilter.VLAN, typeNumber),
}

// place is where a field stands in a packet: the header, and bits from its start.
type place struct {
	base        string
	offset, len uint64
}

// rawFields are the places in the network header of each family.
var rawFields = map[uint64]map[place]string{
	nfprotoIPv4: {{"nh", 96, 32}: "ip saddr", {"nh", 128, 32}: "ip daddr", {"nh", 72, 8}: "ip protocol", {"nh", 64, 8}: "ip ttl",
		{"nh", 16, 16}: "ip length"},
	nfprotoIPv6: {{"nh", 64, 128}: "ip6 saddr", {"nh", 192, 128}: "ip6 daddr", {"nh", 48, 8}: "ip6 nexthdr", {"nh", 56, 8}: "ip6 hoplimit"},
}

// raw reads a field that is given by its place: a field that has a name where the header is known. Parts of addresses have
// none, and other places neither.
func (r *rule) raw(n *node) (operand, bool) {
	at := place{n.str("base"), n.uint("offset"), n.uint("len")}
	switch at {
	case place{"th", 0, 16}:
		return plain(netfilter.SrcPort, typeNumber), true
	case place{"th", 16, 16}:
		return plain(netfilter.DstPort, typeNumber), true
	}
	return found(headerFields, rawFields[r.nfproto()][at])
}

// builder collects values of a type.
type builder struct {
	typ    *datatype
	addrs  netset.Builder
	values netfilter.Values
}

// add adds a value: a word, a prefix, a range, "*" for all.
func (b *builder) add(n *node) bool {
	key, v := n.only()
	switch b.typ.kind {
	case netfilter.Address:
		return b.addAddrs(n, key, v)
	case netfilter.Name:
		if n.kind != str && n.kind != number || strings.Contains(strings.TrimSuffix(n.text, `\*`), `\`) {
			return false
		}
		b.values.Names = append(b.values.Names, n.text)
		return true
	}
	if n.text == "*" && n.kind == str {
		b.values.Numbers = append(b.values.Numbers, netfilter.Range{Last: math.MaxUint64})
		return true
	}
	if key == "range" {
		first, last, ok := v.pair()
		if !ok {
			return false
		}
		from, ok1 := b.typ.number(first)
		to, ok2 := b.typ.number(last)
		b.values.Numbers = append(b.values.Numbers, netfilter.Range{First: from, Last: to})
		return ok1 && ok2 && b.typ != typeState
	}
	value, ok := b.typ.constant(n)
	if !ok {
		return false
	}
	if b.typ == typeState {
		// States together are one that no packet has.
		b.values.Numbers = append(b.values.Numbers, statesOf(func(bit uint64) bool { return bit == value })...)
		return true
	}
	b.values.Numbers = append(b.values.Numbers, netfilter.Range{First: value, Last: value})
	return true
}

func (b *builder) addAddrs(n *node, key string, v *node) bool {
	switch {
	case key == "prefix":
		a, ok := b.typ.addr(v.get("addr"))
		p, err := a.Prefix(int(min(v.uint("len"), 129)))
		if !ok || err != nil || v.get("len") == nil {
			return false
		}
		b.addrs.AddPrefix(p)
	case key == "range":
		first, last, _ := v.pair()
		from, ok1 := b.typ.addr(first)
		to, ok2 := b.typ.addr(last)
		if !ok1 || !ok2 || to.Less(from) {
			return false
		}
		b.addrs.Add(netipx.IPRangeFrom(from, to))
	case n.kind == str && n.text == "*":
		b.addrs.AddSet(b.typ.all())
	default:
		a, ok := b.typ.addr(n)
		if !ok {
			return false
		}
		b.addrs.AddAddr(a)
	}
	return true
}

func (t *datatype) all() netset.Set {
	if t.v6 {
		return netset.All6()
	}
	return netset.All4()
}

// addr reads an address of the type's family. In raw payloads IPv4 addresses are numbers.
func (t *datatype) addr(n *node) (netip.Addr, bool) {
	if n == nil {
		return netip.Addr{}, false
	}
	if n.kind == number && !t.v6 {
		v, ok := typeNumber.number(n)
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), ok && v <= math.MaxUint32
	}
	a, err := netip.ParseAddr(n.text)
	return a, err == nil && a.Zone() == "" && n.kind == str && a.Is6() == t.v6
}

func (b *builder) done() netfilter.Values {
	b.values.Addrs, _ = b.addrs.Set() // each range was checked when it was added
	return b.values
}

// valueOf reads one value. Those that are a word are kept, and shared by whoever has the same.
func (p *parser) valueOf(n *node, t *datatype) (netfilter.Values, bool) {
	if n == nil {
		return netfilter.Values{}, false
	}
	key := known{t, n.text}
	if n.kind == str {
		if v, ok := p.values[key]; ok {
			return v, true
		}
	}
	b := builder{typ: t}
	if !b.add(n) {
		return netfilter.Values{}, false
	}
	v := b.done()
	if n.kind == str {
		p.values[key] = v
	}
	return v, true
}

// statesOf are the states of a connection whose bit passes a test.
func statesOf(test func(bit uint64) bool) []netfilter.Range {
	var all []netfilter.Range
	for state, bit := range stateBits {
		if test(bit) {
			all = append(all, netfilter.Range{First: uint64(state), Last: uint64(state)})
		}
	}
	return all
}
