// Package ipset reads what "ipset save" prints.
//
//	sets, problems := ipset.Parse(text, "ipset-save.txt")
//
// Elements that are an address or a prefix and nothing else become Set.Addrs: a million of them take some 8 MB.
//
// Be aware: what isn't understood is told as a problem with its line, and makes its set Unread, since a packet may be in it.
// A line break in an element's comment is part of the comment.
package ipset

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go4.org/netipx"

	"quaywall/internal/diag"
	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/parse/names"
)

// Parse reads sets in their order. The problems, whose file is called so, are warnings.
func Parse(text, file string) ([]*netfilter.Set, diag.List) {
	if strings.ContainsAny(text, "\r\x00") {
		text = strings.NewReplacer("\r", "", "\x00", "").Replace(text)
	}
	r := &reader{file: file, text: text, byName: map[string]*set{}, excepts: strings.Contains(text, " nomatch")}
	for r.next() {
		r.take()
	}
	r.end()
	return r.sets, r.problems
}

// reader goes through a text line by line.
type reader struct {
	file     string
	text     string // that isn't read yet
	line     string
	number   int // of line, from 1
	rest     int // lines that line goes on for, behind the first
	excepts  bool
	sets     []*netfilter.Set
	byName   map[string]*set
	last     *set
	problems diag.List
	strays   int
	values   []netfilter.Values // that keys are cut from
}

// set is a set that is being read.
type set struct {
	*netfilter.Set
	parts   []string // "ip", "port"
	mask    netip.Addr
	addrs   netset.Builder
	lengths [][2]int // of the prefixes of each of Elements, where one may be an exception
	told    bool
}

// next reads a line. A comment that isn't closed goes on, unless what follows is a line of its own.
func (r *reader) next() bool {
	if r.text == "" {
		return false
	}
	r.number += 1 + r.rest
	r.rest = 0
	end := lineEnd(r.text, 0)
	if quote := strings.IndexByte(r.text[:end], '"'); quote >= 0 && strings.IndexByte(r.text[quote+1:end], '"') < 0 {
		end = r.closed(quote+1, end)
	}
	r.line = strings.TrimRight(r.text[:end], " \t")
	r.text = r.text[min(end+1, len(r.text)):]
	return true
}

// maxLines bounds a comment with line breaks in it; the kernel takes 255 bytes.
const maxLines = 256

// closed is where the line ends that goes on behind end because of a quote before from.
func (r *reader) closed(from, end int) int {
	to := end
	for n := 1; n <= maxLines && to < len(r.text); n++ {
		start := to + 1
		if strings.HasPrefix(r.text[start:], "add ") || strings.HasPrefix(r.text[start:], "create ") {
			return end
		}
		to = lineEnd(r.text, start)
		if strings.IndexByte(r.text[start:to], '"') >= 0 {
			r.rest = n
			return to
		}
	}
	return end
}

// lineEnd is where the line that goes on at from ends.
func lineEnd(text string, from int) int {
	if n := strings.IndexByte(text[from:], '\n'); n >= 0 {
		return from + n
	}
	return len(text)
}

// maxProblems bounds how many problems are told: a text may be of anything.
const maxProblems = 1000

func (r *reader) warn(format string, args ...any) {
	if len(r.problems) >= maxProblems {
		return
	}
	r.problems.Warnf(diag.Pos{File: r.file, Line: r.number}, "", format, args...)
}

// shorten is what is shown of a text that may be of any length.
func shorten(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return strconv.Quote(s)
}

// take reads the line. The words of old versions are "-N" and "-A".
func (r *reader) take() {
	command, rest, _ := strings.Cut(r.line, " ")
	switch command {
	case "add", "-A":
		r.add(rest)
	case "create", "-N":
		r.create(rest)
	case "", "COMMIT", "-X", "-F":
	default:
		if command[0] == '#' {
			return
		}
		if r.strays++; r.strays == 1 {
			r.warn("this line is not part of any sets: %s", shorten(r.line))
		}
	}
}

// oldTypes are the types of ipset 4 by what they are called now.
var oldTypes = map[string]string{"ipmap": "bitmap:ip", "macipmap": "bitmap:ip,mac", "portmap": "bitmap:port", "iphash": "hash:ip",
	"nethash": "hash:net", "ipporthash": "hash:ip,port", "ipportiphash": "hash:ip,port,ip", "ipportnethash": "hash:ip,port,net",
	"iptree": "hash:ip", "iptreemap": "hash:net", "setlist": "list:set"}

// typeOf is the type that a word names, "" for none.
func typeOf(word string) string {
	if t := oldTypes[word]; t != "" {
		return t
	}
	method, _, ok := strings.Cut(word, ":")
	if ok && (method == "hash" || method == "bitmap" || method == "list") {
		return word
	}
	return ""
}

