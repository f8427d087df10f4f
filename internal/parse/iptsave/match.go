package iptsave

import (
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/parse/names"
)

// match adds what a match of a rule means.
func (p *ruleReader) match(m *module) {
	if n, ok := protocolOfModule[m.name]; ok && !p.hasProto {
		p.proto, p.hasProto = n, true
		p.out = append(p.out, equals(netfilter.Proto, n, false))
	}
	key := p.span(m.from, m.to)
	ms, known := p.matches[key]
	if !known {
		ms = p.meaning(m)
		p.keep(key, ms)
	}
	p.out = append(p.out, ms...)
}

// protocolOfModule is which protocol a match is for. iptables refuses it for any other.
var protocolOfModule = map[string]uint64{"tcp": 6, "udp": 17, "udplite": 136, "sctp": 132, "dccp": 33, "icmp": 1, "icmp6": 58, "icmpv6": 58}

// meaning is what a match means.
func (p *ruleReader) meaning(m *module) []netfilter.Match {
	if read := matchReadings[m.name]; read != nil {
		if ms, ok := read(p, m); ok {
			return ms
		}
		return p.unread(m)
	}
	options, ok := optionReadings[m.name]
	if !ok {
		return p.unread(m)
	}
	var all []netfilter.Match
	if always := optionReadings[m.name][""]; always != nil && len(m.options) == 0 {
		all, _ = always(p, option{})
	}
	for _, o := range m.options {
		read := options[o.name]
		if read == nil {
			all = append(all, p.unread(&module{word: m.word, name: m.name, options: []option{o}})...)
			continue
		}
		ms, ok := read(p, o)
		if !ok {
			ms = p.unread(&module{word: m.word, name: m.name, options: []option{o}})
		}
		all = append(all, ms...)
	}
	return all
}

// unread is a match that isn't understood.
func (p *ruleReader) unread(m *module) []netfilter.Match {
	text := m.text()
	if !opaqueMatches[m.name] && !m.has("--lost") {
		p.reader.once("match "+m.name, "", "%s is not understood", shorten(text))
	}
	return []netfilter.Match{netfilter.Opaque{Text: text}}
}

// opaqueMatches are those that look at what no field is.
var opaqueMatches = map[string]bool{"bpf": true, "cluster": true, "cpu": true, "eui64": true, "ipcomp": true, "ipv6header": true, "ipvs": true,
	"mh": true, "osf": true, "srh": true, "string": true, "tcpmss": true, "u32": true, "esp": true, "ah": true, "rt": true, "hbh": true, "dst": true,
	"frag": true, "policy": true, "sctp": true, "dccp": true}

