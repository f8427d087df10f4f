package ruleset

import (
	"fmt"
	"slices"
)

// The words by which the kinds of things are written, in JSON too, so that a file outlives a reordering of constants.
var (
	familyNames = []string{Inet: "inet", IPv4: "ip", IPv6: "ip6"}
	hookNames   = []string{Prerouting: "prerouting", Input: "input", Forward: "forward", Output: "output",
		Postrouting: "postrouting"}
	kindNames = []string{Drop: "drop", TCPReset: "reject with tcp reset", Unreachable: "reject", Accept: "accept",
		Continue: "continue", Return: "return", Jump: "jump", Goto: "goto"}
	fieldNames = []string{Src: "saddr", Dst: "daddr", SrcPort: "sport", DstPort: "dport", In: "iifname", Out: "oifname"}
	keyNames   = []string{Addr4: "ipv4_addr", Addr6: "ipv6_addr", Port: "inet_service", Iface: "ifname",
		IfaceAddr4: "ifname . ipv4_addr", IfaceAddr6: "ifname . ipv6_addr",
		Flow4: "inet_proto . ipv4_addr . inet_service . ipv4_addr", Flow6: "inet_proto . ipv6_addr . inet_service . ipv6_addr"}
)

func (f Family) String() string { return name(familyNames, f) }
func (h Hook) String() string   { return name(hookNames, h) }
func (k Kind) String() string   { return name(kindNames, k) }
func (f Field) String() string  { return name(fieldNames, f) }
func (k Key) String() string    { return name(keyNames, k) }

func name[T ~uint8](names []string, x T) string {
	if int(x) < len(names) {
		return names[x]
	}
	return fmt.Sprintf("unknown (%d)", x)
}

// MarshalText writes the family's name; the others alike.
func (f Family) MarshalText() ([]byte, error) { return text(familyNames, f) }

// MarshalText writes the hook's name.
func (h Hook) MarshalText() ([]byte, error) { return text(hookNames, h) }

// MarshalText writes the kind's name.
func (k Kind) MarshalText() ([]byte, error) { return text(kindNames, k) }

// MarshalText writes the field's name.
func (f Field) MarshalText() ([]byte, error) { return text(fieldNames, f) }

// MarshalText writes the key's name.
func (k Key) MarshalText() ([]byte, error) { return text(keyNames, k) }

func text[T ~uint8](names []string, x T) ([]byte, error) {
	if int(x) >= len(names) {
		return nil, fmt.Errorf("%T %d has no name", x, x)
	}
	return []byte(names[x]), nil
}

// UnmarshalText reads what MarshalText wrote; the others alike.
func (f *Family) UnmarshalText(b []byte) error { return parse(familyNames, b, f) }

// UnmarshalText reads what MarshalText wrote.
func (h *Hook) UnmarshalText(b []byte) error { return parse(hookNames, b, h) }

// UnmarshalText reads what MarshalText wrote.
func (k *Kind) UnmarshalText(b []byte) error { return parse(kindNames, b, k) }

// UnmarshalText reads what MarshalText wrote.
func (f *Field) UnmarshalText(b []byte) error { return parse(fieldNames, b, f) }

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(b []byte) error { return parse(keyNames, b, k) }

func parse[T ~uint8](names []string, b []byte, x *T) error {
	i := slices.Index(names, string(b))
	if i < 0 {
		return fmt.Errorf("%q is no %T", b, *x)
	}
	*x = T(i)
	return nil
}
