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

// TestFormatLost: a text with a comment less is refused, and where the comment stood is said.
func TestFormatLost(t *testing.T) {
	source := "a: 1 # x\nb: 2 # y\nc: 3 # x\n"
	doc, _ := tree.Parse("p", []byte(source))
	for text, want := range map[string]string{
		source:                         "",
		"c: 3 # x\n# x\n\n# y\nb: 2\n": "",
		"a: 1 # x\nb: 2 # y\nc: 3\n":   "p:3:6: error: the canonical form has no place for this comment (put it on a line of its own)",
		"a: \"# y\"\n# x\n# x\n":       "p:2:6: error: the canonical form has no place for this comment (put it on a line of its own)",
	} {
		if got := lost("p", doc.Comments, []byte(text)).Error(); got != want {
			t.Errorf("%q: %s", text, got)
		}
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

// strange are texts that were once formatted wrongly, and comments in every place that a text has for them.
var strange = []string{
	"n: 1\ninbound:\n bound:\n -", " ...", " --- x", " 8:\n #", "{}", "\u2005", ".: #\n nd:\n #i1bopnd:\n  -",
	"n: #\n     ssh, #", "a: {b: , c}\n", "a: [b: ]\n", "a:\n  - \"null\"\n  - null\n  - \"\"\n  -\n", "a: \"x#y\"\nb: \"x #y\"\n",
	"inbound:\n  - # one\n    allow: ssh # two\n    # three\n\n  # four\n\n# five\n\n# six\n", "# one\n\n# two\n\n# three\na: 1\n",
	"inbound: # one\n  # two\n  - ssh # three\n  # four\negress: []\n",
	"version: 1\ninbound:\n  - {allow: 80}  # one\n  - {allow: [http, https]}   # two\n  - {allow: 53/udp, from: office}   # three\n",
	"inbound:\n  - { # one\n    # two\n    allow: 80, # three\n    # four\n    from: a # five\n    # six\n    } # seven\n  # eight\n  - ssh\n",
	"inbound:\n  - {from: a, allow: [ # one\n    80, # two\n    # three\n    443 # four\n    ]} # five\n",
	"inbound: # one\n  [ # two\n    {allow: 80}, # three\n    ssh # four\n    # five\n  ] # six\n# seven\n",
	"inbound:\n  - { # one\n    } # two\n  - [ # three\n    # four\n    ] # five\n  - {} # six\n  - [] # seven\n  - # eight\n",
	"sets: # one\n  a: {b: c} # two\n  # three\n  d: # four\n    # five\n  e: # six\n    [f, g] # seven\n  # eight\n# nine\n",
	"raw: # one\n  # two\n  - {a: b, # three\n     c: d} # four\n  - - e # five\n    # six\n    - {f: g} # seven\n",
	"{ # one\n  a: b, # two\n  # three\n  c: d # four\n  # five\n} # six\n# seven", "[ # one\n  a, # two\n  {b: c}, # three\n  {d: # four\n    e}\n] # five",
	"--- # one\n# two\na: 1 # three\n# four", "a # one\n# two", "- [ #\n  0] #", "\u2005\n# one", "- {a: b} # one\n- {c: # two\n   d} # three\n- [e] # four\n",
}

func TestFormatStrange(t *testing.T) {
	for _, text := range strange {
		t.Run("", func(t *testing.T) { checkFormat(t, []byte(text)) })
	}
}

// TestFormatCommentAnywhere puts one more comment into texts, wherever one may stand.
func TestFormatCommentAnywhere(t *testing.T) {
	put := 0
	for _, text := range strange {
		for i := range len(text) + 1 {
			for _, comment := range []string{" # new\n", " # new\n      ", "\n# new\n", "\n  # new\n  ", "\n      # new\n\n      "} {
				source := text[:i] + comment + text[i:]
				if doc, list := tree.Parse("p", []byte(source)); !list.HasErrors() && len(doc.Comments) > 0 {
					put++
					checkFormat(t, []byte(source))
				}
			}
		}
	}
	if put < 1000 {
		t.Errorf("only %d times", put)
	}
}

// TestFormatFlowComments: a comment behind a rule on one line stays on the first line of that rule, and none goes to the end
// of the section.
func TestFormatFlowComments(t *testing.T) {
	for text, want := range map[string]string{
		"  - {allow: 80}  # web":                                 "  - allow: 80  # web\n",
		"  - ssh\n    # further in\n  - http":                    "  - ssh\n  # further in\n  - http\n",
		"  - {from: office, allow: 53/udp} # dns":                "  - allow: 53/udp  # dns\n    from: office\n",
		"  - {allow: 80}  # web\n  - {allow: 53/udp}  # dns":     "  - allow: 80      # web\n  - allow: 53/udp  # dns\n",
		"  - { # web\n    allow: 80, # port\n    from: office }": "  # web\n  - allow: 80  # port\n    from: office\n",
	} {
		if got := checkFormat(t, []byte("inbound:\n"+text)); string(got) != "inbound:\n"+want {
			t.Errorf("%s became\n%s", text, got)
		}
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
