package policy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"quaywall/internal/diag"
)

// TestStrangeTexts holds cases that testdata/mistakes can't show.
func TestStrangeTexts(t *testing.T) {
	for _, c := range []struct{ name, text, says string }{
		{"a tab in the indentation", "version: 1\ninbound:\n\t- allow: ssh\n",
			"p:3:1: error: a tab in the indentation (indent with spaces)"},
		{"a tab behind spaces", "version: 1\ninbound:\n  - allow: ssh\n  \tfrom: any\n",
			"p:4:3: error: a tab in the indentation (indent with spaces)"},
		{"a tab behind a colon", "version:\t1\n", "p:1:9: error: a tab (use spaces, or put quotes around the text)"},
		{"a tab in a word", "version: 1\ninbound:\n  - allow: ssh\t# why\n",
			"p:3:15: error: a tab (use spaces, or put quotes around the text)"},
		{"a tab in a comment", "version: 1 #\twhy\n", ""},
		{"a tab in quotes", "version: 1\ninbound:\n  - {allow: ssh, note: \"a\tb\"}\n",
			"p:3:24: error: a note is one line of text that can be printed"},
		{"lines that end as on Windows", "version: 1\r\ninbound:\r\n  - allow: shh # why\r\n",
			`p:3:12: error: no service or protocol is called "shh" (did you mean "ssh"?)`},
		{"a byte order mark", "\ufeffversion: 2\n",
			`p:1:10: error: this quaywall knows version 1 of the policy language, not "2" (write version: 1)`},
		{"a second byte order mark", "version: 1\n\ufeff\n",
			"p:2:1: error: a byte order mark or non-character inside of the text (a policy is UTF-8 text)"},
		{"a carriage return", "version: 1\rinbound: []\n",
			"p:1:11: error: a carriage return without a line feed (a policy is UTF-8 text)"},
		{"bytes that are no text", "\x7fELF\x02\x01\x00\x00",
			"p:1:1: error: a control character; this is not a text file (a policy is UTF-8 text)"},
		{"a byte of zero", "version: 1\n# ä\x00\n",
			"p:2:4: error: a control character; this is not a text file (a policy is UTF-8 text)"},
		{"bytes that are not UTF-8", "version: 1\n# gr\xf6\xdfer\n", "p:2:5: error: this byte is not UTF-8 (a policy is UTF-8 text)"},
		{"a line separator", "version: 1 #\u2028x\n",
			"p:1:13: error: a line or paragraph separator (U+2028, U+2029) (a policy is UTF-8 text)"},
		{"something behind the dashes", "--- version: 1\n",
			"p:1:5: error: nothing may stand behind --- (the document begins on the line behind the dashes)"},
		{"a note with an escape", "version: 1\ninbound:\n  - {allow: ssh, note: \"gr\\u00f6\\xdfer \\\"quoted\\\"\"}\n", ""},
		{"no line feed at the end", "version: 1\ninbound: [{allow: ssh}]", ""},
	} {
		_, list := Parse("p", []byte(c.text))
		if got := list.Error(); got != c.says {
			t.Errorf("%s:\n%s\nwant:\n%s", c.name, got, c.says)
		}
	}
}

// TestBigTexts: texts made to take time or memory end soon, with a position. The limit of the test run finds what hangs.
func TestBigTexts(t *testing.T) {
	const size = MaxPolicySize - 100
	rep := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for _, c := range []struct{ name, text, says string }{
		{"brackets", rep("["), "p:1:24: error: nested deeper than 24 levels"},
		{"braces", rep("{a: "), "p:1:93: error: nested deeper than 24 levels"},
		{"dashes", rep("- "), "p:1:49: error: nested deeper than 24 levels"},
		{"anchors", rep("&a "), "p:1:1: error: anchors are not used in policies"},
		{"one long word", rep("x"), "p:1:1: error: a policy is a mapping, not a word"},
		{"one long key", rep("x") + ": 1", "p:1:1: error: a key longer than 200 characters"},
		{"one long quoted word", `"` + rep("\\n"), "p:1:1: error: the quote that begins here is not closed"},
		{"one long line of words", "version: 1\ntrusted: [" + rep("ä, ") + "]",
			`p:2:11: error: an interface can't have "ä" in its name`},
		{"comments", rep("#\n"), "p:1:1: error: the policy is empty"},
		{"line feeds", rep("\n"), "p:1:1: error: the policy is empty"},
		{"colons", rep("a: "), "p:1:5: error: a second colon in one line"},
		{"documents", rep("---\n"), "p:2:1: error: a policy is one YAML document"},
	} {
		_, list := Parse("p", []byte(c.text))
		if got := list.Error(); !strings.Contains(got, c.says) {
			t.Errorf("%s: %.200s\nwant %s", c.name, got, c.says)
		}
		if len(list) > maxTold+1 {
			t.Errorf("%s: %d diagnostics", c.name, len(list))
		}
		list.Format(func(string) []byte { return []byte(c.text) })
	}
}

