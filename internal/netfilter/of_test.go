package netfilter_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"testing"
	"time"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/packet"
	"quaywall/internal/rate"
	"quaywall/internal/ruleset"
)

// planned are all matches of package ruleset.
func planned() []ruleset.Match {
	code := uint8(4)
	return []ruleset.Match{
		ruleset.FamilyMatch{Family: ruleset.IPv6}, ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"eth*"}},
		ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.MustParse("192.0.2.0/24"), Not: true},
		ruleset.IfaceAddrMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Set: "networks4"},
		ruleset.FlowMatch{Field: ruleset.Dst, Family: ruleset.IPv4, Set: "cut4"}, ruleset.ProtoMatch{Proto: 1, Not: true},
		ruleset.PortMatch{Field: ruleset.DstPort, Ports: []netset.Ports{{First: 80, Last: 90}}},
		ruleset.ICMPTypeMatch{Family: ruleset.IPv6, Types: []uint8{133}, Code: &code},
		ruleset.TCPFlagsMatch{Mask: packet.SYN | packet.ACK, Value: packet.SYN, Not: true},
		ruleset.CtStateMatch{States: ruleset.StateEstablished | ruleset.StateRelated}, ruleset.DNATMatch{Not: true},
		ruleset.AddrTypeMatch{Field: ruleset.Dst, Types: ruleset.TypeLocal | ruleset.TypeAnycast}, ruleset.SocketMatch{},
		ruleset.RateMatch{Rate: rate.Rate{Count: 1, Per: time.Second, Burst: 1}},
		ruleset.SourceRateMatch{Family: ruleset.IPv4, Name: "x", Rate: rate.Rate{Count: 1, Per: time.Second, Burst: 1}}, ruleset.Opaque{Text: "x"},
	}
}

func ofMatches(m ruleset.Match) []netfilter.Match {
	rs := ruleset.Ruleset{Tables: []ruleset.Table{{Name: "t", Chains: []ruleset.Chain{{Name: "c", Rules: []ruleset.Rule{{Matches: []ruleset.Match{m}}}}}}}}
	return netfilter.Of(&rs)[0].Chains[0].Rules[0].Matches
}

// TestOfKnowsEveryMatch: what the compiler says with a new match is not lost on the way to the simulator.
func TestOfKnowsEveryMatch(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../ruleset/match.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range planned() {
		known[reflect.TypeOf(m).Name()] = true
		for _, got := range ofMatches(m) {
			if o, opaque := got.(netfilter.Opaque); opaque && m != (ruleset.Match)(ruleset.Opaque{Text: o.Text}) {
				t.Errorf("%T isn't known", m)
			}
		}
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "match" && !known[f.Recv.List[0].Type.(*ast.Ident).Name] {
			t.Errorf("%s isn't tried here", f.Recv.List[0].Type.(*ast.Ident).Name)
		}
	}
}

func TestOf(t *testing.T) {
	number := func(n uint64) netfilter.Values {
		return netfilter.Values{Numbers: []netfilter.Range{{First: n, Last: n}}}
	}
	four := netfilter.Compare{Field: netfilter.NFProto, Values: number(2)}
	for _, tt := range []struct {
		match ruleset.Match
		want  []netfilter.Match
	}{
		{planned()[2], []netfilter.Match{four, netfilter.Compare{Field: netfilter.Src, Values: netfilter.Values{Addrs: netset.MustParse("192.0.2.0/24")}, Not: true}}},
		{planned()[4], []netfilter.Match{four, netfilter.In{Fields: []netfilter.Field{netfilter.Proto, netfilter.Dst, netfilter.DstPort, netfilter.Src}, Set: "cut4"}}},
		{planned()[5], []netfilter.Match{netfilter.Any{Of: [][]netfilter.Match{{four, netfilter.Compare{Field: netfilter.Proto, Values: number(1)}}}, Not: true}}},
		{planned()[10], []netfilter.Match{netfilter.Any{Of: [][]netfilter.Match{{netfilter.Compare{Field: netfilter.CtStatus, Mask: 32, Values: number(32)}}}, Not: true}}},
		{planned()[11], []netfilter.Match{netfilter.Compare{Field: netfilter.DstType, Values: netfilter.Values{Numbers: []netfilter.Range{{First: 2, Last: 2}, {First: 4, Last: 4}}}}}},
	} {
		if got := ofMatches(tt.match); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%T: %#v\nwant %#v", tt.match, got, tt.want)
		}
	}
}
