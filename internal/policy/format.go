package policy

import (
	"slices"
	"strings"
	"unicode/utf8"

	"quaywall/internal/diag"
	"quaywall/internal/policy/tree"
)

// Format writes a policy or a fragment in its canonical form: keys in their usual order, rules a key a line, lists and
// small mappings on one line where they fit, quotes where they are needed. Comments stay with what they stand at. No word
// changes, and formatting twice is formatting once. It works on policies that are wrong as long as their syntax is right;
// errors in the list are of syntax, or of a comment for which there is no place, at places in the file of that name, and
// then there is no text.
func Format(name string, source []byte) ([]byte, diag.List) {
	doc, list := tree.Parse(name, source)
	if list.HasErrors() {
		return nil, list
	}
	p := &printer{comments: attach(doc, source)}
	p.document(&doc.Root)
	text := p.text()
	if list := lost(name, doc.Comments, text); list.HasErrors() {
		return nil, list
	}
	return text, nil
}

// lost tells which comments a text doesn't have as often as they were written. There are none unless the printer is wrong,
// and then its text must not take the place of the one that has them.
func lost(name string, comments []tree.Comment, text []byte) diag.List {
	kept := map[string]int{}
	if len(comments) > 0 {
		doc, _ := tree.Parse(name, text)
		for _, c := range doc.Comments {
			kept[c.Text]++
		}
	}
	var list diag.List
	for _, c := range comments {
		if kept[c.Text]--; kept[c.Text] < 0 {
			list.Errorf(diag.Pos{File: name, Line: int(c.Line), Col: int(c.Col)}, "put it on a line of its own",
				"the canonical form has no place for this comment")
		}
	}
	return list
}

const (
	lineWidth  = 100 // characters up to which a list or mapping stays on one line
	maxAligned = 72  // longer lines don't push the comments of their neighbours away
	maxPadding = 24
)

// topKeys is the order of a policy's keys.
var topKeys = []string{"version", "sets", "services", "inbound", "egress", "outbound", "defaults", "trusted", "log", "established",
	"docker-repair", "hygiene", "include", "raw"}

// formatKeys is the order of a rule's keys: what happens to what, where it begins, from where to where.
var formatKeys = []string{"allow", "deny", "reject", "container", "service", "label", "network", "from", "to", "on", "limit", "log", "note"}

// outLine is a line of the output. Lines of one group have their comments in one column.
type outLine struct {
	text    string
	comment string
	group   int
}

type printer struct {
	*comments
	lines []outLine
	group int
}

// pair is a key and its value.
type pair struct{ key, value *tree.Node }

// ordered gives the pairs of a mapping in the order of some keys, others behind these as they stand.
func ordered(n *tree.Node, keys []string) []pair {
	var pairs []pair
	for k, v := range n.Pairs() {
		pairs = append(pairs, pair{k, v})
	}
	rank := func(p pair) int {
		if i := slices.Index(keys, p.key.Text); i >= 0 {
			return i
		}
		return len(keys)
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return rank(a) - rank(b) })
	return pairs
}

func (p *printer) document(root *tree.Node) {
	p.own(0, p.header)
	if len(p.header) > 0 {
		p.blank()
	}
	switch {
	case root.Kind == tree.Map && len(root.Items) > 0:
		p.top(ordered(root, topKeys))
	case !root.IsNull() || root.Text != "":
		p.value("", root, root, 0, true)
	}
	if len(p.footer) > 0 && p.footer[0].blank {
		p.blank()
	}
	p.own(0, p.footer)
}

// top writes the keys of the policy: sections with empty lines around them, settings as close as they were.
func (p *printer) top(pairs []pair) {
	spread := true
	for i, x := range pairs {
		head := p.head[x.key]
		_, short := p.oneLine(x.value)
		large := isLarge(x) || len(head) > 0 || !short
		if i > 0 && (spread || large || p.blankBefore(x.key)) {
			p.blank()
			p.group++
		}
		start := len(p.lines)
		p.own(0, head)
		p.topPair(x)
		spread = isLarge(x) || len(p.lines)-start > 1+len(head)
	}
}

