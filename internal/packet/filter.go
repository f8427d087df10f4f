package packet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Filter is which packets are meant. What was left out doesn't matter: the zero Filter is all packets.
type Filter struct {
	Proto              *uint8 // IP protocol number
	ICMPType, ICMPCode *uint8 // of ICMP and ICMPv6
	Src, Dst           netip.Prefix
	SrcPort, DstPort   uint16
	In                 string // the interface that they come in by
	FromHost           bool   // those that the host itself sends
	Container          string // those that come from a container
	State              *State
}

// FilterSyntax is how a filter is written.
const FilterSyntax = "[PROTO] [SRC[:PORT]] [-> [DST][:PORT]] [in IFACE | from host | from container NAME] [state new|established|invalid]"

// ParseFilter reads a filter: a packet as Parse reads it, any part of which may be left out, and whose addresses may be
// prefixes: "tcp -> :443", "203.0.113.0/24 ->", "in eth0 state new", "". A port needs its protocol. ICMP without a type is
// any of it.
func ParseFilter(s string) (Filter, error) {
	f, err := parseFilter(strings.Fields(s))
	if err != nil {
		return Filter{}, fmt.Errorf("packet %q: %w; which packets are meant is written %s", s, err, FilterSyntax)
	}
	return f, nil
}

// anyState is no state: that none was written.
const anyState State = 255

func parseFilter(words []string) (Filter, error) {
	var f Filter
	rest := slices.IndexFunc(words, func(w string) bool { return w == "in" || w == "from" || w == "state" })
	if rest < 0 {
		rest = len(words)
	}
	q := Query{Packet: Packet{State: anyState}}
	if err := q.parseRest(words[rest:]); err != nil {
		return f, err
	}
	f.In, f.FromHost, f.Container = q.In, q.FromHost, q.Container
	if q.State != anyState {
		f.State = &q.State
	}
	words = words[:rest]
	if len(words) > 0 && words[0] != "->" && !isEnd(words[0]) {
		if err := f.parseProto(words[0]); err != nil {
			return f, err
		}
		words = words[1:]
	}
	return f, errors.Join(f.parseEnds(words), f.check())
}

// isEnd tells whether a word is an end of a packet, and no protocol.
func isEnd(word string) bool { return strings.ContainsAny(word, ".:") }

func (f *Filter) parseProto(word string) error {
	var q Query
	if err := q.parseProto(word); err != nil {
		return err
	}
	f.Proto = &q.Proto
	switch parts := strings.Count(word, "/"); {
	case parts >= 2:
		f.ICMPCode = &q.ICMPCode
		fallthrough
	case parts == 1:
		f.ICMPType = &q.ICMPType
	}
	return nil
}

// parseEnds reads what stands on both sides of the arrow.
func (f *Filter) parseEnds(words []string) error {
	if len(words) == 0 {
		return nil
	}
	arrow := slices.Index(words, "->")
	if arrow < 0 || arrow > 1 || len(words)-arrow > 2 {
		return errors.New("an address stands before or behind ->, which says whether it is the source's or the destination's")
	}
	var err error
	if arrow == 1 {
		if f.Src, f.SrcPort, err = parseFilterEnd(words[0]); err != nil {
			return err
		}
	}
	if len(words) > arrow+1 {
		f.Dst, f.DstPort, err = parseFilterEnd(words[arrow+1])
	}
	return err
}

// parseFilterEnd reads ADDRESS, PREFIX, ADDRESS:PORT or :PORT.
func parseFilterEnd(word string) (netip.Prefix, uint16, error) {
	if p, err := netip.ParsePrefix(word); err == nil {
		return p.Masked(), 0, nil
	}
	var q Query
	q.Proto = protoTCP // whether there are ports is for check to say
	if strings.HasPrefix(word, ":") && !strings.HasPrefix(word, "::") {
		_, port, err := q.parseEnd("0.0.0.0" + word)
		if err != nil {
			return netip.Prefix{}, 0, fmt.Errorf("%q is no port from 1 to 65535", word)
		}
		return netip.Prefix{}, port, nil
	}
	a, port, err := q.parseEnd(word)
	if err != nil {
		return netip.Prefix{}, 0, fmt.Errorf("%q is neither an address, a prefix, an address with a port from 1 to 65535, nor a port as in :80", word)
	}
	return netip.PrefixFrom(a, a.BitLen()), port, nil
}

// check refuses what no packet could be.
func (f *Filter) check() error {
	is4, is6 := f.Families()
	switch {
	case (f.SrcPort != 0 || f.DstPort != 0) && f.Proto == nil:
		return errors.New("a port needs its protocol, as in tcp -> :80")
	case (f.SrcPort != 0 || f.DstPort != 0) && !hasPorts(*f.Proto):
		return fmt.Errorf("%s has no ports", ProtoName(*f.Proto))
	case !is4 && !is6:
		return errors.New("its parts are not of one family: icmp is of IPv4, icmp6 of IPv6")
	}
	return nil
}

// Families tells which families packets that are meant may be of.
func (f *Filter) Families() (is4, is6 bool) {
	is4, is6 = true, true
	for _, p := range []netip.Prefix{f.Src, f.Dst} {
		if p.IsValid() {
			is4, is6 = is4 && p.Addr().Is4(), is6 && p.Addr().Is6()
		}
	}
	if f.Proto != nil {
		is4, is6 = is4 && *f.Proto != protoICMPv6, is6 && *f.Proto != protoICMP
	}
	return is4, is6
}

// String writes the filter so that ParseFilter reads it again.
func (f Filter) String() string {
	var words []string
	if f.Proto != nil {
		words = append(words, ProtoName(*f.Proto))
		for _, n := range []*uint8{f.ICMPType, f.ICMPCode} {
			if n != nil {
				words[0] += fmt.Sprintf("/%d", *n)
			}
		}
	}
	src, dst := filterEnd(f.Src, f.SrcPort), filterEnd(f.Dst, f.DstPort)
	if src+dst != "" {
		words = append(words, strings.Fields(src+" -> "+dst)...)
	}
	words = append(words, beginning(f.In, f.FromHost, f.Container)...)
	if f.State != nil {
		words = append(words, "state", f.State.String())
	}
	return strings.Join(words, " ")
}

func filterEnd(p netip.Prefix, port uint16) string {
	switch {
	case !p.IsValid() && port == 0:
		return ""
	case !p.IsValid():
		return fmt.Sprintf(":%d", port)
	case p.IsSingleIP():
		return withPort(p.Addr(), port)
	}
	return p.String()
}
