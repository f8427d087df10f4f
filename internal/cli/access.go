package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	"quaywall/internal/apply"
	"quaywall/internal/policy"
	"quaywall/internal/snapshot"
)

// decisive are the parts of a host without which not all of who gains and who loses can be said.
var decisive = []snapshot.Part{snapshot.PartRules4, snapshot.PartRules6, snapshot.PartNFT, snapshot.PartSets, snapshot.PartAddrs, snapshot.PartRoutes}

// access says who would gain and who would lose access by a plan, and what can't be said of that: a plan comes without it
// as well.
func (a *app) access(ctx context.Context, p *apply.Plan) (*DiffAnswer, []string) {
	if !p.Changed {
		return &DiffAnswer{Equal: true, Gained: []DiffChange{}, Lost: []DiffChange{}, Moved: []DiffChange{}}, nil
	}
	if n := max(listed(p.Policy), listed(a.policyInForce())); n > mostListed {
		return nil, []string{fmt.Sprintf("the sets hold %d entries: quaywall diff live FILE says who gains and who loses access, and takes its time", n)}
	}
	seen, err := a.look(ctx, where{})
	if err != nil {
		return nil, []string{err.Error()}
	}
	after := p.Policy
	if p.Observed {
		after = nil
	}
	planned, problems := with(seen.host, after)
	if problems.HasErrors() {
		return nil, []string{"the host changed in the meantime: try again"}
	}
	v, err := difference(ctx, seen.host, planned)
	if err != nil {
		return nil, []string{err.Error()}
	}
	return &v, unsaid(seen.host, p)
}

// mostListed is how many entries the sets of a policy may hold for a plan to say who gains and who loses: about a second.
const mostListed = 100_000

// listed is how many entries the sets of a policy hold.
func listed(p *policy.Policy) (n int) {
	if p == nil {
		return 0
	}
	for _, s := range p.Sets {
		n += s.Addrs.Len()
	}
	return n
}

// unsaid is what a comparison can't know.
func unsaid(h *snapshot.Host, p *apply.Plan) (all []string) {
	for _, m := range h.Missing {
		if slices.Contains(decisive, m.Part) {
			all = append(all, m.String())
		}
	}
	if p.Policy.Raw.NFT.Text+p.Policy.Raw.IPTables.Text != "" && !p.Observed {
		all = append(all, "what the hand-written rules of raw would change is not known")
	}
	return all
}

// accessLine is what there is to say where nobody gains or loses.
func accessLine(s style, v PlanAnswer) string {
	switch {
	case v.Access == nil:
		return s.warn("not known")
	case v.Access.Equal:
		return "the same for everybody, whatever the packet"
	}
	return ""
}

// mostChanges is how many changes of a kind a plan shows.
const mostChanges = 12

// showAccess shows who would gain and who would lose, shortly.
func (a *app) showAccess(w io.Writer, s style, v PlanAnswer) {
	if v.Access != nil {
		a.showAccessTo(w, s, s.bad("Would gain access:"), v.Access.Gained)
		a.showAccessTo(w, s, s.good("Would lose access:"), v.Access.Lost)
		a.showAccessTo(w, s, s.warn("Would get to another place, or by another way:"), v.Access.Moved)
	}
	for _, text := range v.Unsaid {
		fmt.Fprintf(w, "  %s %s\n", s.warn("Not compared:"), text)
	}
}

func (a *app) showAccessTo(w io.Writer, s style, head string, all []DiffChange) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", head)
	if a.opts.verbose {
		a.showChanges(w, s, all)
		return
	}
	shown, idle := a.told(all)
	lines := changeLines(shown)
	for _, text := range lines[:min(len(lines), mostChanges)] {
		fmt.Fprintf(w, "  %s\n", text)
	}
	if more := len(lines) - mostChanges; more > 0 {
		fmt.Fprintf(w, "  %s\n", s.faint(fmt.Sprintf("… %d more (--verbose lists them)", more)))
	}
	showIdle(w, s, idle)
}

// changeLines are changes in a line each; what is so in both families is one.
func changeLines(all []DiffChange) []string {
	var lines []string
	for i, c := range all {
		twin := func(o DiffChange) bool { return c.whole && o.whole && c.what() == o.what() && c.from() == o.from() }
		switch {
		case slices.ContainsFunc(all[:i], twin):
		case slices.ContainsFunc(all[i+1:], twin):
			lines = append(lines, fmt.Sprintf("%s at this host, from %s", c.what(), c.from()))
		default:
			lines = append(lines, fmt.Sprintf("%s at %s, from %s", c.what(), c.at(), c.from()))
		}
	}
	return lines
}
