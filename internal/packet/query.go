package packet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Query is a packet as a person writes it: what was left out is zero, for the asker to fill in from the host's routes
// and networks.
type Query struct {
	Packet           // Src is the zero Addr where it was left out; In is what "in" names
	FromHost  bool   // "from host"
	Container string // "from container NAME"
}

// Syntax is how a packet is written.
const Syntax = "PROTO [SRC[:PORT]] -> DST[:PORT] [in IFACE | from host | from container NAME] [state new|established|invalid]"

// Parse reads a packet, for example "tcp 203.0.113.99 -> 203.0.113.10:8080 in eth0". An IPv6 address with a port stands
// in brackets. ICMP without a type is an echo request; TCP is a SYN in state new and an ACK in any other.
func Parse(s string) (Query, error) {
	q, err := parse(strings.Fields(s))
	if err != nil {
		return Query{}, fmt.Errorf("packet %q: %w; a packet is written %s", s, err, Syntax)
	}
	return q, nil
}

func parse(words []string) (Query, error) {
	if len(words) == 0 {
		return Query{}, errors.New("it is empty")
	}
	var q Query
	if err := q.parseProto(words[0]); err != nil {
		return Query{}, err
	}
	arrow := slices.Index(words, "->")
	if arrow < 0 || arrow > 2 || arrow+1 == len(words) {
		return Query{}, errors.New("the protocol is followed by a source (or none), ->, and a destination")
	}
	if err := q.parseEnds(words[1:arrow], words[arrow+1]); err != nil {
		return Query{}, err
	}
	if err := q.parseRest(words[arrow+2:]); err != nil {
		return Query{}, err
	}
	if q.Proto == protoTCP {
		q.Flags = ACK
		if q.State == New {
			q.Flags = SYN
		}
	}
	return q, nil
}

// parseProto reads PROTO, with the type and code of ICMP.
func (q *Query) parseProto(word string) error {
	parts := strings.Split(word, "/")
	proto, err := ParseProto(parts[0])
	if err != nil {
		return err
	}
	q.Proto = proto
	numbers := []*uint8{&q.ICMPType, &q.ICMPCode}
	switch proto {
	case protoICMP:
		q.ICMPType = 8
	case protoICMPv6:
		q.ICMPType = 128
	default:
		numbers = nil
	}
	if len(parts)-1 > len(numbers) {
		return fmt.Errorf("%q has too many parts: ICMP alone has a type and a code", word)
	}
	for i, part := range parts[1:] {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return fmt.Errorf("%q is no ICMP type or code: they are numbers from 0 to 255", part)
		}
		*numbers[i] = uint8(n)
	}
	return nil
}

// parseEnds reads the source, if there is one, and the destination.
func (q *Query) parseEnds(src []string, dst string) error {
	var err error
	if len(src) == 1 {
		if q.Src, q.SrcPort, err = q.parseEnd(src[0]); err != nil {
			return err
		}
	}
	if q.Dst, q.DstPort, err = q.parseEnd(dst); err != nil {
		return err
	}
	switch {
	case hasPorts(q.Proto) && q.DstPort == 0:
		return fmt.Errorf("%s needs the port that is dialled, as in %s", ProtoName(q.Proto), withPort(q.Dst, 80))
	case q.Src.IsValid() && q.Src.Is4() != q.Dst.Is4():
		return fmt.Errorf("%s and %s are not of one family", q.Src, q.Dst)
	case q.Proto == protoICMP && !q.Dst.Is4():
		return fmt.Errorf("%s is an IPv6 address, icmp is of IPv4: write icmp6", q.Dst)
	case q.Proto == protoAH && !q.Dst.Is4():
		return fmt.Errorf("%s is an IPv6 address, where ah is a header before the protocol: write the protocol", q.Dst)
	case q.Proto == protoICMPv6 && q.Dst.Is4():
		return fmt.Errorf("%s is an IPv4 address, icmp6 is of IPv6: write icmp", q.Dst)
	}
	return nil
}

