package iptsave

import (
	"strings"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
)

// addrType reads the match addrtype.
func addrType(p *ruleReader, m *module) ([]netfilter.Match, bool) {
	src, dst := netfilter.SrcType, netfilter.DstType
	if m.has("--limit-iface-in") {
		src, dst = netfilter.SrcTypeIn, netfilter.DstTypeIn
	}
	if m.has("--limit-iface-out") {
		src, dst = netfilter.SrcTypeOut, netfilter.DstTypeOut
	}
	var all []netfilter.Match
	for _, o := range m.options {
		var ms []netfilter.Match
		ok := true
		switch o.name {
		case "--src-type":
			ms, ok = typeIs(p.family, netfilter.Src, src, o)
		case "--dst-type":
			ms, ok = typeIs(p.family, netfilter.Dst, dst, o)
		case "--limit-iface-in", "--limit-iface-out":
		default:
			ok = false
		}
		if !ok {
			return nil, false
		}
		all = append(all, ms...)
	}
	return all, true
}

// typeIs compares the type of an address. In IPv6 three types are of the address alone and the others of its route, and all
// that are named must hold.
func typeIs(family netfilter.Family, addr, field netfilter.Field, o option) ([]netfilter.Match, bool) {
	s, _ := o.arg()
	var list []netfilter.Range
	var all []netfilter.Match
	for name := range strings.SplitSeq(strings.ToUpper(s), ",") {
		n, ok := addrTypes[name]
		if !ok {
			return nil, false
		}
		if m, ok := addrClass(addr, name); ok && family == netfilter.IPv6 {
			all = append(all, m)
			continue
		}
		list = append(list, netfilter.Range{First: n, Last: n})
	}
	is := netfilter.Compare{Field: field, Values: netfilter.Values{Numbers: list}, Not: o.not}
	if len(all) == 0 {
		return one(is)
	}
	if is.Not = false; len(list) > 0 {
		all = append(all, is)
	}
	if o.not {
		return one(none(all...))
	}
	return all, true
}

// addrClass is a type that an IPv6 address has by itself (ipv6_addr_type in the kernel).
func addrClass(f netfilter.Field, name string) (netfilter.Match, bool) {
	addrs := func(list string, not bool) (netfilter.Match, bool) {
		return netfilter.Compare{Field: f, Values: netfilter.Values{Addrs: netset.MustParse(list)}, Not: not}, true
	}
	switch name {
	case "UNICAST":
		// Of the mapped addresses ::ffff:0:0/96 the kernel doesn't say so either, but a set of addresses can't hold them.
		return addrs("ff00::/8 ::", true)
	case "MULTICAST":
		return addrs("ff00::/8", false)
	case "UNSPEC":
		return addrs("::", false)
	}
	return nil, false
}

// matchSet reads the match set.
func matchSet(p *ruleReader, m *module) ([]netfilter.Match, bool) {
	var all []netfilter.Match
	for _, o := range m.options {
		switch o.name {
		case "--match-set", "--set":
			if len(o.args) != 2 {
				return nil, false
			}
			ms, ok := p.inSet(o)
			if !ok {
				return nil, false
			}
			all = append(all, ms...)
		case "--update-counters", "--update-subcounters":
		default:
			return nil, false
		}
	}
	return all, len(all) > 0
}

// set finds a set of ipset.
func (p *ruleReader) set(name string) *netfilter.Set {
	for _, s := range p.reader.options.Sets {
		if s.Name == name {
			return s
		}
	}
	p.reader.once("set "+name, "", "there is no set %s among those of ipset: what is in it is not known", shorten(name))
	return nil
}

// inSet reads "NAME src,dst".
func (p *ruleReader) inSet(o option) ([]netfilter.Match, bool) {
	s := p.set(o.args[0].text)
	if s == nil {
		return nil, false
	}
	directions := strings.Split(o.args[1].text, ",")
	if s.Members == nil && !strings.HasPrefix(s.Type, "list:") {
		return one(p.in(s, directions, o.not))
	}
	either := netfilter.Any{Not: o.not}
	same := true
	var first netfilter.Match
	for _, name := range s.Members {
		member := p.set(name)
		if member == nil {
			return nil, false
		}
		in := p.in(member, directions, false)
		either.Of = append(either.Of, []netfilter.Match{in})
		if first == nil {
			first = in
		}
		same = same && sameFields(first, in)
	}
	// Where all take the same fields, it is a match on the list.
	if in, ok := first.(netfilter.In); ok && same {
		in.Set, in.Not = s.Name, o.not
		return one(tight(in))
	}
	return one(either)
}

func sameFields(a, b netfilter.Match) bool {
	x, ok1 := a.(netfilter.In)
	y, ok2 := b.(netfilter.In)
	if !ok1 || !ok2 || len(x.Fields) != len(y.Fields) {
		return false
	}
	for i := range x.Fields {
		if x.Fields[i] != y.Fields[i] {
			return false
		}
	}
	return true
}

// in is the match on a set that is no list. The kernel finds nothing in one of the other family, or of more parts than the
// rule has directions for.
func (p *ruleReader) in(s *netfilter.Set, directions []string, not bool) netfilter.Match {
	fields := setFields(s.Type, directions)
	if fields == nil || s.Family != netfilter.Inet && s.Family != p.family {
		return netfilter.Any{Not: not}
	}
	return tight(netfilter.In{Fields: fields, Set: s.Name, Not: not})
}

