package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"quaywall/internal/netset"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/rulegen"
)

func matches(m ...ruleset.Match) []ruleset.Match { return m }

var (
	tcp  = ruleset.ProtoMatch{Proto: 6}
	udp  = ruleset.ProtoMatch{Proto: 17}
	drop = ruleset.Verdict{Kind: ruleset.Drop}
)

func ports(ends ...uint16) []netset.Ports {
	var all []netset.Ports
	for i := 0; i < len(ends); i += 2 {
		all = append(all, netset.Ports{First: ends[i], Last: ends[i+1]})
	}
	return all
}

// gate is a ruleset with one base chain, and what its rules may name.
func gate(rules ...ruleset.Rule) *ruleset.Ruleset {
	return &ruleset.Ruleset{Tables: []ruleset.Table{{
		Name: "quaywall",
		Chains: []ruleset.Chain{
			{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: rules},
			{Name: "web", Rules: []ruleset.Rule{{Verdict: drop}}},
		},
		Sets: []ruleset.Set{
			{Name: "bridges", Key: ruleset.Iface, Ifaces: []string{"docker0", "br-*"}},
			{Name: "office4", Key: ruleset.Addr4, Addrs: netset.MustParse("192.0.2.0/24 198.51.100.7")},
			{Name: "networks6", Key: ruleset.IfaceAddr6, Pairs: []ruleset.IfaceSubnet{{Iface: "docker0", Subnet: netset.MustParse("fd17::/64")}}},
		},
		Maps: []ruleset.Map{{Name: "ports", Key: ruleset.Port, Elements: []ruleset.Element{
			{Ports: netset.Ports{First: 22, Last: 22}, Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "web"}, Origin: ruleset.Origin{Line: "p:1"}}}}},
	}}}
}

// words are the rules of the gate as the kernel gets them.
func words(t *testing.T, rs *ruleset.Ruleset) []string {
	t.Helper()
	table, err := Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range table.Chains[0].Rules {
		lines = append(lines, r.String())
	}
	return lines
}