// optionReadings are the matches whose options each say something for themselves, and all of which must hold. What stands
// under "" is meant where there is none.
var optionReadings = map[string]map[string]reading{
	"tcp": {
		"": hasPorts, "--sport": port(netfilter.SrcPort), "--source-port": port(netfilter.SrcPort),
		"--dport": port(netfilter.DstPort), "--destination-port": port(netfilter.DstPort),
		"--tcp-flags": tcpFlagsAre, "--syn": syn, "--tcp-option": tcpOption,
	},
	"udp": {
		"": hasPorts, "--sport": port(netfilter.SrcPort), "--source-port": port(netfilter.SrcPort),
		"--dport": port(netfilter.DstPort), "--destination-port": port(netfilter.DstPort),
	},
	"udplite": {
		"": hasPorts, "--sport": port(netfilter.SrcPort), "--source-port": port(netfilter.SrcPort),
		"--dport": port(netfilter.DstPort), "--destination-port": port(netfilter.DstPort),
	},
	"sctp": {
		"": hasPorts, "--sport": port(netfilter.SrcPort), "--source-port": port(netfilter.SrcPort),
		"--dport": port(netfilter.DstPort), "--destination-port": port(netfilter.DstPort),
	},
	"dccp": {
		"": hasPorts, "--sport": port(netfilter.SrcPort), "--source-port": port(netfilter.SrcPort),
		"--dport": port(netfilter.DstPort), "--destination-port": port(netfilter.DstPort),
	},
	"icmp":   {"": anyICMP, "--icmp-type": icmpType},
	"icmp6":  {"": anyICMP, "--icmpv6-type": icmp6Type},
	"icmpv6": {"": anyICMP, "--icmpv6-type": icmp6Type},
	"multiport": {
		"--sports": ports(netfilter.SrcPort), "--source-ports": ports(netfilter.SrcPort),
		"--dports": ports(netfilter.DstPort), "--destination-ports": ports(netfilter.DstPort), "--ports": eitherPort,
	},
	"iprange":  {"--src-range": addressRange(netfilter.Src), "--dst-range": addressRange(netfilter.Dst)},
	"mark":     {"--mark": masked(netfilter.Mark)},
	"connmark": {"--mark": masked(netfilter.CtMark)},
	"realm":    {"--realm": masked(netfilter.Realm)},
	"devgroup": {"--src-group": masked(netfilter.InGroup), "--dst-group": masked(netfilter.OutGroup)},
	"mac":      {"--mac-source": macSource},
	"pkttype":  {"--pkt-type": packetType},
	"length":   {"--length": numberRange(netfilter.Length, 65535)},
	"ttl":      ttl("ttl"),
	"hl":       ttl("hl"),
	"dscp":     {"--dscp": dscp, "--dscp-class": dscp},
	"tos":      {"--tos": tos},
	"ecn":      {"--ecn-ip-ect": ect, "--ecn-tcp-cwr": tcpBit(128), "--ecn-tcp-ece": tcpBit(64)},
	"physdev": {
		"--physdev-in": iface(netfilter.InBridgePort), "--physdev-out": physdevOut, "--physdev-is-in": isPort(netfilter.InBridgePort),
		"--physdev-is-out": isPort(netfilter.OutBridgePort), "--physdev-is-bridged": flag(netfilter.Bridged),
	},
	"helper": {"--helper": helper},
	"cgroup": {"--path": cgroup},
	"frag": {
		"": extHeader(44), "--fragfirst": firstFragment, "--fragmore": moreFragments(1), "--fraglast": moreFragments(0),
	},
	"rt": {"": extHeader(43)}, "hbh": {"": extHeader(0)}, "dst": {"": extHeader(60)},
}

// matchReadings are the matches whose options belong together.
var matchReadings = map[string]func(*ruleReader, *module) ([]netfilter.Match, bool){
	"conntrack": conntrack, "state": conntrack, "addrtype": addrType, "set": matchSet, "connlabel": connlabel, "owner": owner,
	"policy": ipsecPolicy, "rpfilter": rpfilter, "socket": socket,
	"limit": stateful, "hashlimit": stateful, "recent": stateful, "quota": stateful, "connlimit": stateful, "statistic": stateful,
	"random": stateful, "nth": stateful, "time": stateful, "connbytes": stateful, "rateest": stateful, "nfacct": stateful,
	"dstlimit": stateful, "iplimit": stateful, "psd": stateful, "fuzzy": stateful, "account": stateful, "quota2": stateful,
}

// one is a single match, understood.
func one(m netfilter.Match) ([]netfilter.Match, bool) { return []netfilter.Match{m}, true }

// equals compares a field with one number.
func equals(f netfilter.Field, n uint64, not bool) netfilter.Compare { return between(f, n, n, not) }

// between compares a field with a range; one whose ends are the wrong way round holds nothing.
func between(f netfilter.Field, first, last uint64, not bool) netfilter.Compare {
	c := netfilter.Compare{Field: f, Not: not}
	if first <= last {
		c.Numbers = []netfilter.Range{{First: first, Last: last}}
	}
	return c
}

// underMask compares the bits of a mask. Without any the value must be none.
func underMask(f netfilter.Field, value, mask uint64, not bool) netfilter.Match {
	if mask == 0 {
		return netfilter.Any{Not: not != (value == 0)}
	}
	c := equals(f, value, not)
	c.Mask = mask
	return c
}

// none holds where matches don't hold as a whole, for packets that lack what they look at as well.
func none(ms ...netfilter.Match) netfilter.Match {
	return netfilter.Any{Of: [][]netfilter.Match{ms}, Not: true}
}

