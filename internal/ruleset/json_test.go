package ruleset

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go4.org/netipx"

	"quaywall/internal/netset"
	"quaywall/internal/rate"
)

func TestJSONKnowsEveryMatch(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "match.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, typ := range matchNames {
		known[typ.Name()] = true
	}
	found := 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "match" {
			continue
		}
		found++
		if name := f.Recv.List[0].Type.(*ast.Ident).Name; !known[name] {
			t.Errorf("%s has no name in JSON", name)
		}
	}
	if found != len(matchNames) {
		t.Errorf("match.go has %d matches, JSON %d names", found, len(matchNames))
	}
}

func ipRange(text string) netipx.IPRange {
	r, err := netset.ParseRange(text)
	if err != nil {
		panic(err)
	}
	return r
}

// everything is a ruleset in which no field is left out.
func everything() Ruleset {
	code := uint8(4)
	ports := []netset.Ports{{First: 80, Last: 90}}
	addrs := netset.MustParse("192.0.2.0/24 198.51.100.7-198.51.100.20 2001:db8::/48")
	rules := []Rule{
		{Matches: []Match{FamilyMatch{IPv6}, IfaceMatch{Field: Out, Names: []string{"eth*"}, Set: "x", Not: true}}},
		{Matches: []Match{AddrMatch{Src, IPv4, addrs, "", true}, AddrMatch{Dst, IPv6, netset.Set{}, "s", false}, IfaceAddrMatch{Dst, IPv6, "p", true}}},
		{Matches: []Match{ProtoMatch{6, true}, PortMatch{DstPort, ports, true}, ICMPTypeMatch{IPv6, []uint8{1, 2}, &code}, TCPFlagsMatch{63, 2, true}}},
		{Matches: []Match{CtStateMatch{StateNew | StateUntracked, true}, DNATMatch{true}, AddrTypeMatch{Src, TypeAnycast, true}, SocketMatch{}}},
		{Matches: []Match{RateMatch{rate.Rate{Count: 10, Per: time.Second, Burst: 5}}, SourceRateMatch{IPv6, "l", rate.Rate{Count: 1, Per: time.Hour, Burst: 9}}, Opaque{"?"}}},
		{Log: &Log{86, "quaywall denied"}, Counter: true, Lookup: &Lookup{Src, "m"}, Verdict: Verdict{Goto, "c"}, Origin: Origin{"policy.yaml:12", "why"}},
	}
	return Ruleset{
		Tables: []Table{{
			Family: Inet, Name: "quaywall",
			Chains: []Chain{{Name: "gate", Base: &Base{Prerouting, -149}, Rules: rules}, {Name: "empty"}},
			Sets: []Set{{Name: "s", Key: Addr6, Addrs: addrs, Origin: Origin{Note: "n"}}, {Name: "i", Key: Iface, Ifaces: []string{"docker0"}},
				{Name: "c", Key: Flow4, Timeout: time.Hour, Flows: []Flow{
					{6, netip.MustParseAddrPort("203.0.113.1:80"), netip.MustParseAddr("198.51.100.7")},
					{17, netip.MustParseAddrPort("[2001:db8::1]:53"), netip.MustParseAddr("2001:db8::2")}}},
				{Name: "p", Key: IfaceAddr4, Pairs: []IfaceSubnet{{"docker0", netset.MustParse("172.17.0.0/16")}}}},
			Maps: []Map{{Name: "m", Key: Addr4, Elements: []Element{{Addrs: ipRange("192.0.2.1-192.0.2.9"), Verdict: Verdict{Accept, ""}, Origin: Origin{"a:1", ""}}}},
				{Name: "q", Key: Port, Elements: []Element{{Ports: netset.Ports{First: 1, Last: 2}, Verdict: Verdict{Jump, "c"}}}}},
		}},
		Raw: Raw{NFT: "add rule", IPTables: "-A"},
	}
}

func TestJSONKeepsEverything(t *testing.T) {
	want := everything()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Ruleset
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	ranges := cmp.Comparer(func(a, b netipx.IPRange) bool { return a == b })
	flows := cmp.Comparer(func(a, b Flow) bool { return a == b })
	if diff := cmp.Diff(want, got, ranges, flows, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestJSONRefusesWhatItDoesNotKnow(t *testing.T) {
	for text, want := range map[string]string{
		`{"matches":[{"quantum":{}}]}`:              `unknown match "quantum"`,
		`{"matches":[{}]}`:                          "a match without a name",
		`{"matches":[{"proto":{},"socket":{}}]}`:    "unknown match",
		`{"matches":[{"addr":{"Addrs":"banana"}}]}`: `match "addr"`,
	} {
		var r Rule
		if err := json.Unmarshal([]byte(text), &r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"", "6", "x 203.0.113.1:80 198.51.100.7", "6 203.0.113.1 198.51.100.7", "6 203.0.113.1:80 b", "6 203.0.113.1:80 198.51.100.7 x"} {
		if err := new(Flow).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is a flow", text)
		}
	}
}
