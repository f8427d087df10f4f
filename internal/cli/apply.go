package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quaywall/internal/apply"
	"quaywall/internal/exposure"
	"quaywall/internal/inventory"
	"quaywall/internal/policy"
)

const applyLong = `Puts the policy in force, in one step: no packet is judged by half a policy. Live connections that it allows go on, those
that it denies end and can't come back, unless it says "established: keep".
Before anything changes the policy is checked, tried in a scratch network namespace, and asked whether it would cut the
way by which you came in: by SSH or mosh, also under sudo, su, tmux and screen, through a jump host, a container or a VPN. If
so, apply refuses, and names the process, the port and the line to add. Afterwards the kernel is read and compared. Applying
twice changes nothing.

With --confirm, the change is taken back after that time unless "quaywall confirm" follows, also when the terminal is
gone by then. A boot inside the time takes it back too. Where an agent took the edited policy up in the last hour, so that
nothing is left to change, what a person asked for before comes back. Where what comes back would cut the way by which you
came in, apply says so beforehand.

With --boot, apply knows that nobody is there to see whether the policy lets them in, as the unit of "quaywall install"
does: a policy that was taken back, or gone back from, is not put in force, but the one that was kept then, until a person
applies it. Where nothing is in force since the boot and the policy has mistakes, the one that was in force before the boot
is put in force, with or without --boot; the exit status is 2 all the same.

With --observe, the policy is judged, counted and logged, and denies nothing: what it would deny goes on to the rules of Docker
and of others, no connection ends, and nobody can be locked out, so that there is nothing to --confirm either. A policy that
was in force before is not any more. "quaywall status" tells how much each line would have denied, "quaywall log" which packets.
The agent and a boot keep it so, also when the policy is edited; apply without --observe enforces it, with all checks of a new
policy. Hand-written rules (raw) are left out until then.

On a terminal, apply --confirm counts the time down: the key y keeps the policy, n goes back at once. Ctrl-C ends the
counting alone, and so does a terminal that is closed: the change goes on waiting, "quaywall confirm" keeps it, and without
that it is taken back in time. The exit status is 1 where the change was not kept, 0 where it was kept or waits still.

Without a policy file the built-in default is used: SSH and ping come in, everything goes out. start and restart are the
same command: a restart is one apply, never a stop and a start.`

// ApplyAnswer is what "apply --json" says.
type ApplyAnswer struct {
	*apply.Result
	Reachable []Reach  `json:"reachable"`          // what listens, and who may reach it now
	Unjudged  []string `json:"unjudged,omitempty"` // interfaces that the policy trusts
}

type applyFlags struct {
	confirm      time.Duration
	wait         time.Duration
	dryRun       bool
	allowLockout bool
	boot         bool
	observe      bool
	back         int // of rollback
}

func (a *app) applyCommand() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:     "apply [FILE]",
		Aliases: []string{"start", "restart"},
		Short:   "put the policy in force",
		Long:    applyLong,
		Example: lines("quaywall apply", "quaywall apply --confirm 60s", "quaywall apply --observe", "quaywall apply --dry-run policy.yaml"),
		Args:    arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.opts.takePolicy(args)
			if f.observe && f.confirm > 0 {
				return misusedf(cmd, "--observe denies nothing, so there is nothing to take back: leave --confirm out")
			}
			if f.dryRun {
				return a.dryRun(cmd.Context(), f)
			}
			return a.apply(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	confirmFlag(cmd, &f.confirm)
	flags.BoolVar(&f.dryRun, "dry-run", false, "do all but change anything, and show what would change")
	flags.BoolVar(&f.allowLockout, "allow-lockout", false, "go on where the policy cuts the way you came in")
	flags.BoolVar(&f.observe, "observe", false, "judge, count and log what the policy would deny, and deny nothing")
	flags.BoolVar(&f.boot, "boot", false, "nobody is there to see: leave out a policy that was taken back")
	waitFlag(cmd, &f.wait)
	return cmd
}

func (a *app) apply(ctx context.Context, f applyFlags) error {
	o := a.applyOptions()
	o.Confirm, o.Wait, o.AllowLockout, o.Boot, o.Back, o.Observe = f.confirm, f.wait, f.allowLockout, f.boot, f.back, f.observe
	start := time.Now()
	r, err := a.host().Apply(ctx, o)
	took := time.Since(start)
	if err != nil {
		return a.explained(err)
	}
	a.settled()
	v := ApplyAnswer{Result: r, Reachable: a.reachable(r.Policy, r.Inventory), Unjudged: r.Policy.Trusted}
	a.answer(v, func(w io.Writer, s style) {
		a.diagnostics(r.Warnings, r.Sources.Text)
		a.notices(r.Notices)
		a.showApplied(w, s, r, took)
		head := "What can be reached now:"
		if r.Observed {
			head = reachableThen
		}
		showReachable(w, s, head, v.Reachable, v.Unjudged)
	})
	waited, err := a.waitWith(ctx, r, f)
	if !waited && !a.opts.json {
		a.showPending(a.env.Stdout, a.onStdout(), r.Pending)
	}
	return err
}

