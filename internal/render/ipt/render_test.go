package ipt_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/rate"
	"quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
)

func portRange(first, last uint16) netset.Ports { return netset.Ports{First: first, Last: last} }

var (
	tcp  = ruleset.ProtoMatch{Proto: 6}
	sctp = ruleset.ProtoMatch{Proto: 132}
)

func matches(m ...ruleset.Match) []ruleset.Match { return m }

// What each match comes to in each family; "" is a rule that matches nothing there, "(all)" one without a condition.
func TestMatches(t *testing.T) {
	two := []netset.Ports{portRange(1, 1), portRange(3, 9)}
	limit := rate.Rate{Count: 10, Per: time.Minute, Burst: 5}
	code := uint8(1)
	for _, test := range []struct {
		matches []ruleset.Match
		v4, v6  string
	}{
		{nil, "(all)", "(all)"},
		{matches(ruleset.FamilyMatch{Family: ruleset.IPv4}), "(all)", ""},
		{matches(ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"eth0"}, Not: true}), "! -i eth0", "! -i eth0"},
		{matches(ruleset.IfaceMatch{Field: ruleset.Out, Names: []string{"eth*"}}), "-o eth+", "-o eth+"},
		{matches(ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"*"}}), "(all)", "(all)"},
		{matches(ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"*"}, Not: true}), "", ""},
		{matches(ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"a", "b*"}}),
			"-m set --match-set quaywall4-ifaces-# src,src", "-m set --match-set quaywall6-ifaces-# src,src"},
		{matches(ruleset.IfaceMatch{Field: ruleset.Out, Set: "bridges", Not: true}),
			"-m set ! --match-set quaywall4-bridges-# src,dst", "-m set ! --match-set quaywall6-bridges-# src,dst"},
		{matches(ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"odd+"}}),
			"-m set --match-set quaywall4-ifaces-# src,src", "-m set --match-set quaywall6-ifaces-# src,src"},
		{matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.MustParse("10.0.0.0/8")}), "-s 10.0.0.0/8", ""},
		{matches(ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv6, Addrs: netset.MustParse("::1"), Not: true}), "", "! -d ::1/128"},
		{matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.All4()}), "(all)", ""},
		{matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.All4(), Not: true}), "", ""},
		{matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4}), "", ""},
		{matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Not: true}), "(all)", ""},
		{matches(ruleset.AddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Addrs: netset.MustParse("10.0.0.1-10.0.0.2")}),
			"-m set --match-set quaywall4-addrs-# dst", ""},
		{matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv6, Set: "office-6", Not: true}), "", "-m set ! --match-set quaywall6-office-# src"},
		{matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.MustParse("10.0.0.0/8")},
			ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.MustParse("10.1.0.0/16"), Not: true}),
			"-s 10.0.0.0/8 -m set ! --match-set quaywall4-addrs-# src", ""},
		{matches(ruleset.IfaceAddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Set: "pairs"}), "-m set --match-set quaywall4-pairs-# dst,src", ""},
		{matches(ruleset.ProtoMatch{Proto: 1}), "-p icmp", ""},
		{matches(ruleset.ProtoMatch{Proto: 58}), "", "-p ipv6-icmp"},
		{matches(ruleset.ProtoMatch{Proto: 58, Not: true}), "! -p ipv6-icmp", "! -p ipv6-icmp"},
		{matches(ruleset.ProtoMatch{Proto: 47}), "-p 47", "-p 47"},
		{matches(tcp, ruleset.ProtoMatch{Proto: 17}), "", ""},
		{matches(tcp, ruleset.PortMatch{Field: ruleset.DstPort, Ports: two[1:]}, ruleset.PortMatch{Field: ruleset.SrcPort, Ports: two[:1], Not: true}),
			"-p tcp -m tcp --dport 3:9 ! --sport 1", "-p tcp -m tcp --dport 3:9 ! --sport 1"},
		{matches(tcp, ruleset.PortMatch{Field: ruleset.DstPort, Ports: two, Not: true}), "-p tcp -m multiport ! --dports 1,3:9", "-p tcp -m multiport ! --dports 1,3:9"},
		{matches(tcp, ruleset.PortMatch{Field: ruleset.DstPort, Ports: []netset.Ports{portRange(100, 65535), portRange(0, 99)}}), "-p tcp", "-p tcp"},
		{matches(tcp, ruleset.PortMatch{Field: ruleset.DstPort, Ports: []netset.Ports{netset.AllPorts}, Not: true}), "", ""},
		{matches(sctp, ruleset.PortMatch{Field: ruleset.DstPort, Ports: two[:1]}), "-p 132 -m multiport --dports 1", "-p 132 -m multiport --dports 1"},
		{matches(tcp, ruleset.PortMatch{Field: ruleset.SrcPort, Ports: manyPorts(20)}), "-p tcp -m set --match-set quaywallp-ports-# src", "-p tcp -m set --match-set quaywallp-ports-# src"},
		{matches(sctp, ruleset.PortMatch{Field: ruleset.SrcPort, Ports: manyPorts(9)}), "-p 132 -m multiport --sports 0,2,4,6,8,10,12,14,16", "-p 132 -m multiport --sports 0,2,4,6,8,10,12,14,16"},
		{matches(sctp, ruleset.PortMatch{Field: ruleset.SrcPort, Ports: manyPorts(16)}),
			"-p 132 -m multiport --sports 0,2,4,6,8,10,12|-p 132 -m multiport --sports 14,16,18,20,22,24,26|-p 132 -m multiport --sports 28,30",
			"-p 132 -m multiport --sports 0,2,4,6,8,10,12|-p 132 -m multiport --sports 14,16,18,20,22,24,26|-p 132 -m multiport --sports 28,30"},
		{matches(ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{3}, Code: &code}), "-p icmp -m icmp --icmp-type 3/1", ""},
		{matches(ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{133, 255}}), "", "-p ipv6-icmp -m icmp6 --icmpv6-type 133|-p ipv6-icmp -m icmp6 --icmpv6-type 255"},
		{matches(ruleset.TCPFlagsMatch{Mask: packet.SYN | packet.ACK, Value: packet.SYN, Not: true}), "-p tcp -m tcp ! --tcp-flags SYN,ACK SYN", "-p tcp -m tcp ! --tcp-flags SYN,ACK SYN"},
		{matches(ruleset.TCPFlagsMatch{Mask: packet.SYN}), "-p tcp -m tcp --tcp-flags SYN NONE", "-p tcp -m tcp --tcp-flags SYN NONE"},
		{matches(ruleset.TCPFlagsMatch{Mask: packet.SYN, Value: packet.SYN}, ruleset.TCPFlagsMatch{Mask: packet.RST | packet.ACK, Value: packet.RST, Not: true}),
			"-p tcp -m tcp --tcp-flags SYN,RST SYN|-p tcp -m tcp --tcp-flags SYN,RST,ACK SYN,RST,ACK",
			"-p tcp -m tcp --tcp-flags SYN,RST SYN|-p tcp -m tcp --tcp-flags SYN,RST,ACK SYN,RST,ACK"},
		{matches(ruleset.TCPFlagsMatch{Mask: packet.SYN, Value: packet.SYN}, ruleset.TCPFlagsMatch{Mask: packet.SYN | packet.ACK}), "", ""},
		{matches(ruleset.CtStateMatch{States: ruleset.StateNew | ruleset.StateInvalid | ruleset.StateUntracked, Not: true}),
			"-m conntrack ! --ctstate INVALID,NEW,UNTRACKED", "-m conntrack ! --ctstate INVALID,NEW,UNTRACKED"},
		{matches(ruleset.DNATMatch{Not: true}), "-m conntrack ! --ctstate DNAT", "-m conntrack ! --ctstate DNAT"},
		{matches(ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ruleset.TypeLocal | ruleset.TypeBroadcast | ruleset.TypeMulticast | ruleset.TypeAnycast}),
			"-m addrtype --dst-type LOCAL,BROADCAST,ANYCAST,MULTICAST", "-m set --match-set quaywall6-link-local-# dst -m addrtype --dst-type LOCAL --limit-iface-in|" +
				"-m set ! --match-set quaywall6-link-local-# dst -m addrtype --dst-type LOCAL|-m addrtype --dst-type ANYCAST|-m addrtype --dst-type MULTICAST"},
		{matches(ruleset.AddrTypeMatch{Field: ruleset.Src, Types: ruleset.TypeLocal | ruleset.TypeBroadcast | ruleset.TypeMulticast, Not: true}),
			"-m addrtype ! --src-type LOCAL,BROADCAST,MULTICAST",
			"-m addrtype ! --src-type MULTICAST -m set --match-set quaywall6-link-local-# src -m addrtype ! --src-type LOCAL --limit-iface-in|" +
				"-m addrtype ! --src-type MULTICAST -m set ! --match-set quaywall6-link-local-# src -m addrtype ! --src-type LOCAL"},
		{matches(ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ruleset.TypeBroadcast}), "-m addrtype --dst-type BROADCAST", ""},
		{matches(ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ruleset.TypeBroadcast, Not: true}), "-m addrtype ! --dst-type BROADCAST", "(all)"},
		{matches(ruleset.SocketMatch{}), "-m socket", "-m socket"},
		{matches(ruleset.RateMatch{Rate: limit}), "-m limit --limit 10/minute --limit-burst 5", "-m limit --limit 10/minute --limit-burst 5"},
		{matches(ruleset.SourceRateMatch{Family: ruleset.IPv6, Name: "p:12", Rate: limit}), "", "-m hashlimit --hashlimit-above 10/minute --hashlimit-burst 5 " +
			"--hashlimit-mode srcip --hashlimit-srcmask 64 --hashlimit-name quaywall-p_12-# --hashlimit-htable-size 8192 --hashlimit-htable-max 65536 --hashlimit-htable-expire 31000"},
	} {
		rs := gate(ruleset.Rule{Matches: test.matches, Verdict: ruleset.Verdict{Kind: ruleset.Drop}})
		rs.Tables[0].Sets = []ruleset.Set{
			{Name: "bridges", Key: ruleset.Iface, Ifaces: []string{"docker0"}},
			{Name: "office-6", Key: ruleset.Addr6, Addrs: netset.MustParse("2001:db8::/32")},
			{Name: "pairs", Key: ruleset.IfaceAddr4, Pairs: []ruleset.IfaceSubnet{{Iface: "docker0", Subnet: netset.MustParse("172.17.0.0/16")}}},
		}
		rules, err := ipt.Render(rs)
		if err != nil {
			t.Errorf("%#v: %v", test.matches, err)
			continue
		}
		for f, want := range map[*ipt.Family]string{&rules.IPv4: test.v4, &rules.IPv6: test.v6} {
			if got := conditions(f); got != want {
				t.Errorf("%#v in %s:\ngot  %s\nwant %s", test.matches, f.Family, got, want)
			}
		}
	}
}

