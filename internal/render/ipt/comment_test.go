package ipt

import (
	"strings"
	"testing"

	"quaywall/internal/ruleset"
)

// A packet that a rule sends to a chain of its own, for the log, was counted for its line twice: in iptables every rule
// counts, and the one in that chain named the line too. Found by the judge.
func TestRulesThatDoNotCountNameNoLine(t *testing.T) {
	origin := ruleset.Origin{Line: "policy.yaml:14", Note: "why"}
	log := &ruleset.Log{Group: 86, Prefix: "quaywall allow policy.yaml:14"}
	rs := &ruleset.Ruleset{Tables: []ruleset.Table{{Name: "quaywall", Chains: []ruleset.Chain{
		{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: []ruleset.Rule{
			{Counter: true, Origin: origin, Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "rule-14"}}}},
		{Name: "rule-14", Rules: []ruleset.Rule{{Log: log, Origin: origin, Verdict: ruleset.Verdict{Kind: ruleset.Accept}}}},
	}}}}
	rules, err := Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	var counting []string
	for _, ch := range rules.IPv4.Mangle.Chains {
		for _, r := range ch.Rules {
			if strings.HasPrefix(CommentOf(r.Spec), "policy.yaml:14") {
				counting = append(counting, ch.Name+" "+r.Spec)
			}
		}
	}
	if len(counting) != 1 || !strings.Contains(counting[0], "gate") {
		t.Errorf("a packet is counted for its line by\n%s\nwant the gate's rule alone", strings.Join(counting, "\n"))
	}
}
