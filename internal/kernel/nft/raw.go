package nft

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"quaywall/internal/kernel"
	"quaywall/internal/sysexec"
)

// raw is hand-written rules: what stands in the file is the body of table inet quaywall_raw, chains and sets. The zero
// value is none.
type raw struct{ text string }

const rawAdvice = "the file holds what stands between the braces of one table, chains and sets, and nothing else"

// newRaw checks that a text can't leave the table that it is put into: that no brace closes it, and that it includes no
// file.
func newRaw(text string) (raw, error) {
	if strings.TrimSpace(text) == "" {
		return raw{}, nil
	}
	depth, line := 0, 1
	for rest := text; rest != ""; {
		token := nextToken(rest)
		switch {
		case token == "{":
			depth++
		case token == "}":
			depth--
		case token == "include":
			return raw{}, fmt.Errorf("hand-written nft rules, line %d: include is not allowed: %s", line, rawAdvice)
		case token[0] == '"' && (len(token) == 1 || token[len(token)-1] != '"'):
			return raw{}, fmt.Errorf("hand-written nft rules, line %d: a quote that is not closed", line)
		}
		if depth < 0 {
			return raw{}, fmt.Errorf("hand-written nft rules, line %d: a brace too many: %s", line, rawAdvice)
		}
		line += strings.Count(token, "\n")
		rest = rest[len(token):]
	}
	if depth > 0 {
		return raw{}, errors.New("hand-written nft rules: a brace is not closed")
	}
	return raw{text}, nil
}

// nextToken is what nft's scanner would take for a string in quotes, a comment, a word or a single character.
func nextToken(s string) string {
	switch {
	case s[0] == '"':
		if end := strings.IndexByte(s[1:], '"'); end >= 0 {
			return s[:end+2]
		}
		return s
	case s[0] == '#':
		if end := strings.IndexByte(s, '\n'); end >= 0 {
			return s[:end]
		}
		return s
	}
	n := strings.IndexFunc(s, func(r rune) bool { return !isWord(r) })
	switch {
	case n < 0:
		return s
	case n == 0:
		return s[:1]
	}
	return s[:n]
}

func isWord(r rune) bool {
	return r == '_' || r == '-' || r == '.' || r == '/' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// script makes the table anew. The text begins on the first line, so that the lines that nft names are those of the file.
func (r raw) script() string {
	return fmt.Sprintf("table inet %[1]s {}; delete table inet %[1]s; table inet %[1]s { %[2]s\n}\n", rawTable, r.text)
}

// check lets nft and the kernel judge the rules in the namespace that they are meant for, without putting them in force.
func (r raw) check(ctx context.Context) error { return r.run(ctx, "--check", "--file", "-") }

func (r raw) load(ctx context.Context) error { return r.run(ctx, "--file", "-") }

func (r raw) run(ctx context.Context, args ...string) error {
	if r.text == "" {
		return nil
	}
	_, err := sysexec.Run(ctx, sysexec.Command{Path: "nft", Args: args, Stdin: strings.NewReader(r.script())})
	return rawError(r, err)
}

// rawError says what a failure of the program nft means.
func rawError(r raw, err error) error {
	switch {
	case errors.Is(err, sysexec.ErrNotFound):
		return fmt.Errorf("the policy has hand-written nft rules, which need the program nft: install the package nftables, "+
			"or take them out of the policy: %w", err)
	case err != nil:
		return &kernel.PayloadError{Backend: "nft", Payload: r.script(), Line: lineOf(err), Err: fmt.Errorf("hand-written rules: %w", err)}
	}
	return nil
}

// place is how nft begins an error: with the file, which is its input here, and the line.
var place = regexp.MustCompile(`^(?:/dev/stdin|-):(\d+):`)

// lineOf is the line that nft complains about, 0 if it names none.
func lineOf(err error) int {
	var failed *sysexec.Error
	if !errors.As(err, &failed) {
		return 0
	}
	m := place.FindStringSubmatch(failed.Stderr)
	if m == nil {
		return 0
	}
	line, _ := strconv.Atoi(m[1]) // digits; too many of them are no line
	return line
}