// What each match comes to. Every expression is printed, so a test that is lost or turned round shows; several lines are
// several rules, of which a packet matches one at most.
func TestMatches(t *testing.T) {
	limit := rate.Rate{Count: 10, Per: time.Minute, Burst: 5}
	code := uint8(4)
	src := func(list string, not bool) []ruleset.Match {
		return matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.MustParse(list), Not: not})
	}
	nothing := func(not bool) []ruleset.Match {
		return matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Not: not})
	}
	iface := func(f ruleset.Field, not bool, names ...string) []ruleset.Match {
		return matches(ruleset.IfaceMatch{Field: f, Names: names, Not: not})
	}
	port := func(proto ruleset.ProtoMatch, f ruleset.Field, not bool, ends ...uint16) []ruleset.Match {
		return matches(proto, ruleset.PortMatch{Field: f, Ports: ports(ends...), Not: not})
	}
	for _, test := range []struct {
		matches []ruleset.Match
		want    []string
	}{
		{nil, []string{"drop"}},
		{matches(ruleset.FamilyMatch{Family: ruleset.IPv6}), []string{"meta nfproto ipv6 drop"}},
		{iface(ruleset.In, true, "eth0"), []string{`iifname != "eth0" drop`}},
		{iface(ruleset.Out, false, "eth*"), []string{`oifname "eth*" drop`}},
		{iface(ruleset.In, false, "*"), []string{`iifname != "" drop`}},
		{iface(ruleset.In, true, "*"), []string{`iifname "" drop`}},
		{iface(ruleset.In, false, "lo", "eth0"), []string{"iifname @ifaces/lo_eth0 drop"}},
		{matches(ruleset.IfaceMatch{Field: ruleset.In, Set: "bridges"}), []string{"iifname @bridges drop"}},
		{src("192.0.2.0/24", false), []string{"meta nfproto ipv4 ip saddr 192.0.2.0/24 drop"}},
		{src("192.0.2.3-192.0.2.9", false), []string{"meta nfproto ipv4 ip saddr 192.0.2.3-192.0.2.9 drop"}},
		{src("192.0.2.1 192.0.2.9", false), []string{"meta nfproto ipv4 ip saddr 192.0.2.1 drop", "meta nfproto ipv4 ip saddr 192.0.2.9 drop"}},
		{src("192.0.2.1 192.0.2.9", true), []string{"meta nfproto ipv4 ip saddr != 192.0.2.1 ip saddr != 192.0.2.9 drop"}},
		{nothing(false), []string{"meta nfproto ipv4 ip saddr @addrs/none drop"}},
		{nothing(true), []string{"meta nfproto ipv4 ip saddr != @addrs/none drop"}},
		{matches(ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Addrs: netset.MustParse("2001:db8::1"), Not: true}),
			[]string{"meta nfproto ipv6 ip6 daddr != 2001:db8::1 drop"}},
		{matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "office4", Not: true}),
			[]string{"meta nfproto ipv4 ip saddr != @office4 drop"}},
		{matches(ruleset.IfaceAddrMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Set: "networks6"}),
			[]string{"meta nfproto ipv6 iifname . ip6 daddr @networks6 drop"}},
		{matches(tcp), []string{"meta l4proto tcp drop"}},
		{matches(ruleset.ProtoMatch{Proto: 58}), []string{"meta nfproto ipv6 meta l4proto icmpv6 drop"}},
		{matches(ruleset.ProtoMatch{Proto: 1, Not: true}), []string{"meta nfproto ipv6 drop", "meta nfproto ipv4 meta l4proto != icmp drop"}},
		{port(tcp, ruleset.DstPort, false, 80, 80), []string{"meta l4proto tcp tcp dport 80 drop"}},
		{port(tcp, ruleset.SrcPort, true, 80, 90), []string{"meta l4proto tcp tcp sport != 80-90 drop"}},
		{port(udp, ruleset.DstPort, false, 22, 22, 80, 90), []string{"meta l4proto udp udp dport 22 drop", "meta l4proto udp udp dport 80-90 drop"}},
		{port(udp, ruleset.DstPort, true, 22, 22, 80, 90), []string{"meta l4proto udp udp dport != 22 udp dport != 80-90 drop"}},
		{port(udp, ruleset.DstPort, false, 1, 2, 3, 4, 6, 6), []string{"meta l4proto udp udp dport 1-4 drop", "meta l4proto udp udp dport 6 drop"}},
		{matches(ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{3}, Code: &code}),
			[]string{"meta nfproto ipv4 meta l4proto icmp icmp type 3 icmp code 4 drop"}},
		{matches(ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{133, 134}}),
			[]string{"meta nfproto ipv6 meta l4proto icmpv6 icmpv6 type @icmpv6/133_134 drop"}},
		{matches(ruleset.TCPFlagsMatch{Mask: 0x12, Value: 2}), []string{"meta l4proto tcp tcp flags & syn|ack == syn drop"}},
		{matches(ruleset.TCPFlagsMatch{Mask: 0x12, Value: 2, Not: true}), []string{"meta l4proto tcp tcp flags & syn|ack != syn drop"}},
		{matches(ruleset.CtStateMatch{States: ruleset.StateEstablished | ruleset.StateRelated}), []string{"ct state established,related drop"}},
		{matches(ruleset.CtStateMatch{States: ruleset.StateUntracked, Not: true}), []string{"ct state ! untracked drop"}},
		{matches(ruleset.DNATMatch{}), []string{"ct status dnat drop"}},
		{matches(ruleset.DNATMatch{Not: true}), []string{"ct state invalid,untracked drop", "ct status ! dnat drop"}},
		{matches(ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ruleset.TypeLocal}), []string{"fib daddr type local drop"}},
		{matches(ruleset.AddrTypeMatch{Field: ruleset.Src, Types: ruleset.TypeLocal | ruleset.TypeMulticast, Not: true}),
			[]string{"fib saddr type != @addrtype/local_multicast drop"}},
		{matches(ruleset.SocketMatch{}), []string{"socket wildcard 0 drop"}},
		{matches(ruleset.RateMatch{Rate: limit}), []string{"limit rate 10/minute burst 5 packets drop"}},
		{matches(ruleset.SourceRateMatch{Family: ruleset.IPv4, Name: "p:12", Rate: limit}),
			[]string{"meta nfproto ipv4 update @sources/p:12-ip { ip saddr limit rate over 10/minute burst 5 packets } drop"}},
		{matches(ruleset.SourceRateMatch{Family: ruleset.IPv6, Name: "p:12", Rate: limit}),
			[]string{"meta nfproto ipv6 update @sources/p:12-ip6 { ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 10/minute burst 5 packets } drop"}},
	} {
		if diff := cmp.Diff(test.want, words(t, gate(ruleset.Rule{Matches: test.matches, Verdict: drop}))); diff != "" {
			t.Errorf("%+v:\n%s", test.matches, diff)
		}
	}
}

