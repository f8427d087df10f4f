package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"quaywall/internal/policy/tree"
)

// word writes a word, in quotes where it needs them: in flow, inside of brackets or braces, more do.
func word(n *tree.Node, flow bool) string {
	if n.Text == "" && n.Style == tree.Plain {
		return ""
	}
	if isPlain(n.Text) || !needsQuotes(n, flow) {
		return n.Text
	}
	return quote(n.Text)
}

// isPlain knows most words at a glance.
func isPlain(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' && r != 'n' && r != 't' && r != 'f' && r != 'y' && r != 'o' || r >= '1' && r <= '9' && len(s) > 1
		if i == 0 && !letter || i > 0 && !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("._/-*", r)) {
			return false
		}
	}
	return s != ""
}

// disputed are plain words that YAML readers take for something else than a word.
var disputed = []string{"~", "null", "true", "false", "yes", "no", "on", "off", "y", "n"}

// needsQuotes tells whether a word would be read as something else without them, by this package or, where somebody
// took care to quote it, by another reader of YAML. A colon always gets them: in addresses it looks better than without.
func needsQuotes(n *tree.Node, flow bool) bool {
	quoted := n.Style != tree.Plain
	switch {
	case strings.Contains(n.Text, ":"), strings.HasPrefix(n.Text, "---"), strings.HasPrefix(n.Text, "..."):
		return true
	case quoted && (slices.Contains(disputed, strings.ToLower(n.Text)) || strings.Trim(n.Text, "+-.0123456789exoabcdf_") == ""):
		return true
	}
	text := "- " + n.Text + "\n"
	if flow {
		text = "- [" + n.Text + "]\n"
	}
	doc, list := tree.Parse("", []byte(text))
	if list.HasErrors() || doc.Root.Kind != tree.List || len(doc.Root.Items) != 1 || len(doc.Comments) > 0 {
		return true
	}
	read := &doc.Root.Items[0]
	if flow {
		if read.Kind != tree.List || len(read.Items) != 1 {
			return true
		}
		read = &read.Items[0]
	}
	return read.Kind != tree.Scalar || read.Style != tree.Plain || read.Text != n.Text || read.IsNull() != n.IsNull()
}

// quote writes a word in double quotes.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString("\\" + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x100 && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case !unicode.IsPrint(r) && r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
