package nftlist

import (
	"golang.org/x/sys/unix"

	"quaywall/internal/nlsock"
)

// statement reads what does something, or holds for more than is in a packet.
func (r *rule) statement(name string, a attrs) bool {
	switch name {
	case "counter":
		r.say("counter", counter(a))
	case "limit":
		r.say("limit", limit(a))
	case "quota":
		r.say("quota", object{"val": a.number(unix.NFTA_QUOTA_BYTES), "val_unit": "bytes", "inv": a.number(unix.NFTA_QUOTA_FLAGS)&unix.NFT_QUOTA_F_INV != 0})
	case "connlimit":
		r.say("ct count", object{"val": a.number(1), "inv": a.number(2)&1 != 0}) // NFTA_CONNLIMIT_COUNT, NFTA_CONNLIMIT_FLAGS
	case "log":
		r.log(a)
	case "reject":
		r.reject(a)
	case "nat", "masq", "redir":
		r.translate(name, a)
	case "tproxy":
		r.tproxy(a)
	case "meta":
		return r.write(a.number(unix.NFTA_META_SREG), "meta", metaKeys[a.number(unix.NFTA_META_KEY)])
	case "ct":
		return r.write(a.number(unix.NFTA_CT_SREG), "ct", ctKeys[a.number(unix.NFTA_CT_KEY)])
	case "payload":
		return r.writePayload(a)
	case "exthdr":
		r.say("mangle", object{"key": object{"exthdr": object{"name": "?"}}, "value": 0}) // an option's value, or its end
	case "notrack":
		r.say(name, nil)
	case "queue":
		r.say(name, object{"num": a.number(unix.NFTA_QUEUE_NUM)})
	case "dup", "last":
		r.say(name, object{})
	case "flow_offload":
		r.say("flow", object{"op": "add", "flowtable": "@" + a.text(1)}) // NFTA_FLOW_TABLE_NAME
	case "match", "target":
		r.say("xt", object{"type": name, "name": a.text(1)}) // NFTA_MATCH_NAME, NFTA_TARGET_NAME
	case "objref":
		return r.reference(a)
	case "dynset":
		return r.update(a)
	default:
		return false
	}
	return true
}

func counter(a attrs) object {
	return object{"packets": a.number(unix.NFTA_COUNTER_PACKETS), "bytes": a.number(unix.NFTA_COUNTER_BYTES)}
}

var units = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}

func limit(a attrs) object {
	l := object{"rate": a.number(unix.NFTA_LIMIT_RATE), "burst": a.number(unix.NFTA_LIMIT_BURST), "per": units[a.number(unix.NFTA_LIMIT_UNIT)]}
	if a.number(unix.NFTA_LIMIT_TYPE) == unix.NFT_LIMIT_PKT_BYTES {
		l["rate_unit"] = "bytes"
	}
	if a.number(unix.NFTA_LIMIT_FLAGS)&unix.NFT_LIMIT_F_INV != 0 {
		l["inv"] = true
	}
	return l
}

func (r *rule) log(a attrs) {
	l := object{}
	if prefix := a.text(unix.NFTA_LOG_PREFIX); prefix != "" {
		l["prefix"] = prefix
	}
	if a.has(unix.NFTA_LOG_GROUP) {
		l["group"] = a.number(unix.NFTA_LOG_GROUP)
	}
	r.say("log", l)
}

