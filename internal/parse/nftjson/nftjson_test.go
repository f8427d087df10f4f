package nftjson_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/parse/nftjson"
)

func differ(want, got any) string { return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})) }

func num(f netfilter.Field, values ...uint64) netfilter.Match {
	m := netfilter.Compare{Field: f}
	for _, v := range values {
		m.Numbers = append(m.Numbers, netfilter.Range{First: v, Last: v})
	}
	return m
}

func span(f netfilter.Field, first, last uint64) netfilter.Match {
	return netfilter.Compare{Field: f, Values: netfilter.Values{Numbers: []netfilter.Range{{First: first, Last: last}}}}
}

func masked(f netfilter.Field, mask, value uint64) netfilter.Match {
	m := num(f, value).(netfilter.Compare)
	m.Mask = mask
	return m
}

func addr(f netfilter.Field, list string) netfilter.Match {
	return netfilter.Compare{Field: f, Values: addrs(list)}
}

func addrs(list string) netfilter.Values { return netfilter.Values{Addrs: netset.MustParse(list)} }

func ports(first, last uint64) netfilter.Values {
	return netfilter.Values{Numbers: []netfilter.Range{{First: first, Last: last}}}
}

func name(f netfilter.Field, names ...string) netfilter.Match {
	return netfilter.Compare{Field: f, Values: netfilter.Values{Names: names}}
}

func not(m netfilter.Match) netfilter.Match {
	switch m := m.(type) {
	case netfilter.Compare:
		m.Not = true
		return m
	case netfilter.In:
		m.Not = true
		return m
	}
	panic("no Not")
}

func verdict(k netfilter.VerdictKind, chain ...string) *netfilter.Verdict {
	return &netfilter.Verdict{Kind: k, Chain: strings.Join(chain, "")}
}

func key(values ...netfilter.Values) []netfilter.Values { return values }

var (
	v4     = num(netfilter.NFProto, 2)
	v6     = num(netfilter.NFProto, 10)
	tcp    = num(netfilter.Proto, 6)
	accept = netfilter.Verdict{Kind: netfilter.Accept}
	drop   = netfilter.Verdict{Kind: netfilter.Drop}
)

func match(left, op, right string) string {
	return fmt.Sprintf(`{"match": {"op": %q, "left": %s, "right": %s}}`, op, left, right)
}

func payload(protocol, field string) string {
	return fmt.Sprintf(`{"payload": {"protocol": %q, "field": %q}}`, protocol, field)
}

func meta(key string) string { return fmt.Sprintf(`{"meta": {"key": %q}}`, key) }
func ct(key string) string   { return fmt.Sprintf(`{"ct": {"key": %q}}`, key) }

