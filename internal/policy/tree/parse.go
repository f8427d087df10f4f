package tree

import (
	"strings"
	"unicode/utf8"

	"quaywall/internal/diag"
)

const (
	maxDepth  = 24  // a policy needs six
	maxErrors = 20  // what a person mends in one go; more are most likely the consequences of one
	maxKey    = 200 // YAML itself ends at 1,024
)

// parser walks the text once. In block context it rests at the first character of a line's content, with indent that
// character's column from 0, or at the end with indent -1.
type parser struct {
	file     string
	src      string
	i        int // offset of the next byte
	line     int
	bol      int // offset of the line's first byte
	indent   int
	depth    int
	ascii    bool
	colOff   int // columns are counted on from here, or a line of a megabyte would cost its square
	colBol   int
	colCount int
	begun    bool // the first line with content was seen
	ahead    bool // the present line is still to be read: a bracket that was not closed ended before it
	stopped  bool // nothing more is read: too deep, too many errors, a second document
	list     diag.List
	comments []Comment
}

// Parse reads a document. The Doc is never nil; with errors in the list it holds what could be read.
func Parse(file string, source []byte) (*Doc, diag.List) {
	p := &parser{file: file, src: strings.TrimPrefix(string(source), byteOrderMark), line: 1}
	doc := &Doc{File: file, Root: Node{Line: 1, Col: 1}}
	if p.checkText() {
		p.document(doc)
	}
	doc.Comments = p.comments
	doc.Broken = p.list.HasErrors()
	return doc, p.list
}

func (p *parser) document(doc *Doc) {
	p.i--
	p.line--
	p.advanceLine()
	p.begun = true
	if p.atMarker("---") {
		p.i += 3
		if !p.endOfLine() {
			p.errorHere("the document begins on the line behind the dashes", "nothing may stand behind ---")
		}
		p.advance()
	}
	if p.indent < 0 {
		return
	}
	doc.Root = p.blockNode()
	for p.indent >= 0 {
		p.badIndent()
		p.skip(p.indent)
	}
}

// badIndent says that a line belongs nowhere.
func (p *parser) badIndent() {
	line, _, _ := strings.Cut(p.src[p.i:], "\n")
	if line = strings.TrimSpace(line); !p.atDash() && !strings.Contains(line, ": ") && !strings.HasSuffix(line, ":") {
		p.errorHere("write it on one line, in quotes if need be", "text can't go on in a second line")
		return
	}
	p.errorHere("align it with the line it belongs to", "an indentation of %d fits no line above", p.indent)
}

func (p *parser) pos() diag.Pos { return diag.Pos{File: p.file, Line: p.line, Col: p.col(p.i)} }

// col is the column of an offset in the present line.
func (p *parser) col(off int) int {
	if p.ascii {
		return off - p.bol + 1
	}
	if p.colBol != p.bol || off < p.colOff || p.colOff < p.bol {
		p.colBol, p.colOff, p.colCount = p.bol, p.bol, 0
	}
	p.colCount += utf8.RuneCountInString(p.src[p.colOff:off])
	p.colOff = off
	return p.colCount + 1
}

// errorHere reports a mistake at the present place.
func (p *parser) errorHere(hint, format string, args ...any) {
	p.errorAt(p.pos(), hint, format, args...)
}

func (p *parser) errorAt(pos diag.Pos, hint, format string, args ...any) {
	if p.stopped {
		return
	}
	p.list.Errorf(pos, hint, format, args...)
	if len(p.list) >= maxErrors {
		p.list.Errorf(pos, "", "too many mistakes; the rest was not read")
		p.stop()
	}
}

// stop makes the rest of the text invisible.
func (p *parser) stop() {
	p.stopped = true
	p.i, p.indent = len(p.src), -1
}

// peek is the byte at an offset from the present one, a line feed behind the end.
func (p *parser) peek(off int) byte {
	if p.i+off < len(p.src) {
		return p.src[p.i+off]
	}
	return '\n'
}

func isBreak(c byte) bool { return c == '\n' || c == '\r' }
func isBlank(c byte) bool { return c == ' ' || c == '\t' || isBreak(c) }
func isFlow(c byte) bool  { return strings.IndexByte(",[]{}", c) >= 0 }

// endOfLine passes spaces and a comment, and tells whether the line ends there.
func (p *parser) endOfLine() bool {
	start := p.i
	for p.peek(0) == ' ' {
		p.i++
	}
	if p.peek(0) == '#' && (p.i > start || p.i == p.bol || p.src[p.i-1] == ' ') {
		p.comment()
	}
	return isBreak(p.peek(0))
}

func (p *parser) comment() {
	end := strings.IndexByte(p.src[p.i:], '\n')
	if end < 0 {
		end = len(p.src) - p.i
	}
	text := p.src[p.i : p.i+end]
	p.comments = append(p.comments, Comment{
		Line: int32(p.line), Col: int32(p.col(p.i)), Text: strings.TrimRight(text, " \t\r"),
		OwnLine: strings.Trim(p.src[p.bol:p.i], " \t") == "",
	})
	p.i += len(strings.TrimSuffix(text, "\r"))
}

// advance goes from the end of a line to the content of the next line that has any.
func (p *parser) advance() {
	for !p.stopped && !isBreak(p.peek(0)) { // the rest of a line that was given up
		p.i++
	}
	p.advanceLine()
}

// advanceLine is advance where the line is known to be at its end.
func (p *parser) advanceLine() {
	for !p.stopped {
		if p.i < len(p.src) && p.i >= 0 && p.src[p.i] == '\r' {
			p.i++
		}
		if p.i >= len(p.src) {
			p.indent = -1
			return
		}
		p.i++
		p.line++
		p.bol = p.i
		if p.contentAhead() {
			return
		}
	}
}

// contentAhead passes the indentation of a line and tells whether something stands behind it.
func (p *parser) contentAhead() bool {
	for p.peek(0) == ' ' {
		p.i++
	}
	if p.peek(0) == '\t' {
		p.errorHere("indent with spaces", "a tab in the indentation")
		for !isBreak(p.peek(0)) {
			p.i++
		}
		return false
	}
	if p.endOfLine() {
		if p.i >= len(p.src) {
			p.indent = -1
			return true
		}
		return false
	}
	p.indent = p.i - p.bol
	return !p.atSecondDocument()
}

// atMarker tells whether a line of its own begins with "---" or "...".
func (p *parser) atMarker(marker string) bool {
	return p.indent == 0 && p.i == p.bol && strings.HasPrefix(p.src[p.i:], marker) && isBlank(p.peek(3))
}

// atSecondDocument refuses whatever ends the first document, and directives.
func (p *parser) atSecondDocument() bool {
	switch {
	case p.atMarker("---") && p.begun, p.atMarker("..."):
		p.errorHere("keep the first and remove the rest", "a policy is one YAML document")
	case p.indent == 0 && p.peek(0) == '%':
		p.errorHere("remove the line", "YAML directives are not used in policies")
	default:
		return false
	}
	p.stop()
	return true
}
