package lab

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// Rules is everything of netfilter's that a host has, without counters, as the tools list it.
type Rules struct {
	Sections []Section
}

// Section is what one tool lists.
type Section struct {
	Tool string // "iptables-nft-save", "nft", …
	Text string
}

// listings are the tools that together show everything: legacy rules are invisible to nft.
var listings = [][]string{
	{"iptables-nft-save"}, {"ip6tables-nft-save"}, {"iptables-legacy-save"}, {"ip6tables-legacy-save"},
	{"nft", "--stateless", "list", "ruleset"}, {"ipset", "save"},
}

// Rules lists the host's rules. A tool that was ended by a signal or fails is an error, never an empty list.
func (n *Node) Rules(ctx context.Context) (Rules, error) {
	var r Rules
	for _, tool := range listings {
		out, err := n.Exec(ctx, tool[0], tool[1:]...)
		if err != nil {
			return Rules{}, err
		}
		r.Sections = append(r.Sections, Section{Tool: tool[0], Text: withoutCounters(out)})
	}
	return r, nil
}

var counters = regexp.MustCompile(` ?\[\d+:\d+\]| packets \d+ bytes \d+`)

// withoutCounters also drops the comments of iptables-save, which hold the time.
func withoutCounters(text string) string {
	var kept []string
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "#") {
			kept = append(kept, counters.ReplaceAllString(line, ""))
		}
	}
	return strings.Join(kept, "\n")
}

// Diff is a readable difference to what was before, and "" when there is none, to the byte.
func (r Rules) Diff(before Rules) string {
	var out strings.Builder
	for i, s := range r.Sections {
		was := before.Sections[i].Text
		if s.Text != was {
			fmt.Fprintf(&out, "%s (-before +after):\n%s", s.Tool, cmp.Diff(strings.Split(was, "\n"), strings.Split(s.Text, "\n")))
		}
	}
	return out.String()
}

// Foreign is the rules without quaywall's, and without tables that hold nothing then: a mangle table that iptables made
// for a chain of quaywall's.
func (r Rules) Foreign() Rules {
	var f Rules
	for _, s := range r.Sections {
		switch s.Tool {
		case "nft":
			s.Text = foreignNft(s.Text)
		case "ipset":
			s.Text = withoutOwnLines(s.Text)
		default:
			s.Text = foreignTables(s.Text)
		}
		f.Sections = append(f.Sections, s)
	}
	return f
}

func own(line string) bool {
	return strings.Contains(strings.ToLower(line), "quaywall")
}

func withoutOwnLines(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), own), "\n")
}

// foreignTables works on what iptables-save prints.
func foreignTables(text string) string {
	var kept []string
	for _, table := range strings.SplitAfter(withoutOwnLines(text), "COMMIT\n") {
		used := strings.Contains(table, "\n-A ")
		for _, line := range strings.Split(table, "\n") {
			used = used || strings.HasPrefix(line, ":") && !strings.HasSuffix(strings.TrimSpace(line), " ACCEPT")
		}
		if used {
			kept = append(kept, table)
		}
	}
	return strings.Join(kept, "")
}

// foreignNft works on what nft prints: tables begin and end at the first column, chains and sets one tab to the right.
func foreignNft(text string) string {
	var kept []string
	for _, table := range blocks(text, "") {
		if own(table[0]) {
			continue
		}
		inner := blocks(strings.Join(table[1:max(1, len(table)-1)], "\n"), "\t")
		inner = slices.DeleteFunc(inner, func(b []string) bool { return own(b[0]) })
		used := false
		out := []string{table[0]}
		for _, b := range inner {
			b = slices.DeleteFunc(b, own)
			used = used || !emptyChain(b)
			out = append(out, b...)
		}
		if used {
			kept = append(append(kept, out...), "}")
		}
	}
	return strings.Join(kept, "\n")
}

// blocks splits a listing where a closing brace stands at the given indentation. Blank lines between them go.
func blocks(text, indent string) [][]string {
	var all [][]string
	var block []string
	for _, line := range strings.Split(text, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		block = append(block, line)
		if line == indent+"}" {
			all = append(all, block)
			block = nil
		}
	}
	if block != nil {
		all = append(all, block)
	}
	return all
}

// emptyChain tells whether a block is a base chain that does nothing.
func emptyChain(block []string) bool {
	return len(block) == 3 && strings.HasPrefix(block[0], "\tchain ") && strings.HasSuffix(block[1], "policy accept;")
}
