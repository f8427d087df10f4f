package tree

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// sketch writes a tree in a form that both parsers' trees can be put in.
func sketch(n *Node) string {
	switch n.Kind {
	case Scalar:
		return fmt.Sprintf("%q", n.Text)
	case List:
		var items []string
		for i := range n.Items {
			items = append(items, sketch(&n.Items[i]))
		}
		return "[" + strings.Join(items, " ") + "]"
	}
	var pairs []string
	for k, v := range n.Pairs() {
		pairs = append(pairs, sketch(k)+":"+sketch(v))
	}
	return "{" + strings.Join(pairs, " ") + "}"
}

func sketchOther(n *yaml.Node) string {
	var parts []string
	switch n.Kind {
	case 0:
		return `""`
	case yaml.DocumentNode:
		return sketchOther(n.Content[0])
	case yaml.ScalarNode:
		return fmt.Sprintf("%q", n.Value)
	case yaml.SequenceNode:
		for _, c := range n.Content {
			parts = append(parts, sketchOther(c))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			parts = append(parts, sketchOther(n.Content[i])+":"+sketchOther(n.Content[i+1]))
		}
		return "{" + strings.Join(parts, " ") + "}"
	}
	return "?"
}

// FuzzSameAsYAML holds the parser to its promise: what it accepts means the same to another YAML parser.
func FuzzSameAsYAML(f *testing.F) {
	for _, s := range []string{
		"", "# only a comment", "a", "a: 1\nb: [x, y]\n", "- a\n- b: c\n  d: {e: f, g}\n", "a:\n- x\n- y\nb: # c\n  c: 'it''s'\n",
		"---\n# x\na: \"q\\u00e4\\\"\"\n", "a: [\n  1, # one\n  2,\n]\n", "- - a\n  - b\n-\n  c: d\n", "\ufeffa: b\r\nc: d\r\n",
		"a: b: c", "{a: [}", "a: &x 1\nb: *x", "a: |\n x\n", "\ta: b", "a: ~\n", "'a': x\n\"b\":\n  - \"[\"\n", "a:\tb\n", "[a: b]", "{\"a\":b}",
		"x: 2001:db8::1\ny: [2001:db8::]\n", "a: -1\nb: ?x\nc: :x\n", "a: b #c\nd: e#f\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		doc, list := Parse("f", []byte(src))
		if list.HasErrors() {
			return
		}
		var other yaml.Node
		if err := yaml.Unmarshal([]byte(src), &other); err != nil {
			t.Fatalf("accepted, but refused by another parser: %v\n%q\n%s", err, src, sketch(&doc.Root))
		}
		if got, want := sketch(&doc.Root), sketchOther(&other); got != want {
			t.Fatalf("read differently:\n%q\nhere  %s\nthere %s", src, got, want)
		}
	})
}

// TestPlaces: every word and comment is where it is said to be, in characters.
func TestPlaces(t *testing.T) {
	src := "\ufeffgrößer: \"ü\" # eins\nb:\n- c: [d, 'e',\n    {f: g}]\n  # zwei\n- h\n"
	doc, list := Parse("f", []byte(src))
	if len(list) > 0 {
		t.Fatal(list)
	}
	lines := strings.Split(strings.TrimPrefix(src, "\ufeff"), "\n")
	var check func(n *Node)
	found := 0
	check = func(n *Node) {
		if n.Kind == Scalar {
			found++
			rest := string([]rune(lines[n.Line-1])[n.Col-1:])
			if want := []string{"", "'", `"`}[n.Style] + n.Text; !strings.HasPrefix(rest, want) {
				t.Errorf("%q is not at %d:%d, where %q is", want, n.Line, n.Col, rest)
			}
		}
		for i := range n.Items {
			check(&n.Items[i])
		}
	}
	check(&doc.Root)
	if found != 9 {
		t.Errorf("%d words", found)
	}
	want := []Comment{{Line: 1, Col: 13, Text: "# eins"}, {Line: 5, Col: 3, Text: "# zwei", OwnLine: true}}
	if !slices.Equal(doc.Comments, want) {
		t.Errorf("%+v", doc.Comments)
	}
	if flow := doc.Root.Items[3].Items[0].Items[1]; !flow.Flow || flow.Line != 3 || flow.EndLine != 4 {
		t.Errorf("%+v", flow)
	}
}