// matches are match statements of an inet table, as real versions print them, and what they say.
var matches = []struct {
	json string
	want []netfilter.Match
}{
	{match(payload("tcp", "dport"), "==", "80"), []netfilter.Match{tcp, num(netfilter.DstPort, 80)}},
	{match(payload("udp", "sport"), "!=", `{"range": [1, 9]}`),
		[]netfilter.Match{num(netfilter.Proto, 17), not(span(netfilter.SrcPort, 1, 9))}},
	{match(payload("th", "dport"), "==", "53"), []netfilter.Match{num(netfilter.DstPort, 53)}},
	{match(payload("tcp", "dport"), "<", "1024"), []netfilter.Match{tcp, span(netfilter.DstPort, 0, 1023)}},
	{match(payload("tcp", "dport"), ">", "1024"), []netfilter.Match{tcp, span(netfilter.DstPort, 1025, 1<<64-1)}},
	{match(payload("tcp", "dport"), "<=", "1024"), []netfilter.Match{tcp, span(netfilter.DstPort, 0, 1024)}},
	{match(payload("tcp", "dport"), ">=", "1024"), []netfilter.Match{tcp, span(netfilter.DstPort, 1024, 1<<64-1)}},
	{match(payload("tcp", "dport"), "<", "0"), []netfilter.Match{tcp, netfilter.Compare{Field: netfilter.DstPort}}},
	{match(payload("tcp", "dport"), "==", `{"set": [22, {"range": [80, 90]}]}`), []netfilter.Match{tcp, netfilter.Compare{
		Field: netfilter.DstPort, Values: netfilter.Values{Numbers: []netfilter.Range{{First: 22, Last: 22}, {First: 80, Last: 90}}}}}},
	{match(payload("ip", "saddr"), "==", `"@office"`), []netfilter.Match{v4, netfilter.In{Fields: []netfilter.Field{netfilter.Src}, Set: "office"}}},
	{match(payload("ip6", "daddr"), "!=", `"@office"`),
		[]netfilter.Match{v6, not(netfilter.In{Fields: []netfilter.Field{netfilter.Dst}, Set: "office"})}},
	{match(payload("ip", "saddr"), "!=", `{"set": ["10.0.0.1", {"prefix": {"addr": "10.1.0.0", "len": 16}}]}`),
		[]netfilter.Match{v4, not(addr(netfilter.Src, "10.0.0.1 10.1.0.0/16"))}},
	{match(payload("ip", "saddr"), "==", `{"set": ["*"]}`), []netfilter.Match{v4, addr(netfilter.Src, "0.0.0.0/0")}},
	{match(payload("ip", "daddr"), "==", `{"range": ["1.2.3.4", "1.2.3.9"]}`), []netfilter.Match{v4, addr(netfilter.Dst, "1.2.3.4-1.2.3.9")}},
	{match(`{"&": [`+payload("ip", "saddr")+`, "0.0.0.255"]}`, "==", `"0.0.0.1"`), []netfilter.Match{v4,
		netfilter.Compare{Field: netfilter.Src, AddrMask: netip.MustParseAddr("0.0.0.255"), Values: addrs("0.0.0.1")}}},
	{match(`{"exthdr": {"name": "frag"}}`, "==", "true"), []netfilter.Match{v6, num(netfilter.ExtHeader, 44)}},
	{match(`{"exthdr": {"name": "frag", "field": "frag-off"}}`, "!=", "0"), []netfilter.Match{netfilter.Opaque{Text: "frag frag-off != 0"}}},
	{match(payload("ip", "protocol"), "==", `{"set": ["tcp", "udp", 200]}`), []netfilter.Match{v4, num(netfilter.Proto, 6, 17, 200)}},
	{match(payload("ip6", "nexthdr"), "!=", `"ipv6-icmp"`), []netfilter.Match{v6, not(num(netfilter.Proto, 58))}},
	{match(payload("icmp", "type"), "==", `"echo-request"`), []netfilter.Match{v4, num(netfilter.Proto, 1), num(netfilter.ICMPType, 8)}},
	{match(payload("icmpv6", "type"), "==", `{"set": ["nd-redirect", 200]}`),
		[]netfilter.Match{v6, num(netfilter.Proto, 58), num(netfilter.ICMPv6Type, 137, 200)}},
	{match(payload("ip", "dscp"), "==", `"af11"`), []netfilter.Match{v4, num(netfilter.DSCP, 10)}},
	{match(payload("ip6", "ecn"), "==", `"ce"`), []netfilter.Match{v6, num(netfilter.ECN, 3)}},
	{match(payload("ip", "version"), "==", "4"), []netfilter.Match{v4}},
	{match(`{"&": [`+payload("ip", "frag-off")+`, 8191]}`, "!=", "0"), []netfilter.Match{v4, not(num(netfilter.FragmentOffset, 0))}},
	{match(payload("ether", "saddr"), "==", `"00:11:22:33:44:55"`), []netfilter.Match{num(netfilter.SrcMAC, 0x001122334455)}},
	{match(payload("ether", "type"), "==", `"arp"`), []netfilter.Match{num(netfilter.EtherType, 0x806)}},
	{match(payload("ip", "id"), "==", "5"), []netfilter.Match{netfilter.Opaque{Text: "ip id 5"}}},
	{match(`{"payload": {"base": "th", "offset": 16, "len": 16}}`, "==", "80"), []netfilter.Match{num(netfilter.DstPort, 80)}},
	{match(`{"payload": {"base": "nh", "offset": 96, "len": 32}}`, "==", "1"), []netfilter.Match{netfilter.Opaque{Text: "@nh,96,32 1"}}},

	{match(`{"&": [`+payload("tcp", "flags")+`, ["fin", "syn", "rst", "ack"]]}`, "==", `"syn"`),
		[]netfilter.Match{tcp, masked(netfilter.TCPFlags, 0x17, 2)}},
	{match(`{"&": [`+payload("tcp", "flags")+`, {"|": ["syn", "ack"]}]}`, "==", `{"|": ["syn", "ack"]}`),
		[]netfilter.Match{tcp, masked(netfilter.TCPFlags, 0x12, 0x12)}},
	{match(payload("tcp", "flags"), "in", `["syn", "ack"]`), []netfilter.Match{tcp, not(masked(netfilter.TCPFlags, 0x12, 0))}},
	{match(payload("tcp", "flags"), "!", `["syn", "ack"]`), []netfilter.Match{tcp, masked(netfilter.TCPFlags, 0x12, 0)}},
	{match(payload("tcp", "flags"), "!=", "18"), []netfilter.Match{tcp, not(num(netfilter.TCPFlags, 18))}},
	{match(`{"tcp option": {"name": "sack-perm"}}`, "==", "true"), []netfilter.Match{tcp, num(netfilter.TCPOption, 4)}},
	{match(`{"tcp option": {"name": "sack-perm"}}`, "==", "false"), []netfilter.Match{tcp, not(num(netfilter.TCPOption, 4))}},

	{match(meta("iifname"), "==", `"eth*"`), []netfilter.Match{name(netfilter.InIface, "eth*")}},
	{match(meta("oifname"), "!=", `{"set": ["br-*", "docker0"]}`), []netfilter.Match{not(name(netfilter.OutIface, "br-*", "docker0"))}},
	{match(meta("iif"), "==", `"lo"`), []netfilter.Match{name(netfilter.InIface, "lo")}},
	{match(meta("iifname"), "==", `"eth\\*"`), []netfilter.Match{name(netfilter.InIface, `eth\*`)}},
	{match(meta("iifkind"), "==", `"bridge"`), []netfilter.Match{name(netfilter.InKind, "bridge")}},
	{match(meta("iifgroup"), "==", `"default"`), []netfilter.Match{num(netfilter.InGroup, 0)}},
	{match(meta("mark"), "!=", "5"), []netfilter.Match{not(num(netfilter.Mark, 5))}},
	{match(`{"&": [`+meta("mark")+`, 255]}`, "==", "16"), []netfilter.Match{masked(netfilter.Mark, 255, 16)}},
	{match(`{"|": [`+meta("mark")+`, 1]}`, "==", "5"), []netfilter.Match{masked(netfilter.Mark, 1<<64-2, 4)}},
	{match(`{"|": [`+meta("mark")+`, 1]}`, "==", "4"), []netfilter.Match{netfilter.Compare{Field: netfilter.Mark, Mask: 1<<64 - 2}}},
	{match(`{"^": [{"&": [`+meta("mark")+`, 240]}, 16]}`, "==", "48"), []netfilter.Match{masked(netfilter.Mark, 0xf0, 0x20)}},
	{match(`{">>": [{"&": [`+meta("mark")+`, 65280]}, 8]}`, "==", "3"), []netfilter.Match{masked(netfilter.Mark, 0xff00, 0x300)}},
	{match(`{"&": [`+meta("mark")+`, 0]}`, "==", "0"), []netfilter.Match{not(netfilter.Compare{Field: netfilter.Mark})}},
	{match(`{"<<": [`+meta("mark")+`, 8]}`, "==", "0"), []netfilter.Match{netfilter.Opaque{Text: "meta mark << 0x8 0"}}},
	{match(meta("l4proto"), "==", `{"set": ["tcp", "udp"]}`), []netfilter.Match{num(netfilter.Proto, 6, 17)}},
	{match(meta("nfproto"), "==", `"ipv4"`) + "," + match(payload("ip", "saddr"), "==", `"1.2.3.4"`),
		[]netfilter.Match{v4, addr(netfilter.Src, "1.2.3.4")}},
	{match(meta("protocol"), "==", `"ip6"`), []netfilter.Match{num(netfilter.EtherType, 0x86dd)}},
	{match(meta("pkttype"), "==", `{"set": ["host", "multicast"]}`), []netfilter.Match{num(netfilter.PacketType, 0, 2)}},
	{match(meta("skuid"), "==", `{"range": [1000, 2000]}`), []netfilter.Match{span(netfilter.UID, 1000, 2000)}},
	{match(meta("skuid"), "==", `"postfix"`), []netfilter.Match{netfilter.Opaque{Text: "meta skuid postfix"}}},
	{match(meta("priority"), "==", `"1:10"`), []netfilter.Match{num(netfilter.Priority, 0x10010)}},
	{match(meta("day"), "==", `"Monday"`), []netfilter.Match{netfilter.Stateful{Kind: "time", Text: "meta day Monday"}}},
	{match(meta("cpu"), "==", "0"), []netfilter.Match{netfilter.Opaque{Text: "meta cpu 0"}}},

	{match(ct("state"), "in", `["established", "related"]`), []netfilter.Match{num(netfilter.CtState, uint64(packet.Established), uint64(packet.Related))}},
	{match(ct("state"), "==", `{"set": ["new", "invalid"]}`), []netfilter.Match{num(netfilter.CtState, uint64(packet.New), uint64(packet.Invalid))}},
	{match(ct("state"), "!=", `"new"`), []netfilter.Match{num(netfilter.CtState, 1, 2, 3, 4)}},
	{match(ct("state"), "!", `["established", "related"]`), []netfilter.Match{num(netfilter.CtState, 0, 3, 4)}},
	// No packet is in two states.
	{match(ct("state"), "!=", `{"|": ["established", "related"]}`), []netfilter.Match{num(netfilter.CtState, 0, 1, 2, 3, 4)}},
	{match(ct("state"), "in", `"untracked"`), []netfilter.Match{num(netfilter.CtState, 4)}},
	{match(ct("status"), "in", `"dnat"`), []netfilter.Match{not(masked(netfilter.CtStatus, 32, 0))}},
	{match(ct("mark"), "==", "1"), []netfilter.Match{num(netfilter.CtMark, 1)}},
	{match(ct("label"), "in", "5"), []netfilter.Match{num(netfilter.CtLabel, 5)}},
	{match(ct("direction"), "==", `"reply"`), []netfilter.Match{num(netfilter.CtDirection, 1)}},
	{match(`{"ct": {"key": "ip daddr", "dir": "original"}}`, "==", `"1.2.3.4"`), []netfilter.Match{v4, addr(netfilter.CtOrigDst, "1.2.3.4")}},
	{match(`{"ct": {"key": "saddr", "family": "ip6", "dir": "reply"}}`, "==", `"::1"`), []netfilter.Match{v6, addr(netfilter.CtReplySrc, "::1")}},
	{match(`{"ct": {"key": "proto-dst", "dir": "original"}}`, "==", "80"), []netfilter.Match{num(netfilter.CtOrigDstPort, 80)}},
	{match(ct("bytes"), ">", "5"), []netfilter.Match{netfilter.Stateful{Kind: "ct bytes", Text: "ct bytes > 5"}}},

	{match(`{"fib": {"result": "type", "flags": ["daddr"]}}`, "==", `"local"`), []netfilter.Match{num(netfilter.DstType, 2)}},
	{match(`{"fib": {"result": "type", "flags": "saddr"}}`, "!=", `"unicast"`), []netfilter.Match{not(num(netfilter.SrcType, 1))}},
	{match(`{"fib": {"result": "type", "flags": ["daddr", "iif"]}}`, "==", `{"set": ["local", "broadcast"]}`), []netfilter.Match{num(netfilter.DstTypeIn, 2, 3)}},
	{match(`{"fib": {"result": "oif", "flags": ["saddr", "iif"]}}`, "==", "false"), []netfilter.Match{num(netfilter.ReverseRoute, 0)}},
	{match(`{"fib": {"result": "oif", "flags": ["saddr", "mark", "iif"]}}`, "==", `"0"`), []netfilter.Match{num(netfilter.ReverseRoute, 0)}},
	{match(`{"fib": {"result": "oif", "flags": ["saddr", "iif"]}}`, "==", "true"), []netfilter.Match{not(num(netfilter.ReverseRoute, 0))}},
	{match(`{"concat": [{"fib": {"result": "oif", "flags": ["saddr", "mark", "iif"]}}]}`, "==", `{"concat": [false]}`), []netfilter.Match{num(netfilter.ReverseRoute, 0)}}, // 1.1.7
	{match(`{"fib": {"result": "oif", "flags": ["saddr"]}}`, "==", "false"), []netfilter.Match{num(netfilter.ReverseRouteLoose, 0)}},
	{match(`{"socket": {"key": "transparent"}}`, "==", "1"), []netfilter.Match{num(netfilter.SocketTransparent, 1)}},
	{match(`{"rt": {"key": "ipsec"}}`, "==", "true"), []netfilter.Match{num(netfilter.IPsecOut, 1)}},
	{match(`{"osf": {"key": "name"}}`, "==", `"Linux"`), []netfilter.Match{netfilter.Opaque{Text: `osf name "Linux"`}}},
	{match(`{"numgen": {"mode": "random", "mod": 2, "offset": 0}}`, "==", "0"), []netfilter.Match{
		netfilter.Stateful{Kind: "numgen", Text: "numgen random mod 2 0"}}},

	{match(`{"concat": [`+payload("ip", "saddr")+`, `+payload("tcp", "dport")+`]}`, "==", `"@pairs"`), []netfilter.Match{v4, tcp,
		netfilter.In{Fields: []netfilter.Field{netfilter.Src, netfilter.DstPort}, Set: "pairs"}}},
	{match(`{"concat": [`+meta("iifname")+`, `+payload("ip", "saddr")+`]}`, "!=", `{"set": [{"concat": ["a*", {"prefix": {"addr": "10.0.0.0", "len": 8}}]}]}`),
		[]netfilter.Match{v4, not(netfilter.In{Fields: []netfilter.Field{netfilter.InIface, netfilter.Src}, Elements: []netfilter.Element{
			{Key: key(netfilter.Values{Names: []string{"a*"}}, addrs("10.0.0.0/8"))}}})}},

	{`{"limit": {"rate": 10, "burst": 5, "per": "second"}}`, []netfilter.Match{
		netfilter.Stateful{Kind: "limit", Text: "limit rate 10/second", Fresh: true}}},
	{`{"limit": {"rate": 10, "burst": 9, "per": "second", "inv": true, "rate_unit": "mbytes", "burst_unit": "bytes"}}`, []netfilter.Match{
		netfilter.Stateful{Kind: "limit", Text: "limit rate over 10 mbytes/second burst 9 bytes"}}},
	{`{"limit": "within"}`, []netfilter.Match{netfilter.Stateful{Kind: "limit", Text: `limit name "within"`, Fresh: true}}},
	{`{"quota": "beyond"}`, []netfilter.Match{netfilter.Stateful{Kind: "quota", Text: `quota name "beyond"`}}},
	{`{"ct count": {"val": 5, "inv": true}}`, []netfilter.Match{netfilter.Stateful{Kind: "ct count", Text: "ct count over 5"}}},
	{`{"meter": {"key": ` + payload("ip", "saddr") + `, "stmt": {"limit": {"rate": 5, "burst": 5, "per": "second", "inv": true}}, "name": "m"}}`,
		[]netfilter.Match{netfilter.Stateful{Kind: "meter", Text: "meter m { ip saddr limit rate over 5/second }"}}},
	{`{"xt": {"type": "match", "name": "addrtype"}}`, []netfilter.Match{netfilter.Opaque{Text: `xt match "addrtype"`}}},
	{`{"match": {"op": "=="}}`, []netfilter.Match{netfilter.Opaque{Text: ""}}},
}