// isLarge tells whether a key is written with its entries a line each.
func isLarge(x pair) bool {
	return len(x.value.Items) > 0 && (isSection(x.key.Text) || isNames(x.key.Text))
}

func isSection(key string) bool { return key == "inbound" || key == "egress" || key == "outbound" }
func isNames(key string) bool   { return key == "sets" || key == "services" }

func (p *printer) topPair(x pair) {
	lead := word(x.key, false) + ":"
	switch {
	case isLarge(x) && isSection(x.key.Text) && x.value.Kind == tree.List:
		p.line(lead, p.tail[x.key])
		for i := range x.value.Items {
			p.rule(&x.value.Items[i], i > 0)
		}
		p.own(2, p.foot[x.value])
	case isLarge(x) && isNames(x.key.Text) && x.value.Kind == tree.Map:
		p.line(lead, p.tail[x.key])
		p.names(x.value)
	default:
		p.value(lead, x.key, x.value, 0, false)
	}
}

// rule writes an item of a section.
func (p *printer) rule(n *tree.Node, further bool) {
	head := p.head[n]
	if further && (p.blankBefore(n) && len(head) == 0 || len(head) > 0 && head[0].blank) {
		p.blank()
	}
	p.own(2, head)
	if n.Kind != tree.Map || len(n.Items) == 0 {
		p.value("  -", n, n, 2, false)
		return
	}
	p.item(n, ordered(n, formatKeys), 2)
}

// item writes a mapping behind a dash. The comment behind the braces that it stood in goes to the end of its first line, or
// before it where that line has one.
func (p *printer) item(n *tree.Node, pairs []pair, indent int) {
	if first := pairs[0].key; p.tail[first] == "" {
		p.tail[first] = p.tail[n]
	} else {
		p.own(indent, p.tailAlone(n))
	}
	for i, x := range pairs {
		lead := strings.Repeat(" ", indent) + "- "
		if i > 0 {
			lead = strings.Repeat(" ", indent+2)
			p.own(indent+2, dense(p.head[x.key]))
		} else {
			p.own(indent, dense(p.head[x.key]))
		}
		p.value(lead+word(x.key, false)+":", x.key, x.value, indent+2, false)
	}
	p.own(indent+2, dense(p.foot[n]))
}

// tailAlone is the comment behind an entry, for a line of its own.
func (p *printer) tailAlone(n *tree.Node) []ownComment {
	if p.tail[n] == "" {
		return nil
	}
	return []ownComment{{text: p.tail[n]}}
}

// dense is comments without the empty lines between them.
func dense(comments []ownComment) []ownComment {
	comments = slices.Clone(comments)
	for i := range comments {
		comments[i].blank = false
	}
	return comments
}

// names writes sets or services, their values in one column.
func (p *printer) names(n *tree.Node) {
	pairs := ordered(n, nil)
	width := 0
	for _, x := range pairs {
		if w := utf8.RuneCountInString(word(x.key, false)); w <= maxPadding {
			width = max(width, w)
		}
	}
	for i, x := range pairs {
		head := p.head[x.key]
		if i > 0 && (p.blankBefore(x.key) && len(head) == 0 || len(head) > 0 && head[0].blank) {
			p.blank()
		}
		p.own(2, head)
		name := word(x.key, false)
		padding := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(name)))
		if flow, ok := p.oneLine(x.value); ok && flow != "" && fits("  "+name+": "+padding+flow) {
			p.line("  "+name+": "+padding+flow, p.tail[x.key])
		} else {
			p.value("  "+name+":", x.key, x.value, 2, false)
		}
	}
	p.own(2, p.foot[n])
}

