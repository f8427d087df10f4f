package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"quaywall/internal/diag"
)

// answer shows what a command found: as JSON, or as text wrote it.
func (a *app) answer(v any, text func(w io.Writer, s style)) {
	if a.opts.json {
		writeJSON(a.env.Stdout, v)
		return
	}
	text(a.env.Stdout, a.onStdout())
}

// writeJSON writes one value, indented, with a newline. What cannot be written any more has nobody to be told to.
func writeJSON(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}

// diagnostics shows diagnostics with the lines that they are about.
func (a *app) diagnostics(list diag.List, source func(file string) []byte) {
	if len(list) > 0 {
		fmt.Fprint(a.env.Stderr, list.Format(source))
	}
}

// style paints words, or leaves them as they are.
type style struct{ on bool }

func (a *app) onStdout() style { return a.style(a.env.StdoutTTY) }
func (a *app) onStderr() style { return a.style(a.env.StderrTTY) }

// style follows https://no-color.org: any value of NO_COLOR turns colour off.
func (a *app) style(tty bool) style {
	return style{tty && a.env.Getenv("NO_COLOR") == "" && a.env.Getenv("TERM") != "dumb"}
}

func (s style) paint(code, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) good(text string) string   { return s.paint("32", text) }
func (s style) bad(text string) string    { return s.paint("31", text) }
func (s style) warn(text string) string   { return s.paint("33", text) }
func (s style) strong(text string) string { return s.paint("1", text) }
func (s style) faint(text string) string  { return s.paint("2", text) }

// cell is a piece of a table, with how it is painted; nil is plainly.
type cell struct {
	text  string
	paint func(string) string
}

func (c cell) painted() string {
	if c.paint == nil {
		return c.text
	}
	return c.paint(c.text)
}

// table writes rows in columns. Widths count characters, and what is painted takes no room.
func table(w io.Writer, rows [][]cell) {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			line.WriteString("  " + c.painted())
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// plain are cells without paint.
func plain(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, t := range texts {
		row[i] = cell{text: t}
	}
	return row
}

// facts are rows of a name and what there is to say of it. What has nothing to say is left out.
func facts(s style, pairs ...string) [][]cell {
	var rows [][]cell
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			rows = append(rows, []cell{{pairs[i], s.faint}, {pairs[i+1], nil}})
		}
	}
	return rows
}

// quoted shows a word that somebody typed, safe for a terminal.
func quoted(s string) string { return strconv.Quote(s) }

// count is a number with its noun: "1 rule", "3 rules".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// lines makes the text of a multi-line example, indented as help shows it.
func lines(all ...string) string { return "  " + strings.Join(all, "\n  ") }