// conditions are those of the rules of the gate, "|" between, hashes in names as "#".
func conditions(f *ipt.Family) string {
	var all []string
	for _, spec := range chain(f.Mangle, "QUAYWALL-gate") {
		words := strings.Fields(strings.TrimSuffix(" "+spec, " -j DROP"))
		for i, w := range words {
			if dash := strings.LastIndex(w, "-"); strings.HasPrefix(w, "quaywall") && len(w)-dash == 9 {
				words[i] = w[:dash] + "-#"
			}
		}
		condition := strings.Join(words, " ")
		if condition == "" {
			condition = "(all)"
		}
		all = append(all, condition)
	}
	return strings.Join(all, "|")
}

// manyPorts are n ports that don't touch.
func manyPorts(n int) []netset.Ports {
	var ports []netset.Ports
	for i := range n {
		ports = append(ports, portRange(uint16(2*i), uint16(2*i)))
	}
	return ports
}

// What one rule of iptables can't say is said by a chain: a packet is logged once, counts once for a rate, and goes on behind
// the rule if it isn't decided.
func TestDerivedChains(t *testing.T) {
	types := ruleset.AddrTypeMatch{Types: ruleset.TypeAnycast | ruleset.TypeMulticast}
	limit := ruleset.RateMatch{Rate: rate.Rate{Count: 1, Per: time.Second, Burst: 5}}
	log, origin := &ruleset.Log{Group: 86, Prefix: "p"}, ruleset.Origin{Line: "p:1"}
	const rated, counted = "-m limit --limit 1/second --limit-burst 5 ", `-m comment --comment "p:1" `
	const nflog = `-j NFLOG --nflog-prefix "p" --nflog-group 86`
	const anycast, multicast = "-m addrtype --src-type ANYCAST ", "-m addrtype --src-type MULTICAST "
	for name, test := range map[string]struct {
		rule ruleset.Rule
		want map[string][]string
	}{
		"alternatives": {ruleset.Rule{Matches: matches(types), Origin: origin}, map[string][]string{
			"gate": {anycast + counted + "-j DROP", multicast + counted + "-j DROP"}}},
		"alternatives, a rate and a verdict": {ruleset.Rule{Matches: matches(types, limit), Origin: origin}, map[string][]string{
			"gate":   {anycast + "-g QUAYWALL-gate~1", multicast + "-g QUAYWALL-gate~1", "-g QUAYWALL-gate~2"},
			"gate~1": {rated + counted + "-j DROP", "-g QUAYWALL-gate~2"},
			"gate~2": nil}},
		"alternatives and a log": {ruleset.Rule{Matches: matches(types), Log: log, Verdict: ruleset.Verdict{Kind: ruleset.Continue}, Origin: origin}, map[string][]string{
			"gate":   {anycast + counted + "-j QUAYWALL-gate~1", multicast + counted + "-j QUAYWALL-gate~1"},
			"gate~1": {nflog}}},
		"a rate and a log": {ruleset.Rule{Matches: matches(limit), Log: log, Verdict: ruleset.Verdict{Kind: ruleset.Continue}, Origin: origin}, map[string][]string{
			"gate": {rated + counted + nflog}}},
		"a rate, a log and a verdict": {ruleset.Rule{Matches: matches(limit), Log: log, Origin: origin}, map[string][]string{
			"gate":   {rated + counted + "-g QUAYWALL-gate~1"},
			"gate~1": {nflog, "-j DROP"}}},
		"a log and a verdict, for all": {ruleset.Rule{Log: log, Origin: origin}, map[string][]string{
			"gate": {nflog, counted + "-j DROP"}}},
		"all of it": {ruleset.Rule{Matches: matches(types, limit), Log: log, Origin: origin}, map[string][]string{
			"gate":   {anycast + "-g QUAYWALL-gate~1", multicast + "-g QUAYWALL-gate~1", "-g QUAYWALL-gate~3"},
			"gate~1": {rated + counted + "-g QUAYWALL-gate~2", "-g QUAYWALL-gate~3"},
			"gate~2": {nflog, "-j DROP"},
			"gate~3": nil}},
		"a jump": {ruleset.Rule{Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "other"}}, map[string][]string{
			"gate":         {"-g QUAYWALL-other~gate~1", "-g QUAYWALL-gate~1"},
			"gate~1":       nil,
			"other~gate~1": {"-p tcp -g QUAYWALL-gate~1", "-j RETURN", "-g QUAYWALL-gate~1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			test.rule.Counter = true
			rs := gate(test.rule)
			rs.Tables[0].Chains = append(rs.Tables[0].Chains, ruleset.Chain{Name: "other", Rules: []ruleset.Rule{
				{Matches: matches(tcp), Verdict: ruleset.Verdict{Kind: ruleset.Return}}, {Verdict: ruleset.Verdict{Kind: ruleset.Accept}}}})
			rules, err := ipt.Render(rs)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][]string{}
			for _, c := range rules.IPv6.Mangle.Chains {
				got[strings.TrimPrefix(c.Name, ipt.Prefix)] = chain(rules.IPv6.Mangle, c.Name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A base chain in front of connection tracking is in table raw, with all that it leads to; what others lead to as well is in
// both tables. Raw goes when there is no such chain any more.
func TestTableRaw(t *testing.T) {
	lead := ruleset.Rule{Matches: matches(tcp), Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "shared"}}
	rs := gate(lead)
	rs.Tables[0].Chains = append(rs.Tables[0].Chains,
		ruleset.Chain{Name: "early", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -300}, Rules: []ruleset.Rule{lead}},
		ruleset.Chain{Name: "shared", Rules: []ruleset.Rule{{Verdict: ruleset.Verdict{Kind: ruleset.Drop}}}})
	rules, err := ipt.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []ipt.Family{rules.IPv4, rules.IPv6} {
		for base, table := range map[string]ipt.Table{"early": f.Raw, "gate": f.Mangle} {
			want := ipt.Table{Name: table.Name, Jumps: []ipt.Jump{{From: "PREROUTING", Spec: "-j QUAYWALL-" + base}}, Chains: []ipt.Chain{
				{Name: "QUAYWALL-" + base, Rules: []ipt.Rule{{Spec: "-p tcp -g QUAYWALL-shared"}}},
				{Name: "QUAYWALL-shared", Rules: []ipt.Rule{{Spec: "-j DROP"}}}}}
			if diff := cmp.Diff(want, table); diff != "" {
				t.Errorf("%s: %s", f.Family, diff)
			}
		}
	}
	late, err := ipt.Render(gate(ruleset.Rule{}))
	if err != nil {
		t.Fatal(err)
	}
	present := ipt.Present{Chains: rules.IPv4.Raw.Chains, Jumps: []ipt.PlacedJump{{Jump: rules.IPv4.Raw.Jumps[0], Position: 1}}}
	payload := string(late.IPv4.Payload(map[string]ipt.Present{"raw": present}))
	for _, want := range []string{"*raw\n", "-D PREROUTING -j QUAYWALL-early\n", "-X QUAYWALL-early\n", "-X QUAYWALL-shared\n"} {
		if !strings.Contains(payload, want) {
			t.Errorf("no %q in\n%s", want, payload)
		}
	}
}

func TestRefused(t *testing.T) {
	drop := func(m ...ruleset.Match) *ruleset.Ruleset { return gate(ruleset.Rule{Matches: m}) }
	lookup := func(l ruleset.Lookup, m ruleset.Map, match ...ruleset.Match) *ruleset.Ruleset {
		rs := gate(ruleset.Rule{Matches: match, Lookup: &l})
		rs.Tables[0].Maps = []ruleset.Map{m}
		return rs
	}
	tracking := gate()
	tracking.Tables[0].Chains[0].Base.Priority = -200
	rejecting := gate(ruleset.Rule{Verdict: ruleset.Verdict{Kind: ruleset.Unreachable}})
	rejecting.Tables[0].Chains[0].Base.Priority = -300
	twoTables := gate()
	twoTables.Tables = append(twoTables.Tables, twoTables.Tables[0])
	for want, rs := range map[string]*ruleset.Ruleset{
		"a ruleset of one table is needed, there are 2": twoTables,
		"priority -200 in prerouting":                   tracking,
		"can't be rejected in front of connection":      rejecting,
		"chain gate, rule 1: the match \"x\" was read":  drop(ruleset.Opaque{Text: "x"}),
		"unknown match <nil>":                           drop(nil),
		"there is no set \"x\"":                         drop(ruleset.AddrMatch{Family: ruleset.IPv4, Set: "x"}),
		"a match of addresses is of one family":         drop(ruleset.AddrMatch{Set: "x"}),
		"can't look at iifname":                         drop(ruleset.AddrMatch{Field: ruleset.In, Family: ruleset.IPv4}),
		"can't be the name of an interface":             drop(ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"a b"}}),
		"ports are matched without a protocol":          drop(ruleset.PortMatch{Field: ruleset.DstPort}),
		"protocol 0 can't be matched":                   drop(ruleset.ProtoMatch{}),
		"two protocols can't be excluded":               drop(ruleset.ProtoMatch{Proto: 6, Not: true}, ruleset.ProtoMatch{Proto: 17, Not: true}),
		"ICMP type 255 can't be matched":                drop(ruleset.ICMPTypeMatch{Family: ruleset.IPv4, Types: []uint8{255}}),
		"unknown states of connection tracking: 0x80":   drop(ruleset.CtStateMatch{States: 0x80}),
		"unknown kinds of address: 0x80":                drop(ruleset.AddrTypeMatch{Types: 0x80}),
		"a rate of off can't be kept":                   drop(ruleset.RateMatch{}),
		"a rate of off for each source can't be kept":   drop(ruleset.SourceRateMatch{Family: ruleset.IPv4}),
		"a rate of 20000/second burst 5 can't be kept":  drop(ruleset.RateMatch{Rate: rate.Rate{Count: 20000, Per: time.Second, Burst: 5}}),
		"there is no chain \"x\"":                       gate(ruleset.Rule{Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "x"}}),
		"\"gate\" is a base chain":                      gate(ruleset.Rule{Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "gate"}}),
		"unknown verdict 99":                            gate(ruleset.Rule{Verdict: ruleset.Verdict{Kind: 99}}),
		"there is no map \"x\"":                         gate(ruleset.Rule{Lookup: &ruleset.Lookup{Map: "x"}}),
		"map m doesn't hold addresses":                  lookup(ruleset.Lookup{By: ruleset.Src, Map: "m"}, ruleset.Map{Name: "m", Key: ruleset.Port}),
		"map m doesn't hold ports":                      lookup(ruleset.Lookup{By: ruleset.DstPort, Map: "m"}, ruleset.Map{Name: "m"}),
		"ports are looked up without a protocol":        lookup(ruleset.Lookup{By: ruleset.DstPort, Map: "m"}, ruleset.Map{Name: "m", Key: ruleset.Port}),
		"a map can't be asked for iifname":              lookup(ruleset.Lookup{By: ruleset.In, Map: "m"}, ruleset.Map{Name: "m"}),
		"\"return\" can't be the verdict of an element": lookup(ruleset.Lookup{By: ruleset.DstPort, Map: "m"}, ruleset.Map{Name: "m", Key: ruleset.Port,
			Elements: []ruleset.Element{{Verdict: ruleset.Verdict{Kind: ruleset.Return}}}}, tcp),
	} {
		_, err := ipt.Render(rs)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestRoundAndRoundIsRefused(t *testing.T) {
	rs := gate(ruleset.Rule{Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "a"}})
	rs.Tables[0].Chains = append(rs.Tables[0].Chains,
		ruleset.Chain{Name: "a", Rules: []ruleset.Rule{{Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "a"}}}})
	if _, err := ipt.Render(rs); err == nil || !strings.Contains(err.Error(), "nest too deep, or go round in a circle") {
		t.Errorf("got %v", err)
	}
}

