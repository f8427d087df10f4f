package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quaywall/internal/apply"
	"quaywall/internal/diag"
	"quaywall/internal/policy"
)

const statusLong = `Tells what is in force, as read from the kernel now: which policy, since when, by which backend, what somebody else changed
about it (drift), a change that waits for its confirmation, and how many packets each line of the policy decided on. With
--verbose it lists the sets as well, with --exit-code the status is 4 where there is drift.`

func (a *app) statusCommand() *cobra.Command {
	var exitCode bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "tell what is in force",
		Long:    statusLong,
		Example: lines("quaywall status", "quaywall status --exit-code --json"),
		Args:    arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.host().Status(cmd.Context())
			if err != nil {
				return a.explained(err)
			}
			a.settled()
			a.notices(st.Notices)
			a.answer(st, func(w io.Writer, s style) { a.showStatus(w, s, st) })
			if exitCode && st.HasDrift() {
				return differences()
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with status 4 where there is drift")
	return cmd
}

func (a *app) showStatus(w io.Writer, s style, st *apply.Status) {
	undone := ""
	if u := st.Undone; u != nil {
		undone = fmt.Sprintf("%s at %s: %s", policyName(u.File, u.Hash), u.When.Format(time.DateTime), u.Why)
	}
	table(w, facts(s, "policy", headline(s, st), "backend", st.Backend, "taken back", undone, "drift", driftLine(s, st),
		"docker", dockerLine(st.Docker), "sets", setsLine(st)))
	if st.Drift != nil {
		writeDifference(w, s, *st.Drift)
	}
	showCounters(w, s, st)
	if a.opts.verbose {
		showSets(w, s, st)
	}
	a.showPending(w, s, st.Pending)
}

func headline(s style, st *apply.Status) string {
	name := policyName(st.File, st.Hash)
	switch {
	case !st.InForce && st.Since.IsZero():
		return s.warn("none in force")
	case !st.InForce:
		return name + ": " + s.bad("not in force")
	case st.Since.IsZero():
		return s.good("in force") + ", but it is not recorded which"
	}
	return fmt.Sprintf("%s: %s since %s", name, s.good("in force"), st.Since.Format(time.DateTime))
}

func driftLine(s style, st *apply.Status) string {
	switch {
	case len(st.Others) > 0:
		return s.bad("more than one backend holds rules of quaywall's") + "; quaywall apply mends it"
	case st.Drift != nil:
		return s.bad("the kernel does not hold what was put into it") + "; quaywall apply mends it"
	}
	return "none"
}

// showCounters lists the packets that each line of the policy decided on, with the line as it was put in force.
func showCounters(w io.Writer, s style, st *apply.Status) {
	if len(st.Counters) == 0 {
		return
	}
	rows := [][]cell{{{"LINE", s.faint}, {"PACKETS", s.faint}, {"BYTES", s.faint}, {"", nil}}}
	for _, c := range st.Counters {
		row := plain(c.Line, strconv.FormatUint(c.Packets, 10), strconv.FormatUint(c.Bytes, 10), lineText(st.Sources, c.Line))
		row[3].paint = s.faint
		rows = append(rows, row)
	}
	fmt.Fprintln(w)
	table(w, rows)
}

// lineShown bounds how much is shown of a policy's line, in characters.
const lineShown = 60

// lineText is the text of the policy line that a counter is known by, "" where it was not kept.
func lineText(sources policy.Sources, line string) string {
	if line == policy.OriginOf(diag.Pos{}) && len(sources) > 0 {
		return "what no rule matches"
	}
	for file, text := range sources {
		for i, l := range strings.Split(string(text), "\n") {
			if policy.OriginOf(diag.Pos{File: file, Line: i + 1}) != line {
				continue
			}
			l, _, _ = strings.Cut(strings.TrimSpace(l), "  #")
			if r := []rune(l); len(r) > lineShown {
				l = string(r[:lineShown]) + "…"
			}
			return l
		}
	}
	return ""
}

// showSets lists the sets, ours and the policy's.
func showSets(w io.Writer, s style, st *apply.Status) {
	if len(st.Sets) == 0 {
		return
	}
	rows := [][]cell{{{"SET", s.faint}, {"ELEMENTS", s.faint}}}
	for _, set := range st.Sets {
		rows = append(rows, plain(set.Name, strconv.Itoa(set.Elements)))
	}
	fmt.Fprintln(w)
	table(w, rows)
}

// setsLine sums the sets up.
func setsLine(st *apply.Status) string {
	if len(st.Sets) == 0 {
		return ""
	}
	elements := 0
	for _, set := range st.Sets {
		elements += set.Elements
	}
	return fmt.Sprintf("%s with %s in all", count(len(st.Sets), "set"), count(elements, "element"))
}
