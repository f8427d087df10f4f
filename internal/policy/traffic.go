package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"quaywall/internal/netset"
	"quaywall/internal/policy/tree"
)

// protocol is an IP protocol that rules name by word.
type protocol struct {
	name   string
	number uint8
}

// protocols are those with a name in the language; those with ports take them as PORT/NAME.
// See https://www.iana.org/assignments/protocol-numbers.
var protocols = []protocol{
	{"ah", AH}, {"dccp", DCCP}, {"esp", 50}, {"gre", 47}, {"igmp", 2}, {"ipcomp", 108}, {"ipip", 4}, {"ipv6", 41}, {"ospf", 89},
	{"pim", 103}, {"sctp", SCTP}, {"tcp", TCP}, {"udp", UDP}, {"udplite", UDPLite}, {"vrrp", 112},
}

func protocolNumber(name string) (uint8, bool) {
	i := slices.IndexFunc(protocols, func(p protocol) bool { return p.name == name })
	if i < 0 {
		return 0, false
	}
	return protocols[i].number, true
}

// ofProtocol is all of a protocol's traffic.
func ofProtocol(number uint8) Traffic {
	if HasPorts(number) {
		return Traffic{Proto: number, Ports: netset.AllPorts}
	}
	return Traffic{Proto: number}
}

// what reads a list of traffic, or one word as a list of one. Each kind stands in it once.
func (f *file) what(n *tree.Node, what string) []Traffic {
	items := f.words(n, what)
	var all []Traffic
	for _, item := range items {
		got, p := f.traffic(item.Text)
		if p == nil && item.Text == "any" && len(items) > 1 {
			p = &problem{0, "\"any\" among others", "any stands alone, it is all of them"}
		}
		if p != nil {
			f.report(item, p)
			continue
		}
		for _, t := range got {
			if !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	return all
}

// traffic reads one word: any, published, a service, a protocol, PORTS, PORTS/PROTOCOL or icmp/TYPE.
func (f *file) traffic(s string) ([]Traffic, *problem) {
	switch s {
	case "any":
		return []Traffic{{}}, nil
	case "published":
		return []Traffic{{Published: true}}, nil
	}
	left, right, slash := strings.Cut(s, "/")
	switch {
	case slash && (left == "icmp" || left == "icmp6"):
		return parseICMP(left, right)
	case s[0] >= '0' && s[0] <= '9':
		return parsePorts(left, right, slash)
	case slash:
		return nil, f.misplacedSlash(left, right)
	}
	if own, ok := f.services[s]; ok {
		own.used = true
		return own.traffic, nil
	}
	if b, ok := builtinService(s); ok {
		return b.Traffic, nil
	}
	if number, ok := protocolNumber(s); ok {
		return []Traffic{ofProtocol(number)}, nil
	}
	return nil, f.noSuchTraffic(s, "the command quaywall services lists those it knows; a number is a port")
}

// misplacedSlash is the problem of NAME/SOMETHING where NAME takes none.
func (f *file) misplacedSlash(left, right string) *problem {
	if left == "" {
		return &problem{0, "nothing stands before the slash", "write PORT/PROTOCOL"}
	}
	if number, ok := protocolNumber(left); ok && HasPorts(number) {
		return &problem{0, "the port stands before the protocol", fmt.Sprintf("write %s/%s", short(right), left)}
	}
	if _, p := f.traffic(left); p == nil {
		return &problem{len(left), fmt.Sprintf("%q has its protocol already", left), "write " + left + " alone, or PORT/PROTOCOL"}
	}
	return f.noSuchTraffic(left, "write PORT/PROTOCOL, icmp/TYPE or the service alone")
}

// noSuchTraffic is the problem of a word that is no kind of traffic. Where parts of the policy could not be read, the
// service may stand in one of them.
func (f *file) noSuchTraffic(word, hint string) *problem {
	known := []string{"any", "published", "icmp", "icmp6"}
	for name := range f.services {
		known = append(known, name)
	}
	for _, s := range builtin {
		known = append(known, s.Name)
	}
	for _, p := range protocols {
		known = append(known, p.name)
	}
	slices.Sort(known)
	switch near := didYouMean(word, known); {
	case near != "":
		hint = near
	case strings.Contains(word, " "):
		hint = "write a list as [a, b]"
	case strings.Contains(word, "#"):
		hint = "a comment needs a space before it"
	case f.partial:
		return &problem{}
	}
	return &problem{0, fmt.Sprintf("no service or protocol is called %q", short(word)), hint}
}

// parsePorts reads PORT or FIRST-LAST with the protocols behind the slash; none is TCP, as with Docker's -p.
func parsePorts(ports, protos string, slash bool) ([]Traffic, *problem) {
	r, p := parsePortRange(ports)
	if p != nil {
		return nil, p
	}
	switch {
	case !slash:
		protos = "tcp"
	case protos == "any":
		protos = "tcp+udp"
	}
	var all []Traffic
	at := len(ports) + 1
	for name := range strings.SplitSeq(protos, "+") {
		number, ok := protocolNumber(name)
		ok = ok || name == "icmp" || name == "icmp6"
		if !HasPorts(number) {
			return nil, noPortProtocol(name, ok, at)
		}
		all = append(all, Traffic{Proto: number, Ports: r})
		at += len(name) + 1
	}
	return all, nil
}

func noPortProtocol(name string, known bool, at int) *problem {
	if known {
		return &problem{at, fmt.Sprintf("%s has no ports", name), fmt.Sprintf("write %s alone", name)}
	}
	hint := didYouMean(name, []string{"tcp", "udp", "any", "sctp", "dccp", "udplite"})
	if hint == "" {
		hint = "write tcp, udp, tcp+udp, any (which is tcp and udp), sctp, dccp or udplite"
	}
	return &problem{at, fmt.Sprintf("%q is no protocol with ports", short(name)), hint}
}

func parsePortRange(s string) (netset.Ports, *problem) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		if a, b, ok := strings.Cut(s, ":"); ok {
			return netset.Ports{}, &problem{len(a), "a range of ports is written with a dash", fmt.Sprintf("write %s-%s", a, b)}
		}
	}
	a, p := parsePort(first, 0)
	if p != nil || !isRange {
		return netset.Ports{First: a, Last: a}, p
	}
	b, p := parsePort(last, len(first)+1)
	if p == nil && a > b {
		p = &problem{0, fmt.Sprintf("the range %s begins behind its end", s), fmt.Sprintf("write %d-%d", b, a)}
	}
	return netset.Ports{First: a, Last: b}, p
}

