package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"quaywall/internal/policy/tree"
)

const maxNote = 200 // characters

var (
	verbs = []string{"deny", "reject", "allow"} // in the order of Verb
	// ruleKeys are the keys of a rule, the verbs first.
	ruleKeys = []string{"allow", "deny", "reject", "from", "to", "on", "network", "limit", "log", "note"}
	// laterKeys are keys of the language that this version can't honour yet.
	laterKeys = []string{"container", "service", "label", "labels"}
)

// readRules reads a section.
func (f *file) readRules(s Section, n *tree.Node) {
	if n.Kind != tree.List {
		f.errorf(n, "write each rule behind a dash: - allow: ssh", "%s is a list of rules, not a %s", s, n.Kind)
		return
	}
	rules := [...]*[]Rule{&f.policy.Inbound, &f.policy.Egress, &f.policy.Outbound}[s]
	*rules = slices.Grow(*rules, len(n.Items))
	f.syntax[s] = slices.Grow(f.syntax[s], len(n.Items))
	for i := range n.Items {
		if f.enough() {
			break
		}
		if r, syntax, ok := f.readRule(s, &n.Items[i]); ok {
			*rules = append(*rules, r)
			f.syntax[s] = append(f.syntax[s], syntax)
		}
	}
}

// ruleReader reads one rule.
type ruleReader struct {
	*file
	section Section
	rule    Rule
	verb    *tree.Node // the key that is the verb
	limit   *tree.Node
	refused bool // a key was: what the rule means without it is not to be told
	syntax  ruleSyntax
}

func (f *file) readRule(s Section, n *tree.Node) (Rule, ruleSyntax, bool) {
	if n.Kind != tree.Map {
		hint := "write VERB: WHAT, as in allow: ssh"
		if verb, rest, ok := strings.Cut(n.Text, ":"); ok && slices.Contains(verbs, verb) {
			hint = fmt.Sprintf("put a space behind the colon: %s: %s", verb, short(rest))
		}
		f.errorf(n, hint, "a rule is a mapping, not a %s", n.Kind)
		return Rule{}, ruleSyntax{}, false
	}
	r := ruleReader{file: f, section: s, rule: Rule{Pos: f.doc.Pos(n)}, syntax: ruleSyntax{file: f, rule: n}}
	before := len(f.list)
	for k, v := range n.Pairs() {
		r.key(k, v)
	}
	r.check(n)
	return r.rule, r.syntax, len(f.list) == before
}

func (r *ruleReader) key(k, v *tree.Node) {
	if slices.Contains(ruleKeys, k.Text) && v.IsNull() {
		r.errorf(k, "", "nothing stands behind %q", k.Text)
		if slices.Contains(verbs, k.Text) {
			r.verb = k
		}
		return
	}
	switch k.Text {
	case "allow", "deny", "reject":
		r.readVerb(k, v)
	case "from":
		r.rule.From, r.syntax.from = r.addresses(v, side{"from", r.section}), v
	case "to":
		r.rule.To, r.syntax.to = r.addresses(v, side{"to", r.section}), v
	case "on":
		r.rule.On, r.syntax.on = r.interfaces(v, "on"), v
	case "network":
		if r.rule.Networks = r.networks(v, "network"); r.section == Outbound {
			r.errorf(k, "leave it out", "network is for inbound and egress: outbound is about the host itself")
		}
	case "limit":
		r.readLimit(v)
	case "log":
		i, _ := r.choice(v, "log", "false", "true")
		r.rule.Log = i == 1
	case "note":
		r.readNote(v)
	default:
		r.otherKey(k)
	}
}

func (r *ruleReader) otherKey(k *tree.Node) {
	r.refused = true
	if k.Text == "not" {
		r.errorf(k, "write from: {not: …}", "not stands in from or to")
		return
	}
	if !slices.Contains(laterKeys, k.Text) {
		r.unknownKey(k, "a rule", append(slices.Clone(ruleKeys), laterKeys...))
		return
	}
	hint := "name the Docker network by network: NAME, or write the rule by ports and addresses"
	if k.Text == "labels" {
		hint = "write the openings of containers as rules"
	}
	r.errorf(k, hint, "%q comes with a later version", k.Text)
}

func (r *ruleReader) readVerb(k, v *tree.Node) {
	if r.verb != nil {
		r.errorf(k, "write two rules", "a rule has one verb; %q stands here already", r.verb.Text)
		return
	}
	r.verb = k
	r.rule.Verb = Verb(slices.Index(verbs, k.Text))
	r.rule.What, r.syntax.what = r.what(v, k.Text), v
	if r.section != Inbound && slices.Contains(r.rule.What, Traffic{Published: true}) {
		r.errorf(v, "name the ports", "published is for inbound: what it names is dialled from outside")
	}
}

func (r *ruleReader) readLimit(v *tree.Node) {
	w, ok := r.word(v, "limit")
	if !ok {
		return
	}
	limit, p := parseRate(w)
	if p != nil {
		r.report(v, p)
		return
	}
	r.rule.Limit, r.limit = limit, v
}

func (r *ruleReader) readNote(v *tree.Node) {
	w, ok := r.word(v, "note")
	switch {
	case !ok:
	case strings.ContainsFunc(w, func(c rune) bool { return !unicode.IsPrint(c) }):
		r.errorf(v, "", "a note is one line of text that can be printed")
	case utf8.RuneCountInString(w) > maxNote:
		r.errorf(v, "say more in a comment", "a note longer than %d characters", maxNote)
	default:
		r.rule.Note = w
	}
}

// check looks at what the keys mean together.
func (r *ruleReader) check(n *tree.Node) {
	if r.verb == nil && !r.refused && !r.partial {
		r.errorf(n, "add allow, deny or reject", "a rule without a verb")
	}
	if r.limit != nil && r.verb != nil && r.rule.Verb != Allow {
		r.errorf(r.limit, "leave it out", "limit is for allow, not for %s", r.rule.Verb)
	}
}
