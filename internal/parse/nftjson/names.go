package nftjson

import (
	"strconv"
	"strings"

	"quaywall/internal/netfilter"
)

// datatype is how values of an expression, or of a part of a set, are written. Names are those of nft's datatypes.
type datatype struct {
	kind  netfilter.Kind
	v6    bool              // of addresses
	names map[string]uint64 // of numbers that have names
	bits  bool              // a list of names is their bits, together
	other func(string) (uint64, bool)
}

func numbers(names map[string]uint64) *datatype {
	return &datatype{kind: netfilter.Number, names: names}
}

var (
	typeNumber  = &datatype{kind: netfilter.Number}
	typeName    = &datatype{kind: netfilter.Name}
	typeAddr4   = &datatype{kind: netfilter.Address}
	typeAddr6   = &datatype{kind: netfilter.Address, v6: true}
	typeMAC     = &datatype{kind: netfilter.Number, other: parseMAC}
	typePrio    = &datatype{kind: netfilter.Number, names: map[string]uint64{"none": 0, "root": 0xffffffff}, other: parseClass}
	typeBool    = numbers(map[string]uint64{"true": 1, "false": 0, "exists": 1, "missing": 0})
	typeGroup   = numbers(map[string]uint64{"default": 0})
	typeUser    = numbers(map[string]uint64{"root": 0})
	typeFamily  = numbers(map[string]uint64{"ipv4": nfprotoIPv4, "ipv6": nfprotoIPv6})
	typeVersion = numbers(map[string]uint64{"4": nfprotoIPv4, "6": nfprotoIPv6})
	typeProto   = numbers(map[string]uint64{"ip": 0, "hopopt": 0, "icmp": 1, "igmp": 2, "ipencap": 4, "ipip": 4, "tcp": 6, "egp": 8, "udp": 17,
		"dccp": 33, "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "rsvp": 46, "gre": 47, "esp": 50, "ipsec-esp": 50, "ah": 51, "ipsec-ah": 51,
		"icmpv6": 58, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "eigrp": 88, "ospf": 89, "ospfigp": 89, "etherip": 97, "encap": 98,
		"pim": 103, "comp": 108, "ipcomp": 108, "vrrp": 112, "l2tp": 115, "sctp": 132, "mobility-header": 135, "udplite": 136,
		"mpls-in-ip": 137, "mptcp": 262})
	typeEther  = numbers(map[string]uint64{"ip": 0x0800, "arp": 0x0806, "vlan": 0x8100, "8021q": 0x8100, "8021ad": 0x88a8, "ip6": 0x86dd})
	typePacket = numbers(map[string]uint64{"host": 0, "unicast": 0, "broadcast": 1, "multicast": 2, "other": 3})
	typeRoute  = numbers(map[string]uint64{"unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5,
		"blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9, "nat": 10, "xresolve": 11})
	typeDir    = numbers(map[string]uint64{"original": 0, "reply": 1})
	typeState  = &datatype{kind: netfilter.Number, bits: true, names: map[string]uint64{"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}}
	typeStatus = &datatype{kind: netfilter.Number, bits: true, names: map[string]uint64{"expected": 1, "seen-reply": 2, "assured": 4,
		"confirmed": 8, "snat": 16, "dnat": 32, "dying": 512}}
	typeFlags = &datatype{kind: netfilter.Number, bits: true, names: map[string]uint64{"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16,
		"urg": 32, "ecn": 64, "cwr": 128}}
	typeECN  = numbers(map[string]uint64{"not-ect": 0, "ect1": 1, "ect0": 2, "ce": 3})
	typeDSCP = numbers(map[string]uint64{"cs0": 0, "df": 0, "be": 0, "lephb": 1, "cs1": 8, "af11": 10, "af12": 12, "af13": 14, "cs2": 16, "af21": 18,
		"af22": 20, "af23": 22, "cs3": 24, "af31": 26, "af32": 28, "af33": 30, "cs4": 32, "af41": 34, "af42": 36, "af43": 38, "cs5": 40,
		"va": 44, "ef": 46, "cs6": 48, "cs7": 56})
	typeICMP = numbers(map[string]uint64{"echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5,
		"echo-request": 8, "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
		"timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16, "address-mask-request": 17,
		"address-mask-reply": 18})
	typeICMPCode = numbers(map[string]uint64{"net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3,
		"frag-needed": 4, "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13})
	typeICMP6 = numbers(map[string]uint64{"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
		"echo-request": 128, "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131, "mld-listener-done": 132,
		"mld-listener-reduction": 132, "nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135,
		"nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138, "ind-neighbor-solicit": 141,
		"ind-neighbor-advert": 142, "mld2-listener-report": 143})
	typeICMP6Code = numbers(map[string]uint64{"no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4,
		"policy-fail": 5, "reject-route": 6})
)

// Numbers of include/uapi/linux/netfilter.h.
const (
	nfprotoIPv4 = 2
	nfprotoIPv6 = 10
)

// datatypes are the types of parts of sets, by nft's names.
var datatypes = map[string]*datatype{
	"ipv4_addr": typeAddr4, "ipv6_addr": typeAddr6, "inet_service": typeNumber, "inet_proto": typeProto, "mark": typeNumber,
	"ifname": typeName, "iface_index": typeName, "ether_addr": typeMAC, "ether_type": typeEther, "ct_state": typeState,
	"ct_status": typeStatus, "ct_dir": typeDir, "nf_proto": typeFamily, "pkt_type": typePacket, "fib_addrtype": typeRoute,
	"icmp_type": typeICMP, "icmp_code": typeICMPCode, "icmpv6_type": typeICMP6, "icmpv6_code": typeICMP6Code, "tcp_flag": typeFlags,
	"dscp": typeDSCP, "ecn": typeECN, "uid": typeUser, "gid": typeUser, "devgroup": typeGroup, "classid": typePrio, "boolean": typeBool,
	"integer": typeNumber, "realm": typeNumber, "ct_label": typeNumber, "string": typeName, "ifkind": typeName,
}

// tcpOptions are numbers of options of TCP. See https://www.iana.org/assignments/tcp-parameters.
var tcpOptions = map[string]uint64{"eol": 0, "nop": 1, "noop": 1, "maxseg": 2, "window": 3, "sack-perm": 4, "sack-permitted": 4, "sack": 5,
	"timestamp": 8, "md5sig": 19, "mptcp": 30, "fastopen": 34}

// extHeaders are the extension headers of IPv6.
var extHeaders = map[string]uint64{"hbh": 0, "rt": 43, "rt0": 43, "srh": 43, "frag": 44, "auth": 51, "dst": 60, "mh": 135}

// stateBits are what nft calls the states of a connection, in the order of packet.State.
var stateBits = [...]uint64{8, 2, 4, 1, 64}

// number reads a value of a numeric type that is one word.
func (t *datatype) number(n *node) (uint64, bool) {
	if v, ok := t.names[n.text]; ok {
		return v, true
	}
	if v, err := strconv.ParseUint(n.text, 0, 64); err == nil {
		return v, true
	}
	if t.other != nil {
		return t.other(n.text)
	}
	return 0, false
}

func parseMAC(text string) (uint64, bool) {
	if len(text) != len("00:00:00:00:00:00") {
		return 0, false
	}
	v, err := strconv.ParseUint(strings.ReplaceAll(text, ":", ""), 16, 48)
	return v, err == nil
}

// parseClass reads a class of traffic control, "1:10", in hex.
func parseClass(text string) (uint64, bool) {
	major, minor, ok := strings.Cut(text, ":")
	if !ok {
		return 0, false
	}
	a, err1 := strconv.ParseUint("0"+major, 16, 16)
	b, err2 := strconv.ParseUint("0"+minor, 16, 16)
	return a<<16 | b, err1 == nil && err2 == nil
}