// inTable puts a rule's statements into a listing with what they refer to.
func inTable(family, statements string) string {
	in := fmt.Sprintf(`"family": %q, "table": "t"`, family)
	return fmt.Sprintf(`{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
{"table": {"family": %q, "name": "t"}},
{"limit": {%s, "name": "within", "rate": 10, "per": "minute"}}, {"quota": {%s, "name": "beyond", "bytes": 5, "inv": true}},
{"map": {%s, "name": "two", "type": "integer", "map": "verdict", "elem": [[0, {"accept": null}], [1, {"drop": null}]]}},
{"map": {%s, "name": "to", "type": "inet_service", "map": ["ipv4_addr", "inet_service"], "elem": [[80, {"concat": ["10.0.0.1", 8080]}]]}},
{"chain": {%s, "name": "c"}},
{"rule": {%s, "chain": "c", "handle": 7, "expr": [%s]}}]}`, family, in, in, in, in, in, in, statements)
}

func parseRules(t *testing.T, family, statements string) []*netfilter.Rule {
	t.Helper()
	tables, problems := nftjson.Parse(inTable(family, statements), "nft.json")
	for _, p := range problems {
		t.Errorf("%s: %v", statements, p)
	}
	if len(tables) != 1 || len(tables[0].Chains) != 1 || len(tables[0].Chains[0].Rules) == 0 {
		t.Fatalf("%s: no rule", statements)
	}
	return tables[0].Chains[0].Rules
}

