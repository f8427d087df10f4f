package iptsave

import (
	"strconv"
	"strings"
)

// protocols are the names that /etc/protocols has, and those that iptables knows besides.
var protocols = map[string]uint64{
	"ip": 0, "all": 0, "any": 0, "hopopt": 0, "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "ipv4": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9,
	"pup": 12, "udp": 17, "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37, "idpr-cmtp": 38,
	"ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "skip": 57,
	"ipv6-icmp": 58, "icmpv6": 58, "icmp6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "rspf": 73, "vmtp": 81, "eigrp": 88, "ospf": 89,
	"ax.25": 93, "ipip": 94, "etherip": 97, "encap": 98, "pim": 103, "ipcomp": 108, "vrrp": 112, "carp": 112, "l2tp": 115, "isis": 124,
	"sctp": 132, "fc": 133, "mobility-header": 135, "ipv6-mh": 135, "mh": 135, "udplite": 136, "mpls-in-ip": 137, "manet": 138,
	"hip": 139, "shim6": 140, "wesp": 141, "rohc": 142, "ethernet": 143,
}

// protocolNumber reads a protocol's name or number.
func protocolNumber(s string) (uint64, bool) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return n, true
	}
	n, ok := protocols[strings.ToLower(s)]
	return n, ok
}

// services are names of ports that people's rules and listings have; any other is of the host that it was read on.
var services = map[string]uint64{
	"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "time": 37, "whois": 43, "tacacs": 49, "domain": 53, "bootps": 67,
	"bootpc": 68, "tftp": 69, "gopher": 70, "finger": 79, "http": 80, "www": 80, "kerberos": 88, "pop3": 110, "sunrpc": 111,
	"auth": 113, "nntp": 119, "ntp": 123, "epmap": 135, "netbios-ns": 137, "netbios-dgm": 138, "netbios-ssn": 139, "imap2": 143,
	"imap": 143, "snmp": 161, "snmp-trap": 162, "snmptrap": 162, "bgp": 179, "irc": 194, "ldap": 389, "https": 443, "microsoft-ds": 445,
	"kpasswd": 464, "submissions": 465, "isakmp": 500, "exec": 512, "login": 513, "syslog": 514, "shell": 514, "printer": 515,
	"route": 520, "dhcpv6-client": 546, "dhcpv6-server": 547, "rtsp": 554, "submission": 587, "ipp": 631, "ldaps": 636,
	"domain-s": 853, "rsync": 873, "ftps-data": 989, "ftps": 990, "imaps": 993, "pop3s": 995, "socks": 1080, "openvpn": 1194,
	"ms-sql-s": 1433, "ms-sql-m": 1434, "l2f": 1701, "l2tp": 1701, "pptp": 1723, "radius": 1812, "radius-acct": 1813, "nfs": 2049,
	"mysql": 3306, "ms-wbt-server": 3389, "nut": 3493, "svn": 3690, "ipsec-nat-t": 4500, "rfb": 5900, "sip": 5060, "sip-tls": 5061,
	"xmpp-client": 5222, "xmpp-server": 5269, "mdns": 5353, "postgresql": 5432, "amqps": 5671, "amqp": 5672, "x11": 6000,
	"redis": 6379, "ircd": 6667, "http-alt": 8080, "webcache": 8080, "puppet": 8140, "git": 9418, "zabbix-agent": 10050,
	"zabbix-trapper": 10051, "webmin": 10000, "bacula-dir": 9101, "bacula-fd": 9102, "bacula-sd": 9103,
}

// icmpKind is a type of ICMP or ICMPv6 with the codes that a name stands for.
type icmpKind struct{ kind, first, last uint64 }

// icmpNames are the names of -m icmp, in lower case.
var icmpNames = map[string]icmpKind{
	"any": {255, 0, 255}, "echo-reply": {0, 0, 255}, "pong": {0, 0, 255},
	"destination-unreachable": {3, 0, 255}, "network-unreachable": {3, 0, 0}, "host-unreachable": {3, 1, 1},
	"protocol-unreachable": {3, 2, 2}, "port-unreachable": {3, 3, 3}, "fragmentation-needed": {3, 4, 4},
	"source-route-failed": {3, 5, 5}, "network-unknown": {3, 6, 6}, "host-unknown": {3, 7, 7}, "network-prohibited": {3, 9, 9},
	"host-prohibited": {3, 10, 10}, "tos-network-unreachable": {3, 11, 11}, "tos-host-unreachable": {3, 12, 12},
	"communication-prohibited": {3, 13, 13}, "host-precedence-violation": {3, 14, 14}, "precedence-cutoff": {3, 15, 15},
	"source-quench": {4, 0, 255}, "redirect": {5, 0, 255}, "network-redirect": {5, 0, 0}, "host-redirect": {5, 1, 1},
	"tos-network-redirect": {5, 2, 2}, "tos-host-redirect": {5, 3, 3}, "echo-request": {8, 0, 255}, "ping": {8, 0, 255},
	"router-advertisement": {9, 0, 255}, "router-solicitation": {10, 0, 255}, "time-exceeded": {11, 0, 255},
	"ttl-exceeded": {11, 0, 255}, "ttl-zero-during-transit": {11, 0, 0}, "ttl-zero-during-reassembly": {11, 1, 1},
	"parameter-problem": {12, 0, 255}, "ip-header-bad": {12, 0, 0}, "required-option-missing": {12, 1, 1},
	"timestamp-request": {13, 0, 255}, "timestamp-reply": {14, 0, 255}, "address-mask-request": {17, 0, 255},
	"address-mask-reply": {18, 0, 255},
}

// icmp6Names are the names of -m icmp6, in lower case.
var icmp6Names = map[string]icmpKind{
	"destination-unreachable": {1, 0, 255}, "no-route": {1, 0, 0}, "communication-prohibited": {1, 1, 1}, "beyond-scope": {1, 2, 2},
	"address-unreachable": {1, 3, 3}, "port-unreachable": {1, 4, 4}, "failed-policy": {1, 5, 5}, "reject-route": {1, 6, 6},
	"packet-too-big": {2, 0, 255}, "time-exceeded": {3, 0, 255}, "ttl-exceeded": {3, 0, 255}, "ttl-zero-during-transit": {3, 0, 0},
	"ttl-zero-during-reassembly": {3, 1, 1}, "parameter-problem": {4, 0, 255}, "bad-header": {4, 0, 0},
	"unknown-header-type": {4, 1, 1}, "unknown-option": {4, 2, 2}, "echo-request": {128, 0, 255}, "ping": {128, 0, 255},
	"echo-reply": {129, 0, 255}, "pong": {129, 0, 255}, "router-solicitation": {133, 0, 255}, "router-advertisement": {134, 0, 255},
	"neighbour-solicitation": {135, 0, 255}, "neighbor-solicitation": {135, 0, 255}, "neighbour-advertisement": {136, 0, 255},
	"neighbor-advertisement": {136, 0, 255}, "redirect": {137, 0, 255},
}

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