// parseEnd reads ADDRESS or ADDRESS:PORT.
func (q *Query) parseEnd(word string) (netip.Addr, uint16, error) {
	bare := strings.TrimSuffix(strings.TrimPrefix(word, "["), "]")
	if a, err := netip.ParseAddr(bare); err == nil && (len(bare) == len(word) || len(bare) == len(word)-2 && a.Is6()) {
		return a.Unmap(), 0, nil
	}
	ap, err := netip.ParseAddrPort(word)
	if err != nil || ap.Port() == 0 {
		return netip.Addr{}, 0, fmt.Errorf("%q is neither an address nor an address with a port from 1 to 65535", word)
	}
	if !hasPorts(q.Proto) {
		return netip.Addr{}, 0, fmt.Errorf("%q has a port, and %s has none", word, ProtoName(q.Proto))
	}
	return ap.Addr().Unmap(), ap.Port(), nil
}

// parseRest reads where the packet begins and its state.
func (q *Query) parseRest(words []string) error {
	var begin, state bool
	for len(words) > 0 {
		n := q.parseBegin(words)
		if n > 0 && begin || n == 0 && state {
			return fmt.Errorf("%q is said twice or contradicts what stands before", words[0])
		}
		if n > 0 {
			begin, words = true, words[n:]
			continue
		}
		if len(words) < 2 || words[0] != "state" {
			return fmt.Errorf("%q is not understood there", strings.Join(words, " "))
		}
		var err error
		if q.State, err = ParseState(words[1]); err != nil {
			return err
		}
		state, words = true, words[2:]
	}
	return nil
}

// parseBegin reads "in IFACE", "from host" or "from container NAME" and tells how many words that took, 0 for none.
func (q *Query) parseBegin(words []string) int {
	switch {
	case len(words) >= 2 && words[0] == "in":
		q.In = words[1]
		return 2
	case len(words) >= 2 && words[0] == "from" && words[1] == "host":
		q.FromHost = true
		return 2
	case len(words) >= 3 && words[0] == "from" && words[1] == "container":
		q.Container = words[2]
		return 3
	}
	return 0
}

// ParseState reads the name of a state of connection tracking.
func ParseState(s string) (State, error) {
	for state := New; state <= Untracked; state++ {
		if s == state.String() {
			return state, nil
		}
	}
	return 0, fmt.Errorf("%q is no state: write new, established or invalid", s)
}

// String writes the query so that Parse reads it again. TCP flags are not written.
func (q Query) String() string {
	words := []string{q.Packet.protoString()}
	if q.Src.IsValid() {
		words = append(words, withPort(q.Src, q.SrcPort))
	}
	words = append(words, "->", withPort(q.Dst, q.DstPort))
	words = append(words, beginning(q.In, q.FromHost, q.Container)...)
	if q.State != New {
		words = append(words, "state", q.State.String())
	}
	return strings.Join(words, " ")
}

// beginning is where a packet begins, in the words that say so.
func beginning(in string, fromHost bool, container string) []string {
	switch {
	case in != "":
		return []string{"in", in}
	case fromHost:
		return []string{"from", "host"}
	case container != "":
		return []string{"from", "container", container}
	}
	return nil
}

// String writes a packet as Query does; one of the host's own ends in "from host".
func (p Packet) String() string {
	return Query{Packet: p, FromHost: p.In == ""}.String()
}

func (p Packet) protoString() string {
	if p.Proto != protoICMP && p.Proto != protoICMPv6 {
		return ProtoName(p.Proto)
	}
	s := fmt.Sprintf("%s/%d", ProtoName(p.Proto), p.ICMPType)
	if p.ICMPCode != 0 {
		s += fmt.Sprintf("/%d", p.ICMPCode)
	}
	return s
}

// withPort writes an address, and its port unless that is 0.
func withPort(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}