// portsExist holds for packets that have ports: not for fragments behind the first.
func portsExist() netfilter.Match { return between(netfilter.DstPort, 0, 65535, false) }

func hasPorts(*ruleReader, option) ([]netfilter.Match, bool) { return one(portsExist()) }

// split2 reads VALUE or FIRST:LAST, either of which may be left out, up to a maximum.
func split2(s string, read func(string) (uint64, bool), maximum uint64) (first, last uint64, ok bool) {
	a, b, isRange := strings.Cut(s, ":")
	last = maximum
	ok1, ok2 := isRange && a == "", isRange && b == ""
	if !ok1 {
		first, ok1 = read(a)
	}
	switch {
	case !isRange:
		last, ok2 = first, true
	case !ok2:
		last, ok2 = read(b)
	}
	return first, last, ok1 && ok2 && first <= maximum && last <= maximum
}

func number32(s string) (uint64, bool) { return names.Number(s, 32) }

func port(f netfilter.Field) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		s, ok := o.arg()
		if !ok {
			return nil, false
		}
		first, last, ok := split2(s, names.Port, 65535)
		if !ok {
			return nil, false
		}
		return one(between(f, first, last, o.not))
	}
}

// portList reads "80,443,8000:8100".
func portList(s string) ([]netfilter.Range, bool) {
	var all []netfilter.Range
	for part := range strings.SplitSeq(s, ",") {
		first, last, ok := split2(part, names.Port, 65535)
		if !ok {
			return nil, false
		}
		if first <= last {
			all = append(all, netfilter.Range{First: first, Last: last})
		}
	}
	return all, true
}

func ports(f netfilter.Field) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		s, _ := o.arg()
		list, ok := portList(s)
		if !ok {
			return nil, false
		}
		return one(netfilter.Compare{Field: f, Values: netfilter.Values{Numbers: list}, Not: o.not})
	}
}

func eitherPort(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	list, ok := portList(s)
	if !ok {
		return nil, false
	}
	v := netfilter.Values{Numbers: list}
	either := netfilter.Any{Not: o.not, Of: [][]netfilter.Match{{netfilter.Compare{Field: netfilter.SrcPort, Values: v}},
		{netfilter.Compare{Field: netfilter.DstPort, Values: v}}}}
	if o.not {
		return []netfilter.Match{portsExist(), either}, true
	}
	return one(either)
}

// flagBits reads "SYN,ACK" or a number.
func flagBits(s string) (uint64, bool) {
	if n, ok := names.Number(s, 8); ok {
		return n, true
	}
	var bits uint64
	for name := range strings.SplitSeq(s, ",") {
		b, ok := tcpFlags[strings.ToUpper(name)]
		if !ok {
			return 0, false
		}
		bits |= b
	}
	return bits, true
}

func tcpFlagsAre(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	if len(o.args) != 2 {
		return nil, false
	}
	mask, ok1 := flagBits(o.args[0].text)
	value, ok2 := flagBits(o.args[1].text)
	if !ok1 || !ok2 {
		return nil, false
	}
	m := underMask(netfilter.TCPFlags, value, mask, o.not)
	if mask == 0 {
		return []netfilter.Match{portsExist(), m}, true
	}
	return one(m)
}

func syn(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	return one(underMask(netfilter.TCPFlags, 2, 1|2|4|16, o.not))
}

func tcpBit(bit uint64) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		return one(underMask(netfilter.TCPFlags, bit, bit, o.not))
	}
}

func tcpOption(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	n, ok := names.Number(s, 8)
	if !ok {
		return nil, false
	}
	is := equals(netfilter.TCPOption, n, false)
	if o.not {
		return []netfilter.Match{portsExist(), none(is)}, true
	}
	return one(is)
}

func anyICMP(p *ruleReader, o option) ([]netfilter.Match, bool) {
	f := netfilter.ICMPType
	if p.family == netfilter.IPv6 {
		f = netfilter.ICMPv6Type
	}
	return one(between(f, 0, 255, o.not))
}

