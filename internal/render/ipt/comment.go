package ipt

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The longest texts that the kernel keeps, in bytes.
const (
	maxComment = 255 // of a rule (xt_comment) and of an element (ipset)
	maxPrefix  = 63  // of NFLOG
)

// text makes a text fit for a line of a payload: no control characters, no broken UTF-8, at most so many bytes.
func text(s string, longest int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	for len(s) > longest {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// quote writes a text the way iptables-restore reads it: in double quotes, with a backslash before quotes and
// backslashes.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// comment is a comment match, nothing where there is nothing to say.
func comment(s string) string {
	if s == "" {
		return ""
	}
	return "-m comment --comment " + quote(text(s, maxComment))
}

// elementComment is a comment as ipset takes it. Its own format knows no way to write a double quote inside of a text.
func elementComment(s string) string {
	return text(strings.ReplaceAll(s, `"`, "'"), maxComment)
}

// join puts words together that may be missing.
func join(words ...string) string {
	kept := words[:0:0]
	for _, w := range words {
		if w != "" {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, " ")
}