func parsePort(s string, at int) (uint16, *problem) {
	const hint = "ports are 1 to 65535"
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, &problem{at, fmt.Sprintf("%q is not a port", short(s)), hint}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	switch {
	case err != nil || n == 0:
		return 0, &problem{at, fmt.Sprintf("port %s is out of range", short(s)), hint}
	case s[0] == '0':
		return 0, &problem{at, fmt.Sprintf("port %s begins with a zero", short(s)), fmt.Sprintf("write %d", n)}
	}
	return uint16(n), nil
}

// icmpType is a type of ICMP or ICMPv6 with a name, or a type and code.
type icmpType struct {
	name string
	ICMPMatch
}

func icmpOf(name string, t uint8) icmpType { return icmpType{name, ICMPMatch{HasType: true, Type: t}} }
func icmpCode(name string, t, c uint8) icmpType {
	return icmpType{name, ICMPMatch{HasType: true, Type: t, HasCode: true, Code: c}}
}

// icmpTypes are the names that nft, iptables and the registry share.
// See https://www.iana.org/assignments/icmp-parameters and https://www.iana.org/assignments/icmpv6-parameters.
func icmpTypes(proto uint8) []icmpType {
	if proto == ICMP {
		return []icmpType{
			icmpOf("echo-reply", 0), icmpOf("destination-unreachable", 3), icmpCode("network-unreachable", 3, 0),
			icmpCode("host-unreachable", 3, 1), icmpCode("protocol-unreachable", 3, 2), icmpCode("port-unreachable", 3, 3),
			icmpCode("fragmentation-needed", 3, 4), icmpOf("source-quench", 4), icmpOf("redirect", 5), icmpOf("echo-request", 8),
			icmpOf("router-advertisement", 9), icmpOf("router-solicitation", 10), icmpOf("time-exceeded", 11),
			icmpOf("parameter-problem", 12), icmpOf("timestamp-request", 13), icmpOf("timestamp-reply", 14),
			icmpOf("address-mask-request", 17), icmpOf("address-mask-reply", 18),
		}
	}
	return []icmpType{
		icmpOf("destination-unreachable", 1), icmpCode("port-unreachable", 1, 4), icmpOf("packet-too-big", 2),
		icmpOf("time-exceeded", 3), icmpOf("parameter-problem", 4), icmpOf("echo-request", 128), icmpOf("echo-reply", 129),
		icmpOf("mld-listener-query", 130), icmpOf("mld-listener-report", 131), icmpOf("mld-listener-done", 132),
		icmpOf("router-solicitation", 133), icmpOf("router-advertisement", 134), icmpOf("neighbour-solicitation", 135),
		icmpOf("neighbour-advertisement", 136), icmpOf("redirect", 137), icmpOf("mld2-listener-report", 143),
	}
}

// parseICMP reads icmp/TYPE, icmp/TYPE/CODE and the same of icmp6. Types are of one family: their numbers differ.
func parseICMP(family, s string) ([]Traffic, *problem) {
	proto := uint8(ICMP)
	if family == "icmp6" {
		proto = ICMPv6
	}
	at := len(family) + 1
	types := icmpTypes(proto)
	if i := slices.IndexFunc(types, func(t icmpType) bool { return t.name == s }); i >= 0 {
		return []Traffic{{Proto: proto, ICMP: types[i].ICMPMatch}}, nil
	}
	typ, code, hasCode := strings.Cut(s, "/")
	m := ICMPMatch{HasType: true, HasCode: hasCode}
	var ok bool
	if m.Type, ok = parseByte(typ); !ok {
		return nil, noICMPType(family, typ, at, types)
	}
	if proto == ICMP && m.Type == everyICMPType {
		return nil, &problem{at, "type 255 of icmp is reserved", "to iptables it is every type: write icmp for that"}
	}
	if hasCode {
		if m.Code, ok = parseByte(code); !ok {
			return nil, &problem{at + len(typ) + 1, fmt.Sprintf("%q is no code of %s", short(code), family), "codes are 0 to 255"}
		}
	}
	return []Traffic{{Proto: proto, ICMP: m}}, nil
}

// everyICMPType is what the match of iptables takes for any type. No packet has it: IANA keeps it back.
const everyICMPType = 255

func parseByte(s string) (uint8, bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil
}

func noICMPType(family, s string, at int, types []icmpType) *problem {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.name
	}
	hint := didYouMean(s, names)
	if hint == "" {
		hint = "write its number, 0 to 255, or its name, as in " + family + "/echo-request"
	}
	return &problem{at, fmt.Sprintf("%q is no type of %s", short(s), family), hint}
}
