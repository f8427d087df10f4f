package ruleset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/rate"
)

func TestRuleString(t *testing.T) {
	ports := []netset.Ports{{First: 80, Last: 90}, {First: 443, Last: 443}}
	code := uint8(4)
	seen := map[string]bool{}
	for _, c := range []struct {
		match Match
		want  string
	}{
		{FamilyMatch{IPv6}, "meta nfproto ipv6 drop"},
		{IfaceMatch{Field: In, Names: []string{"eth*"}}, `iifname "eth*" drop`},
		{IfaceMatch{Field: Out, Set: "bridges", Not: true}, "oifname != @bridges drop"},
		{AddrMatch{Field: Src, Family: IPv4, Addrs: netset.MustParse("192.0.2.1 198.51.100.0/24"), Not: true}, "ip saddr != { 192.0.2.1, 198.51.100.0/24 } drop"},
		{AddrMatch{Field: Dst, Family: IPv6, Set: "office-6"}, "ip6 daddr @office-6 drop"},
		{IfaceAddrMatch{Field: Dst, Family: IPv4, Set: "networks4"}, "iifname . ip daddr @networks4 drop"},
		{FlowMatch{Dst, IPv4, "cut4"}, "meta l4proto . ip daddr . th dport . ip saddr @cut4 drop"},
		{FlowMatch{Src, IPv6, "cut6"}, "meta l4proto . ip6 saddr . th sport . ip6 daddr @cut6 drop"},
		{ProtoMatch{Proto: 50}, "meta l4proto esp drop"},
		{ProtoMatch{Proto: 6, Not: true}, "meta l4proto != tcp drop"},
		{PortMatch{Field: DstPort, Ports: ports}, "th dport { 80-90, 443 } drop"},
		{ICMPTypeMatch{Family: IPv4, Types: []uint8{3}, Code: &code}, "icmp type 3 code 4 drop"},
		{ICMPTypeMatch{Family: IPv6, Types: []uint8{133, 134}}, "icmpv6 type { 133, 134 } drop"},
		{TCPFlagsMatch{Mask: packet.SYN | packet.ACK, Value: packet.SYN, Not: true}, "tcp flags & (syn|ack) != syn drop"},
		{CtStateMatch{States: StateEstablished | StateRelated}, "ct state established,related drop"},
		{DNATMatch{Not: true}, "ct status != dnat drop"},
		{AddrTypeMatch{Field: Dst, Types: TypeLocal | TypeAnycast, Not: true}, "fib daddr type != { local, anycast } drop"},
		{SocketMatch{}, "socket wildcard 0 drop"},
		{RateMatch{rate.Rate{Count: 10, Per: time.Second, Burst: 5}}, "limit rate 10/second burst 5 drop"},
		{SourceRateMatch{IPv6, "rule-9", rate.Rate{Count: 10, Per: time.Minute, Burst: 7}}, "ip6 saddr limit rule-9 rate over 10/minute burst 7 drop"},
		{Opaque{"xt match quota"}, "xt match quota drop"},
	} {
		seen[strings.TrimPrefix(fmt.Sprintf("%T", c.match), "ruleset.")] = true
		if got := (Rule{Matches: []Match{c.match}}).String(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	for name, typ := range matchNames {
		if !seen[typ.Name()] {
			t.Errorf("%s has no case", name)
		}
	}
}

func TestRuleStringJoinsPortsToTheirProtocol(t *testing.T) {
	tcp, https := ProtoMatch{Proto: 6}, PortMatch{Field: DstPort, Ports: []netset.Ports{{First: 443, Last: 443}}}
	for want, r := range map[string]Rule{
		`tcp dport 443 counter accept # policy.yaml:7: the shop`:   {Matches: []Match{tcp, https}, Counter: true, Verdict: Verdict{Accept, ""}, Origin: Origin{"policy.yaml:7", "the shop"}},
		`tcp dport vmap @ports`:                                    {Matches: []Match{tcp}, Lookup: &Lookup{DstPort, "ports"}},
		`meta l4proto tcp saddr vmap @friends`:                     {Matches: []Match{tcp}, Lookup: &Lookup{Src, "friends"}},
		`meta l4proto tcp log group 86 prefix "quaywall" goto web`: {Matches: []Match{tcp}, Log: &Log{86, "quaywall"}, Verdict: Verdict{Goto, "web"}},
		`log group 86 prefix "x"`:                                  {Log: &Log{86, "x"}, Verdict: Verdict{Continue, ""}},
	} {
		if got := r.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestFormatCutsLongSets(t *testing.T) {
	rs := Ruleset{Tables: []Table{sound()}}
	rs.Tables[0].Sets[0].Addrs = netset.MustParse("2001:db8::1 2001:db8::3 2001:db8::5")
	text := rs.Format(1)
	for _, want := range []string{"2001:db8::1\n\t\t# and 2 more", "1-2 : goto web\n\t\t# and 1 more"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if whole := rs.String(); strings.Contains(whole, "more") || !strings.Contains(whole, "2001:db8::1, 2001:db8::3, 2001:db8::5") {
		t.Errorf("not whole:\n%s", whole)
	}
}