// A hundred bridges are more than a set holds for one network.
func TestManyInterfaces(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("br-%012x", i))
	}
	for not, want := range map[bool]int{false: 3, true: 1} {
		rules, err := ipt.Render(gate(ruleset.Rule{Matches: matches(ruleset.IfaceMatch{Field: ruleset.In, Names: names, Not: not})}))
		if err != nil {
			t.Fatal(err)
		}
		if got := chain(rules.IPv4.Mangle, "QUAYWALL-gate"); len(got) != want || len(rules.Sets) != 6 {
			t.Errorf("not %v: %d rules, want %d: %v; %d sets, want 6", not, len(got), want, got, len(rules.Sets))
		}
		for _, s := range rules.Sets {
			if s.Elements > 48 {
				t.Errorf("set %s has %d elements for one network", s.Name, s.Elements)
			}
		}
	}
}

func setNames(t *testing.T, rs *ruleset.Ruleset) []string {
	t.Helper()
	rules, err := ipt.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range rules.Sets {
		names = append(names, s.Name)
	}
	return names
}

// A set is called by what it holds: the same content has the same name, anything else another.
func TestSetNames(t *testing.T) {
	with := func(name, addrs string) []string {
		rs := gate(ruleset.Rule{Matches: matches(ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: name})})
		rs.Tables[0].Sets = []ruleset.Set{{Name: name, Key: ruleset.Addr4, Addrs: netset.MustParse(addrs)}}
		return setNames(t, rs)
	}
	first := with("office-4", "10.0.0.0/8 192.0.2.1")
	if diff := cmp.Diff(first, with("office-4", "192.0.2.1 10.0.0.0-10.255.255.255")); diff != "" {
		t.Error("the same content: ", diff)
	}
	if other := with("office-4", "10.0.0.0/9 192.0.2.1"); other[0] == first[0] {
		t.Errorf("another content has the same name %s", other)
	}
	if !strings.HasPrefix(first[0], "quaywall4-office-") {
		t.Errorf("%s doesn't tell what it is", first[0])
	}
	if long := with("a-very-long-name-4", "10.0.0.0/8"); len(long[0]) != 31 || !strings.HasPrefix(long[0], "quaywall4-a-very-long") {
		t.Errorf("%s: %d bytes", long[0], len(long[0]))
	}
}

