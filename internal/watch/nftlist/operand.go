package nftlist

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// operand is what registers hold: something that was loaded, a constant, or what a map gives.
type operand struct {
	expr  any // as nft's JSON has it, nil of constants
	types []datatype
	size  int // in bytes
	big   bool
	data  []byte // of constants
	at    *place // where it stands in the packet
	mask  []byte // of bits that count; nil for all
	xor   []byte
	from  []byte // what it was compared with last, and not less than
}

// place is where something stands in a packet.
type place struct {
	base uint64 // NFT_PAYLOAD_*
	bytesAt
}

// bytesAt is bytes of a header.
type bytesAt struct{ offset, len uint64 }

func (o *operand) typ() datatype {
	if len(o.types) != 1 {
		return typeUnknown
	}
	return o.types[0]
}

// held is a part of an operand, of four bytes.
type held struct {
	*operand
	part int
}

// registers are the kernel's, in units of four bytes.
type registers [unix.NFT_REG32_15 - unix.NFT_REG32_00 + 1]held

// slot is the number of a register's first unit: there are four of sixteen bytes, or sixteen of four.
func slot(register uint64) (int, bool) {
	switch {
	case register >= unix.NFT_REG_1 && register <= unix.NFT_REG_4:
		return int(register-unix.NFT_REG_1) * 4, true
	case register >= unix.NFT_REG32_00 && register <= unix.NFT_REG32_15:
		return int(register - unix.NFT_REG32_00), true
	}
	return 0, false
}

func (r *registers) put(register uint64, o *operand) {
	start, ok := slot(register)
	if !ok {
		return
	}
	for i := range min((o.size+3)/4, len(r)-start) {
		r[start+i] = held{o, i}
	}
}

// get is what a register holds from its beginning; a part of something else is unknown.
func (r *registers) get(register uint64) *operand {
	if start, ok := slot(register); ok && r[start].operand != nil && r[start].part == 0 {
		return r[start].operand
	}
	return nil
}

// inside tells whether a register holds a part of an operand.
func (r *registers) inside(register uint64, o *operand) bool {
	start, ok := slot(register)
	return ok && r[start].operand == o
}

// run is what registers hold in so many bytes, one after the other; nil where that isn't known.
func (r *registers) run(register uint64, length int) []*operand {
	start, ok := slot(register)
	var all []*operand
	for at := 0; ok && at < length; {
		if start+at/4 >= len(r) || r[start+at/4].operand == nil || r[start+at/4].part != 0 {
			return nil
		}
		o := r[start+at/4].operand
		all = append(all, o)
		at += (o.size + 3) &^ 3
	}
	return all
}