func icmpType(p *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	k, ok := names.ICMPType(s)
	if ok && k.Type == 255 {
		return anyICMP(p, o)
	}
	return icmpIs(netfilter.ICMPType, netfilter.ICMPCode, k, o.not), ok
}

func icmp6Type(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	k, ok := names.ICMPv6Type(s)
	return icmpIs(netfilter.ICMPv6Type, netfilter.ICMPv6Code, k, o.not), ok
}

func icmpIs(kind, code netfilter.Field, k names.ICMP, not bool) []netfilter.Match {
	if k.First == 0 && k.Last == 255 {
		return []netfilter.Match{equals(kind, k.Type, not)}
	}
	both := []netfilter.Match{equals(kind, k.Type, false), between(code, k.First, k.Last, false)}
	if not {
		return []netfilter.Match{between(kind, 0, 255, false), none(both...)}
	}
	return both
}

func protocolIs(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, ok := o.arg()
	n, ok2 := names.Protocol(s)
	switch {
	case !ok || !ok2:
		return nil, false
	case n == 0 && !o.not:
		return nil, true
	}
	return one(equals(netfilter.Proto, n, o.not))
}

func fragment(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	if o.not {
		return one(equals(netfilter.FragmentOffset, 0, false))
	}
	return one(between(netfilter.FragmentOffset, 1, 8191, false))
}

// ifaceNames are the names that iptables' word for an interface stands for.
func ifaceNames(s string) []string {
	switch {
	case s == "", s == "+":
		return []string{"*"}
	case strings.HasSuffix(s, "+"):
		return []string{s[:len(s)-1] + "*"}
	case strings.HasSuffix(s, "*"):
		return []string{s[:len(s)-1] + `\*`}
	}
	return []string{s}
}

func iface(f netfilter.Field) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		s, ok := o.arg()
		return []netfilter.Match{netfilter.Compare{Field: f, Values: netfilter.Values{Names: ifaceNames(s)}, Not: o.not}}, ok
	}
}

// physdevOut: a packet that bridge netfilter shows and that leaves by no port meets the option neither with ! nor without,
// any other without one meets it with !.
func physdevOut(p *ruleReader, o option) ([]netfilter.Match, bool) {
	if !o.not {
		return iface(netfilter.OutBridgePort)(p, o)
	}
	s, ok := o.arg()
	named := func(f netfilter.Field, not bool, names ...string) netfilter.Match {
		return netfilter.Compare{Field: f, Values: netfilter.Values{Names: names}, Not: not}
	}
	return []netfilter.Match{netfilter.Any{Of: [][]netfilter.Match{
		{named(netfilter.InBridgePort, false, ""), named(netfilter.OutBridgePort, false, "")},
		{named(netfilter.OutBridgePort, true, append([]string{""}, ifaceNames(s)...)...)},
	}}}, ok
}

func isPort(f netfilter.Field) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		return one(netfilter.Compare{Field: f, Values: netfilter.Values{Names: []string{""}}, Not: !o.not})
	}
}

func flag(f netfilter.Field) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		n := uint64(1)
		if o.not {
			n = 0
		}
		return one(equals(f, n, false))
	}
}

// address reads ADDRESS, ADDRESS/LENGTH, ADDRESS/MASK, or several with commas between.
func address(f netfilter.Field) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		s, ok := o.arg()
		if !ok {
			return nil, false
		}
		return addressIs(f, s, o.not)
	}
}

func addressIs(f netfilter.Field, s string, not bool) ([]netfilter.Match, bool) {
	var b netset.Builder
	for part := range strings.SplitSeq(s, ",") {
		a, mask, ok := addressAndMask(part)
		if !ok {
			return nil, false
		}
		length, contiguous := prefixLength(mask)
		if !contiguous {
			m := netfilter.Compare{Field: f, AddrMask: mask, Values: netfilter.Values{Addrs: netset.OfAddrs(and(a, mask))}, Not: not}
			return []netfilter.Match{m}, part == s
		}
		b.AddPrefix(netip.PrefixFrom(a, length))
	}
	set, err := b.Set()
	return []netfilter.Match{netfilter.Compare{Field: f, Values: netfilter.Values{Addrs: set}, Not: not}}, err == nil
}

