package ipt_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
)

// gate is a ruleset with one base chain.
func gate(rules ...ruleset.Rule) *ruleset.Ruleset {
	return &ruleset.Ruleset{Tables: []ruleset.Table{{Name: "quaywall", Chains: []ruleset.Chain{
		{Name: "gate", Base: &ruleset.Base{Hook: ruleset.Prerouting, Priority: -149}, Rules: rules}}}}}
}

// chain is the rules of a chain, nil where it isn't there.
func chain(t ipt.Table, name string) []string {
	var specs []string
	for _, c := range t.Chains {
		if c.Name == name {
			for _, r := range c.Rules {
				specs = append(specs, r.Spec)
			}
		}
	}
	return specs
}

func TestRaw(t *testing.T) {
	rs := gate(ruleset.Rule{})
	rs.Raw.IPTables = `
# a comment
-A QUAYWALL-RAW -p tcp --dport 25 -j DROP
  -4 -s 10.0.0.0/8 -j RETURN
-6 --append QUAYWALL-RAW -s fd00::/8 -m comment --comment "a \"b\" -g c" -j RETURN
! -i lo -m policy --dir in --pol ipsec -j MARK --set-mark 7
`
	rules, err := ipt.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	both, last := "-p tcp --dport 25 -j DROP", "! -i lo -m policy --dir in --pol ipsec -j MARK --set-mark 7"
	if diff := cmp.Diff([]string{both, "-s 10.0.0.0/8 -j RETURN", last}, chain(rules.IPv4.Mangle, ipt.RawChain)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{both, `-s fd00::/8 -m comment --comment "a \"b\" -g c" -j RETURN`, last}, chain(rules.IPv6.Mangle, ipt.RawChain)); diff != "" {
		t.Error(diff)
	}
	want := []ipt.Jump{{From: "PREROUTING", Spec: "-j QUAYWALL-gate"}, {From: "PREROUTING", Spec: "-j QUAYWALL-RAW"}}
	if diff := cmp.Diff(want, rules.IPv4.Mangle.Jumps); diff != "" {
		t.Error(diff)
	}
}

// A packet that is to be rejected was not let through.
func TestRawPassesOverRejected(t *testing.T) {
	rs := gate(ruleset.Rule{Verdict: ruleset.Verdict{Kind: ruleset.Unreachable}})
	rs.Raw.IPTables = "-j ACCEPT"
	rules, err := ipt.Render(rs)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range rules.IPv6.Mangle.Chains {
		if c.Name == ipt.RawChain && c.Rules[0].Spec != `-m connlabel --label "86" -j RETURN` {
			t.Errorf("it begins with %v", c.Rules[0])
		}
	}
}

func TestRawRefused(t *testing.T) {
	for line, want := range map[string]string{
		"-A FORWARD -j DROP":                 "it names chain FORWARD",
		"-A QUAYWALL-gate -j DROP":           "it names chain QUAYWALL-gate",
		"-A QUAYWALL-RAW":                    "there is no rule in it",
		"-I FORWARD -j DROP":                 "-I is not an option of a rule",
		"-IFORWARD -j DROP":                  "-IFORWARD is not an option of a rule",
		"-F":                                 "-F is not an option of a rule",
		"-t nat -j DROP":                     "-t is not an option of a rule",
		"-s 10.0.0.1 -tnat":                  "-tnat is not an option of a rule",
		"-s10.0.0.1 -j DROP":                 "-s10.0.0.1 is not an option of a rule",
		"--table nat -j DROP":                "--table (as in --table) is not part of a rule",
		"--tab=nat -j DROP":                  "--tab (as in --table) is not part of a rule",
		"-p tcp --fl":                        "--fl (as in --flush) is not part of a rule",
		"-p tcp --goto DOCKER":               "--goto (as in --goto) is not part of a rule",
		"-p tcp -g DOCKER":                   "-g is not an option of a rule",
		"-p tcp -j DOCKER-USER":              "-j DOCKER-USER names another chain",
		"-p tcp --jump QUAYWALL-gate":        "-j QUAYWALL-gate names another chain",
		"-p tcp --jum DOCKER":                "--jum (as in --jump) is not part of a rule",
		"-p tcp --jump=DROP":                 "--jump=DROP needs a space",
		"-p tcp -jDROP":                      "-jDROP is not an option of a rule",
		"-j REJECT":                          "-j REJECT names another chain, or a target that table mangle doesn't have",
		"-j":                                 "-j needs a space and a target behind it",
		"*nat":                               `a rule begins with an option, not with "*nat"`,
		":MINE - [0:0]":                      `a rule begins with an option, not with ":MINE"`,
		"COMMIT":                             `a rule begins with an option, not with "COMMIT"`,
		`-m comment --comment "x -j DROP`:    "a double quote is not closed",
		"-4":                                 "there is no rule in it",
		"-p tcp \x00":                        "control characters",
		strings.Repeat("-s 10.0.0.1 ", 1000): "longer than 8000 bytes",
		"-p tcp --pol x -j DROP":             "--pol (as in --policy) is not part of a rule",
	} {
		rs := gate()
		rs.Raw.IPTables = "\n-j ACCEPT\n" + line
		_, err := ipt.Render(rs)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "raw rules for iptables, line 3: ") {
			t.Errorf("%.60q: got %v, want %q", line, err, want)
		}
	}
}

func TestRawReportsAllLines(t *testing.T) {
	rs := gate()
	rs.Raw.IPTables = "-F\n-j DROP\n-X\n"
	_, err := ipt.Render(rs)
	if err == nil || !strings.Contains(err.Error(), "line 1") || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("got %v", err)
	}
}
