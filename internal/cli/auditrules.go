package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/analyze"
	"quaywall/internal/netfilter"
	"quaywall/internal/sim"
	"quaywall/internal/snapshot"
)

// RulesAnswer is what "audit --rules --json" says.
type RulesAnswer struct {
	Rules    int           `json:"rules"`              // that there are
	Useless  []UselessRule `json:"useless"`            // those that do nothing to any packet; any of them could go, alone or together
	Unread   []string      `json:"unread"`             // rules that were not looked at, and why
	Warnings []string      `json:"warnings,omitempty"` // what of the rules isn't understood, with its place
}

// UselessRule is a rule that does nothing to any packet, whatever its sets hold and whatever it is that isn't known.
type UselessRule struct {
	sim.Place
	Dialect string      `json:"dialect"`          // "nft", "iptables-nft", "iptables-legacy"
	Handle  uint64      `json:"handle,omitempty"` // of nft, to delete it by
	Comment string      `json:"comment,omitempty"`
	Reason  string      `json:"reason"`           // "dead" (no packet gets to its chain), "shadowed" (none is left for it), "redundant" (the same becomes of each without it)
	Why     string      `json:"why"`              // a sentence
	By      []sim.Place `json:"by,omitempty"`     // the rules that leave it nothing, or that do the same
	Keeper  string      `json:"keeper,omitempty"` // the program that looks after the rule: "Docker", "quaywall", …; "" for a person's
}

// failUseless is what --fail-on knows with --rules.
const failUseless = "useless"

func (a *app) auditRules(ctx context.Context, cmd *cobra.Command, f auditFlags, dumps []string) error {
	if len(dumps) > 0 && f.at != (where{}) {
		return misusedf(cmd, "name files with rules, or a snapshot or a namespace, not both")
	}
	host, err := a.lookOrRead(ctx, f.at, dumps)
	if err != nil {
		return err
	}
	v, err := rulesAnswer(ctx, host, len(dumps) > 0)
	if err != nil {
		return err
	}
	a.answer(v, func(w io.Writer, s style) { a.showRules(w, s, v) })
	if slices.Contains(f.failOn, failUseless) && slices.ContainsFunc(v.Useless, func(u UselessRule) bool { return u.Keeper == "" }) {
		return differences()
	}
	return nil
}

// rulesAnswer looks through the rules of a host. Of one that is made of dumps all is missing that wasn't named.
func rulesAnswer(ctx context.Context, host *snapshot.Host, dumps bool) (RulesAnswer, error) {
	v := RulesAnswer{Useless: []UselessRule{}, Unread: []string{}, Warnings: warningsOf(host)}
	for _, t := range host.Rules.Tables {
		for _, c := range t.Chains {
			for i, r := range c.Rules {
				if i == 0 || r.Number != c.Rules[i-1].Number { // one that is read as several is one
					v.Rules++
				}
			}
		}
	}
	found, unsorted, err := analyze.FindUseless(ctx, &host.Rules)
	if err != nil {
		return v, &failure{status: Failed, doing: "looking for useless rules", err: err}
	}
	for _, u := range found {
		out := UselessRule{Place: sim.PlaceOf(u.Table, u.Chain, u.Rule), Dialect: sim.DialectOf(u.Table), Handle: u.Rule.Handle, Comment: u.Rule.Comment,
			Reason: string(u.Why), Why: whyUseless(u), Keeper: keeper(&host.Inventory, u.Table, u.Chain, u.Rule)}
		for _, by := range u.By {
			out.By = append(out.By, sim.PlaceOf(u.Table, by.Chain, by.Rule))
		}
		v.Useless = append(v.Useless, out)
	}
	for _, u := range unsorted {
		v.Unread = append(v.Unread, fmt.Sprintf("table %s: %s", sim.PlaceOf(u.Table, &netfilter.Chain{}, nil).Table, u.Why))
	}
	for _, m := range host.Missing {
		rules := slices.Contains([]snapshot.Part{snapshot.PartRules4, snapshot.PartRules6, snapshot.PartNFT}, m.Part)
		if rules && (!dumps || strings.Contains(m.Why, "cut short")) {
			v.Unread = append(v.Unread, m.String())
		}
	}
	return v, nil
}

// whyUseless says in a sentence why a rule is useless.
func whyUseless(u analyze.Useless) string {
	end := "what packets meet behind " + u.Chain.Name
	switch {
	case u.Chain.Base != nil:
		end = fmt.Sprintf("the policy of %s (%s)", u.Chain.Name, map[bool]string{true: "drop", false: "accept"}[u.Chain.Base.Policy == netfilter.Drop])
	case decides(u.Rule) == "return":
		end = "the end of " + u.Chain.Name
	}
	switch {
	case u.Why == analyze.Dead && len(u.By) == 0:
		return "No rule leads to its chain."
	case u.Why == analyze.Dead:
		return "No packet gets to its chain by the rules that lead there."
	case u.Passes:
		return "The chain that it leads to decides on nothing of what it sends there."
	case u.Why == analyze.Redundant && len(u.By) == 0:
		return upperFirst(end) + " does the same."
	case u.Why == analyze.Redundant && u.End:
		return "Rules behind it and " + end + " do the same."
	case u.Why == analyze.Redundant && len(u.By) == 1:
		return "A rule behind it does the same."
	case u.Why == analyze.Redundant:
		return "Rules behind it do the same."
	case u.Never:
		return "No packet can meet all that it asks for here."
	case u.Outside:
		return "Nothing that it asks for comes into its chain by the rules that lead there."
	case len(u.By) == 0:
		return "The rules before it leave nothing that it asks for."
	}
	text, otherwise := "Rules before it together take all that it asks for", ", and not all of them decide as it would"
	if len(u.By) == 1 {
		text, otherwise = "A rule before it takes all that it asks for", ", and decides otherwise"
	}
	if opposed(u) {
		text += otherwise
	}
	return text + "."
}

