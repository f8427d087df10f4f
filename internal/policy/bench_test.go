package policy

import (
	"fmt"
	"strings"
	"testing"
)

// manyRules is a policy of n rules, each of two ports and two sources.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("version: 1\nsets:\n  office: [203.0.113.0/24, \"2001:db8:aa::/48\"]\ninbound:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - allow: [%d/tcp, %d/udp]\n    from: [office, 10.%d.%d.4]\n", 1+i, 2+i, i/256, i%256)
	}
	return b.String()
}

func BenchmarkLoad10000Rules(b *testing.B) {
	text := []byte(manyRules(10000))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, list := Parse("policy.yaml", text); list.HasErrors() {
			b.Fatal(list)
		}
	}
}

func BenchmarkLoadSetOfAMillion(b *testing.B) {
	var s strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&s, "%d.%d.%d.%d\n", 1+i*7%200, i>>12&255, i>>4&255, i&15*16)
	}
	files := Memory{"p": "version: 1\nsets: {many: {file: f}}\ninbound: [{deny: any, from: many}]\n", "f": s.String()}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, list := Load(files, "p"); list.HasErrors() {
			b.Fatal(list)
		}
	}
}