func TestMatches(t *testing.T) {
	for _, c := range matches {
		rules := parseRules(t, "inet", c.json+`, {"accept": null}`)
		if diff := differ(c.want, rules[0].Matches); diff != "" {
			t.Errorf("%s (%s):\n%s", c.json, rules[0].Text, diff)
		}
		if diff := differ([]netfilter.Action{accept}, rules[0].Actions); diff != "" || len(rules) != 1 {
			t.Errorf("%s: %d rules, %s", c.json, len(rules), diff)
		}
	}
}

// TestRawFields: where the table has one family, places in its header have names.
func TestRawFields(t *testing.T) {
	raw := `{"payload": {"base": "nh", "offset": %d, "len": %d}}`
	for _, c := range []struct {
		family      string
		offset, len int
		value       string
		want        netfilter.Match
	}{
		{"ip", 96, 32, "16909060", addr(netfilter.Src, "1.2.3.4")},
		{"ip", 128, 32, "16909060", addr(netfilter.Dst, "1.2.3.4")},
		{"ip", 72, 8, "6", tcp},
		{"ip6", 48, 8, "6", tcp},
		{"ip6", 56, 8, "6", num(netfilter.TTL, 6)},
		{"ip", 8, 8, "6", netfilter.Opaque{Text: "@nh,8,8 6"}},
	} {
		got := parseRules(t, c.family, match(fmt.Sprintf(raw, c.offset, c.len), "==", c.value))[0].Matches
		if diff := differ([]netfilter.Match{c.want}, got); diff != "" {
			t.Errorf("%+v:\n%s", c, diff)
		}
	}
}

// TestImplied: nft leaves out what follows from what a rule does.
func TestImplied(t *testing.T) {
	for statement, want := range map[string]netfilter.Match{
		`{"reject": {"type": "icmp", "expr": "host-unreachable"}}`:   v4,
		`{"reject": {"type": "icmpv6", "expr": "addr-unreachable"}}`: v6,
		`{"reject": {"type": "tcp reset"}}`:                          tcp,
		`{"vmap": {"key": {"jhash": {"mod": 2, "expr": ` + payload("ip", "saddr") + `}}, "data": {"set": [[0, {"drop": null}], [1, {"drop": null}]]}}}`: v4,
	} {
		got := parseRules(t, "inet", statement)[0].Matches
		if diff := differ(want, got[0]); diff != "" {
			t.Errorf("%s:\n%s", statement, diff)
		}
	}
}

var group5 = uint16(5)

