package iptsave

import "strings"

// addrTypes are the RTN_* numbers by their names in -m addrtype.
var addrTypes = map[string]uint64{"UNSPEC": 0, "UNICAST": 1, "LOCAL": 2, "BROADCAST": 3, "ANYCAST": 4, "MULTICAST": 5, "BLACKHOLE": 6,
	"UNREACHABLE": 7, "PROHIBIT": 8, "THROW": 9, "NAT": 10, "XRESOLVE": 11}

// dscpClass reads the name of a DiffServ class: BE, EF, CS0 to CS7, AF11 to AF43.
func dscpClass(s string) (uint64, bool) {
	s = strings.ToUpper(s)
	digit := func(i int, first, last byte) bool { return s[i] >= first && s[i] <= last }
	switch {
	case s == "BE":
		return 0, true
	case s == "EF":
		return 46, true
	case len(s) == 3 && s[:2] == "CS" && digit(2, '0', '7'):
		return uint64(s[2]-'0') * 8, true
	case len(s) == 4 && s[:2] == "AF" && digit(2, '1', '4') && digit(3, '1', '3'):
		return uint64(s[2]-'0')*8 + uint64(s[3]-'0')*2, true
	}
	return 0, false
}

// tosNames are the names of -m tos and -j TOS, in lower case.
var tosNames = map[string]uint64{"minimize-delay": 16, "maximize-throughput": 8, "maximize-reliability": 4, "minimize-cost": 2,
	"normal-service": 0}

// tcpFlags are TCP flags by their names.
var tcpFlags = map[string]uint64{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128, "ALL": 63, "NONE": 0}

// ctStates are packet.State by their names in --ctstate. SNAT and DNAT, which are none, are in ctStatusOfState.
var ctStates = map[string]uint64{"NEW": 0, "ESTABLISHED": 1, "RELATED": 2, "INVALID": 3, "UNTRACKED": 4}

// ctStatusOfState are the IPS_* bits of what --ctstate has besides states.
var ctStatusOfState = map[string]uint64{"SNAT": 16, "DNAT": 32}

// ctStatuses are the IPS_* bits by their names in --ctstatus.
var ctStatuses = map[string]uint64{"NONE": 0, "EXPECTED": 1, "SEEN_REPLY": 2, "ASSURED": 4, "CONFIRMED": 8}

// packetTypes are the names of -m pkttype.
var packetTypes = map[string]uint64{"unicast": 0, "host": 0, "broadcast": 1, "bcast": 1, "multicast": 2, "mcast": 2}
