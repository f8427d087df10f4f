package nftjson_test

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quaywall/internal/netfilter"
	"quaywall/internal/parse/nftjson"
	"quaywall/internal/testkit/netns"
)

// TestRealRuleset has nft load rules of all kinds and list them. Nothing of it may be a problem, the text of each rule is what
// nft prints for people, and those with something opaque are the ones that are known to have it.
func TestRealRuleset(t *testing.T) {
	netns.Tool(t, "nft")
	rules, err := os.ReadFile("testdata/ruleset.nft")
	if err != nil {
		t.Fatal(err)
	}
	ns := netns.New(t)
	ns.Feed(t, string(rules), "nft", "-f", "-")
	plain := ns.Output(t, "nft", "list", "ruleset")
	tables, problems := nftjson.Parse(ns.Output(t, "nft", "-j", "-a", "list", "ruleset"), "nft.json")
	for _, p := range problems {
		t.Error(p)
	}
	if len(tables) != 1 || tables[0].Name != "t" || len(tables[0].Sets) != 11 {
		t.Fatalf("got %d tables", len(tables))
	}
	var got []string
	last := uint64(0)
	for _, c := range tables[0].Chains {
		for _, r := range c.Rules {
			if r.Handle != last {
				got = append(got, simple(r.Text))
			}
			last = r.Handle
			if isOpaque(r) != slices.ContainsFunc(unknown, func(s string) bool { return strings.Contains(r.Text, s) }) {
				t.Errorf("%s: %+v %+v", r.Text, r.Matches, r.Actions)
			}
		}
	}
	sameRules(t, rulesOf(plain), got)
}

func sameRules(t *testing.T, want, got []string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Errorf("rule %d is %q, nft says %q", i, at(got, i), at(want, i))
		}
	}
}

// TestFirewalld reads what firewalld has in the kernel: zones, a rich rule, a forwarded port. All of it is understood, and its
// text is nft's.
func TestFirewalld(t *testing.T) {
	text, err := os.ReadFile("testdata/firewalld-1.3.3.json")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile("testdata/firewalld-1.3.3.nft")
	if err != nil {
		t.Fatal(err)
	}
	tables, problems := nftjson.Parse(string(text), "nft.json")
	if len(problems) > 0 || len(tables) != 1 || tables[0].Name != "firewalld" {
		t.Fatalf("%d tables, %v", len(tables), problems)
	}
	var got []string
	last := uint64(0)
	for _, c := range tables[0].Chains {
		for _, r := range c.Rules {
			if isOpaque(r) {
				t.Errorf("%s: %+v %+v", r.Text, r.Matches, r.Actions)
			}
			if r.Handle != last {
				got = append(got, simple(r.Text))
			}
			last = r.Handle
		}
	}
	sameRules(t, rulesOf(string(plain)), got)
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

// unknown are words of the rules that have something that can't be said.
var unknown = []string{"osf ", "maxseg size 1-500", "@nh,", "frag frag-off", "ipsec in reqid", "ip saddr map { 10.0.0.1 : 5"}

func isOpaque(r *netfilter.Rule) bool {
	return slices.ContainsFunc(r.Matches, func(m netfilter.Match) bool { _, ok := m.(netfilter.Opaque); return ok }) ||
		slices.ContainsFunc(r.Actions, func(a netfilter.Action) bool { _, ok := a.(netfilter.OpaqueAction); return ok })
}

// rulesOf are the rules of nft's list for people.
func rulesOf(plain string) []string {
	var all []string
	inChain := false
	for line := range strings.Lines(plain) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "chain "):
			inChain = true
		case line == "}":
			inChain = false
		case inChain && !strings.HasPrefix(line, "type "):
			all = append(all, simple(line))
		}
	}
	return all
}

var (
	counter  = regexp.MustCompile(` ?counter packets \d+ bytes \d+`)
	comment  = regexp.MustCompile(` comment ".*"`)
	hex      = regexp.MustCompile(`0x[0-9a-f]+`)
	flags    = regexp.MustCompile(`tcp flags & \(([a-z |]+)\) == ([a-z |]+)( accept)`)
	unlikely = strings.NewReplacer(`"`, "", "(", "", ")", "", "300s", "5m", "> 10s", "> 10")
)

// simple evens out what two lists of nft differ in: numbers in hex, quotes, brackets, the order of flags.
func simple(text string) string {
	text = comment.ReplaceAllString(counter.ReplaceAllString(text, ""), "")
	text = flags.ReplaceAllStringFunc(text, func(s string) string {
		m := flags.FindStringSubmatch(s)
		return "tcp flags " + m[2] + " / " + strings.ReplaceAll(m[1], " | ", ",") + m[3]
	})
	text = hex.ReplaceAllStringFunc(text, func(s string) string {
		n, _ := strconv.ParseUint(s, 0, 64)
		return strconv.FormatUint(n, 10)
	})
	return unlikely.Replace(text)
}