// create reads "NAME TYPE OPTIONS". A name may have spaces in it.
func (r *reader) create(rest string) {
	words := strings.Split(rest, " ")
	at := slices.IndexFunc(words, func(w string) bool { return typeOf(w) != "" })
	if at < 1 {
		r.warn("the type of this set is not understood: %s", shorten(rest))
		return
	}
	s := &set{Set: &netfilter.Set{Name: strings.Join(words[:at], " "), Type: typeOf(words[at]), Family: netfilter.IPv4}}
	if r.byName[s.Name] != nil {
		r.warn("set %s is here for the second time: the first is left out", shorten(s.Name))
		r.sets = slices.DeleteFunc(r.sets, func(o *netfilter.Set) bool { return o.Name == s.Name })
	}
	r.sets, r.byName[s.Name], r.last = append(r.sets, s.Set), s, s
	method, parts, _ := strings.Cut(s.Type, ":")
	s.parts = strings.Split(parts, ",")
	if s.Type == "bitmap:port" || s.Type == "hash:mac" || method == "list" {
		s.Family = netfilter.Inet
	}
	r.parts(s)
	r.options(s, words[at+1:])
}

// parts says what the parts of an element are.
func (r *reader) parts(s *set) {
	for _, part := range s.parts {
		switch part {
		case "ip", "net":
			s.Parts = append(s.Parts, netfilter.Address)
		case "port":
			s.Parts = append(s.Parts, netfilter.Number, netfilter.Number)
		case "mac", "mark":
			s.Parts = append(s.Parts, netfilter.Number)
		case "iface":
			s.Parts = append(s.Parts, netfilter.Name)
		case "set":
			if s.Type == "list:set" {
				s.Members = []string{}
				continue
			}
			fallthrough
		default:
			r.unread(s, "the type "+s.Type)
			return
		}
	}
}

// unread notes that something of a set isn't understood.
func (r *reader) unread(s *set, what string) {
	if s.Unread == "" {
		s.Unread = what
	}
	if !s.told {
		s.told = true
		r.warn("%s is not understood: what is in set %s is not known whole", shorten(what), shorten(s.Name))
	}
}

// options reads what stands behind the type of a set.
func (r *reader) options(s *set, words []string) {
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch name := strings.TrimLeft(words[i], "-"); name {
		case "family":
			if i++; value == "inet6" || value == "ipv6" {
				s.Family = netfilter.IPv6
			}
		case "timeout":
			i++
			s.Dynamic = true
		case "netmask", "bitmask":
			i++
			if s.mask = maskOf(value, s.Family); !s.mask.IsValid() {
				r.unread(s, name+" "+value)
			}
		case "markmask":
			i++
			if n, ok := names.Number(value, 32); !ok || n != 1<<32-1 {
				r.unread(s, name+" "+value)
			}
		case "hashsize", "maxelem", "bucketsize", "initval", "range", "size", "probes", "resize", "gc", "network", "from", "to":
			i++
		case "", "counters", "comment", "skbinfo", "forceadd", "matchunset":
		default:
			r.unread(s, name)
		}
	}
}