// addressAndMask reads an address with an optional mask or length.
func addressAndMask(s string) (a, mask netip.Addr, ok bool) {
	host, length, has := strings.Cut(s, "/")
	a, ok = parseAddr(host)
	if !ok {
		return a, mask, false
	}
	n := a.BitLen()
	if has {
		if strings.ContainsAny(length, ".:") {
			m, err := netip.ParseAddr(length)
			return a, m, err == nil && m.BitLen() == a.BitLen()
		}
		bits, ok := names.Number(length, 8)
		if !ok || int(bits) > n {
			return a, mask, false
		}
		n = int(bits)
	}
	return a, maskOf(n, a.BitLen()), true
}

// parseAddr reads an address. Of an IPv4 one the last parts may be missing.
func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err == nil {
		return a, a.Zone() == "" && !a.Is4In6()
	}
	if dots := strings.Count(s, "."); s != "" && dots < 3 && strings.Trim(s, "0123456789.") == "" {
		a, err = netip.ParseAddr(s + strings.Repeat(".0", 3-dots))
	}
	return a, err == nil
}

// maskOf is the mask with n leading ones of an address of so many bits.
func maskOf(n, bits int) netip.Addr {
	ones := slices.Repeat([]byte{255}, bits/8)
	a, _ := netip.AddrFromSlice(ones)
	return netip.PrefixFrom(a, n).Masked().Addr()
}

// prefixLength is how many leading ones a mask has, if it has no others.
func prefixLength(mask netip.Addr) (int, bool) {
	n, ended := 0, false
	for _, b := range mask.AsSlice() {
		for bit := byte(128); bit > 0; bit >>= 1 {
			switch {
			case b&bit == 0:
				ended = true
			case ended:
				return 0, false
			default:
				n++
			}
		}
	}
	return n, true
}

func and(a, mask netip.Addr) netip.Addr {
	b, m := a.AsSlice(), mask.AsSlice()
	for i := range b {
		b[i] &= m[i]
	}
	masked, _ := netip.AddrFromSlice(b)
	return masked
}

func addressRange(f netfilter.Field) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		s, _ := o.arg()
		set, ok := rangeSet(s)
		return []netfilter.Match{netfilter.Compare{Field: f, Values: netfilter.Values{Addrs: set}, Not: o.not}}, ok
	}
}

// rangeSet reads FIRST-LAST or ADDRESS.
func rangeSet(s string) (netset.Set, bool) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, ok1 := parseAddr(first)
	z, ok2 := parseAddr(last)
	if !ok1 || !ok2 || a.BitLen() != z.BitLen() {
		return netset.Set{}, false
	}
	var b netset.Builder
	if a.Compare(z) <= 0 {
		b.Add(netipx.IPRangeFrom(a, z))
	}
	set, err := b.Set()
	return set, err == nil
}

// valueAndMask reads VALUE or VALUE/MASK, of 32 bits.
func valueAndMask(s string) (value, mask uint64, ok bool) {
	v, m, has := strings.Cut(s, "/")
	value, ok = names.Number(v, 32)
	mask = 0xffffffff
	if ok && has {
		mask, ok = names.Number(m, 32)
	}
	return value, mask, ok
}

func masked(f netfilter.Field) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		s, _ := o.arg()
		value, mask, ok := valueAndMask(s)
		if !ok {
			return nil, false
		}
		m := underMask(f, value, mask, o.not)
		if c, isCompare := m.(netfilter.Compare); isCompare && mask == 0xffffffff {
			c.Mask = 0
			m = c
		}
		return one(m)
	}
}

func macSource(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	n, ok := names.MAC(s)
	return []netfilter.Match{equals(netfilter.SrcMAC, n, o.not)}, ok
}

func packetType(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	n, ok := packetTypes[strings.ToLower(s)]
	return []netfilter.Match{equals(netfilter.PacketType, n, o.not)}, ok
}

func numberRange(f netfilter.Field, maximum uint64) reading {
	return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		s, _ := o.arg()
		first, last, ok := split2(s, number32, maximum)
		return []netfilter.Match{between(f, first, last, o.not)}, ok
	}
}

