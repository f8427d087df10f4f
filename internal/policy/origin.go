package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"quaywall/internal/diag"
)

// OriginOf is the short form of a place by which rules, counters and log lines name it: the file's base name and the
// line. A place without a line is the built-in default.
func OriginOf(pos diag.Pos) string {
	if pos.Line == 0 {
		return "default"
	}
	return fmt.Sprintf("%s:%d", path.Base(pos.File), pos.Line)
}

// Would stands in front of a verb where a policy is observed: "would deny".
const Would = "would "

// Verbs tells what each line of a policy does to the packets that it decides on: "allow", "deny", "reject", or more than
// one of them, as in "deny, allow", where a line holds several rules or defaults. The keys are as OriginOf has them.
func (p *Policy) Verbs() map[string]string {
	verbs := map[string]string{}
	add := func(line string, v Verb) {
		switch before := verbs[line]; {
		case before == "":
			verbs[line] = v.String()
		case !slices.Contains(strings.Split(before, ", "), v.String()):
			verbs[line] = before + ", " + v.String()
		}
	}
	for _, s := range []Section{Inbound, Egress, Outbound} {
		for _, r := range p.Rules(s) {
			add(r.Origin(), r.Verb)
		}
		// What leaves is not judged at all where nothing is denied.
		if d := p.Default(s); s == Inbound || len(p.Rules(s)) > 0 || d.Verb != Allow {
			add(OriginOf(d.Pos), d.Verb)
		}
	}
	return verbs
}
