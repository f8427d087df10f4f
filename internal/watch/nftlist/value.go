package nftlist

import (
	"bytes"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// datatype is how a value is written. Its name is nft's.
type datatype struct {
	name  string
	size  int // in bytes
	kind  kind
	host  bool              // numbers stand in the host's byte order
	names map[uint64]string // of numbers
}

type kind uint8

const (
	number kind = iota
	address
	text
	mac
	state   // a number whose bits have names
	ifIndex // the number of an interface
	raw     // bytes that nothing is known of
)

// Names of numbers, as nft has them.
var (
	familyNames = map[uint64]string{unix.NFPROTO_IPV4: "ipv4", unix.NFPROTO_IPV6: "ipv6"}
	protoNames  = map[uint64]string{unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMPV6: "ipv6-icmp",
		unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_DCCP: "dccp", unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_GRE: "gre", unix.IPPROTO_ESP: "esp",
		unix.IPPROTO_AH: "ah", unix.IPPROTO_IGMP: "igmp"}
	etherNames = map[uint64]string{unix.ETH_P_IP: "ip", unix.ETH_P_ARP: "arp", unix.ETH_P_IPV6: "ip6", unix.ETH_P_8021Q: "8021q"}
	routeNames = map[uint64]string{unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast",
		unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit"}
	stateNames     = map[uint64]string{1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
	statusNames    = map[uint64]string{1: "expected", 2: "seen-reply", 4: "assured", 8: "confirmed", 16: "snat", 32: "dnat", 512: "dying"}
	flagNames      = map[uint64]string{1: "fin", 2: "syn", 4: "rst", 8: "psh", 16: "ack", 32: "urg", 64: "ecn", 128: "cwr"}
	directionNames = map[uint64]string{0: "original", 1: "reply"}
	packetNames    = map[uint64]string{0: "host", 1: "broadcast", 2: "multicast", 3: "other"}
	icmpNames      = map[uint64]string{0: "echo-reply", 3: "destination-unreachable", 5: "redirect", 8: "echo-request", 11: "time-exceeded", 12: "parameter-problem"}
	icmp6Names     = map[uint64]string{1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request",
		129: "echo-reply", 130: "mld-listener-query", 131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit",
		134: "nd-router-advert", 135: "nd-neighbor-solicit", 136: "nd-neighbor-advert", 137: "nd-redirect", 143: "mld2-listener-report"}
)

var (
	typeUnknown = datatype{name: "integer", kind: raw}
	typeVerdict = datatype{name: "verdict"}
	typeFamily  = datatype{name: "nf_proto", size: 1, names: familyNames}
	typeAddr4   = datatype{name: "ipv4_addr", size: 4, kind: address}
	typeAddr6   = datatype{name: "ipv6_addr", size: 16, kind: address}
	typeMAC     = datatype{name: "ether_addr", size: 6, kind: mac}
	typeEther   = datatype{name: "ether_type", size: 2, names: etherNames}
	typeProto   = datatype{name: "inet_proto", size: 1, names: protoNames}
	typePort    = datatype{name: "inet_service", size: 2}
	typeICMP    = datatype{name: "icmp_type", size: 1, names: icmpNames}
	typeFlags   = datatype{name: "tcp_flag", size: 1, kind: state, names: flagNames}
	typeMark    = datatype{name: "mark", size: 4, host: true}
	typeIfType  = datatype{name: "iface_type", size: 2, host: true}
	typeIndex   = datatype{name: "iface_index", size: 4, host: true, kind: ifIndex}
	typeRealm   = datatype{name: "realm", size: 4, host: true}
	typeUID     = datatype{name: "uid", size: 4, host: true}
	typeGID     = datatype{name: "gid", size: 4, host: true}
	typeState   = datatype{name: "ct_state", size: 4, host: true, kind: state, names: stateNames}
	typeDir     = datatype{name: "ct_dir", size: 1, names: directionNames}
	typeStatus  = datatype{name: "ct_status", size: 4, host: true, kind: state, names: statusNames}
	typeICMP6   = datatype{name: "icmpv6_type", size: 1, names: icmp6Names}
	typeLabel   = datatype{name: "ct_label", size: 16, host: true, kind: raw}
	typePacket  = datatype{name: "pkt_type", size: 1, names: packetNames}
	typeGroup   = datatype{name: "devgroup", size: 4, host: true}
	typeRoute   = datatype{name: "fib_addrtype", size: 4, host: true, names: routeNames}
	typeBool    = datatype{name: "boolean", size: 1}
	typeName    = datatype{name: "ifname", size: 16, kind: text}
	typeByte    = datatype{name: "integer", size: 1}
	typeShort   = datatype{name: "integer", size: 2}
	typeHost    = datatype{name: "integer", size: 4, host: true} // whatever the kernel counts
	typeLong    = datatype{name: "integer", size: 8, host: true}
)

// datatypes are the types of sets by their numbers: enum datatypes in nft's include/datatype.h, the same since 0.9.
var datatypes = map[uint64]datatype{1: typeVerdict, 2: typeFamily, 7: typeAddr4, 8: typeAddr6, 9: typeMAC, 10: typeEther, 12: typeProto, 13: typePort, 14: typeICMP,
	15: typeFlags, 19: typeMark, 20: typeIndex, 22: typeRealm, 24: typeUID, 25: typeGID, 26: typeState, 27: typeDir, 28: typeStatus, 29: typeICMP6,
	31: typePacket, 32: {name: "icmp_code", size: 1}, 33: {name: "icmpv6_code", size: 1}, 35: typeGroup, 38: typeRoute, 39: typeBool, 41: typeName}

// Six bits of a set's type are one part of a concatenation.
const partBits, partMask = 6, 1<<6 - 1

// datatypesOf are the parts of a set's type; one part that isn't known makes the whole unknown, since nothing tells how long
// it is.
func datatypesOf(magic uint64) []datatype {
	var all []datatype
	for ; magic > 0; magic >>= partBits {
		t, ok := datatypes[magic&partMask]
		if !ok {
			return []datatype{typeUnknown}
		}
		all = append([]datatype{t}, all...)
	}
	return all
}

// typeNames is how nft's JSON has the type of a set.
func typeNames(types []datatype) any {
	var names []string
	for _, t := range types {
		names = append(names, t.name)
	}
	if len(names) == 1 {
		return names[0]
	}
	return names
}

// uint is a number of the type. In look-ups of ranges all are in network byte order.
func (t datatype) uint(b []byte, big bool) uint64 {
	if t.host && !big {
		return native(b)
	}
	return bigEndian(b)
}

// value writes a value; nameOf are the names of interfaces.
func (t datatype) value(b []byte, big bool, nameOf func(int) string) any {
	if t.kind != raw && t.kind != text && t.size != len(b) {
		return unreadable(b)
	}
	switch t.kind {
	case address:
		a, _ := netip.AddrFromSlice(b)
		return a.String()
	case text:
		return word(b)
	case mac:
		return net.HardwareAddr(b).String()
	case raw:
		return unreadable(b)
	case ifIndex:
		if name := nameOf(int(t.uint(b, big))); name != "" {
			return escaped(name)
		}
		return unreadable(b)
	}
	return t.named(t.uint(b, big))
}

// named is a number's name, of bits the names of all of them, or the number.
func (t datatype) named(n uint64) any {
	if name, ok := t.names[n]; ok {
		return name
	}
	if t.kind != state || n == 0 {
		return n
	}
	var all []any
	for rest := n; rest != 0; rest &= rest - 1 {
		name, ok := t.names[rest&-rest]
		if !ok {
			return n
		}
		all = append(all, name)
	}
	return all
}

// unreadable stands for a value that can't be read.
func unreadable(b []byte) any { return object{"bytes": fmt.Sprintf("0x%x", b)} }

// word is a string as it is compared: one whose zero isn't compared is the beginning of names.
func word(b []byte) any {
	s := unix.ByteSliceToString(b)
	if len(s) == len(b) && len(b) < unix.IFNAMSIZ {
		return s + "*"
	}
	return escaped(s)
}

// escaped tells a name that ends in an asterisk from the beginning of names.
func escaped(name string) string {
	if head, ok := strings.CutSuffix(name, "*"); ok {
		return head + `\*`
	}
	return name
}

// span writes the values from first to last, both included.
func (t datatype) span(first, last []byte, big bool, nameOf func(int) string) any {
	if bytes.Equal(first, last) || len(first) != len(last) {
		return t.value(first, big, nameOf)
	}
	if t.kind == text {
		return beginning(first, last)
	}
	if n, ok := prefixLen(first, last); ok && t.kind == address && len(first) == t.size {
		return object{"prefix": object{"addr": t.value(first, big, nameOf), "len": n}}
	}
	if t.kind == raw {
		return unreadable(first)
	}
	return object{"range": []any{t.plain(first, big, nameOf), t.plain(last, big, nameOf)}}
}

// plain is a value without the name of its number.
func (t datatype) plain(b []byte, big bool, nameOf func(int) string) any {
	if t.kind == number || t.kind == state {
		t.names = nil
	}
	return t.value(b, big, nameOf)
}

// prefixLen is how many bits two values have in common where the first has only zeros behind them, and the last only ones.
func prefixLen(first, last []byte) (int, bool) {
	common := 8 * len(first)
	for i := range first {
		if differ := first[i] ^ last[i]; differ != 0 {
			common = 8*i + bits.LeadingZeros8(differ)
			break
		}
	}
	for bit := common; bit < 8*len(first); bit++ {
		mask := byte(0x80 >> (bit % 8))
		if first[bit/8]&mask != 0 || last[bit/8]&mask == 0 {
			return 0, false
		}
	}
	return common, true
}

// beginning is all names that begin in the same way.
func beginning(first, last []byte) any {
	n, ok := prefixLen(first, last)
	head := first[:min(n/8, len(first))]
	if !ok || n%8 != 0 || slices.Contains(head, 0) {
		return unreadable(first)
	}
	return string(head) + "*"
}
