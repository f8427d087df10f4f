package iptsave

import (
	"strings"
	"testing"

	"quaywall/internal/netfilter"
	"quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/rulegen"
)

// TestRenderedIsUnderstood: nothing that quaywall writes is opaque.
func TestRenderedIsUnderstood(t *testing.T) {
	read := 0
	for seed := range uint64(200) {
		rules, err := ipt.Render(&ruleset.Ruleset{Tables: []ruleset.Table{rulegen.New(seed).Table()}})
		if err != nil {
			continue // what can't be rendered isn't written either
		}
		var sets []*netfilter.Set
		for _, s := range rules.Sets {
			family := map[ruleset.Family]netfilter.Family{ruleset.IPv4: netfilter.IPv4, ruleset.IPv6: netfilter.IPv6}[s.Family]
			sets = append(sets, &netfilter.Set{Name: s.Name, Type: s.Kind.String(), Family: family})
		}
		for family, payload := range map[netfilter.Family][]byte{netfilter.IPv4: rules.IPv4.Payload(nil), netfilter.IPv6: rules.IPv6.Payload(nil)} {
			tables, problems := Parse(string(payload), Options{Family: family, Sets: sets})
			for _, p := range problems {
				if !strings.Contains(p.Message, "policy of chain") { // a payload names no chains but quaywall's
					t.Errorf("seed %d: %v\n%s", seed, p, payload)
				}
			}
			for _, table := range tables {
				for _, c := range table.Chains {
					for _, r := range c.Rules {
						read++
						if isOpaque(r) {
							t.Errorf("seed %d: %s", seed, r.Text)
						}
					}
				}
			}
		}
	}
	if read < 1000 {
		t.Errorf("only %d rules were read", read)
	}
}

// isOpaque tells whether something of a rule isn't understood.
func isOpaque(r *netfilter.Rule) bool {
	for _, m := range r.Matches {
		if _, ok := m.(netfilter.Opaque); ok {
			return true
		}
	}
	for _, a := range r.Actions {
		if _, ok := a.(netfilter.OpaqueAction); ok {
			return true
		}
	}
	return false
}
