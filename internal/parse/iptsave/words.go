package iptsave

import "strings"

// word is a word of a line as iptables-restore splits it.
type word struct {
	text    string
	quoted  bool // so it is no option, whatever it looks like
	at, end int  // in the line
}

// is tells whether the word is this one, without quotes.
func (w word) is(text string) bool { return !w.quoted && w.text == text }

// isOption tells whether the word begins an option.
func (w word) isOption() bool { return !w.quoted && len(w.text) > 1 && w.text[0] == '-' }

// split appends the words of a line to a list. Double quotes hold words together, inside of them a backslash takes the
// next character as it is; a closing quote ends the word. open tells that a quote isn't closed.
func split(line string, words []word) (_ []word, open bool) {
	for i := 0; i < len(line); {
		if isSpace(line[i]) {
			i++
			continue
		}
		at := i
		for i < len(line) && !isSpace(line[i]) && line[i] != '"' {
			i++
		}
		if i == len(line) || line[i] != '"' {
			words = append(words, word{text: line[at:i], at: at, end: i})
			continue
		}
		text, length, closed := unquote(line[i:])
		words = append(words, word{text: line[at:i] + text, quoted: true, at: at, end: i + length})
		i += length
		open = !closed
	}
	return words, open
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }

// unquote reads what stands in quotes at the beginning of s, and how long it is with them.
func unquote(s string) (text string, length int, closed bool) {
	if end := strings.IndexAny(s[1:], `"\`); end >= 0 && s[1+end] == '"' {
		return s[1 : 1+end], end + 2, true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), i + 1, true
		case s[i] == '\\' && i+1 < len(s):
			i++
			fallthrough
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), len(s), false
}

// quoting makes a text one that can stand in quotes. What follows a line break must not look as if a line of its own began.
var quoting = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n-", "\n\\-", "\n[", "\n\\[", "\n:", "\n\\:", "\n*", "\n\\*", "\n#", "\n\\#", "\nC", "\n\\C")

// quote writes a text so that split reads it as one word that is no option.
func quote(s string) string { return `"` + quoting.Replace(s) + `"` }

// appendWord writes a word behind others.
func appendWord(b []byte, w word) []byte {
	if len(b) > 0 {
		b = append(b, ' ')
	}
	if w.quoted {
		return append(b, quote(w.text)...)
	}
	return append(b, w.text...)
}

// join writes words so that split reads them again.
func join(words []word) string {
	var b []byte
	for _, w := range words {
		b = appendWord(b, w)
	}
	return string(b)
}
