package main

import (
	"fmt"
	"strings"
)

// style is how things look, in colour or without.
type style struct{ colour bool }

func (s style) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) good(text string) string { return s.paint("32", text) }
func (s style) dim(text string) string  { return s.paint("2", text) }

func (s style) title(text string) { fmt.Printf("\n%s\n\n", s.paint("1", text)) }

// numbered shows a text with line numbers.
func (s style) numbered(text string) {
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		fmt.Printf("%s %s\n", s.dim(fmt.Sprintf("%4d", i+1)), line)
	}
}

// cell is one outcome, 18 characters wide.
func (s style) cell(open bool, line string) string {
	word, code := "closed", "32"
	if open {
		word, code = "OPEN", "33"
	}
	if line != "" {
		line = " " + line
	}
	pad := strings.Repeat(" ", max(0, 18-len(word)-len(line)))
	return s.paint(code, word) + s.dim(line) + pad
}
