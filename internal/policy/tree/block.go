package tree

import (
	"strings"

	"quaywall/internal/diag"
)

// blockNode reads the node that begins at the present place: the first content of a line, or what stands behind the
// dash of a list. It ends at the beginning of the next line that is not part of it.
func (p *parser) blockNode() Node {
	if p.depth++; p.depth > maxDepth {
		p.errorHere("", "nested deeper than %d levels", maxDepth)
		p.stop()
	}
	defer func() { p.depth-- }()
	indent := p.indent
	switch c := p.peek(0); {
	case p.stopped:
		return p.here(Bad)
	case p.atDash():
		return p.blockList(indent)
	case c == '[' || c == '{':
		n, ok := p.flowNode(indent - 1)
		return p.finishLine(n, ok, indent)
	}
	n, ok := p.scalar(false)
	if ok && p.atColon(false) {
		return p.blockMap(n, indent)
	}
	return p.finishLine(n, ok, indent)
}

// here is an empty node at the present place.
func (p *parser) here(k Kind) Node {
	return Node{Kind: k, Line: int32(p.line), Col: int32(p.col(p.i)), EndLine: int32(p.line)}
}

// finishLine ends a line behind a word or a flow node, or gives the line up after a mistake.
func (p *parser) finishLine(n Node, ok bool, indent int) Node {
	if !ok {
		if len(n.Items) == 0 {
			n.Kind = Bad
		}
		p.skip(indent)
		return n
	}
	if !p.endOfLine() {
		p.errorBehind(&n)
		p.skip(indent)
		return n
	}
	p.advance()
	return n
}

// errorBehind tells what is wrong with what stands behind a complete value.
func (p *parser) errorBehind(n *Node) {
	switch {
	case p.peek(0) == '\t':
		p.errorTab()
	case p.peek(0) == ':' && n.Kind == Scalar:
		p.errorHere("put quotes around the value, or the second key on a line of its own", "a second colon in one line")
	case n.Kind == Scalar && n.Style == Plain:
		p.errorHere("put quotes around the value", "this can't stand behind %q", n.Text)
	default:
		p.errorHere("a comma or the end of the line is missing", "this can't stand behind the %s", describe(n))
	}
}

func describe(n *Node) string {
	if n.Kind == Scalar {
		return "quoted text"
	}
	return n.Kind.String()
}

// skip gives the present line up, and the lines that belong to it: those indented further than indent.
func (p *parser) skip(indent int) {
	if !p.ahead {
		p.advance()
	}
	p.ahead = false
	for p.indent > indent {
		p.advance()
	}
}

// atDash tells whether an item of a list begins here.
func (p *parser) atDash() bool { return p.peek(0) == '-' && isBlank(p.peek(1)) }

// atColon passes spaces and tells whether the colon of a key comes. In a flow mapping a colon may touch what follows a
// quoted key; elsewhere a space has to.
func (p *parser) atColon(flow bool) bool {
	for p.peek(0) == ' ' {
		p.i++
	}
	return p.peek(0) == ':' && (isBlank(p.peek(1)) || flow && isFlow(p.peek(1)))
}

func (p *parser) blockList(indent int) Node {
	n := p.here(List)
	for p.indent == indent && p.atDash() {
		p.i++
		n.EndLine = int32(p.line)
		item := p.here(Scalar)
		if p.endOfLine() {
			p.advance()
			if p.indent > indent {
				item = p.blockNode()
			}
		} else {
			p.indent = p.i - p.bol
			item = p.blockNode()
		}
		n.Items = append(n.Items, item)
		n.EndLine = max(n.EndLine, item.EndLine)
		p.skipDeeper(indent)
	}
	return n
}

// skipDeeper refuses lines that are indented further than the block that has just had a complete entry.
func (p *parser) skipDeeper(indent int) {
	for p.indent > indent {
		p.badIndent()
		p.skip(indent)
	}
}