// actions are statements that act, and what rules they make.
var actions = []struct {
	json string
	want [][]netfilter.Action
}{
	{`{"drop": null}`, [][]netfilter.Action{{drop}}},
	{`{"jump": {"target": "u"}}`, [][]netfilter.Action{{*verdict(netfilter.Jump, "u")}}},
	{`{"goto": {"target": "u"}}`, [][]netfilter.Action{{*verdict(netfilter.Goto, "u")}}},
	{`{"return": null}`, [][]netfilter.Action{{*verdict(netfilter.Return)}}},
	{`{"continue": null}`, [][]netfilter.Action{{*verdict(netfilter.Continue)}}},
	{`{"queue": {"num": {"range": [1, 3]}, "flags": ["bypass", "fanout"]}}`, [][]netfilter.Action{{*verdict(netfilter.Queue)}}},
	{`{"reject": {"type": "tcp reset"}}`, [][]netfilter.Action{{netfilter.Reject{With: "tcp reset"}}}},
	{`{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}`, [][]netfilter.Action{{netfilter.Reject{With: "icmpx admin-prohibited"}}}},
	{`{"reject": null}`, [][]netfilter.Action{{netfilter.Reject{}}}},
	{`{"log": {"prefix": "x: ", "flags": "all"}}, {"accept": null}`, [][]netfilter.Action{{netfilter.Log{Prefix: "x: "}, accept}}},
	{`{"log": {"prefix": "y", "group": 5}}`, [][]netfilter.Action{{netfilter.Log{Prefix: "y", Group: &group5}}}},
	{`{"notrack": null}`, [][]netfilter.Action{{netfilter.Untrack{}}}},
	{`{"flow": {"op": "add", "flowtable": "@ft"}}`, [][]netfilter.Action{{netfilter.Note{Text: "flow add @ft"}}}},
	{`{"synproxy": {"mss": 1460}}`, [][]netfilter.Action{{netfilter.OpaqueAction{Text: "synproxy mss 1460"}}}},
	{`{"fwd": {"dev": "eth0"}}`, [][]netfilter.Action{{netfilter.OpaqueAction{Text: "fwd dev eth0"}}}},
	{`{"xt": {"type": "target", "name": "DNAT"}}`, [][]netfilter.Action{{netfilter.OpaqueAction{Text: `xt target "DNAT"`}}}},
	{`{"xt": null}`, [][]netfilter.Action{{netfilter.OpaqueAction{Text: `xt ""`}}}},
	{`{"frobnicate": {"a": 1}}`, [][]netfilter.Action{{netfilter.OpaqueAction{Text: "frobnicate a 1"}}}},

	{`{"dnat": {"family": "ip", "addr": "10.0.0.1", "port": 8080}}`, [][]netfilter.Action{{netfilter.Translate{
		Kind: netfilter.DNAT, Addrs: addrs("10.0.0.1"), Ports: ports(8080, 8080).Numbers}}}},
	{`{"dnat": {"addr": {"range": ["10.0.0.1", "10.0.0.9"]}, "port": {"range": [1, 9]}, "flags": ["random"]}}`, [][]netfilter.Action{{
		netfilter.Translate{Kind: netfilter.DNAT, Addrs: addrs("10.0.0.1-10.0.0.9"), Ports: ports(1, 9).Numbers, Random: true}}}},
	{`{"snat": {"family": "ip6", "addr": "2001:db8::1"}}`, [][]netfilter.Action{{netfilter.Translate{Kind: netfilter.SNAT, Addrs: addrs("2001:db8::1")}}}},
	{`{"snat": {"addr": {"prefix": {"addr": "10.0.0.0", "len": 24}}, "type_flags": "prefix"}}`, [][]netfilter.Action{{
		netfilter.Translate{Kind: netfilter.Netmap, Addrs: addrs("10.0.0.0/24")}}}},
	{`{"masquerade": null}`, [][]netfilter.Action{{netfilter.Translate{Kind: netfilter.Masquerade}}}},
	{`{"masquerade": {"flags": "fully-random", "port": {"range": [1024, 65535]}}}`, [][]netfilter.Action{{
		netfilter.Translate{Kind: netfilter.Masquerade, Ports: ports(1024, 65535).Numbers, Random: true}}}},
	{`{"redirect": {"port": 8080}}`, [][]netfilter.Action{{netfilter.Translate{Kind: netfilter.Redirect, Ports: ports(8080, 8080).Numbers}}}},
	{`{"dnat": {"addr": {"map": {"key": ` + payload("tcp", "dport") + `, "data": "@to"}}}}`, [][]netfilter.Action{{
		netfilter.Translate{Kind: netfilter.DNAT, Fields: []netfilter.Field{netfilter.DstPort}, Map: "to"}}}},
	{`{"dnat": {"addr": {"map": {"key": ` + payload("tcp", "dport") + `, "data": {"set": [[84, "10.0.0.3"]]}}}}}`, [][]netfilter.Action{{
		netfilter.Translate{Kind: netfilter.DNAT, Fields: []netfilter.Field{netfilter.DstPort}, Elements: []netfilter.Element{
			{Key: key(ports(84, 84)), To: key(addrs("10.0.0.3"))}}}}}},
	{`{"dnat": {"addr": {"map": {"key": {"numgen": {"mode": "inc", "mod": 2}}, "data": {"set": [[0, "10.0.0.3"], [1, "10.0.0.4"]]}}}}}`, [][]netfilter.Action{{
		netfilter.Translate{Kind: netfilter.DNAT, Addrs: addrs("10.0.0.3-10.0.0.4")}}}},
	{`{"dnat": {"addr": {"map": {"key": {"symhash": {"mod": 2}}, "data": "@to"}}}}`, [][]netfilter.Action{{
		netfilter.Translate{Kind: netfilter.DNAT, Addrs: addrs("10.0.0.1"), Ports: ports(8080, 8080).Numbers}}}},
	{`{"dnat": {"addr": {"map": {"key": {"symhash": {"mod": 2}}, "data": "@gone"}}}}`, [][]netfilter.Action{{
		netfilter.OpaqueAction{Text: "dnat to symhash mod 2 map @gone"}}}},
	{`{"tproxy": {"family": "ip", "addr": "127.0.0.1", "port": 5000}}`, [][]netfilter.Action{{netfilter.TProxy{Addrs: addrs("127.0.0.1"), Port: 5000}}}},

	{`{"mangle": {"key": ` + meta("mark") + `, "value": 5}}`, [][]netfilter.Action{{netfilter.Assign{Field: netfilter.Mark, Mask: 1<<32 - 1, Value: 5}}}},
	{`{"mangle": {"key": ` + meta("mark") + `, "value": {"|": [` + meta("mark") + `, 32]}}}`, [][]netfilter.Action{{
		netfilter.Assign{Field: netfilter.Mark, Mask: 32, Value: 32}}}},
	{`{"mangle": {"key": ` + meta("mark") + `, "value": {"|": [{"&": [` + meta("mark") + `, 4294902015]}, 4608]}}}`, [][]netfilter.Action{{
		netfilter.Assign{Field: netfilter.Mark, Mask: 0xff00 | 0x1200, Value: 0x1200}}}},
	{`{"mangle": {"key": ` + meta("mark") + `, "value": {"^": [` + meta("mark") + `, 3]}}}`, [][]netfilter.Action{{
		netfilter.Assign{Field: netfilter.Mark, Value: 3}}}},
	{`{"mangle": {"key": ` + ct("mark") + `, "value": {"&": [` + meta("mark") + `, 255]}}}`, [][]netfilter.Action{{
		netfilter.Assign{Field: netfilter.CtMark, Mask: 1<<32 - 1, From: netfilter.Mark, FromMask: 255}}}},
	{`{"mangle": {"key": ` + meta("mark") + `, "value": {"|": [{"&": [` + ct("mark") + `, 255]}, 256]}}}`, [][]netfilter.Action{{
		netfilter.Assign{Field: netfilter.Mark, Mask: 1<<32 - 1, From: netfilter.CtMark, FromMask: 255}, netfilter.Assign{Field: netfilter.Mark, Value: 256}}}},
	{`{"mangle": {"key": ` + ct("label") + `, "value": 86}}`, [][]netfilter.Action{{netfilter.Assign{Field: netfilter.CtLabel, Value: 86}}}},
	{`{"mangle": {"key": ` + payload("ip", "ttl") + `, "value": 5}}`, [][]netfilter.Action{{netfilter.Assign{Field: netfilter.TTL, Mask: 255, Value: 5}}}},
	{`{"mangle": {"key": ` + payload("ip", "dscp") + `, "value": "cs1"}}`, [][]netfilter.Action{{netfilter.Assign{Field: netfilter.DSCP, Mask: 63, Value: 8}}}},
	{`{"mangle": {"key": ` + meta("priority") + `, "value": "1:10"}}`, [][]netfilter.Action{{
		netfilter.Assign{Field: netfilter.Priority, Mask: 1<<32 - 1, Value: 0x10010}}}},
	{`{"mangle": {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": {"rt": {"key": "mtu"}}}}`, [][]netfilter.Action{{
		netfilter.Note{Text: "tcp option maxseg size set rt mtu"}}}},
	{`{"mangle": {"key": ` + payload("ip", "saddr") + `, "value": "1.2.3.4"}}`, [][]netfilter.Action{{netfilter.OpaqueAction{Text: "ip saddr set 1.2.3.4"}}}},
	{`{"mangle": {"key": ` + meta("mark") + `, "value": {"map": {"key": ` + payload("ip", "saddr") + `, "data": "@m"}}}}`, [][]netfilter.Action{{
		netfilter.OpaqueAction{Text: "meta mark set ip saddr map @m"}}}},

	{`{"set": {"op": "add", "elem": {"elem": {"val": ` + payload("ip", "saddr") + `, "timeout": 300}}, "set": "@s"}}`, [][]netfilter.Action{{
		netfilter.Update{Fields: []netfilter.Field{netfilter.Src}, Set: "s"}}}},
	{`{"set": {"op": "update", "elem": ` + payload("ip", "saddr") + `, "set": "@s", "stmt": [{"limit": {"rate": 1, "per": "day", "inv": true}}]}}, {"drop": null}`,
		[][]netfilter.Action{{netfilter.Update{Fields: []netfilter.Field{netfilter.Src}, Set: "s"}}, {drop}}},
	{`{"set": {"op": "delete", "elem": ` + payload("ip", "saddr") + `, "set": "@s"}}`, [][]netfilter.Action{{
		netfilter.Update{Fields: []netfilter.Field{netfilter.Src}, Set: "s", Delete: true}}}},

	{`{"vmap": {"key": ` + payload("tcp", "dport") + `, "data": "@m"}}`, [][]netfilter.Action{{
		netfilter.Lookup{Fields: []netfilter.Field{netfilter.DstPort}, Map: "m"}}}},
	{`{"vmap": {"key": ` + payload("ip", "saddr") + `, "data": {"set": [["*", {"accept": null}], ["1.2.3.4", {"drop": null}]]}}}`, [][]netfilter.Action{{
		netfilter.Lookup{Fields: []netfilter.Field{netfilter.Src}, Elements: []netfilter.Element{
			{Key: key(addrs("1.2.3.4")), Verdict: verdict(netfilter.Drop)}, {Key: key(addrs("0.0.0.0/0")), Verdict: verdict(netfilter.Accept)}}}}}},
	{`{"vmap": {"key": ` + ct("state") + `, "data": {"set": [["established", {"accept": null}]]}}}`, [][]netfilter.Action{{
		netfilter.Lookup{Fields: []netfilter.Field{netfilter.CtState}, Elements: []netfilter.Element{
			{Key: key(ports(1, 1)), Verdict: verdict(netfilter.Accept)}}}}}},
	{`{"vmap": {"key": {"numgen": {"mode": "inc", "mod": 2}}, "data": "@two"}}`, [][]netfilter.Action{{accept}, {drop}}},
	{`{"vmap": {"key": ` + meta("cpu") + `, "data": {"set": [[0, {"accept": null}], [1, {"accept": null}]]}}}`, [][]netfilter.Action{{accept}}},
}