// TestManyMistakes: what is told is bounded, and a mistake is told rather than warnings.
func TestManyMistakes(t *testing.T) {
	warnings := "version: 1\nsets: {a: {file: a.txt}}\ninbound:\n" + strings.Repeat("  - {allow: ssh, from: {not: 192.0.2.1}, on: lo}\n", 300)
	for _, c := range []struct{ name, text, last, has string }{
		{"mistakes", "version: 1\ninbound:\n" + strings.Repeat("  - {allow: shh}\n", 300), "p: error: there are more mistakes than these", ""},
		{"warnings", warnings, "p: warning: there are more warnings than these", ""},
		{"both", warnings + "  - {allow: ssh, from: 192.0.2.1, to: \"::1\"}\n", "p:304:39: error: from is of IPv4 and to of IPv6: the rule matches nothing", ""},
	} {
		_, _, list := Load(Memory{"p": c.text, "a.txt": ""}, "p")
		if got := list[len(list)-1].Error(); got != c.last || len(list) > maxTold+1 || !strings.Contains(list.Error(), c.has) {
			t.Errorf("%s: %d told, at the end %s", c.name, len(list), got)
		}
	}
}

func TestManyKeys(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("version: 1\nsets:\n")
	for i := range 20000 {
		fmt.Fprintf(&b, "  a%d: 192.0.2.1\n", i)
	}
	b.WriteString("  a7: 192.0.2.2\n")
	_, list := Parse("p", b.Bytes())
	if want := `p:20003:3: error: the key "a7" stands here twice; the first is in line 10 (keep one)`; !strings.Contains(list.Error(), want) {
		t.Errorf("%.300s\nwant %s", list.Error(), want)
	}
}

// TestCarets shows what a person sees.
func TestCarets(t *testing.T) {
	files := Memory{
		"policy.yaml": "version: 1\nsets:\n  friends: {file: friends.txt}\ninbound:\n  - allow: [http, 70000]   # größer\n    from: freinds\n",
		"friends.txt": "192.0.2.1\n\n  192.0.2.300   # wrong\n",
	}
	_, sources, list := Load(files, "policy.yaml")
	want := `friends.txt:3:3: error: "192.0.2.300" is not an address
    3 |   192.0.2.300   # wrong
          ^
  its numbers are 0 to 255
policy.yaml:5:19: error: port 70000 is out of range
    5 |   - allow: [http, 70000]   # größer
                          ^
  ports are 1 to 65535
policy.yaml:6:11: error: there is no set "freinds"
    6 |     from: freinds
                  ^
  did you mean "friends"?
`
	if got := list.Format(sources.Text); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestBadLineOfAMillion: one wrong line of a large file is found, with its place and its text.
func TestBadLineOfAMillion(t *testing.T) {
	var b strings.Builder
	for i := range 1_000_000 {
		if i == 2 {
			b.WriteString("  10.0.0.1/8\n")
			continue
		}
		fmt.Fprintf(&b, "10.%d.%d.%d\n", i>>16, i>>8&255, i&255)
	}
	files := Memory{"p": "version: 1\nsets: {a: {file: f}}\ninbound: [{allow: ssh, from: a}]\n", "f": b.String()}
	p, sources, list := Load(files, "p")
	want := diag.Pos{File: "f", Line: 3, Col: 3}
	if p != nil || len(list) != 1 || list[0].Pos != want {
		t.Fatalf("%v", list)
	}
	if got := string(sources.Text("f")); got != "\n\n  10.0.0.1/8\n" {
		t.Errorf("kept of the file: %.100q", got)
	}
}
