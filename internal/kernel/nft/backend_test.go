package nft

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/kernel"
	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/netns"
)

func TestCommitReadRemove(t *testing.T) {
	rs := &ruleset.Ruleset{Tables: []ruleset.Table{{Name: "quaywall", Chains: []ruleset.Chain{
		{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: []ruleset.Rule{
			{Matches: []ruleset.Match{ruleset.IfaceMatch{Field: ruleset.In, Names: []string{"lo", "br-*"}}}, Verdict: ruleset.Verdict{Kind: ruleset.Accept}},
			{Matches: []ruleset.Match{ruleset.DNATMatch{Not: true}, ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "office"}, ruleset.ProtoMatch{Proto: 6}}, Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "ports"}},
			{Verdict: ruleset.Verdict{Kind: ruleset.Drop}, Counter: true, Origin: ruleset.Origin{Line: "default"}},
		}},
		{Name: "web"},
	}, Sets: []ruleset.Set{{Name: "office", Key: ruleset.Addr4, Addrs: netset.MustParse("0.0.0.0 10.0.0.0/8 192.0.2.1-192.0.2.9 240.0.0.0/4"), Origin: ruleset.Origin{Note: "the office"}}},
		Maps: []ruleset.Map{{Name: "ports", Key: ruleset.Port, Elements: []ruleset.Element{{Ports: netset.Ports{First: 22, Last: 22}, Verdict: ruleset.Verdict{Kind: ruleset.Accept}, Origin: ruleset.Origin{Line: "p:3"}},
			{Ports: netset.Ports{First: 23, Last: 80}, Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "web"}}, {Ports: netset.Ports{First: 65000, Last: 65535}}}}},
	}}}
	backend := New()
	var planned *kernel.Listing
	netns.Run(t, func() {
		var err error
		if planned, err = backend.Preflight(context.Background(), rs); err != nil {
			t.Fatal(err)
		}
	})
	netns.Run(t, func() {
		for range 2 {
			if err := backend.Commit(context.Background(), rs); err != nil {
				t.Fatal(err)
			}
			got, err := backend.Read(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(planned, got); diff != "" {
				t.Errorf("read back otherwise than planned (-planned +read):\n%s", diff)
			}
		}
		if err := backend.Remove(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got, err := backend.Read(context.Background()); err != nil || got.Present {
			t.Errorf("after Remove: %+v, %v", got, err)
		}
	})
}
