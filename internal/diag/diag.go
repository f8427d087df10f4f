// Package diag holds positions in source files and the diagnostics that point at them.
//
// A parser collects everything it finds in a List and returns it whole, so that a person mends a file in one go:
//
//	var list diag.List
//	list.Errorf(pos, "use 1 to 65535", "port 70000 is out of range")
//	if list.HasErrors() { return list }
//
// Be aware: the package reads no files. Whoever prints a diagnostic with the line it is about hands the source in.
package diag

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Pos is a place in a source file. Line and Col count from 1; Col counts characters, not bytes. The zero Pos means
// "nowhere in particular", a Pos with a File and no Line the file as a whole.
type Pos struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

// String is file:line:col, as far as they are known.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	}
}

// Severity says whether a diagnostic stops the work.
type Severity uint8

// An Error stops the work, a Warning does not. The zero value is the safe one.
const (
	Error Severity = iota
	Warning
)

func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// MarshalText makes JSON say "error" and "warning".
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Diagnostic is one thing to tell about one place.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Pos      Pos      `json:"pos"`
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"` // what to do next, a sentence without a full stop
}

// Error is the diagnostic on one line: position, severity, message and hint.
func (d Diagnostic) Error() string {
	var b strings.Builder
	if at := d.Pos.String(); at != "" {
		b.WriteString(at + ": ")
	}
	b.WriteString(d.Severity.String() + ": " + d.Message)
	if d.Hint != "" {
		b.WriteString(" (" + d.Hint + ")")
	}
	return b.String()
}

// List is the diagnostics of one piece of work. A List that HasErrors is an error.
type List []Diagnostic

// Errorf adds an error. An empty hint is left out.
func (l *List) Errorf(pos Pos, hint, format string, args ...any) {
	*l = append(*l, Diagnostic{Severity: Error, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// Warnf adds a warning. An empty hint is left out.
func (l *List) Warnf(pos Pos, hint, format string, args ...any) {
	*l = append(*l, Diagnostic{Severity: Warning, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// HasErrors tells whether anything in the list stops the work.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return d.Severity == Error })
}

// Err is the list as an error, nil when it has no errors (warnings alone are none).
func (l List) Err() error {
	if !l.HasErrors() {
		return nil
	}
	return l
}

// Error is one diagnostic a line.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, d := range l {
		lines[i] = d.Error()
	}
	return strings.Join(lines, "\n")
}

// Sort orders the list by file, line and column, errors before warnings at one place, and drops repetitions.
func (l *List) Sort() {
	slices.SortStableFunc(*l, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Col, b.Pos.Col), cmp.Compare(a.Severity, b.Severity))
	})
	*l = slices.Compact(*l)
}

// Format prints each diagnostic for a person: the message, the source line with a caret under the place, the hint.
// source gives the text of a file, nil where it is not at hand.
func (l List) Format(source func(file string) []byte) string {
	var b strings.Builder
	for _, d := range l {
		head := d
		head.Hint = ""
		b.WriteString(head.Error() + "\n")
		if line, ok := sourceLine(source(d.Pos.File), d.Pos.Line); ok {
			writeCaret(&b, line, d.Pos)
		}
		if d.Hint != "" {
			b.WriteString("  " + d.Hint + "\n")
		}
	}
	return b.String()
}

// sourceLine finds line n (from 1) of a text.
func sourceLine(text []byte, n int) ([]byte, bool) {
	if text == nil || n < 1 {
		return nil, false
	}
	for line := range bytes.Lines(text) {
		if n--; n == 0 {
			return bytes.TrimRight(line, "\r\n"), true
		}
	}
	return nil, false
}

// maxShown bounds what is shown of a source line, in characters: a file may be one line of a hundred megabytes.
const maxShown = 160

func writeCaret(b *strings.Builder, line []byte, pos Pos) {
	start := 0
	if pos.Col > maxShown {
		start = pos.Col - maxShown/2
	}
	shown := window(line, start)
	number := fmt.Sprintf("%5d | ", pos.Line)
	b.WriteString(number + printable(shown) + "\n")
	if pos.Col < 1 {
		return
	}
	pad := min(pos.Col-1-start, len(shown))
	b.WriteString(strings.Repeat(" ", len(number)+pad) + "^\n")
}

// window is what is shown of a line from a character on.
func window(line []byte, start int) []rune {
	for range start {
		_, size := utf8.DecodeRune(line)
		line = line[size:]
	}
	runes := []rune(string(line[:min(len(line), maxShown*utf8.UTFMax)]))
	return runes[:min(len(runes), maxShown)]
}

// printable keeps a terminal safe from what a broken file holds, one character for one.
func printable(runes []rune) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0):
			return '·'
		}
		return r
	}, string(runes))
}
