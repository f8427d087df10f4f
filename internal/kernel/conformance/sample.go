package conformance

import (
	"quaywall/internal/netset"
	"quaywall/internal/ruleset"
)

// Sample is a ruleset with something of everything that drift can happen to: a set "office" of addresses, a map "ports" of
// TCP ports, a chain "web" with two rules, the lines "policy.yaml:3" and up.
func Sample() *ruleset.Ruleset {
	accept, drop := ruleset.Verdict{Kind: ruleset.Accept}, ruleset.Verdict{Kind: ruleset.Drop}
	web := ruleset.Verdict{Kind: ruleset.Goto, Chain: "web"}
	tcp := ruleset.ProtoMatch{Proto: 6}
	src := func(list string) ruleset.Match {
		return ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Addrs: netset.MustParse(list)}
	}
	return &ruleset.Ruleset{Tables: []ruleset.Table{{
		Name: "quaywall",
		Chains: []ruleset.Chain{
			{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: []ruleset.Rule{
				{Matches: []ruleset.Match{ruleset.IfaceMatch{Field: ruleset.In, Set: "bridges"}}, Verdict: accept},
				{Matches: []ruleset.Match{ruleset.AddrMatch{Field: ruleset.Src, Family: ruleset.IPv4, Set: "office"}, tcp},
					Counter: true, Verdict: accept, Origin: ruleset.Origin{Line: "policy.yaml:3", Note: "the office, everything"}},
				{Matches: []ruleset.Match{tcp}, Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "ports"}},
				{Verdict: drop, Counter: true, Origin: ruleset.Origin{Line: "default"}},
			}},
			{Name: "web", Rules: []ruleset.Rule{
				{Matches: []ruleset.Match{src("198.51.100.0/24")}, Counter: true, Verdict: drop, Origin: ruleset.Origin{Line: "policy.yaml:8"}},
				{Matches: []ruleset.Match{src("198.51.0.0/16")}, Counter: true, Verdict: accept, Origin: ruleset.Origin{Line: "policy.yaml:9"}},
			}},
		},
		Sets: []ruleset.Set{
			{Name: "bridges", Key: ruleset.Iface, Ifaces: []string{"docker0", "br-0123456789ab"}},
			{Name: "office", Key: ruleset.Addr4, Addrs: netset.MustParse("192.0.2.0/28 192.0.2.77 203.0.113.9-203.0.113.17")},
		},
		Maps: []ruleset.Map{{Name: "ports", Key: ruleset.Port, Elements: []ruleset.Element{
			{Ports: netset.Ports{First: 22, Last: 22}, Verdict: accept, Origin: ruleset.Origin{Line: "policy.yaml:5", Note: "administration"}},
			{Ports: netset.Ports{First: 80, Last: 443}, Verdict: web, Origin: ruleset.Origin{Line: "policy.yaml:6"}},
		}}},
	}}}
}
