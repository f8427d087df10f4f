package nftlist_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quaywall/internal/netfilter"
	"quaywall/internal/netset"
	"quaywall/internal/parse/nftjson"
	"quaywall/internal/testkit/netns"
	"quaywall/internal/watch/nftlist"
)

// TestSameAsNFT has nft load rules, and lists them by both ways: what is read of the two lists must be the same but for the
// words of the rules.
func TestSameAsNFT(t *testing.T) {
	netns.Tool(t, "nft")
	files, err := filepath.Glob("../../parse/nftjson/testdata/*.*")
	if err != nil || len(files) == 0 {
		t.Fatal("no rules to try", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			rules, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			ns := netns.New(t)
			args := []string{"-f", "-"}
			if filepath.Ext(file) == ".json" {
				args = append([]string{"-j"}, args...)
			}
			ns.Feed(t, string(rules), "nft", args...)
			var got []byte
			ns.Do(t, func() { got, err = nftlist.List() })
			if err != nil || !json.Valid(got) {
				t.Fatalf("%v\n%s", err, got)
			}
			compare(t, got, ns.Output(t, "nft", "-j", "-a", "list", "ruleset"))
		})
	}
}

// equal holds tables against each other: not their words, nor where they stand in the list.
var equal = cmp.Options{cmp.Comparer(func(a, b netset.Set) bool { return a.Equal(b) }), cmpopts.IgnoreFields(netfilter.Rule{}, "Text", "Line"),
	cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty(),
	cmpopts.IgnoreFields(netfilter.Stateful{}, "Text"), cmpopts.IgnoreFields(netfilter.Opaque{}, "Text"), cmpopts.IgnoreFields(netfilter.Note{}, "Text"),
	cmp.Transformer("default", func(r netfilter.Reject) string { return strings.Replace(r.With, "icmpx port-unreachable", "", 1) }),
	cmpopts.SortSlices(func(a, b netfilter.Element) bool { return fmt.Sprint(a.Key) < fmt.Sprint(b.Key) }),
	cmpopts.SortSlices(func(a, b netfilter.Match) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })}

// inexact are words of rules of which nft's list tells less than the kernel: what follows from a header or a family, and is
// lost where nft's words can't be read.
var inexact = []string{"frag frag-off", "ip saddr map { 10.0.0.1 : 5 }", "ip version 4", "vlan id 5"}

func compare(t *testing.T, got []byte, want string) {
	t.Helper()
	mine, problems := nftjson.Parse(string(got), "netlink")
	for _, p := range problems {
		if !strings.Contains(p.Error(), "set typ") { // nft alone knows what its values are
			t.Error(p)
		}
	}
	nfts, _ := nftjson.Parse(want, "nft")
	if len(mine) != len(nfts) {
		t.Fatalf("%d tables, nft has %d", len(mine), len(nfts))
	}
	for i, table := range nfts {
		compareRules(t, mine[i], table)
		if diff := cmp.Diff(table, mine[i], equal, cmpopts.IgnoreFields(netfilter.Chain{}, "Rules"), cmpopts.IgnoreSliceElements(func(s *netfilter.Set) bool { return s.Name == "typ" })); diff != "" {
			t.Errorf("nft (-) and netlink (+):\n%s", diff)
		}
	}
	if t.Failed() {
		t.Logf("%s", got)
	}
}

func compareRules(t *testing.T, got, want *netfilter.Table) {
	t.Helper()
	for i, c := range want.Chains {
		if len(c.Rules) != len(got.Chains[i].Rules) {
			t.Errorf("chain %s has %d rules, in nft's list %d", c.Name, len(got.Chains[i].Rules), len(c.Rules))
			continue
		}
		for j, rule := range c.Rules {
			mine := got.Chains[i].Rules[j]
			known := slices.ContainsFunc(inexact, func(s string) bool { return strings.Contains(rule.Text, s) })
			if diff := cmp.Diff(rule, mine, equal); (diff != "") != known {
				t.Errorf("rule %q, to nft %q:\n%s", mine.Text, rule.Text, diff)
			}
		}
	}
}