// blockMap reads a mapping whose first key has been read and whose colon is next.
func (p *parser) blockMap(first Node, indent int) Node {
	n := Node{Kind: Map, Line: first.Line, Col: first.Col}
	seen := keys{}
	key, ok := first, true
	for {
		if ok {
			p.blockPair(&n, &seen, key, indent)
		}
		p.skipDeeper(indent)
		if p.indent != indent || p.stopped {
			return n
		}
		if p.atDash() {
			p.errorHere("indent it as the value of a key, or give it a key", "an item of a list among keys")
			p.skip(indent)
			ok = false
			continue
		}
		if key, ok = p.blockKey(); !ok {
			p.skip(indent)
		}
	}
}

// blockKey reads the key of a further pair up to its colon.
func (p *parser) blockKey() (Node, bool) {
	start := p.pos()
	key, ok := p.keyNode()
	if ok && !p.atColon(false) {
		hint := "write KEY: VALUE"
		if strings.Contains(key.Text, ":") {
			hint = "put a space behind the colon"
		}
		p.errorAt(start, hint, "a key and its colon are expected here, not %q", short(key.Text))
		return key, false
	}
	return key, ok
}

func (p *parser) keyNode() (Node, bool) {
	if c := p.peek(0); c == '[' || c == '{' {
		p.errorHere("write KEY: VALUE", "a key is a word, not a %s", map[byte]Kind{'[': List, '{': Map}[c])
		return Node{}, false
	}
	return p.scalar(false)
}

// short keeps a message on its line.
func short(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// blockPair reads the colon and the value of a key.
func (p *parser) blockPair(n *Node, seen *keys, key Node, indent int) {
	p.i++ // the colon
	value := Node{Line: key.Line, Col: key.Col, EndLine: key.Line}
	switch {
	case p.endOfLine():
		p.advance()
		if p.indent > indent {
			value = p.blockNode()
		} else if p.indent == indent && p.atDash() {
			value = p.blockList(indent)
		}
	default:
		value = p.inlineValue(indent)
	}
	n.EndLine = max(key.EndLine, value.EndLine)
	p.addPair(n, seen, key, value)
}

// inlineValue reads a value that stands on the line of its key.
func (p *parser) inlineValue(indent int) Node {
	if p.atDash() {
		n := p.here(Bad)
		p.errorHere("write the list as [a, b], or each item on a line of its own", "a list can't begin behind its key")
		p.skip(indent)
		return n
	}
	if c := p.peek(0); c == '[' || c == '{' {
		n, ok := p.flowNode(indent)
		return p.finishLine(n, ok, indent)
	}
	n, ok := p.scalar(false)
	return p.finishLine(n, ok, indent)
}

// keys are the keys of one mapping that were seen: a scan for few, an index for many.
type keys struct{ index map[string]int32 }

// addPair adds a pair to a mapping, unless the key stands there already or can't be one.
func (p *parser) addPair(n *Node, seen *keys, key, value Node) {
	at := diag.Pos{File: p.file, Line: int(key.Line), Col: int(key.Col)}
	if line := seen.line(n, key.Text); line > 0 {
		p.errorAt(at, "keep one", "the key %q stands here twice; the first is in line %d", short(key.Text), line)
		return
	}
	switch {
	case key.Text == "<<" && key.Style == Plain:
		p.errorAt(at, "write the keys out", "merge keys are not used in policies")
		return
	case key.IsNull() && key.Text == "":
		p.errorAt(at, "write KEY: VALUE", "a key is missing before the colon")
		return
	case len(key.Text) > maxKey:
		p.errorAt(at, "", "a key longer than %d characters", maxKey)
		return
	}
	seen.add(n, key)
	n.Items = append(n.Items, key, value)
}

const manyKeys = 16

// line is where a key stood before, 0 where it did not.
func (k *keys) line(n *Node, text string) int32 {
	if k.index != nil {
		return k.index[text]
	}
	for i := 0; i < len(n.Items); i += 2 {
		if n.Items[i].Text == text {
			return n.Items[i].Line
		}
	}
	return 0
}

// add makes a key known; n does not hold it yet.
func (k *keys) add(n *Node, key Node) {
	if k.index == nil && len(n.Items) >= 2*manyKeys {
		k.index = make(map[string]int32)
		for i := 0; i < len(n.Items); i += 2 {
			k.index[n.Items[i].Text] = n.Items[i].Line
		}
	}
	if k.index != nil {
		k.index[key.Text] = key.Line
	}
}
