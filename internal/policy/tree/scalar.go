package tree

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// scalar reads a word, plain or quoted, that ends on its line. False means that a mistake was reported.
func (p *parser) scalar(flow bool) (Node, bool) {
	n := p.here(Scalar)
	switch p.peek(0) {
	case '"':
		n.Style = Double
		return p.quoted(n, '"')
	case '\'':
		n.Style = Single
		return p.quoted(n, '\'')
	}
	if p.peek(0) == '\t' {
		p.errorTab()
		return n, false
	}
	if c := p.peek(0); flow && (c == ':' || c == '?') {
		p.errorDisputed(p.i)
		return n, false
	}
	if hint, why := p.badStart(flow); why != "" {
		p.errorHere(hint, "%s", why)
		return n, false
	}
	start := p.i
	for !p.plainEnds(flow) {
		p.i++
	}
	if c := p.peek(0); flow && (c == '?' || c == ':' && isFlow(p.peek(1))) {
		p.errorDisputed(start)
		return n, false
	}
	n.Text = strings.TrimRight(p.src[start:p.i], " ")
	if tab := strings.IndexByte(n.Text, '\t'); tab >= 0 {
		p.i = start + tab
		p.errorTab()
		return n, false
	}
	return n, true
}

func (p *parser) errorTab() { p.errorHere("use spaces, or put quotes around the text", "a tab") }

// errorDisputed refuses what YAML 1.1 and 1.2 read differently: two programs would see two policies.
func (p *parser) errorDisputed(start int) {
	word, _, _ := strings.Cut(p.src[start:], "\n")
	if end := strings.IndexAny(word, " \t\r,[]{}\""); end > 0 {
		word = word[:end]
	}
	p.errorHere(fmt.Sprintf("write %q, with the quotes", word), "readers of YAML disagree about %q here", string(p.peek(0)))
}

// plainEnds tells whether a plain word ends before the present byte.
func (p *parser) plainEnds(flow bool) bool {
	c := p.peek(0)
	switch c {
	case '\n', '\r':
		return true
	case ':':
		return isBlank(p.peek(1)) || flow && isFlow(p.peek(1))
	case '#':
		return p.i > 0 && (p.src[p.i-1] == ' ' || p.src[p.i-1] == '\t')
	}
	return flow && (isFlow(c) || c == '?')
}

// badStart says why no plain word can begin with what comes, with a hint.
func (p *parser) badStart(flow bool) (hint, why string) {
	c, next := p.peek(0), p.peek(1)
	alone := isBlank(next) || flow && isFlow(next)
	switch {
	case c == '&':
		return "write it out where it is used; a set gives addresses a name", "anchors are not used in policies"
	case c == '*':
		return `put quotes around a name that begins with "*"`, "aliases are not used in policies"
	case c == '!':
		return "to invert addresses write {not: …}", "tags are not used in policies"
	case c == '|' || c == '>':
		return "write it in quotes on one line", "text over several lines is not used in policies"
	case c == '#':
		return "", "a comment needs a space before it"
	case c == '?' && alone:
		return "write KEY: VALUE", "a key that begins with a question mark"
	case c == '-' && alone:
		return "", "a dash with nothing to it"
	case c == ':' && alone:
		return "write KEY: VALUE", "a key is missing before the colon"
	case strings.IndexByte("%@`,]}", c) >= 0:
		return "put quotes around it", "a word can't begin with " + strconv.Quote(string(c))
	}
	return "", ""
}

// quoted reads a word in quotes.
func (p *parser) quoted(n Node, quote byte) (Node, bool) {
	open := p.i
	end := p.closingQuote(open+1, quote)
	if end < 0 {
		p.errorHere("close it on the same line", "the quote that begins here is not closed")
		return n, false
	}
	raw := p.src[open+1 : end]
	if quote == '\'' {
		n.Text = strings.ReplaceAll(raw, "''", "'")
		p.i = end + 1
		return n, true
	}
	ok := true
	if n.Text = raw; strings.IndexByte(raw, '\\') >= 0 {
		n.Text, ok = p.unescape(raw)
	}
	if ok {
		p.i = end + 1
	}
	return n, ok
}

// closingQuote finds the end of a quoted word on its line, -1 where there is none.
func (p *parser) closingQuote(i int, quote byte) int {
	for ; i < len(p.src) && p.src[i] != '\n'; i++ {
		switch c := p.src[i]; {
		case c == '\\' && quote == '"':
			i++
		case c == quote && quote == '\'' && i+1 < len(p.src) && p.src[i+1] == '\'':
			i++
		case c == quote:
			return i
		}
	}
	return -1
}

// unescape undoes the escapes of a word in double quotes, whose opening quote is at the present place.
func (p *parser) unescape(raw string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(raw); {
		if raw[i] != '\\' {
			b.WriteByte(raw[i])
			i++
			continue
		}
		r, size := escape(raw[i:])
		if size == 0 {
			p.i += 1 + i
			p.errorHere(`a backslash is written \\`, "an escape that policies don't know")
			return "", false
		}
		b.WriteRune(r)
		i += size
	}
	return b.String(), true
}

// escape reads one escape and gives its character and length; length 0 where there is none.
func escape(s string) (rune, int) {
	switch s[1] {
	case '"', '\\':
		return rune(s[1]), 2
	case 'n':
		return '\n', 2
	case 't':
		return '\t', 2
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]
	if digits == 0 || len(s) < 2+digits {
		return 0, 0
	}
	v, err := strconv.ParseUint(s[2:2+digits], 16, 32)
	if err != nil || !utf8.ValidRune(rune(v)) || v > utf8.MaxRune {
		return 0, 0
	}
	return rune(v), 2 + digits
}
