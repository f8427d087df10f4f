package ipt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"quaywall/internal/ruleset"
)

// Hand-written rules (Raw.IPTables) are lines of iptables-restore for the one chain QUAYWALL-RAW of table mangle: "-A
// QUAYWALL-RAW" and what follows it, or just what follows it. "-4" or "-6" in front keeps a line to one family, as with
// iptables-restore itself. Empty lines and those that begin with # are left out.
//
// A line can't leave its chain: it names no other chain, no table and no command.

// rawRule is a line of them.
type rawRule struct {
	family ruleset.Family // Inet is both
	spec   string
}

// rawTargets are the targets that table mangle takes.
var rawTargets = []string{"ACCEPT", "AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "DROP", "DSCP", "ECN", "HL", "HMARK",
	"IDLETIMER", "LED", "LOG", "MARK", "NFLOG", "NFQUEUE", "RATEEST", "RETURN", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE",
	"TOS", "TPROXY", "TRACE", "TTL"}

// rawShort are the options of one letter that a rule may have.
var rawShort = []string{"-s", "-d", "-p", "-i", "-o", "-f", "-m", "-j"}

// commands are long options that do something else than describe a rule. iptables takes their beginnings too.
var commands = []string{"--append", "--check", "--delete", "--delete-chain", "--flush", "--goto", "--insert", "--list", "--list-rules",
	"--modprobe", "--new-chain", "--policy", "--rename-chain", "--replace", "--set-counters", "--table", "--wait", "--zero"}

// maxRawLine keeps a line below what iptables-restore reads at once (10240).
const maxRawLine = 8000

// parseRaw reads hand-written rules. All bad lines are reported at once.
func parseRaw(text string) ([]rawRule, error) {
	var rules []rawRule
	var errs []error
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		r, err := parseRawLine(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("raw rules for iptables, line %d: %w", i+1, err))
			continue
		}
		rules = append(rules, r)
	}
	return rules, errors.Join(errs...)
}

func parseRawLine(line string) (rawRule, error) {
	var r rawRule
	if len(line) > maxRawLine || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return r, fmt.Errorf("longer than %d bytes, or with control characters in it", maxRawLine)
	}
	words, err := splitWords(line)
	if err != nil {
		return r, err
	}
	switch words[0].text {
	case "-4":
		r.family, words = ruleset.IPv4, words[1:]
	case "-6":
		r.family, words = ruleset.IPv6, words[1:]
	}
	if len(words) >= 2 && (words[0].text == "-A" || words[0].text == "--append") {
		if words[1].text != RawChain {
			return r, fmt.Errorf("it names chain %s; rules go into %s, and no other", words[1].text, RawChain)
		}
		words = words[2:]
	}
	if len(words) == 0 {
		return r, errors.New("there is no rule in it")
	}
	if err := checkRaw(words); err != nil {
		return r, err
	}
	var spec []string
	for _, w := range words {
		spec = append(spec, w.source)
	}
	r.spec = strings.Join(spec, " ")
	return r, nil
}

// checkRaw refuses what would reach out of the chain.
func checkRaw(words []word) error {
	if first := words[0].text; first[:min(1, len(first))] != "-" && first != "!" {
		return fmt.Errorf("a rule begins with an option, not with %q", first)
	}
	for i, w := range words {
		option, _, _ := strings.Cut(w.text, "=")
		switch {
		case option == "-j" || option == "--jump":
			if err := checkTarget(w.text, words[i+1:]); err != nil {
				return err
			}
		case strings.HasPrefix(option, "--"):
			if c := command(option); c != "" && !(option == "--pol" && hasMatch(words, "policy")) {
				return fmt.Errorf("%s (as in %s) is not part of a rule", option, c)
			}
		case strings.HasPrefix(option, "-") && len(option) > 1 && !slices.Contains(rawShort, w.text):
			return fmt.Errorf("%s is not an option of a rule; %s are, each with a space behind it, and long ones",
				w.text, strings.Join(rawShort, " "))
		}
	}
	return nil
}

func checkTarget(option string, rest []word) error {
	if strings.Contains(option, "=") || len(rest) == 0 {
		return fmt.Errorf("%s needs a space and a target behind it", option)
	}
	if !slices.Contains(rawTargets, rest[0].text) {
		return fmt.Errorf("-j %s names another chain, or a target that table mangle doesn't have; these can be used: %s",
			rest[0].text, strings.Join(rawTargets, " "))
	}
	return nil
}

// command tells which command an option is, or the beginning of.
func command(option string) string {
	for _, c := range append(commands, "--jump") {
		if len(option) > 2 && strings.HasPrefix(c, option) {
			return c
		}
	}
	return ""
}

func hasMatch(words []word, name string) bool {
	for i, w := range words[1:] {
		if w.text == name && words[i].text == "-m" {
			return true
		}
	}
	return false
}

// word is a word of a line: what it says and how it was written.
type word struct{ text, source string }

// splitWords splits a line the way iptables-restore does: double quotes keep spaces, a backslash inside of them takes the
// next character as it is.
func splitWords(line string) ([]word, error) {
	var words []word
	for rest := strings.TrimLeft(line, " \t"); rest != ""; rest = strings.TrimLeft(rest, " \t") {
		w, n, err := firstWord(rest)
		if err != nil {
			return nil, err
		}
		words, rest = append(words, w), rest[n:]
	}
	return words, nil
}

func firstWord(s string) (w word, n int, err error) {
	var b strings.Builder
	quoted := false
	for ; n < len(s); n++ {
		switch c := s[n]; {
		case quoted && c == '\\' && n+1 < len(s):
			n++
			b.WriteByte(s[n])
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t'):
			return word{b.String(), s[:n]}, n, nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return w, n, errors.New("a double quote is not closed")
	}
	return word{b.String(), s}, n, nil
}
