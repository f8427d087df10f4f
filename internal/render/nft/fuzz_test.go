package nft

import (
	"testing"

	"quaywall/internal/ruleset"
	"quaywall/internal/testkit/rulegen"
)

// What the kernel answers is read without a panic whatever it is, and can be printed.
func FuzzAnswers(f *testing.F) {
	for seed := range uint64(20) {
		table, err := Render(&ruleset.Ruleset{Tables: []ruleset.Table{rulegen.New(seed).Table()}})
		if err != nil {
			continue
		}
		change := NewChange(table, Live{})
		for m, err := range change.Prepare() {
			if err == nil {
				f.Add(append([]byte(nil), m.Body...))
			}
		}
		for m, err := range change.Replace() {
			if err == nil {
				f.Add(append([]byte(nil), m.Body...))
			}
		}
	}
	f.Fuzz(func(_ *testing.T, body []byte) {
		var t Table
		if _, chain, err := ParseChain(body); err == nil {
			t.Chains = append(t.Chains, chain)
		}
		if _, _, rule, err := ParseRule(body); err == nil && len(t.Chains) > 0 {
			t.Chains[0].Rules = append(t.Chains[0].Rules, rule)
		}
		if _, set, err := ParseSet(body); err == nil {
			elements, _ := ParseElements(body, nil)
			set.SummarizeUnsorted(elements)
			t.Sets = append(t.Sets, set)
		}
		_, _ = ParseTable(body)
		t.Plain().Lines()
	})
}