// /0 is two halves, a range is prefixes, and each element says where it comes from.
func TestAddressMap(t *testing.T) {
	all := netset.All6().Ranges()[0]
	rs := gate(ruleset.Rule{Lookup: &ruleset.Lookup{By: ruleset.Src, Map: "m4"}}, ruleset.Rule{Lookup: &ruleset.Lookup{By: ruleset.Dst, Map: "m6"}})
	rs.Tables[0].Maps = []ruleset.Map{
		{Name: "m4", Key: ruleset.Addr4, Elements: []ruleset.Element{
			{Addrs: netipx.MustParseIPRange("10.0.0.0-10.0.0.2"), Origin: ruleset.Origin{Line: "p:1", Note: `the "one"`}},
			{Addrs: netipx.MustParseIPRange("10.0.0.3-10.0.0.3"), Verdict: ruleset.Verdict{Kind: ruleset.Accept}, Origin: ruleset.Origin{Line: "p:2"}},
			{Addrs: netipx.MustParseIPRange("10.0.0.4-10.0.0.5"), Origin: ruleset.Origin{Line: "p:1"}},
		}},
		{Name: "m6", Key: ruleset.Addr6, Elements: []ruleset.Element{{Addrs: all, Origin: ruleset.Origin{Line: "p:3"}}}},
	}
	rules, err := ipt.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"-m set --match-set %s src -j DROP":   {"10.0.0.0/31 p:1: the 'one'", "10.0.0.2/32 p:1: the 'one'", "10.0.0.4/31 p:1"},
		"-m set --match-set %s src -j RETURN": {"10.0.0.3/32 p:2"},
		"-m set --match-set %s dst -j DROP":   {"::/1 p:3", "8000::/1 p:3"},
	}
	specs := append(chain(rules.IPv4.Mangle, "QUAYWALL-gate"), chain(rules.IPv6.Mangle, "QUAYWALL-gate")...)
	if len(specs) != len(want) || len(rules.Sets) != len(want) {
		t.Errorf("rules %v, sets %v", specs, rules.Sets)
	}
	for _, s := range rules.Sets {
		var entries []string
		for e := range s.Entries {
			entries = append(entries, e.Net.String()+" "+e.Comment)
		}
		for _, spec := range specs {
			if strings.Contains(spec, s.Name) {
				if diff := cmp.Diff(want[strings.ReplaceAll(spec, s.Name, "%s")], entries); diff != "" || !s.Counters {
					t.Errorf("%s, counters %v:\n%s", spec, s.Counters, diff)
				}
			}
		}
	}
}