// ttl are the options of the matches ttl and hl.
func ttl(name string) map[string]reading {
	with := func(first, last func(uint64) uint64) reading {
		return func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
			s, _ := o.arg()
			n, ok := names.Number(s, 8)
			c := between(netfilter.TTL, first(n), last(n), o.not)
			return []netfilter.Match{c}, ok
		}
	}
	same := func(n uint64) uint64 { return n }
	below := func(_ *ruleReader, o option) ([]netfilter.Match, bool) {
		s, _ := o.arg()
		n, ok := names.Number(s, 8)
		if n == 0 {
			return []netfilter.Match{netfilter.Any{Not: o.not}}, ok
		}
		return []netfilter.Match{between(netfilter.TTL, 0, n-1, o.not)}, ok
	}
	return map[string]reading{"--" + name + "-eq": with(same, same), "--" + name: with(same, same), "--" + name + "-lt": below,
		"--" + name + "-gt": with(func(n uint64) uint64 { return n + 1 }, func(uint64) uint64 { return 255 })}
}

func dscp(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	n, ok := dscpValue(s)
	return []netfilter.Match{equals(netfilter.DSCP, n, o.not)}, ok
}

func dscpValue(s string) (uint64, bool) {
	if n, ok := dscpClass(s); ok {
		return n, true
	}
	n, ok := names.Number(s, 8)
	return n, ok && n < 64
}

// tosValue reads VALUE, VALUE/MASK or a name, with the mask that a name has.
func tosValue(s string, maskOfName uint64) (value, mask uint64, ok bool) {
	if n, ok := tosNames[strings.ToLower(s)]; ok {
		return n, maskOfName, true
	}
	value, mask, ok = valueAndMask(s)
	return value, mask & 0xff, ok && value < 256
}

// tos compares DSCP and ECN, which are the two parts of the field.
func tos(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	value, mask, ok := tosValue(s, 0x3f)
	if !ok || value&^mask != 0 {
		return []netfilter.Match{netfilter.Any{Not: o.not}}, ok
	}
	var both []netfilter.Match
	if mask>>2 != 0 {
		both = append(both, underMask(netfilter.DSCP, value>>2, mask>>2, false))
	}
	if mask&3 != 0 {
		both = append(both, underMask(netfilter.ECN, value&3, mask&3, false))
	}
	if o.not {
		return one(none(both...))
	}
	return both, true
}

func ect(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	n, ok := names.Number(s, 8)
	return []netfilter.Match{equals(netfilter.ECN, n, o.not)}, ok && n < 4
}

// helper: a connection without one, or no connection at all, meets the option with !.
func helper(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, ok := o.arg()
	if s == "" {
		s = "*"
	}
	is := netfilter.Compare{Field: netfilter.CtHelper, Values: netfilter.Values{Names: []string{s}}}
	if o.not {
		return []netfilter.Match{none(is)}, ok
	}
	return []netfilter.Match{is}, ok
}

func cgroup(_ *ruleReader, o option) ([]netfilter.Match, bool) {
	s, ok := o.arg()
	path := "/" + strings.Trim(s, "/")
	paths := []string{path, path + "/*"}
	if path == "/" {
		paths = []string{"/*"}
	}
	return []netfilter.Match{netfilter.Compare{Field: netfilter.CGroup, Values: netfilter.Values{Names: paths}, Not: o.not}}, ok
}

func extHeader(n uint64) reading {
	return func(*ruleReader, option) ([]netfilter.Match, bool) { return one(equals(netfilter.ExtHeader, n, false)) }
}

func firstFragment(*ruleReader, option) ([]netfilter.Match, bool) {
	return []netfilter.Match{equals(netfilter.ExtHeader, 44, false), equals(netfilter.FragmentOffset, 0, false)}, true
}

func moreFragments(n uint64) reading {
	return func(*ruleReader, option) ([]netfilter.Match, bool) {
		return []netfilter.Match{equals(netfilter.ExtHeader, 44, false), equals(netfilter.MoreFragments, n, false)}, true
	}
}
