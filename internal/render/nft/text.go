package nft

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"quaywall/internal/ruleset"
)

// Lines prints the chains and rules, a line for each: base chains first, then by name; rules in order, counters without
// their values. Two tables with the same lines and the same sets judge every packet alike.
func (t *Table) Lines() []string {
	chains := slices.Clone(t.Chains)
	slices.SortStableFunc(chains, func(a, b Chain) int {
		if (a.Base == nil) != (b.Base == nil) {
			if a.Base != nil {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	var lines []string
	if t.Flags != 0 {
		lines = append(lines, fmt.Sprintf("table inet %s flags %#x", t.Name, t.Flags))
	}
	for i := range chains {
		lines = append(lines, "chain "+chains[i].text())
		for j := range chains[i].Rules {
			lines = append(lines, chains[i].Name+": "+chains[i].Rules[j].String())
		}
	}
	return lines
}

// text is a chain without its rules, as nft would write it.
func (c *Chain) text() string {
	if c.Base == nil {
		return c.Name
	}
	policy := map[uint32]string{nfDrop: "drop", nfAccept: "accept"}[c.Base.Policy]
	return fmt.Sprintf("%s { type %s hook %s priority %d; policy %s; }",
		c.Name, c.Base.Type, hookName(c.Base.Hook), c.Base.Priority, policy)
}

func hookName(number uint32) string {
	for hook, n := range hooks {
		if n == number {
			return hook.String()
		}
	}
	return fmt.Sprint(number)
}

// setFlags are the names that nft has for flags.
var setFlags = []struct {
	bit  uint32
	name string
}{
	{unix.NFT_SET_CONSTANT, "constant"}, {unix.NFT_SET_EVAL, "dynamic"},
	{unix.NFT_SET_INTERVAL, "interval"}, {unix.NFT_SET_TIMEOUT, "timeout"},
}

// text is a set without its elements, as nft would write it.
func (s *Set) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s { type %s", s.Name, s.Key)
	if s.Flags&unix.NFT_SET_MAP != 0 {
		b.WriteString(" : verdict")
	}
	var flags []string
	for _, f := range setFlags {
		if s.Flags&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	if flags != nil {
		fmt.Fprintf(&b, "; flags %s", strings.Join(flags, ","))
	}
	if s.Counter {
		b.WriteString("; counter")
	}
	if s.Timeout != 0 {
		fmt.Fprintf(&b, "; timeout %s", s.Timeout)
	}
	if s.Size != 0 {
		fmt.Fprintf(&b, "; size %d", s.Size)
	}
	if s.Comment != "" {
		fmt.Fprintf(&b, "; comment %q", s.Comment)
	}
	return b.String() + "; }"
}

// keyForms is how the keys of each type are named and printed.
var keyForms = map[uint32]struct {
	name   string
	format func([]byte) string
}{
	addr4Key.Magic:    {"ipv4_addr", formatAddr},
	addr6Key.Magic:    {"ipv6_addr", formatAddr},
	portKey.Magic:     {"inet_service", formatNumber},
	icmp4Key.Magic:    {"icmp_type", formatNumber},
	icmp6Key.Magic:    {"icmpv6_type", formatNumber},
	ifaceKey.Magic:    {"ifname", formatName},
	addrTypeKey.Magic: {"fib_addrtype", formatAddrType},
	pair4Key.Magic:    {"ifname . ipv4_addr", formatPair},
	pair6Key.Magic:    {"ifname . ipv6_addr", formatPair},
	flow4Key.Magic:    {"inet_proto . ipv4_addr . inet_service . ipv4_addr", formatFlow},
	flow6Key.Magic:    {"inet_proto . ipv6_addr . inet_service . ipv6_addr", formatFlow},
}

func (k KeyType) String() string {
	if form, ok := keyForms[k.Magic]; ok {
		return form.name
	}
	return fmt.Sprintf("%#x", k.Magic)
}

func (k KeyType) format(key []byte) string {
	if form, ok := keyForms[k.Magic]; ok && len(key) == int(k.Len) {
		return form.format(key)
	}
	return formatHex(key)
}

func formatHex(b []byte) string { return "0x" + hex.EncodeToString(b) }

func formatAddr(b []byte) string {
	if a, ok := netip.AddrFromSlice(b); ok {
		return a.String()
	}
	return formatHex(b)
}

// formatNumber prints a number in the network's order.
func formatNumber(b []byte) string {
	if len(b) > 8 {
		return formatHex(b)
	}
	var v uint64
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return fmt.Sprint(v)
}

// formatName prints a whole name, or the beginning of one, which is shorter than the register.
func formatName(b []byte) string {
	name, _, whole := bytes.Cut(b, []byte{0})
	if !whole {
		return fmt.Sprintf("%q", string(name)+"*")
	}
	return fmt.Sprintf("%q", name)
}

func formatPair(b []byte) string {
	return formatName(b[:ifaceSize]) + " . " + formatAddr(b[ifaceSize:])
}

func formatAddrType(b []byte) string { return addrTypeName(hostNumber(b)) }

// hostNumber is a number in the host's order.
func hostNumber(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func formatFamily(b []byte) string {
	switch {
	case bytes.Equal(b, []byte{unix.NFPROTO_IPV4}):
		return "ipv4"
	case bytes.Equal(b, []byte{unix.NFPROTO_IPV6}):
		return "ipv6"
	}
	return formatHex(b)
}

// protoNames are the protocols whose headers have names here.
var protoNames = map[byte]string{
	unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_DCCP: "dccp",
	unix.IPPROTO_ICMPV6: "icmpv6", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_UDPLITE: "udplite",
}

func formatProto(b []byte) string {
	if len(b) == 1 && protoNames[b[0]] != "" {
		return protoNames[b[0]]
	}
	return formatNumber(b)
}

// bitNames names the bits that are set, the lowest first; what has no name is a number.
func bitNames(v uint32, names map[uint32]string) string {
	var words []string
	for v != 0 {
		bit := uint32(1) << bits.TrailingZeros32(v)
		v &^= bit
		name, ok := names[bit]
		if !ok {
			name = fmt.Sprintf("%#x", bit)
		}
		words = append(words, name)
	}
	return strings.Join(words, ",")
}

var (
	ctStateNames = map[uint32]string{
		ctStates[ruleset.StateNew]: "new", ctStates[ruleset.StateEstablished]: "established",
		ctStates[ruleset.StateRelated]: "related", ctStates[ruleset.StateInvalid]: "invalid",
		ctStates[ruleset.StateUntracked]: "untracked",
	}
	ctStatusNames = map[uint32]string{0x10: "snat", dnatStatus: "dnat"}
	tcpFlagNames  = map[uint32]string{1: "fin", 2: "syn", 4: "rst", 8: "psh", 16: "ack", 32: "urg", 64: "ecn", 128: "cwr"}
)

func formatCtState(b []byte) string  { return bitNames(hostNumber(b), ctStateNames) }
func formatCtStatus(b []byte) string { return bitNames(hostNumber(b), ctStatusNames) }

func formatTCPFlags(b []byte) string {
	if len(b) != 1 {
		return formatHex(b)
	}
	if b[0] == 0 {
		return "0"
	}
	return strings.ReplaceAll(bitNames(uint32(b[0]), tcpFlagNames), ",", "|")
}
