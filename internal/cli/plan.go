package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/apply"
)

const planLong = `Shows what apply would change: who would gain and who would lose access, in packets, and that nobody does is proven; the rules
and sets that would come and go; how many live connections would end; what could be reached then; and whether apply would refuse.
Nothing is changed. For who gains and loses access all rules of this host are looked at, whoever made them, as quaywall diff does;
--verbose shows a packet for each. With --exit-code the status is 4 where something would change.`

// PlanAnswer is what "plan --json" and "apply --dry-run --json" say.
type PlanAnswer struct {
	*apply.Plan
	Cuts      []CutAnswer `json:"cuts,omitempty"`     // ways in that apply would refuse to cut
	Access    *DiffAnswer `json:"access,omitempty"`   // who would gain and who would lose access; not there where that can't be said
	Unsaid    []string    `json:"unsaid,omitempty"`   // what can't be said of it, and why
	Reachable []Reach     `json:"reachable"`          // what listens, and who could reach it then
	Unjudged  []string    `json:"unjudged,omitempty"` // interfaces that the policy trusts
}

func (a *app) planCommand() *cobra.Command {
	var exitCode bool
	cmd := &cobra.Command{
		Use:     "plan [FILE]",
		Short:   "show what apply would change",
		Long:    planLong,
		Example: lines("quaywall plan", "quaywall plan --exit-code policy.yaml"),
		Args:    arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.opts.takePolicy(args)
			p, err := a.plan(cmd.Context(), a.applyOptions())
			if err == nil && exitCode && p.Changed {
				err = differences()
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with status 4 where something would change")
	return cmd
}

func (a *app) plan(ctx context.Context, o apply.Options) (*apply.Plan, error) {
	p, err := a.host().Plan(ctx, o)
	if err != nil {
		return nil, a.explained(err)
	}
	a.settled()
	v := PlanAnswer{Plan: p, Cuts: cutAnswers(p.Cuts), Reachable: a.reachable(p.Policy, p.Inventory), Unjudged: p.Policy.Trusted}
	v.Access, v.Unsaid = a.access(ctx, p)
	a.answer(v, func(w io.Writer, s style) {
		a.diagnostics(p.Warnings, p.Sources.Text)
		a.notices(p.Notices)
		a.showPlan(w, s, v)
		head := "What could be reached then:"
		if p.Observed {
			head = reachableThen
		}
		showReachable(w, s, head, v.Reachable, v.Unjudged)
		showRefusal(w, s, p)
	})
	return p, nil
}

// showPlan shows who gains and who loses, then the rules that come and go. Where all of them come they are a listing and no difference, and shown on
// demand.
func (a *app) showPlan(w io.Writer, s style, v PlanAnswer) {
	p, change := v.Plan, "none"
	if p.Changed {
		change = strings.Join(differenceParts(p.Difference), ", ")
	}
	first := len(p.Difference.Missing) == 0 && len(p.Difference.Added) == len(p.Rules)
	if first && !a.opts.verbose {
		change += ": nothing is in force now (--verbose lists them)"
	}
	name := apply.PolicyName(p.File, p.Hash)
	switch {
	case p.Observed:
		name += ": would be " + observedOnly(s)
	case p.Observing:
		name += ": would be enforced; " + s.warn("what the kernel holds now is only observed, and denies nothing")
	}
	table(w, facts(s, "policy", name, "backend", p.Backend+": "+p.Why,
		"docker", dockerLine(p.Docker), "", dockerMissing(p.Docker), "change", change,
		"connections", a.endedLine(p.Ends, "would end"), "access", accessLine(s, v)))
	a.showAccess(w, s, v)
	if !first || a.opts.verbose {
		writeDifference(w, s, p.Difference, math.MaxInt)
	}
	for _, b := range p.Replaces {
		fmt.Fprintf(w, "%s\n", s.bad("- all that "+b+" holds of quaywall's"))
	}
}

// writeDifference shows what goes, what comes and what changes, about so many lines at most.
func writeDifference(w io.Writer, s style, d apply.Difference, most int) {
	text := d.String()
	if text == "" {
		return
	}
	fmt.Fprintln(w)
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if more := len(all) - most; more > 1 {
		all = append(all[:most], fmt.Sprintf("  … %d more: --verbose", more))
	}
	for _, line := range all {
		switch {
		case strings.HasPrefix(line, "+"):
			line = s.good(line)
		case strings.HasPrefix(line, "-"):
			line = s.bad(line)
		case strings.HasPrefix(line, "~"):
			line = s.warn(line)
		}
		fmt.Fprintln(w, line)
	}
}

func showRefusal(w io.Writer, s style, p *apply.Plan) {
	for _, c := range p.Cuts {
		fmt.Fprintf(w, "\n%s %v\n", s.bad("Apply would refuse:"), c)
	}
	if p.Blind != "" {
		fmt.Fprintf(w, "\n%s it can't be told whether the policy would lock you out: %s\n", s.bad("Apply would refuse:"), p.Blind)
	}
}

// dryRun is apply without its last step; what apply would refuse it refuses as well.
func (a *app) dryRun(ctx context.Context, f applyFlags) error {
	o := a.applyOptions()
	o.Observe = f.observe
	p, err := a.plan(ctx, o)
	if err != nil || len(p.Cuts) == 0 && p.Blind == "" {
		return err
	}
	return &failure{status: Refused, err: errors.New("apply would refuse this policy; nothing was changed")}
}