func TestActions(t *testing.T) {
	for _, c := range actions {
		rules := parseRules(t, "inet", c.json)
		var got [][]netfilter.Action
		for _, r := range rules {
			got = append(got, r.Actions)
			if r.Number != 1 || r.Handle != 7 || r.Line != 7 {
				t.Errorf("%s: number %d, handle %d, line %d", c.json, r.Number, r.Handle, r.Line)
			}
		}
		if diff := differ(c.want, got); diff != "" {
			t.Errorf("%s (%s):\n%s", c.json, rules[0].Text, diff)
		}
	}
}

// TestNumgen: of verdicts by a random number one is given, so the last is that of all packets that the others leave.
func TestNumgen(t *testing.T) {
	rules := parseRules(t, "inet", `{"vmap": {"key": {"numgen": {"mode": "inc", "mod": 2}}, "data": "@two"}}`)
	want := []netfilter.Match{netfilter.Stateful{Kind: "numgen", Text: "numgen inc mod 2 vmap @two"}}
	if diff := differ(want, rules[0].Matches); diff != "" || len(rules[1].Matches) != 0 {
		t.Errorf("%s %v", diff, rules[1].Matches)
	}
}

// TestActsBetween: a rule that acts between its matches is two; notes and counters are no reason.
func TestActsBetween(t *testing.T) {
	from := match(payload("ip", "saddr"), "==", `"10.0.0.1"`)
	to := match(payload("tcp", "dport"), "==", "22")
	mark := `{"mangle": {"key": ` + meta("mark") + `, "value": 5}}`
	src := []netfilter.Match{v4, addr(netfilter.Src, "10.0.0.1")}
	all := append(src[:2:2], tcp, num(netfilter.DstPort, 22))
	set5 := netfilter.Assign{Field: netfilter.Mark, Mask: 1<<32 - 1, Value: 5}
	for _, c := range []struct {
		json string
		want []netfilter.Rule
	}{
		{from + "," + mark + "," + to + `, {"accept": null}`, []netfilter.Rule{
			{Matches: src, Actions: []netfilter.Action{set5}}, {Matches: all, Actions: []netfilter.Action{accept}}}},
		{from + `, {"counter": {"packets": 3, "bytes": 9}}, {"last": null}, ` + to + `, {"accept": null}`, []netfilter.Rule{
			{Matches: all, Actions: []netfilter.Action{netfilter.Note{Text: "last"}, accept}, Count: &netfilter.Count{Packets: 3, Bytes: 9}}}},
		// The second part can't ask again for the mark that the first has changed.
		{match(meta("mark"), "==", "0") + "," + mark + "," + to, []netfilter.Rule{
			{Matches: []netfilter.Match{num(netfilter.Mark, 0)}, Actions: []netfilter.Action{set5}},
			{Matches: []netfilter.Match{num(netfilter.Mark, 0), netfilter.Opaque{Text: "(what the rule itself has changed)"}, tcp,
				num(netfilter.DstPort, 22)}}}},
	} {
		var got []netfilter.Rule
		for _, r := range parseRules(t, "inet", c.json) {
			got = append(got, netfilter.Rule{Matches: r.Matches, Actions: r.Actions, Count: r.Count})
		}
		if diff := differ(c.want, got); diff != "" {
			t.Errorf("%s:\n%s", c.json, diff)
		}
	}
}

func TestSets(t *testing.T) {
	for _, c := range []struct {
		json string
		want netfilter.Set
	}{
		{`"type": "ipv4_addr", "flags": ["interval"], "elem": ["1.2.3.4", {"prefix": {"addr": "10.0.0.0", "len": 8}}, {"range": ["1.2.3.5", "1.2.3.9"]},
{"elem": {"val": "9.9.9.9", "comment": "dns", "counter": {"packets": 3, "bytes": 7}}}]`,
			netfilter.Set{Type: "ipv4_addr", Parts: []netfilter.Kind{netfilter.Address}, Addrs: netset.MustParse("1.2.3.4-1.2.3.9 10.0.0.0/8"),
				Elements: []netfilter.Element{{Key: key(addrs("9.9.9.9")), Comment: "dns", Count: &netfilter.Count{Packets: 3, Bytes: 7}}}}},
		{`"type": "ipv6_addr", "flags": ["timeout"], "elem": [{"elem": {"val": "::1", "timeout": 3600, "expires": 5}}]`,
			netfilter.Set{Type: "ipv6_addr", Parts: []netfilter.Kind{netfilter.Address}, Dynamic: true,
				Elements: []netfilter.Element{{Key: key(addrs("::1"))}}}},
		{`"type": ["ipv4_addr", "inet_proto", "inet_service"], "elem": [{"concat": ["1.2.3.4", "tcp", {"range": [80, 90]}]}]`,
			netfilter.Set{Type: "ipv4_addr . inet_proto . inet_service", Parts: []netfilter.Kind{netfilter.Address, netfilter.Number, netfilter.Number},
				Elements: []netfilter.Element{{Key: key(addrs("1.2.3.4"), ports(6, 6), ports(80, 90))}}}},
		{`"type": "ifname", "elem": ["eth*", "lo"]`, netfilter.Set{Type: "ifname", Parts: []netfilter.Kind{netfilter.Name}, Elements: []netfilter.Element{
			{Key: key(netfilter.Values{Names: []string{"eth*"}})}, {Key: key(netfilter.Values{Names: []string{"lo"}})}}}},
		{`"type": {"typeof": {"concat": [` + payload("ip", "saddr") + `, ` + payload("tcp", "dport") + `]}}, "elem": [{"concat": ["1.2.3.4", 80]}]`,
			netfilter.Set{Type: "ip saddr . tcp dport", Parts: []netfilter.Kind{netfilter.Address, netfilter.Number}, Elements: []netfilter.Element{
				{Key: key(addrs("1.2.3.4"), ports(80, 80))}}}},
		{`"type": "ct_state", "elem": ["new"]`, netfilter.Set{Type: "ct_state", Parts: []netfilter.Kind{netfilter.Number}, Elements: []netfilter.Element{
			{Key: key(ports(0, 0))}}}},
		{`"type": "inet_service", "map": "verdict", "elem": [[22, {"accept": null}], [{"elem": {"val": 80, "counter": {"packets": 1, "bytes": 2}}}, {"jump": {"target": "u"}}]]`,
			netfilter.Set{Type: "inet_service : verdict", Parts: []netfilter.Kind{netfilter.Number}, Maps: true, Elements: []netfilter.Element{
				{Key: key(ports(22, 22)), Verdict: verdict(netfilter.Accept)},
				{Key: key(ports(80, 80)), Verdict: verdict(netfilter.Jump, "u"), Count: &netfilter.Count{Packets: 1, Bytes: 2}}}}},
		{`"type": "inet_service", "map": "ipv4_addr . inet_service", "elem": [[80, {"concat": [{"range": ["10.0.0.1", "10.0.0.9"]}, 8080]}]]`,
			netfilter.Set{Type: "inet_service : ipv4_addr . inet_service", Parts: []netfilter.Kind{netfilter.Number}, Maps: true, Elements: []netfilter.Element{
				{Key: key(ports(80, 80)), To: key(addrs("10.0.0.1-10.0.0.9"), ports(8080, 8080))}}}},
	} {
		text := `{"nftables": [{"table": {"family": "inet", "name": "t"}}, {"set": {"family": "inet", "table": "t", "name": "s", ` + c.json + `}}]}`
		tables, problems := nftjson.Parse(text, "nft.json")
		c.want.Name = "s"
		if diff := differ([]*netfilter.Set{&c.want}, tables[0].Sets); diff != "" || len(problems) > 0 {
			t.Errorf("%s: %v\n%s", c.json, problems, diff)
		}
	}
}

