package ipt_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"quaywall/internal/packet"
	"quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/iptwalk"
	"quaywall/internal/testkit/rulegen"
	"quaywall/internal/testkit/rulewalk"
)

// TestRenderedRulesDoTheSame leads packets through a ruleset and through what it was rendered to.
func TestRenderedRulesDoTheSame(t *testing.T) {
	rulesets := 400
	if testing.Short() {
		rulesets = 100
	}
	for seed := range uint64(rulesets) {
		compareWalks(t, seed)
	}
}

func compareWalks(t *testing.T, seed uint64) {
	t.Helper()
	d := rulegen.New(seed)
	table := d.Table()
	rules, err := ipt.Render(&ruleset.Ruleset{Tables: []ruleset.Table{table}})
	if err != nil {
		if !strings.Contains(err.Error(), "two protocols can't be excluded") {
			t.Errorf("seed %d: %v", seed, err)
		}
		return
	}
	checkShape(t, seed, rules)
	for range 40 {
		pk, host := d.Packet(), d.Host()
		want, err := rulewalk.Walk(&table, ruleset.Prerouting, pk, host)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := iptwalk.Walk(rules, "PREROUTING", pk, host)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !iptwalk.Same(pk, want, got) {
			t.Fatalf("seed %d, packet %v, %+v:\nruleset:  %+v\nrendered: %+v\n%s", seed, pk, host, want, got, dump(rules))
		}
	}
}

func dump(r *ipt.Rules) string {
	return string(r.IPv4.Payload(nil)) + string(r.IPv6.Payload(nil))
}

// checkShape looks for what the programs of iptables refuse or get wrong: options given twice, of which one is lost, and
// tests that are no tests to them.
func checkShape(t *testing.T, seed uint64, r *ipt.Rules) {
	t.Helper()
	for _, f := range []ipt.Family{r.IPv4, r.IPv6} {
		for _, c := range slices.Concat(f.Raw.Chains, f.Mangle.Chains) {
			if len(c.Name) > 28 {
				t.Errorf("seed %d: the name of chain %s is too long", seed, c.Name)
			}
			for _, rule := range c.Rules {
				for _, once := range []string{"-p", "-s", "-d", "-i", "-o", "-m tcp", "-m udp", "-m comment", "-j", "-g"} {
					if strings.Count(" "+rule.Spec+" ", " "+once+" ") > 1 {
						t.Errorf("seed %d: %q has %s twice", seed, rule.Spec, once)
					}
				}
				for _, never := range []string{"! -i +", "! -o +", "0:65535"} {
					if strings.Contains(rule.Spec+" ", " "+never+" ") {
						t.Errorf("seed %d: %q has %s", seed, rule.Spec, never)
					}
				}
			}
		}
	}
	for _, s := range r.Sets {
		if len(s.Name) > 31 || !ipt.OwnSet(s.Name) {
			t.Errorf("seed %d: %s can't be the name of a set", seed, s.Name)
		}
	}
}

// longestWay is how many rules a packet meets at most on its way through a map of ports; every fiftieth port is tried.
func longestWay(t *testing.T, ports, verdicts int) int {
	t.Helper()
	rs := gate(ruleset.Rule{Matches: matches(tcp), Lookup: &ruleset.Lookup{By: ruleset.DstPort, Map: "m"}})
	rs.Tables[0].Maps = []ruleset.Map{portMap(ports, verdicts)}
	rs.Tables[0].Chains = append(rs.Tables[0].Chains, verdictChains(verdicts)...)
	rules, err := ipt.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	longest := 0
	for i := 0; i < ports; i += max(1, ports/50) {
		pk := packet.Packet{Proto: 6, Dst: netip.MustParseAddr("192.0.2.1"), DstPort: uint16(2 * i)}
		got, err := iptwalk.Walk(rules, "PREROUTING", pk, rulewalk.Host{})
		if err != nil || got.Verdict != "DROP" {
			t.Fatalf("port %d: %+v, %v", pk.DstPort, got, err)
		}
		longest = max(longest, got.Rules-1) // without the jump
	}
	return longest
}