// Codes of unreachable messages by the words of nft.
var (
	icmpCodes  = map[uint64]string{0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable", 3: "port-unreachable", 9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"}
	icmp6Codes = map[uint64]string{0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable", 4: "port-unreachable", 5: "policy-fail", 6: "reject-route"}
	icmpxCodes = map[uint64]string{unix.NFT_REJECT_ICMPX_NO_ROUTE: "no-route", unix.NFT_REJECT_ICMPX_PORT_UNREACH: "port-unreachable",
		unix.NFT_REJECT_ICMPX_HOST_UNREACH: "host-unreachable", unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED: "admin-prohibited"}
)

func (r *rule) reject(a attrs) {
	code := a.number(unix.NFTA_REJECT_ICMP_CODE)
	kind, word := "icmp", icmpCodes[code]
	switch typ := a.number(unix.NFTA_REJECT_TYPE); {
	case typ == unix.NFT_REJECT_TCP_RST:
		r.say("reject", object{"type": "tcp reset"})
		return
	case typ == unix.NFT_REJECT_ICMPX_UNREACH:
		kind, word = "icmpx", icmpxCodes[code]
	case r.network == unix.NFPROTO_IPV6:
		kind, word = "icmpv6", icmp6Codes[code]
	}
	if word == "port-unreachable" && (kind == "icmpx") == (r.family != unix.NFPROTO_IPV4 && r.family != unix.NFPROTO_IPV6) {
		r.say("reject", nil) // what nft does unless it is told otherwise
		return
	}
	r.say("reject", object{"type": kind, "expr": word})
}

// Flags of translations, enum nf_nat flags.
const (
	natRandom      = 4
	natPersistent  = 8
	natFullyRandom = 16
	natNetmap      = 64
)

// registersOf are where a translation has its attributes.
type registersOf struct{ flags, addrMin, addrMax, portMin, portMax uint16 }

var natRegisters = map[string]registersOf{
	"nat":   {unix.NFTA_NAT_FLAGS, unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_ADDR_MAX, unix.NFTA_NAT_REG_PROTO_MIN, unix.NFTA_NAT_REG_PROTO_MAX},
	"masq":  {flags: unix.NFTA_MASQ_FLAGS, portMin: unix.NFTA_MASQ_REG_PROTO_MIN, portMax: unix.NFTA_MASQ_REG_PROTO_MAX},
	"redir": {flags: unix.NFTA_REDIR_FLAGS, portMin: unix.NFTA_REDIR_REG_PROTO_MIN, portMax: unix.NFTA_REDIR_REG_PROTO_MAX},
}

func (r *rule) translate(name string, a attrs) {
	at, v := natRegisters[name], object{}
	word := map[string]string{"masq": "masquerade", "redir": "redirect", "nat": "dnat"}[name]
	addr := typeAddr4
	if name == "nat" {
		if a.number(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_SNAT {
			word = "snat"
		}
		family := a.number(unix.NFTA_NAT_FAMILY)
		if family == unix.NFPROTO_IPV6 {
			addr = typeAddr6
		}
		if r.family == unix.NFPROTO_INET {
			v["family"] = families[byte(family)]
		}
	}
	flags := a.number(at.flags)
	var names []string
	for _, f := range []struct {
		bit  uint64
		name string
	}{{natRandom, "random"}, {natFullyRandom, "fully-random"}, {natPersistent, "persistent"}} {
		if flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	if names != nil {
		v["flags"] = names
	}
	if flags&natNetmap != 0 {
		v["type_flags"] = "prefix"
	}
	to := r.between(a, at.addrMin, at.addrMax, addr)
	if to != nil {
		v["addr"] = to
	}
	if from := r.regs.get(a.number(at.addrMin)); from == nil || from.data != nil || !r.regs.inside(a.number(at.portMin), from) {
		if port := r.between(a, at.portMin, at.portMax, typePort); port != nil {
			v["port"] = port
		}
	}
	r.say(word, v)
}

// between is what two registers hold: a value, or from one to another; nil where none is named.
func (r *rule) between(a attrs, low, high uint16, t datatype) any {
	if low == 0 || !a.has(low) {
		return nil
	}
	from, to := r.regs.get(a.number(low)), r.regs.get(a.number(high))
	switch {
	case from == nil:
		return object{"unknown": object{}}
	case from.data == nil:
		return from.expression()
	case to == nil || to.data == nil:
		return t.value(from.data, true, r.nameOf)
	}
	return t.span(from.data, to.data, true, r.nameOf)
}

// Attributes NFTA_TPROXY_*.
const (
	tproxyFamily = 1
	tproxyAddr   = 2
	tproxyPort   = 3
)

func (r *rule) tproxy(a attrs) {
	v, addr := object{}, typeAddr4
	family := a.number(tproxyFamily)
	if family == unix.NFPROTO_IPV6 {
		addr = typeAddr6
	}
	if r.family == unix.NFPROTO_INET {
		v["family"] = families[byte(family)]
	}
	if to := r.between(a, tproxyAddr, tproxyAddr, addr); to != nil {
		v["addr"] = to
	}
	if to := r.between(a, tproxyPort, tproxyPort, typePort); to != nil {
		v["port"] = to
	}
	r.say("tproxy", v)
}

// write reads what sets something by a key.
func (r *rule) write(register uint64, name string, k known) bool {
	from := r.regs.get(register)
	if from == nil || k.key == "" {
		return false
	}
	r.say("mangle", object{"key": object{name: object{"key": k.key}}, "value": from.assigned(k.typ, r.nameOf)})
	return true
}

// assigned is what something becomes.
func (o *operand) assigned(t datatype, nameOf func(int) string) any {
	switch {
	case o.data == nil:
		return o.expression()
	case t.name == typeLabel.name:
		if bit, ok := oneBit(o.data); ok {
			return bit
		}
		return unreadable(o.data)
	case t.kind == number && t.names == nil:
		return t.uint(o.data, false)
	}
	return t.value(o.data, false, nameOf)
}

// writePayload reads what sets bytes of the packet, or bits of them.
func (r *rule) writePayload(a attrs) bool {
	at := place{a.number(unix.NFTA_PAYLOAD_BASE), bytesAt{a.number(unix.NFTA_PAYLOAD_OFFSET), a.number(unix.NFTA_PAYLOAD_LEN)}}
	from := r.regs.get(a.number(unix.NFTA_PAYLOAD_SREG))
	if from == nil {
		return false
	}
	key, value := rawPayload(at), any(0)
	if f, ok := r.field(at); ok {
		key, value = f.expr(), from.assigned(f.typ, r.nameOf)
	} else if from.at != nil && *from.at == at && from.mask != nil {
		changed := bigEndian(inverted(from.mask))
		if b, ok := r.bits(at, changed); ok && bigEndian(from.xor)&^changed == 0 {
			key, value = b.expr(), bigEndian(from.xor)>>b.shift
		}
	}
	r.say("mangle", object{"key": key, "value": value})
	return true
}

// objectKinds are the kinds of things with names by their numbers, NFT_OBJECT_*.
var objectKinds = map[uint64]string{1: "counter", 2: "quota", 3: "ct helper", 4: "limit", 5: "ct count", 7: "ct timeout", 8: "secmark", 9: "ct expectation",
	10: "synproxy"}

// reference reads what uses a thing that has a name.
func (r *rule) reference(a attrs) bool {
	kind, ok := objectKinds[a.number(unix.NFTA_OBJREF_IMM_TYPE)]
	if !ok {
		return false
	}
	r.say(kind, a.text(unix.NFTA_OBJREF_IMM_NAME))
	return true
}

// Attributes and flags of Linux 5.11 and later.
const (
	nftaDynsetExpressions = 10 // NFTA_DYNSET_EXPRESSIONS
	dynsetInverted        = 1  // NFT_DYNSET_F_INV
)

// update reads what adds something of the packet to a set, or takes it out.
func (r *rule) update(a attrs) bool {
	s := r.sets[setKey{r.family, r.table, a.text(unix.NFTA_DYNSET_SET_NAME)}]
	if s == nil || a.number(unix.NFTA_DYNSET_FLAGS)&dynsetInverted != 0 {
		return false
	}
	all := r.regs.run(a.number(unix.NFTA_DYNSET_SREG_KEY), s.keyLen)
	if len(all) == 0 {
		return false
	}
	var elem any = concat(all)
	if timeout := a.number(unix.NFTA_DYNSET_TIMEOUT); timeout != 0 {
		elem = object{"elem": object{"val": elem, "timeout": timeout / 1000}}
	}
	op := map[uint64]string{unix.NFT_DYNSET_OP_ADD: "add", unix.NFT_DYNSET_OP_UPDATE: "update", 2: "delete"}[a.number(unix.NFTA_DYNSET_OP)]
	if a.has(unix.NFTA_DYNSET_SREG_DATA) {
		r.say("map", object{"op": op, "elem": elem, "map": "@" + s.key.name})
		return true
	}
	v := object{"op": op, "elem": elem, "set": "@" + s.key.name}
	if inner := statements(a); inner != nil {
		v["stmt"] = inner
	}
	r.say("set", v)
	return true
}

// statements are those that each element gets.
func statements(a attrs) []any {
	expressions := [][]byte{}
	if one, ok := a[unix.NFTA_DYNSET_EXPR]; ok {
		expressions = append(expressions, one)
	}
	for _, one := range nlsock.Attributes(a[nftaDynsetExpressions]) {
		expressions = append(expressions, one)
	}
	inner := rule{}
	for _, one := range expressions {
		e := attributes(one)
		inner.expression(e.text(unix.NFTA_EXPR_NAME), e.nested(unix.NFTA_EXPR_DATA))
	}
	return inner.out
}
