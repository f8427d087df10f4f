package ipt_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/render/ipt"
	"quaywall/internal/ruleset"
)

// small is a family with one jump and one chain in mangle.
func small() ipt.Family {
	f := ipt.EmptyFamily(ruleset.IPv4)
	f.Mangle.Chains = []ipt.Chain{{Name: "QUAYWALL-gate", Rules: []ipt.Rule{{Spec: "-j DROP"}}}}
	f.Mangle.Jumps = []ipt.Jump{{From: "PREROUTING", Spec: "-j QUAYWALL-gate"}, {From: "PREROUTING", Spec: "-j QUAYWALL-RAW"}}
	return f
}

func rejecting() ipt.Family {
	f := small()
	f.Filter.Chains = []ipt.Chain{{Name: "QUAYWALL-REJECT"}}
	f.Security.Chains = []ipt.Chain{{Name: "QUAYWALL-REJECT"}}
	return f
}

func jump(position int, from, spec string) ipt.PlacedJump {
	return ipt.PlacedJump{Jump: ipt.Jump{From: from, Spec: spec}, Position: position}
}

const (
	describe = "*mangle\n:QUAYWALL-gate - [0:0]\n-A QUAYWALL-gate -j DROP\n"
	insert   = "-I PREROUTING -j QUAYWALL-RAW\n-I PREROUTING -j QUAYWALL-gate\n"
)

// Trap 3: the jump is missing, not first, there twice, or elsewhere.
func TestPayloadJumps(t *testing.T) {
	gate, raw := jump(1, "PREROUTING", "-j QUAYWALL-gate"), jump(2, "PREROUTING", "-j QUAYWALL-RAW")
	old := []ipt.Chain{{Name: "QUAYWALL-gate"}}
	for name, test := range map[string]struct {
		now  ipt.Present
		want string
	}{
		"nothing there": {ipt.Present{}, describe + insert + "COMMIT\n"},
		"in place":      {ipt.Present{Chains: old, Jumps: []ipt.PlacedJump{gate, raw}}, describe + "COMMIT\n"},
		"sunk": {ipt.Present{Chains: old, Jumps: []ipt.PlacedJump{jump(2, "PREROUTING", "-j QUAYWALL-gate"), jump(3, "PREROUTING", "-j QUAYWALL-RAW")}},
			describe + "-D PREROUTING -j QUAYWALL-gate\n-D PREROUTING -j QUAYWALL-RAW\n" + insert + "COMMIT\n"},
		"in the wrong order": {ipt.Present{Chains: old, Jumps: []ipt.PlacedJump{jump(1, "PREROUTING", "-j QUAYWALL-RAW"), jump(2, "PREROUTING", "-j QUAYWALL-gate")}},
			describe + "-D PREROUTING -j QUAYWALL-RAW\n-D PREROUTING -j QUAYWALL-gate\n" + insert + "COMMIT\n"},
		"twice": {ipt.Present{Chains: old, Jumps: []ipt.PlacedJump{gate, raw, jump(7, "PREROUTING", "-j QUAYWALL-gate")}},
			describe + "-D PREROUTING -j QUAYWALL-gate\n-D PREROUTING -j QUAYWALL-RAW\n-D PREROUTING -j QUAYWALL-gate\n" + insert + "COMMIT\n"},
		"in somebody's chain, to a chain that goes": {
			ipt.Present{Chains: []ipt.Chain{{Name: "QUAYWALL-old"}}, Jumps: []ipt.PlacedJump{gate, raw, jump(1, "MINE", "-p tcp -j QUAYWALL-old")}},
			"*mangle\n:QUAYWALL-gate - [0:0]\n:QUAYWALL-old - [0:0]\n-A QUAYWALL-gate -j DROP\n" +
				"-D PREROUTING -j QUAYWALL-gate\n-D PREROUTING -j QUAYWALL-RAW\n-D MINE -p tcp -j QUAYWALL-old\n" + insert + "-X QUAYWALL-old\nCOMMIT\n"},
		"chain and table missing": {ipt.Present{Missing: []string{"TABLE", "PREROUTING", "INPUT"}},
			"*mangle\n:QUAYWALL-gate - [0:0]\n:QUAYWALL+TABLE - [0:0]\n:QUAYWALL+PREROUTING - [0:0]\n-A QUAYWALL-gate -j DROP\n" + insert + "COMMIT\n"},
		"all as it should be": {ipt.Present{Chains: small().Mangle.Chains, Jumps: []ipt.PlacedJump{gate, raw}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := small()
			if diff := cmp.Diff(test.want, string(f.Payload(map[string]ipt.Present{"mangle": test.now}))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What answers marked packets is there before they are marked, and goes after.
func TestPayloadOrderOfTables(t *testing.T) {
	present := ipt.Present{Chains: []ipt.Chain{{Name: "QUAYWALL-x"}}}
	for name, test := range map[string]struct {
		family ipt.Family
		now    map[string]ipt.Present
		want   string
	}{
		"nothing and nothing":   {ipt.EmptyFamily(ruleset.IPv4), nil, ""},
		"without reject":        {small(), nil, "mangle"},
		"with reject":           {rejecting(), nil, "security filter mangle"},
		"no reject any more":    {small(), map[string]ipt.Present{"mangle": present, "filter": present, "security": present}, "mangle filter security"},
		"everything goes":       {ipt.EmptyFamily(ruleset.IPv4), map[string]ipt.Present{"filter": present, "mangle": present}, "mangle filter"},
		"left over in security": {small(), map[string]ipt.Present{"security": present}, "mangle security"},
	} {
		t.Run(name, func(t *testing.T) {
			var tables []string
			for line := range strings.Lines(string(test.family.Payload(test.now))) {
				if line[0] == '*' {
					tables = append(tables, strings.TrimSpace(line[1:]))
				}
			}
			if got := strings.Join(tables, " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLeadsToOwn(t *testing.T) {
	for spec, want := range map[string]bool{
		"-j QUAYWALL-gate":        true,
		"-p tcp -g QUAYWALL-gate": true,
		"-j DROP":                 false,
		`-m comment --comment "-j QUAYWALL-gate" -j DROP`:     false,
		`-m comment --comment "x\" -j QUAYWALL-gate" -j DROP`: false,
		`-m comment --comment "see -j" -j QUAYWALL-gate`:      true,
		"-m set --match-set QUAYWALL-gate src -j ACCEPT":      false,
	} {
		if got := ipt.LeadsToOwn(spec); got != want {
			t.Errorf("%s: %v, want %v", spec, got, want)
		}
	}
}

func TestCommentOf(t *testing.T) {
	for spec, want := range map[string]string{
		"-j DROP": "",
		"-m comment --comment policy.yaml:12 -j DROP":                           "policy.yaml:12",
		`-m comment --comment "policy.yaml:12: it\'s \"x\" \\ y" -j DROP`:       `policy.yaml:12: it's "x" \ y`,
		`-p tcp -m comment --comment "a b" -j NFLOG --nflog-prefix "--comment"`: "a b",
	} {
		if got := ipt.CommentOf(spec); got != want {
			t.Errorf("%s: %q, want %q", spec, got, want)
		}
	}
}
