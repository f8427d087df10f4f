package tree

import (
	"strings"
	"unicode/utf8"

	"quaywall/internal/diag"
)

const byteOrderMark = "\ufeff"

// checkText finds characters that no policy may hold, the first of each of a few lines. It gives false where the text
// is not worth reading on.
func (p *parser) checkText() bool {
	p.ascii = true
	line, bol := 1, 0
	for i := 0; i < len(p.src); {
		c := p.src[i]
		if c == '\n' {
			line, bol = line+1, i+1
		}
		if c >= ' ' && c < 0x7f || c == '\n' || c == '\t' || c == '\r' && strings.HasPrefix(p.src[i:], "\r\n") {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(p.src[i:])
		if why := badRune(r, size); why != "" {
			col := utf8.RuneCountInString(p.src[bol:i]) + 1
			p.list.Errorf(diag.Pos{File: p.file, Line: line, Col: col}, "a policy is UTF-8 text", "%s", why)
			return false
		}
		p.ascii = false
		i += size
	}
	return true
}

// badRune says what is wrong with a character, "" where nothing is. Some readers of YAML take U+0085, U+2028 and U+2029
// for ends of lines and others don't: a text that two programs read differently is no policy.
func badRune(r rune, size int) string {
	switch {
	case r == utf8.RuneError && size <= 1:
		return "this byte is not UTF-8"
	case r == '\r':
		return "a carriage return without a line feed"
	case r < ' ' || r >= 0x7f && r < 0xa0:
		return "a control character; this is not a text file"
	case r == '\u2028' || r == '\u2029':
		return "a line or paragraph separator (U+2028, U+2029)"
	case r == '\ufeff' || r >= 0xfffe && r <= 0xffff:
		return "a byte order mark or non-character inside of the text"
	}
	return ""
}