// maskOf reads a mask or the length of a prefix.
func maskOf(text string, f netfilter.Family) netip.Addr {
	bits, last := 32, "255.255.255.255"
	if f == netfilter.IPv6 {
		bits, last = 128, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	}
	if n, ok := names.Number(text, 8); ok && int(n) <= bits {
		return netip.PrefixFrom(netip.MustParseAddr(last), int(n)).Masked().Addr()
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.BitLen() != bits {
		return netip.Addr{}
	}
	return a
}

// add reads "NAME ELEMENT OPTIONS".
func (r *reader) add(rest string) {
	s := r.last
	if s == nil || !strings.HasPrefix(rest, s.Name) || len(rest) <= len(s.Name) || rest[len(s.Name)] != ' ' {
		name, _, _ := strings.Cut(rest, " ")
		if s = r.byName[name]; s == nil {
			if r.strays++; r.strays == 1 {
				r.warn("set %s, which this would be added to, is not here", shorten(name))
			}
			return
		}
		r.last = s
	}
	if len(rest) <= len(s.Name)+1 {
		r.unread(s, "add "+rest)
		return
	}
	text, options, _ := strings.Cut(rest[len(s.Name)+1:], " ")
	if s.Members != nil {
		s.Members = append(s.Members, text)
		return
	}
	if options == "" && len(s.parts) == 1 && s.Parts != nil && s.Parts[0] == netfilter.Address && !r.excepts {
		if first, last, ok := s.addresses(text); ok {
			s.addrs.Add(netipx.IPRangeFrom(first, last))
			return
		}
	}
	r.element(s, text, options)
}

// element adds an element that is more than addresses.
func (r *reader) element(s *set, text, options string) {
	if s.Parts == nil {
		return // the set is unread as a whole
	}
	var e netfilter.Element
	wildcard := r.elementOptions(s, &e, options)
	var lengths [2]int
	ok := r.key(s, &e, text, wildcard, &lengths)
	if !ok {
		r.unread(s, "add "+s.Name+" "+text)
		return
	}
	s.Elements = append(s.Elements, e)
	if r.excepts {
		s.lengths = append(s.lengths, lengths)
	}
}

// elementOptions reads what stands behind an element.
func (r *reader) elementOptions(s *set, e *netfilter.Element, text string) (wildcard bool) {
	for text != "" {
		var word, value string
		word, text, _ = strings.Cut(text, " ")
		switch strings.TrimLeft(word, "-") {
		case "", "before", "after":
		case "comment":
			e.Comment, text = comment(text)
		case "packets", "bytes":
			value, text, _ = strings.Cut(text, " ")
			n, _ := strconv.ParseUint(value, 10, 64)
			if e.Count == nil {
				e.Count = &netfilter.Count{}
			}
			if word == "packets" {
				e.Count.Packets = n
			} else {
				e.Count.Bytes = n
			}
		case "timeout", "skbmark", "skbprio", "skbqueue":
			_, text, _ = strings.Cut(text, " ")
			s.Dynamic = s.Dynamic || strings.HasSuffix(word, "timeout")
		case "nomatch":
			e.Not = true
		case "wildcard":
			wildcard = true
		default:
			r.unread(s, word)
		}
	}
	return wildcard
}

// comment reads a comment in quotes at the beginning of a text.
func comment(text string) (comment, rest string) {
	if !strings.HasPrefix(text, `"`) {
		comment, rest, _ = strings.Cut(text, " ")
		return comment, rest
	}
	comment, rest, _ = strings.Cut(text[1:], `"`)
	return comment, strings.TrimPrefix(rest, " ")
}

// key reads the parts of an element, and the lengths of its first and last prefix.
func (r *reader) key(s *set, e *netfilter.Element, text string, wildcard bool, lengths *[2]int) bool {
	n := len(s.Parts)
	if len(r.values) < n {
		r.values = make([]netfilter.Values, 1024)
	}
	e.Key, r.values = r.values[:0:n], r.values[n:]
	nets := 0
	for _, part := range s.parts {
		var value string
		var has bool
		if value, text, has = strings.Cut(text, ","); !has && value == "" && part != "mac" {
			return false
		}
		var ok bool
		switch part {
		case "ip", "net":
			var first, last netip.Addr
			if first, last, ok = s.addresses(value); !ok {
				return false
			}
			var b netset.Builder
			b.Add(netipx.IPRangeFrom(first, last))
			addrs, err := b.Set()
			e.Key, ok = append(e.Key, netfilter.Values{Addrs: addrs}), err == nil
			if p, isPrefix := netipx.IPRangeFrom(first, last).Prefix(); isPrefix && part == "net" {
				lengths[min(nets, 1)] = p.Bits()
			}
			nets++
		case "port":
			var proto, port netfilter.Values
			proto, port, ok = ports(value, s.Type == "bitmap:port")
			e.Key = append(e.Key, proto, port)
		case "mac":
			first, last := uint64(0), uint64(1<<48-1) // one without an address is met by any
			if ok = true; value != "" {
				first, ok = names.MAC(value)
				last = first
			}
			e.Key = append(e.Key, numbers(first, last))
		case "mark":
			var mark uint64
			mark, ok = names.Number(value, 32)
			e.Key = append(e.Key, numbers(mark, mark))
		case "iface":
			ok = value != ""
			e.Key = append(e.Key, netfilter.Values{Names: []string{ifaceName(value, wildcard)}})
		}
		if !ok {
			return false
		}
	}
	return text == ""
}

func numbers(first, last uint64) netfilter.Values {
	return netfilter.Values{Numbers: []netfilter.Range{{First: first, Last: last}}}
}

// ifaceName: "physdev:eth0" is left as it is. It asks for a port of a bridge, which no rule of iptables does; no interface has
// that name.
func ifaceName(s string, wildcard bool) string {
	switch {
	case wildcard:
		return s + "*"
	case strings.HasSuffix(s, "*"):
		return s[:len(s)-1] + `\*`
	}
	return s
}

// addresses reads an address, a prefix or FIRST-LAST. Of a set with a mask an address stands for all that look alike.
func (s *set) addresses(text string) (first, last netip.Addr, ok bool) {
	a, z, isRange := strings.Cut(text, "-")
	if isRange {
		first, err1 := netip.ParseAddr(a)
		last, err2 := netip.ParseAddr(z)
		return first, last, err1 == nil && err2 == nil && s.isOf(first) && s.isOf(last) && first.Compare(last) <= 0
	}
	host, length, isPrefix := strings.Cut(text, "/")
	first, err := netip.ParseAddr(host)
	if err != nil || !s.isOf(first) {
		return first, last, false
	}
	bits := first.BitLen()
	if isPrefix {
		n, ok := names.Number(length, 8)
		if !ok || int(n) > bits {
			return first, last, false
		}
		bits = int(n)
	} else if s.mask.IsValid() {
		if bits, ok = maskLength(s.mask); !ok {
			return first, last, false
		}
	}
	if bits == first.BitLen() {
		return first, first, true
	}
	x := netipx.RangeOfPrefix(netip.PrefixFrom(first, bits))
	return x.From(), x.To(), true
}

// maskLength is how many leading ones a mask has, if it has no others.
func maskLength(mask netip.Addr) (int, bool) {
	for n := 0; n <= mask.BitLen(); n++ {
		if maskOf(strconv.Itoa(n), map[bool]netfilter.Family{true: netfilter.IPv4, false: netfilter.IPv6}[mask.Is4()]) == mask {
			return n, true
		}
	}
	return 0, false
}

// isOf tells whether an address is of the set's family.
func (s *set) isOf(a netip.Addr) bool {
	return a.Zone() == "" && a.Is4() == (s.Family != netfilter.IPv6) && !a.Is4In6()
}

// ports reads PROTOCOL:PORT, where the port of ICMP is a type and a code, or a port of TCP; of a bitmap it is of UDP too.
func ports(s string, bitmap bool) (proto, port netfilter.Values, ok bool) {
	if bitmap {
		s = strings.TrimPrefix(strings.TrimPrefix(s, "tcp:"), "udp:")
		first, last, ok := portRange(s)
		return netfilter.Values{Numbers: []netfilter.Range{{First: 6, Last: 6}, {First: 17, Last: 17}}}, numbers(first, last), ok
	}
	name, rest, has := strings.Cut(s, ":")
	if !has {
		name, rest = "tcp", s
	}
	n, ok := names.Protocol(name)
	if !ok {
		return proto, port, false
	}
	var first, last uint64
	switch n {
	case 1:
		first, ok = icmpNumber(names.ICMPType(rest))
		last = first
	case 58:
		first, ok = icmpNumber(names.ICMPv6Type(rest))
		last = first
	default:
		first, last, ok = portRange(rest)
	}
	return numbers(n, n), numbers(first, last), ok
}

// icmpNumber is what ipset takes for the port of ICMP. A name is of one code only.
func icmpNumber(k names.ICMP, ok bool) (uint64, bool) { return k.Type<<8 | k.First, ok }

func portRange(s string) (first, last uint64, ok bool) {
	a, z, isRange := strings.Cut(s, "-")
	if first, ok = names.Port(a); !ok || !isRange {
		if n, known := names.Port(s); known { // "ftp-data"
			return n, n, true
		}
		return first, first, ok
	}
	last, ok = names.Port(z)
	return first, last, ok && first <= last
}

// end finishes all sets.
func (r *reader) end() {
	for _, s := range r.sets {
		r.finish(r.byName[s.Name])
	}
	if r.strays > 1 {
		r.problems.Warnf(diag.Pos{File: r.file}, "", "%d lines are not part of any sets", r.strays)
	}
}

// finish puts the elements into the order in which they count: as the kernel does, by the length of the first prefix, then
// of the last, the longest first. Where no element is an exception the order says nothing.
func (r *reader) finish(s *set) {
	if slices.ContainsFunc(s.Elements, func(e netfilter.Element) bool { return e.Not }) {
		order := make([]int, len(s.Elements))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			x, y := s.lengths[a], s.lengths[b]
			return cmp.Or(cmp.Compare(y[0], x[0]), cmp.Compare(y[1], x[1]))
		})
		sorted := make([]netfilter.Element, len(order))
		for i, at := range order {
			sorted[i] = s.Elements[at]
		}
		s.Elements = sorted
	} else if r.excepts && len(s.Parts) == 1 && s.Parts[0] == netfilter.Address {
		s.Elements = slices.DeleteFunc(s.Elements, func(e netfilter.Element) bool {
			plain := e.Comment == "" && e.Count == nil
			if plain {
				s.addrs.AddSet(e.Key[0].Addrs)
			}
			return plain
		})
	}
	s.Addrs, _ = s.addrs.Set() // every range is in order
}