// What is done with a packet that a rule matches.
func TestActions(t *testing.T) {
	verdict := func(k ruleset.Kind, chain string) ruleset.Verdict { return ruleset.Verdict{Kind: k, Chain: chain} }
	for _, test := range []struct {
		rule ruleset.Rule
		want string
	}{
		{ruleset.Rule{}, "drop"}, // the zero value is the safe one
		{ruleset.Rule{Verdict: verdict(ruleset.Accept, ""), Counter: true, Origin: ruleset.Origin{Line: "p:1", Note: `a "note"`}}, `counter accept comment "p:1: a \"note\""`},
		{ruleset.Rule{Verdict: verdict(ruleset.Continue, ""), Log: &ruleset.Log{Group: 86, Prefix: "quaywall denied"}}, `log prefix "quaywall denied" group 86`},
		{ruleset.Rule{Verdict: verdict(ruleset.Return, "")}, "return"},
		{ruleset.Rule{Verdict: verdict(ruleset.Jump, "web")}, "jump web"},
		{ruleset.Rule{Verdict: verdict(ruleset.Goto, "web")}, "goto web"},
		{ruleset.Rule{Verdict: verdict(ruleset.TCPReset, "")}, "reject with tcp reset"},
		{ruleset.Rule{Verdict: verdict(ruleset.Unreachable, "")}, "reject with icmpx port-unreachable"},
		{ruleset.Rule{Matches: matches(tcp), Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "ports"}}, "meta l4proto tcp tcp dport vmap @ports"},
	} {
		if diff := cmp.Diff([]string{test.want}, words(t, gate(test.rule))); diff != "" {
			t.Errorf("%+v:\n%s", test.rule, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	one := func(m ...ruleset.Match) *ruleset.Ruleset { return gate(ruleset.Rule{Matches: m}) }
	limit := ruleset.RateMatch{Rate: rate.Rate{Count: 1, Per: time.Second, Burst: 5}}
	two := gate()
	two.Tables = append(two.Tables, two.Tables[0])
	odd := gate()
	odd.Tables[0].Chains[0].Base.Hook = 99
	for want, rs := range map[string]*ruleset.Ruleset{
		"not 2 tables":                two,
		"chain gate: unknown hook 99": odd,
		"chain gate, rule 1":          one(ruleset.Opaque{Text: "xt match quota"}),
		"has to be split":             one(ruleset.DNATMatch{Not: true}, limit),
		"no map":                      gate(ruleset.Rule{Matches: matches(tcp), Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "nowhere"}}),
	} {
		if _, err := Render(rs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Comments are cut between two characters, where nft would not print them.
func TestComments(t *testing.T) {
	for note, want := range map[string]string{
		"":                       "p:1",
		"short":                  "p:1: short",
		strings.Repeat("a", 122): "p:1: " + strings.Repeat("a", 122),
		strings.Repeat("a", 123): "p:1: " + strings.Repeat("a", 119) + "…",
		strings.Repeat("ä", 80):  "p:1: " + strings.Repeat("ä", 59) + "…",
	} {
		if got := comment(ruleset.Origin{Line: "p:1", Note: note}); got != want {
			t.Errorf("%q: got %q, want %q", note, got, want)
		}
	}
}

// received is the table that a kernel which does as it is told holds after a first commit, and the elements of its sets.
func received(t *testing.T, table *Table) (*Table, map[string][]Element) {
	t.Helper()
	got, elements := &Table{}, map[string][]Element{}
	change := NewChange(table, Live{})
	for _, messages := range []func(func(Message, error) bool){change.Prepare(), change.Replace(), change.CleanUp()} {
		for m, err := range messages {
			if err == nil {
				m.Body = slices.Clone(m.Body)
				err = got.take(m, elements)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return got, elements
}

// take does what a message says, by what the parsers make of it.
func (t *Table) take(m Message, elements map[string][]Element) error {
	var err error
	switch m.Type {
	case unix.NFT_MSG_NEWTABLE:
		var is Table
		is, err = ParseTable(m.Body)
		t.Name, t.Flags = is.Name, is.Flags
	case unix.NFT_MSG_NEWCHAIN:
		_, c, failed := ParseChain(m.Body)
		t.Chains, err = append(t.Chains, c), failed
	case unix.NFT_MSG_NEWSET:
		_, s, failed := ParseSet(m.Body)
		t.Sets, err = append(t.Sets, s), failed
	case unix.NFT_MSG_NEWSETELEM:
		name := unix.ByteSliceToString(attribute(m.Body, unix.NFTA_SET_ELEM_LIST_SET))
		elements[name], err = ParseElements(m.Body, elements[name])
	case unix.NFT_MSG_NEWRULE:
		_, chain, r, failed := ParseRule(m.Body)
		i := slices.IndexFunc(t.Chains, func(c Chain) bool { return c.Name == chain })
		if err = failed; i >= 0 {
			t.Chains[i].Rules = append(t.Chains[i].Rules, r)
		} else if err == nil {
			err = fmt.Errorf("a rule comes before its chain %s", chain)
		}
	default:
		err = fmt.Errorf("a first commit says %s", m.Text())
	}
	return err
}

// What is written is read back as what was meant: rules word for word, and sets by each of their elements.
func TestRoundTrip(t *testing.T) {
	rulesets := []*ruleset.Ruleset{gate(ruleset.Rule{Matches: matches(tcp), Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "ports"}})}
	for seed := range uint64(300) {
		rulesets = append(rulesets, &ruleset.Ruleset{Tables: []ruleset.Table{rulegen.New(seed).Table()}})
	}
	tried := 0
	for i, rs := range rulesets {
		table, err := Render(rs)
		if err != nil {
			continue // TestRefused
		}
		tried++
		got, elements := received(t, table)
		if diff := cmp.Diff(table.Lines(), got.Lines()); diff != "" {
			t.Fatalf("ruleset %d: %s", i, diff)
		}
		want, is := map[string]Summary{}, map[string]Summary{}
		for j := range table.Sets {
			want[table.Sets[j].Name] = table.Sets[j].Summarize()
		}
		for j := range got.Sets {
			s := &got.Sets[j]
			is[s.Name] = s.SummarizeUnsorted(elements[s.Name])
			if s.Written == nil || *s.Written != want[s.Name] {
				t.Errorf("ruleset %d: set %s was written with the summary %v, want %v", i, s.Name, s.Written, want[s.Name])
			}
		}
		if diff := cmp.Diff(want, is); diff != "" {
			t.Fatalf("ruleset %d: sets: %s", i, diff)
		}
	}
	if tried < 250 {
		t.Errorf("only %d of %d rulesets could be rendered", tried, len(rulesets))
	}
}

// An attribute holds 64 KiB, and who counts wrong gets garbage: a large set is told in many messages.
func TestLargeSetIsSplit(t *testing.T) {
	const n = 100_000
	var list netset.Builder
	for i := range uint32(n) {
		list.AddAddr(netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)}))
	}
	addrs, err := list.Set()
	if err != nil {
		t.Fatal(err)
	}
	rs := gate(ruleset.Rule{Matches: matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "office4"})})
	rs.Tables[0].Sets[1].Addrs = addrs
	table, err := Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range NewChange(table, Live{}).Prepare() {
		if err != nil || len(m.Body) > 1<<16-1 {
			t.Fatalf("a message of %d bytes, %v", len(m.Body), err)
		}
	}
	_, elements := received(t, table)
	starts := map[string]bool{}
	for _, e := range elements["office4"] {
		if !e.End {
			starts[string(e.Key)] = true
		}
	}
	if len(starts) != n || table.Sets[1].Summarize().Elements != n {
		t.Errorf("%d elements arrive, want %d", len(starts), n)
	}
}

// Two sets that differ in anything have other summaries; the order in which elements are read doesn't matter.
func TestSummaries(t *testing.T) {
	set := func(change func(*ruleset.Set)) Summary {
		s := ruleset.Set{Name: "a", Key: ruleset.Addr4, Addrs: netset.MustParse("192.0.2.0/24 198.51.100.7 203.0.113.0-203.0.113.4")}
		change(&s)
		made, err := namedSet(&s)
		if err != nil {
			t.Fatal(err)
		}
		var backwards []Element
		for e := range made.Elements {
			e.Key = slices.Clone(e.Key)
			backwards = slices.Insert(backwards, 0, e)
		}
		want := made.Summarize()
		if got := made.SummarizeUnsorted(backwards); got != want {
			t.Errorf("read in another order: %v, want %v", got, want)
		}
		return want
	}
	plain := set(func(*ruleset.Set) {})
	others := map[string]Summary{
		"an address more": set(func(s *ruleset.Set) { s.Addrs = s.Addrs.Union(netset.MustParse("10.0.0.1")) }),
		"a longer range":  set(func(s *ruleset.Set) { s.Addrs = s.Addrs.Union(netset.MustParse("203.0.113.5")) }),
		"nothing":         set(func(s *ruleset.Set) { s.Addrs = netset.Set{} }),
		"another family":  set(func(s *ruleset.Set) { s.Key, s.Addrs = ruleset.Addr6, netset.Set{} }),
	}
	seen := map[Summary]string{plain: "plain"}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		if other, taken := seen[others[name]]; taken {
			t.Errorf("%s and %s have the same summary", name, other)
		}
		seen[others[name]] = name
	}
	if again := set(func(s *ruleset.Set) { s.Name = "b" }); again != plain {
		t.Error("the name is part of the summary")
	}
}