// Packets of the host's own come in by no interface: a test that is limited to it would be refused.
func TestLocalOfPacketsThatLeave(t *testing.T) {
	local := ruleset.Rule{Matches: matches(ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ruleset.TypeLocal})}
	rs := gate(local, ruleset.Rule{Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "both"}})
	rs.Tables[0].Chains = append(rs.Tables[0].Chains, ruleset.Chain{Name: "both", Rules: []ruleset.Rule{local}}, ruleset.Chain{
		Name: "outbound", Base: &ruleset.Base{Hook: ruleset.Output, Priority: -149}, Rules: []ruleset.Rule{
			local, {Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "both"}}}})
	rules, err := ipt.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"gate": true, "both": false, "outbound": false} {
		if got := strings.Contains(strings.Join(chain(rules.IPv6.Mangle, "QUAYWALL-"+name), "\n"), "--limit-iface-in"); got != want {
			t.Errorf("%s: limited to the interface: %v, want %v", name, got, want)
		}
	}
}

// However many ports a map has, a packet meets few rules on its way through it.
func TestPortMapIsFlat(t *testing.T) {
	for _, test := range []struct{ ports, verdicts, most int }{
		{16, 16, 17}, {32, 32, 33}, {1000, 4, 6}, {10000, 1, 3}, {1000, 1000, 50}, {10000, 10000, 60}, {32768, 32768, 65},
	} {
		if got := longestWay(t, test.ports, test.verdicts); got > test.most {
			t.Errorf("%d ports with %d verdicts: a packet meets %d rules, %d are allowed", test.ports, test.verdicts, got, test.most)
		}
	}
}

