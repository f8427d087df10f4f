package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quaywall/internal/diag"
	"quaywall/internal/netset"
	"quaywall/internal/policy/tree"
)

// TestFormatGolden shows the canonical form.
func TestFormatGolden(t *testing.T) {
	files, _ := filepath.Glob("testdata/format/*.yaml")
	if len(files) == 0 {
		t.Fatal("no files")
	}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, list := Format("p", source)
		if len(list) > 0 {
			t.Errorf("%s: %v", name, list)
			continue
		}
		golden := strings.TrimSuffix(name, ".yaml") + ".golden"
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, _ := os.ReadFile(golden)
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (- wanted, + got):\n%s", name, diff)
		}
	}
}

func TestFormatOfCanonical(t *testing.T) {
	for name, text := range map[string]string{"the default": DefaultText, "nothing": "", "a comment": "# nothing\n"} {
		got, list := Format("p", []byte(text))
		if len(list) > 0 || string(got) != text {
			t.Errorf("%s changed: %v\n%s", name, list, got)
		}
	}
}

func TestFormatRefusesBadSyntax(t *testing.T) {
	got, list := Format("p", []byte("version: 1\ninbound: [\n"))
	if got != nil || list.Error() != `p:2:10: error: the list that begins here is not closed before the end (close it by "]", or indent its lines further)` {
		t.Errorf("%q %v", got, list)
	}
}

// sketch is a tree without places, styles and the order of keys.
func sketch(n *tree.Node) string {
	var parts []string
	switch n.Kind {
	case tree.Scalar:
		if n.IsNull() {
			return "null"
		}
		return quote(n.Text)
	case tree.List:
		for i := range n.Items {
			parts = append(parts, sketch(&n.Items[i]))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	for k, v := range n.Pairs() {
		parts = append(parts, sketch(k)+":"+sketch(v))
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, " ") + "}"
}

func commentsOf(d *tree.Doc) []string {
	var all []string
	for _, c := range d.Comments {
		all = append(all, c.Text)
	}
	slices.Sort(all)
	return all
}

// checkFormat holds Format to its promises for one text. It gives the canonical form.
func checkFormat(t *testing.T, source []byte) []byte {
	t.Helper()
	before, list := tree.Parse("", source)
	got, formatList := Format("p", source)
	if list.HasErrors() != formatList.HasErrors() || list.HasErrors() != (got == nil) {
		t.Fatalf("%q: %v, %v", source, list, formatList)
	}
	if list.HasErrors() {
		return nil
	}
	after, list := tree.Parse("", got)
	if list.HasErrors() {
		t.Fatalf("%q became\n%s\n%v", source, got, list)
	}
	if a, b := sketch(&before.Root), sketch(&after.Root); a != b {
		t.Fatalf("%q became\n%s\nwhich means something else:\n%s\n%s", source, got, a, b)
	}
	if diff := cmp.Diff(commentsOf(before), commentsOf(after)); diff != "" {
		t.Fatalf("%q became\n%s\nwith other comments:\n%s", source, got, diff)
	}
	again, _ := Format("p", got)
	if diff := cmp.Diff(string(got), string(again)); diff != "" {
		t.Fatalf("%q became\n%s\nand then something else:\n%s", source, got, diff)
	}
	return got
}

// withoutPlaces is a policy as it would be had its text stood elsewhere.
func withoutPlaces(p *Policy) *Policy {
	c := *p
	c.Hash, c.Written = "", ""
	forgetPlaces(&c)
	c.Sets, c.Services = slices.Clone(c.Sets), slices.Clone(c.Services)
	for i := range c.Sets {
		c.Sets[i].Pos = diag.Pos{}
	}
	for i := range c.Services {
		c.Services[i].Pos = diag.Pos{}
	}
	c.Raw.NFT.Pos, c.Raw.IPTables.Pos = diag.Pos{}, diag.Pos{}
	return &c
}

// TestFormatKeepsMeaning formats all policies of the tests, and loads those that can be.
func TestFormatKeepsMeaning(t *testing.T) {
	loaded := 0
	for _, text := range texts(t) {
		got := checkFormat(t, []byte(text))
		before, _ := Parse("p", []byte(text))
		after, list := Parse("p", got)
		if (before == nil) != (after == nil) {
			t.Fatalf("%q became\n%s\n%v", text, got, list)
		}
		if before == nil {
			continue
		}
		loaded++
		if diff := cmp.Diff(withoutPlaces(before), withoutPlaces(after), cmp.Comparer(netset.Set.Equal)); diff != "" {
			t.Fatalf("%q became\n%s\n%s", text, got, diff)
		}
	}
	if loaded < 40 {
		t.Errorf("only %d policies were loaded", loaded)
	}
}

// TestFormatStrange holds texts that were once formatted wrongly.
func TestFormatStrange(t *testing.T) {
	for _, text := range []string{
		"n: 1\ninbound:\n bound:\n -", " ...", " --- x", " 8:\n #", "{}", "\u2005", ".: #\n nd:\n #i1bopnd:\n  -",
		"n: #\n     ssh, #", "a: {b: , c}\n", "a: [b: ]\n", "a:\n  - \"null\"\n  - null\n  - \"\"\n  -\n", "a: \"x#y\"\nb: \"x #y\"\n",
		"inbound:\n  - # one\n    allow: ssh # two\n    # three\n\n  # four\n\n# five\n\n# six\n", "# one\n\n# two\n\n# three\na: 1\n",
		"inbound: # one\n  # two\n  - ssh # three\n  # four\negress: []\n",
	} {
		checkFormat(t, []byte(text))
	}
}

// texts are the policies of the tests.
func texts(tb testing.TB) []string {
	all := []string{design, DefaultText, manyRules(3)}
	groups, _ := filepath.Glob("testdata/mistakes/*.txt")
	for _, group := range groups {
		text, err := os.ReadFile(group)
		if err != nil {
			tb.Fatal(err)
		}
		for _, m := range mistakes(tb, string(text)) {
			all = append(all, m.files["policy.yaml"])
		}
	}
	messy, err := os.ReadFile("testdata/format/messy.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	return append(all, string(messy))
}