// expression is an operand with what was done to it.
func (o *operand) expression() any {
	e := o.expr
	if o.mask != nil {
		e = object{"&": []any{e, o.constant(o.mask)}}
	}
	if !isZero(o.xor) {
		// What is masked away and put in anew is or, as people write it.
		op := "^"
		if o.mask != nil && disjoint(o.mask, o.xor) {
			op = "|"
		}
		e = object{op: []any{e, o.constant(o.xor)}}
	}
	return e
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func disjoint(a, b []byte) bool {
	for i := range min(len(a), len(b)) {
		if a[i]&b[i] != 0 {
			return false
		}
	}
	return true
}

// constant is a value that is compared or put together with an operand.
func (o *operand) constant(b []byte) any {
	t := o.typ()
	if t.kind == number || t.kind == state {
		if t.size == len(b) {
			return t.uint(b, o.big)
		}
		return unreadable(b)
	}
	return t.value(b, o.big, func(int) string { return "" })
}

// known are the operands that the kernel loads by a key, of meta, ct and socket.
type known struct {
	key string
	typ datatype
}

var metaKeys = map[uint64]known{
	unix.NFT_META_LEN: {"length", typeHost}, unix.NFT_META_PROTOCOL: {"protocol", typeEther},
	unix.NFT_META_PRIORITY: {"priority", typeHost}, unix.NFT_META_MARK: {"mark", typeMark},
	unix.NFT_META_IIF: {"iif", typeIndex}, unix.NFT_META_OIF: {"oif", typeIndex},
	unix.NFT_META_IIFNAME: {"iifname", typeName}, unix.NFT_META_OIFNAME: {"oifname", typeName},
	unix.NFT_META_IIFTYPE: {"iiftype", typeIfType},
	unix.NFT_META_SKUID:   {"skuid", typeUID}, unix.NFT_META_SKGID: {"skgid", typeGID},
	unix.NFT_META_NFTRACE: {"nftrace", typeByte}, unix.NFT_META_RTCLASSID: {"rtclassid", typeRealm},
	unix.NFT_META_SECMARK: {"secmark", typeHost}, unix.NFT_META_NFPROTO: {"nfproto", typeFamily},
	unix.NFT_META_L4PROTO: {"l4proto", typeProto}, unix.NFT_META_PKTTYPE: {"pkttype", typePacket},
	unix.NFT_META_CPU: {"cpu", typeHost}, unix.NFT_META_IIFGROUP: {"iifgroup", typeGroup},
	unix.NFT_META_OIFGROUP: {"oifgroup", typeGroup}, unix.NFT_META_CGROUP: {"cgroup", typeHost},
	unix.NFT_META_PRANDOM: {"random", typeHost}, metaSecpath: {"ipsec", typeBool},
	metaInKind: {"iifkind", typeName}, metaOutKind: {"oifkind", typeName},
	metaTime: {"time", typeLong}, metaDay: {"day", typeByte}, metaHour: {"hour", typeHost},
}

// Keys of Linux 4.16 to 5.4, enum nft_meta_keys.
const (
	metaSecpath = 25
	metaInKind  = 26
	metaOutKind = 27
	metaTime    = 30
	metaDay     = 31
	metaHour    = 32
)

var ctKeys = map[uint64]known{
	unix.NFT_CT_STATE: {"state", typeState}, unix.NFT_CT_DIRECTION: {"direction", typeDir}, unix.NFT_CT_STATUS: {"status", typeStatus},
	unix.NFT_CT_MARK: {"mark", typeMark}, unix.NFT_CT_SECMARK: {"secmark", typeHost}, unix.NFT_CT_EXPIRATION: {"expiration", typeHost},
	unix.NFT_CT_HELPER: {"helper", typeName}, unix.NFT_CT_PROTOCOL: {"protocol", typeProto}, unix.NFT_CT_PROTO_SRC: {"proto-src", typePort},
	unix.NFT_CT_PROTO_DST: {"proto-dst", typePort}, unix.NFT_CT_LABELS: {"label", typeLabel}, unix.NFT_CT_PKTS: {"packets", typeLong},
	unix.NFT_CT_BYTES: {"bytes", typeLong}, unix.NFT_CT_AVGPKT: {"avgpkt", typeLong},
	ctZone: {"zone", datatype{name: "integer", size: 2, host: true}}, ctSrc4: {"ip saddr", typeAddr4}, ctDst4: {"ip daddr", typeAddr4},
	ctSrc6: {"ip6 saddr", typeAddr6}, ctDst6: {"ip6 daddr", typeAddr6}, ctEvent: {"event", typeHost},
}

// Keys of Linux 4.9 to 4.17, enum nft_ct_keys.
const (
	ctZone  = 17
	ctEvent = 18
	ctSrc4  = 19
	ctDst4  = 20
	ctSrc6  = 21
	ctDst6  = 22
)

var socketKeys = map[uint64]known{0: {"transparent", typeBool}, 1: {"mark", typeMark}, 2: {"wildcard", typeBool}}

// header is a header that fields stand in, as far as a rule says which one it is.
type header struct{ base, proto uint64 } // proto of the network or the transport header, 0 for any

// field is something in a header: bytes, or bits of them.
type field struct {
	protocol, name string
	typ            datatype
}

var fields = map[header]map[bytesAt]field{
	{unix.NFT_PAYLOAD_LL_HEADER, 0}: {{0, 6}: {"ether", "daddr", typeMAC}, {6, 6}: {"ether", "saddr", typeMAC}, {12, 2}: {"ether", "type", typeEther}},
	{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV4}: {{12, 4}: {"ip", "saddr", typeAddr4}, {16, 4}: {"ip", "daddr", typeAddr4},
		{9, 1}: {"ip", "protocol", typeProto}, {8, 1}: {"ip", "ttl", typeByte}, {2, 2}: {"ip", "length", typeShort}, {6, 2}: {"ip", "frag-off", typeShort}},
	{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV6}: {{8, 16}: {"ip6", "saddr", typeAddr6}, {24, 16}: {"ip6", "daddr", typeAddr6},
		{6, 1}: {"ip6", "nexthdr", typeProto}, {7, 1}: {"ip6", "hoplimit", typeByte}},
	{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0}:                   {{0, 2}: {"th", "sport", typePort}, {2, 2}: {"th", "dport", typePort}},
	{unix.NFT_PAYLOAD_TRANSPORT_HEADER, unix.IPPROTO_TCP}:    {{13, 1}: {"tcp", "flags", typeFlags}},
	{unix.NFT_PAYLOAD_TRANSPORT_HEADER, unix.IPPROTO_ICMP}:   {{0, 1}: {"icmp", "type", typeICMP}, {1, 1}: {"icmp", "code", typeByte}},
	{unix.NFT_PAYLOAD_TRANSPORT_HEADER, unix.IPPROTO_ICMPV6}: {{0, 1}: {"icmpv6", "type", typeICMP6}, {1, 1}: {"icmpv6", "code", typeByte}},
}

// bitField is a field of some bits of what is loaded.
type bitField struct {
	header
	bytesAt
	mask  uint64
	shift int
	field
}

// bitFields are those that rules ask for or write. Writing loads two bytes, for the checksum's sake.
var bitFields = []bitField{
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV4}, bytesAt{1, 1}, 0xfc, 2, field{"ip", "dscp", typeByte}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV4}, bytesAt{0, 2}, 0xfc, 2, field{"ip", "dscp", typeByte}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV4}, bytesAt{1, 1}, 0x03, 0, field{"ip", "ecn", typeByte}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV4}, bytesAt{0, 2}, 0x03, 0, field{"ip", "ecn", typeByte}},
	{header{unix.NFT_PAYLOAD_LL_HEADER, 0}, bytesAt{14, 2}, 0x0fff, 0, field{"vlan", "id", typeShort}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV4}, bytesAt{0, 1}, 0xf0, 4, field{"ip", "version", typeByte}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV4}, bytesAt{8, 2}, 0xff00, 8, field{"ip", "ttl", typeByte}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV6}, bytesAt{0, 2}, 0x0fc0, 6, field{"ip6", "dscp", typeByte}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV6}, bytesAt{1, 1}, 0x30, 4, field{"ip6", "ecn", typeByte}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV6}, bytesAt{0, 2}, 0x0030, 4, field{"ip6", "ecn", typeByte}},
	{header{unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFPROTO_IPV6}, bytesAt{0, 1}, 0xf0, 4, field{"ip6", "version", typeByte}},
}

func (f field) expr() any {
	return object{"payload": object{"protocol": f.protocol, "field": f.name}}
}

// rawPayload is a place that has no name.
func rawPayload(p place) any {
	base := "nh"
	switch p.base {
	case unix.NFT_PAYLOAD_LL_HEADER:
		base = "ll"
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		base = "th"
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
	default:
		base = "inner"
	}
	return object{"payload": object{"base": base, "offset": 8 * p.offset, "len": 8 * p.len}}
}

// oneBit is the number of the single bit of a value that may be long, in the host's byte order.
func oneBit(b []byte) (int, bool) {
	found := -1
	for i := 0; i+4 <= len(b); i += 4 {
		for bit, rest := 0, binary.NativeEndian.Uint32(b[i:]); rest != 0; bit, rest = bit+1, rest>>1 {
			if rest&1 == 0 {
				continue
			}
			if found >= 0 {
				return 0, false
			}
			found = 8*i + bit
		}
	}
	return found, found >= 0
}