// opposed tells whether rules that leave a rule nothing decide otherwise than it would: it may have been meant to stand
// before them.
func opposed(u analyze.Useless) bool {
	return slices.ContainsFunc(u.By, func(by analyze.Placed) bool { return decides(by.Rule) != decides(u.Rule) })
}

// decides is the verdict that a rule ends with in a word, "" where it leads elsewhere or doesn't decide.
func decides(r *netfilter.Rule) string {
	for _, a := range r.Actions {
		switch a := a.(type) {
		case netfilter.Reject:
			return "reject"
		case netfilter.Verdict:
			return map[netfilter.VerdictKind]string{netfilter.Accept: "accept", netfilter.Drop: "drop", netfilter.Return: "return"}[a.Kind]
		case netfilter.Translate:
			return fmt.Sprintf("%+v", a)
		}
	}
	return ""
}

func (a *app) showRules(w io.Writer, s style, v RulesAnswer) {
	shown := v.Useless
	if !a.opts.verbose {
		shown = slices.DeleteFunc(slices.Clone(shown), func(u UselessRule) bool { return u.Keeper != "" })
	}
	for i, u := range shown {
		if i == 0 || u.Table != shown[i-1].Table || u.Dialect != shown[i-1].Dialect {
			fmt.Fprintf(w, "%s%s:\n", s.strong(u.Table), s.faint(map[bool]string{true: "", false: " (" + u.Dialect + ")"}[u.Dialect == "nft"]))
		}
		a.showUseless(w, s, u, shown[:i])
	}
	if len(shown) > 0 {
		fmt.Fprintln(w)
	}
	a.showRulesSum(w, s, v)
}

// showUseless shows a rule and why it is useless. Of a chain that no packet gets to that is told once.
func (a *app) showUseless(w io.Writer, s style, u UselessRule, before []UselessRule) {
	text := u.Text
	if u.Comment != "" {
		text += "  # " + u.Comment
	}
	if u.Keeper != "" {
		text += "  " + s.faint("("+u.Keeper+"'s)")
	}
	fmt.Fprintf(w, "  %s %d: %s\n", u.Chain, u.Rule, text)
	if n := len(before); n > 0 && u.Reason == string(analyze.Dead) && before[n-1].Reason == u.Reason && before[n-1].Chain == u.Chain && before[n-1].Table == u.Table {
		return
	}
	paint := map[string]func(string) string{string(analyze.Redundant): s.faint}[u.Reason]
	if paint == nil {
		paint = s.warn
	}
	fmt.Fprintf(w, "      %s\n", paint(strings.TrimSuffix(u.Reason+": "+lowerFirst(u.Why), ".")))
	for i, by := range u.By {
		if i == shownSources && len(u.By) > shownSources+1 && !a.opts.verbose {
			fmt.Fprintf(w, "        %s\n", s.faint(fmt.Sprintf("and %d more (--verbose lists them)", len(u.By)-i)))
			break
		}
		fmt.Fprintf(w, "        %s\n", s.faint(fmt.Sprintf("%s %d: %s", by.Chain, by.Rule, by.Text)))
	}
}

func (a *app) showRulesSum(w io.Writer, s style, v RulesAnswer) {
	mine, others := 0, map[string]int{}
	for _, u := range v.Useless {
		if u.Keeper == "" {
			mine++
		} else {
			others[u.Keeper]++
		}
	}
	switch {
	case v.Rules == 0:
		fmt.Fprintln(w, "There are no rules.")
	case len(v.Useless) == 0:
		fmt.Fprintf(w, "Each of the %s does something to some packet.\n", count(v.Rules, "rule"))
	case mine == 0:
		fmt.Fprintf(w, "Of %s none that a person looks after is useless.\n", count(v.Rules, "rule"))
	default:
		fmt.Fprintf(w, "%d of %s could go, one by one or all: the same would become of each packet.\n", mine, count(v.Rules, "rule"))
	}
	var words []string
	for _, who := range slices.Sorted(maps.Keys(others)) {
		words = append(words, fmt.Sprintf("%d of %s's", others[who], who))
	}
	if len(words) > 0 {
		list := map[bool]string{true: "", false: " (--verbose lists them)"}[a.opts.verbose]
		fmt.Fprintf(w, "%s do nothing here, and are looked after by their programs%s.\n", strings.Join(words, ", "), list)
	}
	for _, text := range v.Unread {
		fmt.Fprintf(w, "%s %s\n", s.warn("Not looked at:"), text)
	}
}

func lowerFirst(text string) string {
	if text == "" {
		return text
	}
	return strings.ToLower(text[:1]) + text[1:]
}
