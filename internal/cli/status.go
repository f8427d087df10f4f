package cli

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"quaywall/internal/apply"
)

const statusLong = `Tells what is in force, as read from the kernel now: which policy, since when, by which backend, what somebody else changed
about it (drift), a change that waits for its confirmation, and how many packets each line of the policy decided on. With
--exit-code the status is 4 where there is drift.`

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
		"docker", dockerLine(st.Docker)))
	if st.Drift != nil {
		writeDifference(w, s, *st.Drift)
	}
	showCounters(w, s, st)
	showSets(w, s, st)
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

// showCounters lists the packets that each line of the policy decided on.
func showCounters(w io.Writer, s style, st *apply.Status) {
	if len(st.Counters) == 0 {
		return
	}
	rows := [][]cell{{{"LINE", s.faint}, {"PACKETS", s.faint}, {"BYTES", s.faint}}}
	for _, c := range st.Counters {
		rows = append(rows, plain(c.Line, strconv.FormatUint(c.Packets, 10), strconv.FormatUint(c.Bytes, 10)))
	}
	fmt.Fprintln(w)
	table(w, rows)
}

// setsShown keeps a status on one screen.
const setsShown = 12

func showSets(w io.Writer, s style, st *apply.Status) {
	if len(st.Sets) == 0 {
		return
	}
	rows := [][]cell{{{"SET", s.faint}, {"ELEMENTS", s.faint}}}
	for i, set := range st.Sets {
		if i == setsShown {
			rows = append(rows, plain(fmt.Sprintf("and %d more", len(st.Sets)-i)))
			break
		}
		rows = append(rows, plain(set.Name, strconv.Itoa(set.Elements)))
	}
	fmt.Fprintln(w)
	table(w, rows)
}