// value writes a value behind what leads to it, on the same line where it fits and no comment stands in it. The anchor is
// what the comment at the end of the line belongs to.
func (p *printer) value(lead string, anchor, v *tree.Node, indent int, bare bool) {
	if flow, ok := p.oneLine(v); ok && !(bare && len(v.Items) > 0) {
		line := flow
		if lead != "" && line != "" {
			line = lead + " " + line
		} else {
			line = lead + line
		}
		if fits(line) || v.Kind == tree.Scalar {
			p.line(line, p.tail[anchor])
			return
		}
	}
	switch {
	case bare:
	case anchor == v: // behind a dash alone a comment would be one before what follows
		p.own(indent, p.tailAlone(v))
		p.line(lead, "")
		indent += 2
	default:
		p.line(lead, p.tail[anchor])
		indent += 2
	}
	if v.Kind == tree.List {
		p.list(v, indent)
		return
	}
	for _, x := range ordered(v, nil) {
		p.own(indent, dense(p.head[x.key]))
		p.value(strings.Repeat(" ", indent)+word(x.key, false)+":", x.key, x.value, indent, false)
	}
	p.own(indent, dense(p.foot[v]))
}

// list writes a list an item a line.
func (p *printer) list(n *tree.Node, indent int) {
	for i := range n.Items {
		item := &n.Items[i]
		p.own(indent, dense(p.head[item]))
		if _, ok := p.oneLine(item); !ok && item.Kind == tree.Map {
			p.item(item, ordered(item, nil), indent)
			continue
		}
		p.value(strings.Repeat(" ", indent)+"-", item, item, indent, false)
	}
	p.own(indent, dense(p.foot[n]))
}

func fits(line string) bool { return utf8.RuneCountInString(line) <= lineWidth }

// oneLine writes a value on one line, false where comments inside of it forbid that.
func (p *printer) oneLine(n *tree.Node) (string, bool) {
	if len(p.foot[n]) > 0 {
		return "", false
	}
	var parts []string
	switch n.Kind {
	case tree.Scalar:
		return word(n, false), true
	case tree.List:
		for i := range n.Items {
			text, ok := p.flowItem(&n.Items[i], &n.Items[i])
			if !ok {
				return "", false
			}
			if text == "" {
				text = "null" // nothing between commas would be no item
			}
			parts = append(parts, text)
		}
		return "[" + strings.Join(parts, ", ") + "]", true
	}
	for k, v := range n.Pairs() {
		text, ok := p.flowItem(k, v)
		if !ok {
			return "", false
		}
		parts = append(parts, word(k, true)+": "+text)
	}
	return "{" + strings.Join(parts, ", ") + "}", true
}

// flowItem writes an entry of a list or mapping on one line.
func (p *printer) flowItem(anchor, v *tree.Node) (string, bool) {
	if len(p.head[anchor]) > 0 || p.tail[anchor] != "" {
		return "", false
	}
	if v.Kind == tree.Scalar {
		return word(v, true), true
	}
	return p.oneLine(v)
}

func (p *printer) line(text, comment string) {
	p.lines = append(p.lines, outLine{text, comment, p.group})
}

func (p *printer) blank() { p.lines = append(p.lines, outLine{group: p.group}) }

// own writes comments on lines of their own.
func (p *printer) own(indent int, comments []ownComment) {
	for i, c := range comments {
		if i > 0 && c.blank {
			p.blank()
		}
		p.line(strings.Repeat(" ", indent)+c.text, "")
	}
}

// text puts the lines together, the comments of each group in one column.
func (p *printer) text() []byte {
	column := map[int]int{}
	for _, l := range p.lines {
		if width := utf8.RuneCountInString(l.text); l.comment != "" && width <= maxAligned {
			column[l.group] = max(column[l.group], width)
		}
	}
	var b strings.Builder
	for _, l := range p.lines {
		b.WriteString(l.text)
		if l.comment != "" {
			padding := max(0, column[l.group]-utf8.RuneCountInString(l.text))
			b.WriteString(strings.Repeat(" ", padding+2) + l.comment)
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}
