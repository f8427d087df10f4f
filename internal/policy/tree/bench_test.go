package tree

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkParse reads a policy of 10,000 rules.
func BenchmarkParse(b *testing.B) {
	var s strings.Builder
	s.WriteString("version: 1\ninbound:\n")
	for i := range 10000 {
		fmt.Fprintf(&s, "  - allow: [%d/tcp, %d/udp]\n    from: [office, 10.0.%d.4] # why\n", 1+i, 1+i, i%256)
	}
	src := []byte(s.String())
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if _, list := Parse("policy.yaml", src); list.HasErrors() {
			b.Fatal(list)
		}
	}
}