// tight makes a packet that lacks a field meet a match with !, as in the kernel.
func tight(in netfilter.In) netfilter.Match {
	if !in.Not {
		return in
	}
	for _, f := range in.Fields {
		switch f {
		case netfilter.Src, netfilter.Dst, netfilter.Mark, netfilter.InIface, netfilter.OutIface:
		default:
			in.Not = false
			return none(in)
		}
	}
	return in
}

// setFields are the fields that a set of a type compares; nil where there are fewer directions than parts.
func setFields(kind string, directions []string) []netfilter.Field {
	_, parts, _ := strings.Cut(kind, ":")
	var fields []netfilter.Field
	at := 0
	for part := range strings.SplitSeq(parts, ",") {
		if at == len(directions) {
			return nil
		}
		pick := func(src, dst netfilter.Field) netfilter.Field {
			if directions[at] == "src" {
				return src
			}
			return dst
		}
		switch part {
		case "ip", "net":
			fields = append(fields, pick(netfilter.Src, netfilter.Dst))
		case "port":
			fields = append(fields, netfilter.Proto, pick(netfilter.IPSetSrcPort, netfilter.IPSetDstPort))
		case "mac":
			fields = append(fields, pick(netfilter.SrcMAC, netfilter.DstMAC))
		case "mark":
			fields = append(fields, netfilter.Mark)
		case "iface":
			fields = append(fields, pick(netfilter.InIface, netfilter.OutIface))
		default:
			return nil
		}
		at++
	}
	return fields
}

// owner reads the match owner: a packet that no process sends meets its options with !.
func owner(_ *ruleReader, m *module) ([]netfilter.Match, bool) {
	if m.has("--suppl-groups") {
		return nil, false
	}
	var all []netfilter.Match
	for _, o := range m.options {
		f := netfilter.UID
		s, ok := o.arg()
		switch o.name {
		case "--uid-owner":
		case "--gid-owner":
			f = netfilter.GID
		case "--socket-exists":
			s, ok = "0-4294967295", true
		default:
			return nil, false
		}
		if s == "root" {
			s = "0"
		}
		first, last, okRange := split2(strings.Replace(s, "-", ":", 1), number32, 1<<32-1)
		if !ok || !okRange {
			return nil, false
		}
		if is := between(f, first, last, false); o.not {
			all = append(all, none(is))
		} else {
			all = append(all, is)
		}
	}
	return all, len(all) > 0
}

// ipsecPolicy reads the match policy; of a policy's elements nothing is known.
func ipsecPolicy(p *ruleReader, m *module) ([]netfilter.Match, bool) {
	f := netfilter.IPsecIn
	if m.value("--dir") == "out" {
		f = netfilter.IPsecOut
	}
	switch {
	case m.value("--pol") == "none" && len(m.options) == 2:
		return one(equals(f, 0, false))
	case m.value("--pol") == "ipsec" && len(m.options) == 2:
		return one(equals(f, 1, false))
	case m.has("--dir"):
		return append([]netfilter.Match{equals(f, 1, false)}, p.unread(m)...), true
	}
	return nil, false
}

// rpfilter reads the match rpfilter.
func rpfilter(_ *ruleReader, m *module) ([]netfilter.Match, bool) {
	f, invert, byMark, local := netfilter.ReverseRoute, false, false, false
	for _, o := range m.options {
		switch o.name {
		case "--loose":
			f = netfilter.ReverseRouteLoose
		case "--invert":
			invert = true
		case "--validmark":
			byMark = true
		case "--accept-local":
			local = true
		default:
			return nil, false
		}
	}
	is := equals(f, 1, invert)
	if !byMark && !local {
		return one(is)
	}
	// The ways back are those of packets without a mark, to addresses that aren't this host's.
	either, unknown := [][]netfilter.Match{{is}}, netfilter.Opaque{Text: m.text()}
	if byMark {
		marked := netfilter.Compare{Field: netfilter.Mark, Values: netfilter.Values{Numbers: []netfilter.Range{{}}}, Not: true}
		either[0] = append(either[0], equals(netfilter.Mark, 0, false))
		either = append(either, []netfilter.Match{marked, unknown})
	}
	if local {
		ofHost := equals(netfilter.SrcType, 2, false)
		either[0] = append(either[0], equals(netfilter.SrcType, 2, true))
		either = append(either, []netfilter.Match{ofHost, unknown})
	}
	return one(netfilter.Any{Of: either})
}

// socket reads the match socket.
func socket(_ *ruleReader, m *module) ([]netfilter.Match, bool) {
	all := []netfilter.Match{equals(netfilter.SocketFound, 1, false)}
	for _, o := range m.options {
		switch o.name {
		case "--transparent":
			all = append(all, equals(netfilter.SocketTransparent, 1, false))
		case "--nowildcard":
		default: // --restore-skmark changes the packet, which nothing here can say of a match
			return nil, false
		}
	}
	if !m.has("--nowildcard") {
		all = append(all, equals(netfilter.SocketWildcard, 0, false))
	}
	return all, true
}