// TestChains reads what a base chain of each version and family looks like.
func TestChains(t *testing.T) {
	tables, problems := nftjson.Parse(`{"nftables": [
{"table": {"family": "netdev", "name": "n", "flags": ["dormant"]}},
{"chain": {"family": "netdev", "table": "n", "name": "a", "type": "filter", "hook": "ingress", "prio": -500, "dev": ["eth0", "eth1"], "policy": "drop"}},
{"chain": {"family": "netdev", "table": "n", "name": "b", "type": "filter", "hook": "egress", "prio": 0, "dev": "eth0"}},
{"table": {"family": "ip6", "name": "r"}},
{"chain": {"family": "ip6", "table": "r", "name": "c", "type": "route", "hook": "output", "prio": -150, "policy": "accept"}},
{"chain": {"family": "ip6", "table": "r", "name": "d"}},
{"chain": {"family": "ip6", "table": "r", "name": "e", "type": "filter", "hook": "nowhere", "prio": 0}}]}`, "nft.json")
	base := func(t netfilter.Type, h netfilter.Hook, prio int, policy netfilter.VerdictKind, devices ...string) *netfilter.Base {
		return &netfilter.Base{Type: t, Hook: h, Priority: prio, Policy: policy, Devices: devices}
	}
	want := []*netfilter.Table{
		{Family: netfilter.Netdev, Name: "n", Dormant: true, Chains: []*netfilter.Chain{
			{Name: "a", Base: base(netfilter.Filter, netfilter.Ingress, -500, netfilter.Drop, "eth0", "eth1")},
			{Name: "b", Base: base(netfilter.Filter, netfilter.Egress, 0, netfilter.Accept, "eth0")}}},
		{Family: netfilter.IPv6, Name: "r", Chains: []*netfilter.Chain{
			{Name: "c", Base: base(netfilter.Route, netfilter.Output, -150, netfilter.Accept)}, {Name: "d"}, {Name: "e"}}},
	}
	if diff := differ(want, tables); diff != "" {
		t.Error(diff)
	}
	if len(problems) != 1 || problems[0].Pos.Line != 8 || !strings.Contains(problems[0].Message, `chain "e"`) {
		t.Errorf("problems: %v", problems)
	}
}

// TestDialect: a table is iptables-nft's if all of its base chains are; an administrator's "table ip filter" is not.
func TestDialect(t *testing.T) {
	chain := func(family, table, name, typ, hook string, prio int) string {
		return fmt.Sprintf(`{"chain": {"family": %q, "table": %q, "name": %q, "type": %q, "hook": %q, "prio": %d}}`, family, table, name, typ, hook, prio)
	}
	for _, c := range []struct {
		json string
		want netfilter.Dialect
	}{
		{chain("ip", "filter", "INPUT", "filter", "input", 0), netfilter.IPTablesNFT},
		{chain("ip6", "nat", "PREROUTING", "nat", "prerouting", -100) + "," + `{"chain": {"family": "ip6", "table": "nat", "name": "DOCKER"}}`, netfilter.IPTablesNFT},
		{chain("ip", "mangle", "OUTPUT", "route", "output", -150), netfilter.IPTablesNFT},
		{chain("ip", "security", "FORWARD", "filter", "forward", 150), netfilter.IPTablesNFT},
		{`{"chain": {"family": "ip", "table": "nat", "name": "DOCKER"}}`, netfilter.IPTablesNFT},
		{chain("ip", "filter", "input", "filter", "input", 0), netfilter.NFT},
		{chain("ip", "filter", "INPUT", "filter", "input", -1), netfilter.NFT},
		{chain("ip", "filter", "INPUT", "filter", "input", 0) + "," + chain("ip", "filter", "mine", "filter", "output", 0), netfilter.NFT},
		{chain("ip", "filter", "INPUT", "filter", "input", 0) + `, {"set": {"family": "ip", "table": "filter", "name": "s", "type": "mark"}}`, netfilter.NFT},
		{chain("inet", "filter", "INPUT", "filter", "input", 0), netfilter.NFT},
		{chain("ip", "docker-bridges", "filter-FORWARD", "filter", "forward", 0), netfilter.NFT},
	} {
		tables, _ := nftjson.Parse(`{"nftables": [`+c.json+`]}`, "nft.json")
		if len(tables) != 1 || tables[0].Dialect != c.want {
			t.Errorf("%s: %+v", c.json, tables)
		}
	}
}

