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

// withoutCounters also drops blank lines, and the comments of iptables-save, which hold the time.
func withoutCounters(text string) string {
	var kept []string
	for _, line := range strings.Split(text, "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
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

// DockersRules are the rules of iptables that are not quaywall's, of both families, chain by chain, and where FORWARD drops: as the
// variant prints them that the host's engine uses.
func (n *Node) DockersRules(ctx context.Context) ([]string, error) {
	var all []string
	for _, family := range []string{"ip", "ip6"} {
		text, err := n.Exec(ctx, family+"tables-save")
		if err != nil {
			return nil, err
		}
		table := ""
		for _, line := range strings.Split(text, "\n") {
			switch {
			case strings.HasPrefix(line, "*"):
				table = family + " " + line[1:]
			case strings.HasPrefix(line, ":FORWARD DROP"): // ACCEPT is that of a table that is not there, too
				all = append(all, table+" :FORWARD DROP")
			case strings.HasPrefix(line, "-A") && !own(line):
				all = append(all, table+" "+line)
			}
		}
	}
	chain := func(line string) string { return strings.Join(strings.Fields(line)[:4], " ") }
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(chain(a), chain(b)) })
	return all, nil
}

// Foreign is the rules without quaywall's, WithoutEmpty.
func (r Rules) Foreign() Rules {
	return r.each(func(s Section) string {
		if s.Tool == "nft" {
			return foreignNft(s.Text)
		}
		return strings.Join(slices.DeleteFunc(strings.Split(s.Text, "\n"), own), "\n")
	}).WithoutEmpty()
}

// Own is quaywall's rules alone, in no order of their own: nft and ipset list the elements of a set in any order, and so
// they come sorted.
func (r Rules) Own() Rules {
	return r.each(func(s Section) string {
		all := strings.Split(s.Text, "\n")
		if s.Tool == "nft" {
			all = strings.FieldsFunc(ownNft(s.Text), func(c rune) bool { return c == '\n' || c == ',' })
		} else {
			all = slices.DeleteFunc(all, func(line string) bool { return !own(line) })
		}
		for i, line := range all {
			all[i] = strings.TrimSpace(hashing.ReplaceAllString(line, ""))
		}
		slices.Sort(all)
		return strings.Join(all, "\n")
	})
}

// hashing is what an ipset has at random.
var hashing = regexp.MustCompile(` (initval 0x[0-9a-f]+|bucketsize \d+|hashsize \d+)`)

// ownNft is the tables of quaywall's.
func ownNft(text string) string {
	var kept []string
	for _, table := range blocks(text, "") {
		if own(table[0]) {
			kept = append(kept, table...)
		}
	}
	return strings.Join(kept, "\n")
}

// WithoutEmpty leaves out tables and base chains that hold nothing and accept. iptables makes them when they are first
// needed; nobody can remove a table of iptables-legacy, and iptables-save prints those of the nft variant whether they are
// there or not.
func (r Rules) WithoutEmpty() Rules {
	return r.each(func(s Section) string {
		switch s.Tool {
		case "nft":
			return usedNft(s.Text)
		case "ipset":
			return s.Text
		}
		return usedTables(s.Text)
	})
}

func (r Rules) each(change func(Section) string) Rules {
	var changed Rules
	for _, s := range r.Sections {
		changed.Sections = append(changed.Sections, Section{Tool: s.Tool, Text: change(s)})
	}
	return changed
}

func own(line string) bool {
	return strings.Contains(strings.ToLower(line), "quaywall")
}

// usedTables works on what iptables-save prints: it leaves out tables without rules, chains of their own and policies.
func usedTables(text string) string {
	var kept []string
	for _, table := range strings.SplitAfter(text, "\nCOMMIT\n") {
		used := strings.Contains(table, "\n-A ")
		for _, line := range strings.Split(table, "\n") {
			used = used || strings.HasPrefix(line, ":") && !strings.HasSuffix(line, " ACCEPT")
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
		for _, block := range inside(table) {
			if !own(block[0]) {
				kept = append(kept, slices.DeleteFunc(block, own)...)
			}
		}
		kept = append(kept, "}")
	}
	return strings.Join(kept, "\n")
}

// usedNft leaves out base chains that do nothing, and tables that hold nothing then.
func usedNft(text string) string {
	var kept []string
	for _, table := range blocks(text, "") {
		used := slices.DeleteFunc(inside(table), emptyChain)
		if len(used) > 1 {
			kept = append(append(kept, slices.Concat(used...)...), "}")
		}
	}
	return strings.Join(kept, "\n")
}

// inside is the first line of a table, and then its chains and sets.
func inside(table []string) [][]string {
	all := [][]string{{table[0]}}
	return append(all, blocks(strings.Join(table[1:max(1, len(table)-1)], "\n"), "\t")...)
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
