package tree

import "fmt"

// flowNode reads a list in brackets or a mapping in braces. Its further lines must be indented more than indent, the
// indentation of what it belongs to, unless they begin with what closes it: otherwise one bracket that was forgotten
// would swallow the rest of the file. False means that the rest of the line is not worth reading.
func (p *parser) flowNode(indent int) (Node, bool) {
	if p.depth++; p.depth > maxDepth {
		p.errorHere("", "nested deeper than %d levels", maxDepth)
		p.stop()
		return p.here(Bad), false
	}
	defer func() { p.depth-- }()
	f := flow{p: p, indent: indent, open: p.here(List), close: ']'}
	if p.peek(0) == '{' {
		f.open.Kind, f.close = Map, '}'
	}
	f.open.Flow = true
	p.i++
	ok := f.entries()
	f.open.EndLine = int32(p.line)
	return f.open, ok
}

// flow is one list or mapping while it is read.
type flow struct {
	p      *parser
	indent int
	open   Node
	close  byte
	seen   keys
}

func (f *flow) entries() bool {
	for {
		if !f.space() {
			return false
		}
		if f.p.peek(0) == f.close {
			f.p.i++
			return true
		}
		if !f.entry() || !f.space() {
			return false
		}
		switch c := f.p.peek(0); c {
		case ',':
			f.p.i++
		case f.close:
		default:
			f.unexpected(c)
			return false
		}
	}
}

// unexpected tells what is wrong where a comma or the end is due.
func (f *flow) unexpected(c byte) {
	switch {
	case c == '\t':
		f.p.errorTab()
	case c == ':' && f.open.Kind == List:
		f.p.errorHere(`put quotes around an address that ends in a colon: "2001:db8::"`, "a key in a list")
	case c == ']' || c == '}':
		f.p.errorHere("", "%q closes what %q did not open", string(c), map[byte]string{']': "{", '}': "["}[c])
	default:
		f.p.errorHere("", "a comma is missing here, or %q", string(f.close))
	}
}

// space passes white space, comments and ends of lines.
func (f *flow) space() bool {
	p := f.p
	for p.endOfLine() {
		p.advance()
		closing := p.peek(0) == f.close
		if p.indent < 0 || p.indent <= f.indent && !closing || p.indent < f.indent {
			f.unclosed()
			return false
		}
	}
	return !p.stopped
}

// unclosed reports the bracket that has no partner, at the bracket.
func (f *flow) unclosed() {
	at := f.p.pos()
	before := fmt.Sprintf("before line %d", at.Line)
	if f.p.indent < 0 {
		before = "before the end"
	}
	at.Line, at.Col = int(f.open.Line), int(f.open.Col)
	f.p.errorAt(at, fmt.Sprintf("close it by %q, or indent its lines further", string(f.close)),
		"the %s that begins here is not closed %s", f.open.Kind, before)
	f.p.ahead = true
}

// entry reads an item of a list or a pair of a mapping.
func (f *flow) entry() bool {
	p := f.p
	if p.peek(0) == ',' {
		p.errorHere("", "nothing stands before this comma")
		return false
	}
	key, ok := f.node()
	if !ok || f.open.Kind == List {
		if ok {
			f.open.Items = append(f.open.Items, key)
		}
		return ok
	}
	if !ok {
		return false
	}
	if key.Kind != Scalar {
		p.errorAt(p.pos(), "write KEY: VALUE", "a key is a word, not a %s", key.Kind)
		return false
	}
	value := Node{Line: key.Line, Col: key.Col, EndLine: key.Line}
	if p.atColon(true) || key.Style != Plain && p.peek(0) == ':' {
		p.i++
		if !f.space() {
			return false
		}
		if c := p.peek(0); c != ',' && c != f.close {
			if value, ok = f.node(); !ok {
				value.Kind = Bad
			}
		}
	}
	p.addPair(&f.open, &f.seen, key, value)
	return ok
}

func (f *flow) node() (Node, bool) {
	if c := f.p.peek(0); c == '[' || c == '{' {
		return f.p.flowNode(f.indent)
	}
	return f.p.scalar(true)
}