// Comments say where a rule comes from, whatever a person wrote there.
func TestComments(t *testing.T) {
	for note, want := range map[string]string{
		"plain":                  "p:1: plain",
		`"quoted" \ and it's`:    `p:1: \"quoted\" \\ and it's`,
		"a\nnew line\tor a tab":  "p:1: a new line or a tab",
		strings.Repeat("ä", 200): "p:1: " + strings.Repeat("ä", 125),
		"broken \xff":            "p:1: broken  ",
	} {
		rules, err := ipt.Render(gate(ruleset.Rule{Counter: true, Origin: ruleset.Origin{Line: "p:1", Note: note}}))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := chain(rules.IPv4.Mangle, "QUAYWALL-gate")[0], `-m comment --comment "`+want+`" -j DROP`; got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", note, got, want)
		}
	}
}

// Names of chains keep what a person can read, and stay apart.
func TestChainNames(t *testing.T) {
	names := map[string]bool{}
	for _, name := range []string{"gate", "a-name-of-nineteen1", "a-name-of-twenty-ch1", "a-name-of-twenty-ch2", "REJECT", "RAW", "with space", "with:space"} {
		rs := gate()
		rs.Tables[0].Chains[0].Name = name
		rules, err := ipt.Render(rs)
		if err != nil {
			t.Fatal(err)
		}
		got := rules.IPv4.Mangle.Chains[0].Name
		if names[got] || len(got) > 28 || strings.ContainsAny(got, " :") || !strings.HasPrefix(got, "QUAYWALL-"+name[:3]) {
			t.Errorf("%s is called %s", name, got)
		}
		names[got] = true
	}
	if names["QUAYWALL-REJECT"] || names["QUAYWALL-RAW"] || !names["QUAYWALL-a-name-of-nineteen1"] {
		t.Error(names)
	}
}