// reachable is what listens on this host and who may reach it. That sockets can't be listed is no reason to call an
// apply failed: it is told, and the table is empty.
func (a *app) reachable(p *policy.Policy, inv *inventory.Inventory) []Reach {
	all, err := endpoints(inv)
	if err != nil {
		a.notices([]string{"it can't be told what is reachable: " + err.Error()})
		return []Reach{}
	}
	return reach(p, exposure.Rows(p, inv, all))
}

// notices tells sentences that are no errors.
func (a *app) notices(all []string) {
	if a.opts.json {
		return
	}
	for _, n := range all {
		fmt.Fprintf(a.env.Stderr, "%s %s\n", a.onStderr().warn("note:"), n)
	}
}

func (a *app) showApplied(w io.Writer, s style, r *apply.Result, took time.Duration) {
	state := s.good("in force")
	if r.Observed {
		state = observedOnly(s)
	}
	table(w, facts(s, "policy", apply.PolicyName(r.File, r.Hash)+": "+state, "backend", r.Backend+": "+r.Why,
		"docker", dockerLine(r.Docker), "", dockerMissing(r.Docker), "change", changeLine(r),
		"connections", a.endedLine(r.Ended, "ended"), "time", a.timeLine(took, r.Steps)))
}

// observedOnly is the state of a policy that is not enforced.
func observedOnly(s style) string { return s.warn("observed, not enforced: nothing is denied") }

// reachableThen heads what a policy that is not enforced would leave reachable.
const reachableThen = "What could be reached if the policy were enforced:"

// timeLine is how long it took, with --verbose each step as well.
func (a *app) timeLine(took time.Duration, steps []apply.Step) string {
	line := took.Round(time.Millisecond).String()
	if !a.opts.verbose {
		return line
	}
	parts := make([]string, len(steps))
	for i, step := range steps {
		parts[i] = fmt.Sprintf("%s %v", step.Name, step.Took.Round(100*time.Microsecond))
	}
	return line + " (" + strings.Join(parts, ", ") + ")"
}

// endedLine sums up what became, or would become, of live connections; with --verbose by the policy's lines. "" where the
// policy denies none.
func (a *app) endedLine(e *apply.Ended, ended string) string {
	if e == nil || e.Connections == 0 && e.Uncertain == 0 {
		return ""
	}
	text := fmt.Sprintf("%d %s", e.Connections, ended)
	if a.opts.verbose && e.Connections > 0 {
		parts := make([]string, len(e.Lines))
		for i, l := range e.Lines {
			parts[i] = fmt.Sprintf("%s %d", cmp.Or(l.Line, "what always holds"), l.Connections)
		}
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	if e.Uncertain > 0 {
		text += fmt.Sprintf(", %d left alone that may be denied: it can't be told how they began", e.Uncertain)
	}
	return text
}

// changeLine sums up what changed.
func changeLine(r *apply.Result) string {
	if !r.Changed && r.Observed {
		return "none, it was observed already"
	}
	if !r.Changed {
		return "none, it was in force already"
	}
	parts := differenceParts(r.Difference)
	for _, b := range r.Replaced {
		parts = append(parts, "the rules that "+b+" held were taken out")
	}
	return strings.Join(parts, ", ")
}

func differenceParts(d apply.Difference) []string {
	var parts []string
	if n := len(d.Added); n > 0 {
		parts = append(parts, count(n, "rule")+" added")
	}
	if n := len(d.Missing); n > 0 {
		parts = append(parts, count(n, "rule")+" removed")
	}
	if d.Reordered {
		parts = append(parts, "rules in another order")
	}
	if n := len(d.Sets); n > 0 {
		parts = append(parts, count(n, "set")+" changed")
	}
	return parts
}

func dockerLine(d inventory.Docker) string {
	switch {
	case d.Reachable:
		return d.Version
	case d.Problem != "":
		return "does not answer: " + d.Problem
	}
	return "none here"
}

// dockerMissing says what can't be known without Docker's answer, and what can.
func dockerMissing(d inventory.Docker) string {
	if d.Problem == "" {
		return ""
	}
	return "the policy holds for containers all the same; only what rules say of published ports and networks is not known"
}

func showReachable(w io.Writer, s style, head string, all []Reach, trusted []string) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", s.strong(head))
	writeReach(w, s, all)
	if len(trusted) > 0 {
		fmt.Fprintf(w, "  Not judged at all is what comes in by %s, which the policy trusts.\n", strings.Join(trusted, ", "))
	}
}

// showPending tells how to keep a change.
func (a *app) showPending(w io.Writer, s style, p *apply.PendingStatus) {
	if p == nil {
		return
	}
	fmt.Fprintf(w, "\n%s Open another connection to this host to see that you can. To keep the policy, run within %d s:\n\n    %s confirm\n\nor %s at %s.\n",
		s.strong("Not confirmed yet."), p.SecsLeft, a.program(), goesBack(p), p.Until.Format(time.TimeOnly))
}
