package tree

import (
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// manyRules is a policy of 10,000 rules.
func manyRules() []byte {
	var s strings.Builder
	s.WriteString("version: 1\ninbound:\n")
	for i := range 10000 {
		fmt.Fprintf(&s, "  - allow: [%d/tcp, %d/udp]\n    from: [office, 10.0.%d.4] # why\n", 1+i, 1+i, i%256)
	}
	return []byte(s.String())
}

func BenchmarkParse(b *testing.B) {
	src := manyRules()
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		if _, list := Parse("policy.yaml", src); list.HasErrors() {
			b.Fatal(list)
		}
	}
}

// BenchmarkOther is the library that Parse is compared with in the tests.
func BenchmarkOther(b *testing.B) {
	src := manyRules()
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		var n yaml.Node
		if err := yaml.Unmarshal(src, &n); err != nil {
			b.Fatal(err)
		}
	}
}
