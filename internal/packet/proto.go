package packet

import (
	"fmt"
	"strconv"
)

// The IP protocols that have a name here, by number. See https://www.iana.org/assignments/protocol-numbers.
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoDCCP    = 33
	protoAH      = 51
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

// protoNames are the names by which packets are written. ICMPv6 is "icmp6".
var protoNames = map[string]uint8{
	"icmp": protoICMP, "igmp": 2, "ipip": 4, "tcp": protoTCP, "udp": protoUDP, "dccp": protoDCCP, "ipv6": 41, "gre": 47,
	"esp": 50, "ah": protoAH, "icmp6": protoICMPv6, "eigrp": 88, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115,
	"sctp": protoSCTP, "udplite": protoUDPLite,
}

// ProtoName is the name of an IP protocol, its number where it has none.
func ProtoName(proto uint8) string {
	switch proto {
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	}
	for name, number := range protoNames {
		if number == proto {
			return name
		}
	}
	return strconv.Itoa(int(proto))
}

// ParseProto reads a protocol's name or number.
func ParseProto(s string) (uint8, error) {
	if n, ok := protoNames[s]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%q is no IP protocol: write a name such as tcp, udp, icmp, icmp6, esp, or a number from 0 to 255", s)
	}
	return uint8(n), nil
}

func hasPorts(proto uint8) bool {
	switch proto {
	case protoTCP, protoUDP, protoDCCP, protoSCTP, protoUDPLite:
		return true
	}
	return false
}