// TestDirty: what can be known of a damaged listing is given, and what not is said.
func TestDirty(t *testing.T) {
	rule := `{"rule": {"family": "inet", "table": "t", "chain": "c", "expr": [{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}}, {"drop": null}]}}`
	whole := `{"nftables": [{"metainfo": {"json_schema_version": 1}}, ` + rule + `]}`
	for _, c := range []struct {
		what, text string
		rules      int
		problem    string
	}{
		{"nothing", "", 0, ""},
		{"blanks", " \r\n", 0, ""},
		{"prose", "Here are my rules, {sorry}: I have none", 0, "this is no list of nft in JSON"},
		{"around", "$ sudo nft -j list ruleset\n" + whole + "\n$ exit", 1, "there is text in it that is none of nft's"},
		{"mark of byte order, CRLF", "\ufeff" + strings.ReplaceAll(whole, ", ", ",\r\n"), 1, "there is text in it"},
		{"NUL bytes", strings.ReplaceAll(whole, ", ", ",\x00 "), 1, ""},
		{"bare rules", rule + "\n" + rule, 2, ""},
		{"echo", `{"nftables": [{"insert": ` + rule + `}]}`, 1, ""},
		{"twice", whole + "\n" + whole, 2, ""},
		{"no end", whole[:len(whole)-2], 1, ""},
		{"cut in the verdict", whole[:strings.Index(whole, `"drop"`)+3], 1, "the rule is cut short"},
		{"cut in a word", whole[:strings.Index(whole, `"chain"`)+3], 1, "the rule is cut short"},
		{"damaged", strings.Replace(whole, `"right": 1`, `"right": =`, 1) + whole, 2, "the rule is cut short or damaged"},
		{"another version", strings.Replace(whole, `version": 1`, `version": 2`, 1), 1, "version 1 is known"},
		{"another family", strings.Replace(whole, `"inet"`, `"ipx"`, 1), 1, "it is taken for inet"},
		{"deep", strings.Repeat(`{"a":`, 100000), 0, "this is no list"},
		{"braces", strings.Repeat(`{`, 100000), 0, "this is no list"},
	} {
		tables, problems := nftjson.Parse(c.text, "nft.json")
		rules := 0
		for _, t := range tables {
			for _, ch := range t.Chains {
				rules += len(ch.Rules)
			}
		}
		text := problems.Error()
		if rules != c.rules || !strings.Contains(text, c.problem) || (c.problem == "") != (text == "") {
			t.Errorf("%s: %d rules, %q", c.what, rules, text)
		}
	}
}

// TestCutRule: what is behind the cut may be anything.
func TestCutRule(t *testing.T) {
	text := inTable("inet", match(payload("tcp", "dport"), "==", "80")+`, {"drop": null}`)
	tables, _ := nftjson.Parse(text[:strings.LastIndex(text, `"drop"`)], "nft.json")
	want := &netfilter.Rule{Number: 1, Handle: 7, Text: "tcp dport 80", Line: 7,
		Matches: []netfilter.Match{tcp, num(netfilter.DstPort, 80), netfilter.Opaque{Text: "(cut short)"}},
		Actions: []netfilter.Action{netfilter.OpaqueAction{Text: "(cut short)"}}}
	if diff := differ([]*netfilter.Rule{want}, tables[0].Chains[0].Rules); diff != "" {
		t.Error(diff)
	}
}

// TestDockersTables reads Docker's own, of a real host: nothing is opaque, and the elements of the maps lead on.
func TestDockersTables(t *testing.T) {
	text, err := os.ReadFile("testdata/docker-29.7.2.json")
	if err != nil {
		t.Fatal(err)
	}
	tables, problems := nftjson.Parse(string(text), "nft.json")
	if len(problems) > 0 || len(tables) != 2 || tables[0].Family != netfilter.IPv4 || tables[1].Family != netfilter.IPv6 {
		t.Fatalf("%v, %d tables", problems, len(tables))
	}
	docker := tables[0]
	for _, c := range docker.Chains {
		for _, r := range c.Rules {
			if isOpaque(r) {
				t.Errorf("%s: %s", c.Name, r.Text)
			}
		}
	}
	dnat := docker.Chain("nat-prerouting-and-output").Rules[0]
	want := &netfilter.Rule{Number: 1, Handle: 32, Text: `iifname != "docker0" tcp dport 8080 dnat to 172.17.0.2:80`, Comment: "DNAT", Line: 1,
		Matches: []netfilter.Match{not(name(netfilter.InIface, "docker0")), tcp, num(netfilter.DstPort, 8080)},
		Actions: []netfilter.Action{netfilter.Translate{Addrs: addrs("172.17.0.2"), Ports: ports(80, 80).Numbers}}, Count: &netfilter.Count{}}
	if diff := differ(want, dnat); diff != "" {
		t.Error(diff)
	}
	jumps := docker.Set("filter-forward-in-jumps")
	if got := jumps.Elements[0]; got.Key[0].Names[0] != "docker0" || got.Verdict.Chain != "filter-forward-in__docker0" {
		t.Errorf("%+v", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range matches {
		f.Add(inTable("ip", c.json))
	}
	for _, c := range actions {
		f.Add(inTable("inet", c.json))
	}
	f.Add(`{"nftables":[{"rule":{"family":"ip","table":"t","chain":"c","expr":[{"match":{"op":"==","right":"","left":{"concat":[` +
		`{"payload":{"protocol":"ip","field":"saddr"}},{"payload":{"protocol":"tcp","field":"dport"}}]}}}]}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		tables, _ := nftjson.Parse(text, "nft.json")
		for _, table := range tables {
			for _, c := range table.Chains {
				for i, r := range c.Rules {
					if r.Number < 1 || i > 0 && r.Number < c.Rules[i-1].Number {
						t.Errorf("rule %d has number %d", i, r.Number)
					}
				}
			}
		}
	})
}

// BenchmarkParse reads 100,000 rules as Docker writes them.
func BenchmarkParse(b *testing.B) {
	var s strings.Builder
	s.WriteString(`{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}`)
	for i := range 100_000 {
		fmt.Fprintf(&s, `, {"rule": {"family": "ip", "table": "docker-bridges", "chain": "c", "handle": %d, "comment": "DNAT", "expr": [%s, %s, `+
			`{"counter": {"packets": 0, "bytes": 0}}, {"dnat": {"addr": "172.17.%d.%d", "port": 80}}]}}`, i,
			match(meta("iifname"), "!=", `"docker0"`), match(payload("tcp", "dport"), "==", fmt.Sprint(i%65536)), i/256%256, i%256)
	}
	s.WriteString("]}")
	b.SetBytes(int64(s.Len()))
	b.ReportAllocs()
	for b.Loop() {
		nftjson.Parse(s.String(), "nft.json")
	}
}

// TestUnreadElements: a set with elements that aren't understood says so.
func TestUnreadElements(t *testing.T) {
	text := `{"nftables": [{"set": {"family": "ip", "table": "t", "name": "s", "type": "ipv4_addr", "elem": ["1.2.3.4", "office.example", 7000000000, {"elem": 1}]}}]}`
	tables, problems := nftjson.Parse(text, "nft.json")
	s := tables[0].Sets[0]
	if s.Unread != "3 elements could not be read" || s.Addrs.String() != "1.2.3.4" || !strings.Contains(problems.Error(), "set s, 3 elements") {
		t.Errorf("%+v %v", s, problems)
	}
	tables, _ = nftjson.Parse(text[:strings.Index(text, "office")], "nft.json")
	if s := tables[0].Sets[0]; s.Unread != "it is cut short" || s.Addrs.String() != "1.2.3.4" {
		t.Errorf("%+v", s)
	}
}