func TestOwnSet(t *testing.T) {
	for name, want := range map[string]bool{
		"quaywall4-office-01234567": true, "quaywall6-x-abcdefgh": true, "quaywallp-ports-abcdefgh": true, "quaywall+new": true,
		"quaywall": false, "quaywall4-office": false, "quaywall5-office-01234567": false, "quaywall-mine": false, "docker-ext-bridges-v4": false, "": false,
	} {
		if got := ipt.OwnSet(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The same ruleset gives the same bytes.
func TestStable(t *testing.T) {
	rs := gate(ruleset.Rule{Matches: matches(tcp), Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "m"}})
	rs.Tables[0].Maps = []ruleset.Map{portMap(500, 300)}
	rs.Tables[0].Chains = append(rs.Tables[0].Chains, verdictChains(300)...)
	first, err := ipt.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		again, err := ipt.Render(rs)
		if err != nil {
			t.Fatal(err)
		}
		if dump(first) != dump(again) {
			t.Fatal("two renderings differ")
		}
	}
}

func portMap(n, verdicts int) ruleset.Map {
	m := ruleset.Map{Name: "m", Key: ruleset.Port}
	for i := range n {
		m.Elements = append(m.Elements, ruleset.Element{Ports: portRange(uint16(2*i), uint16(2*i)),
			Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: fmt.Sprint("v", i%verdicts)}})
	}
	return m
}

func verdictChains(n int) []ruleset.Chain {
	var chains []ruleset.Chain
	for i := range n {
		chains = append(chains, ruleset.Chain{Name: fmt.Sprint("v", i), Rules: []ruleset.Rule{{}}})
	}
	return chains
}
