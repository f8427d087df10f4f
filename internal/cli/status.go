package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quaywall/internal/agent"
	"quaywall/internal/apply"
	"quaywall/internal/diag"
	"quaywall/internal/policy"
	"quaywall/internal/ruleset"
)

const statusLong = `Tells what is in force, as read from the kernel now: which policy, since when, by which backend, and what somebody else
changed about it (drift); a change that waits for its confirmation, or was taken back; whether Docker answers and the agent
runs, what the agent put back last, and which connections the policy ended; and how many packets the lines of the policy
decided on, the busiest first. A connection that is let in counts once, not by its packets.

A policy that is observed ("quaywall apply --observe") is not in force, and status says so: it counts what would have been
denied, the busiest lines first. There a connection counts once in any case, since its later packets belong to one that was let in.
"always" is what is denied whatever the policy says (containers' own addresses, malformed packets), and "over the limit of
FILE:LINE" the part of what a line allows that its limit would deny.

With --verbose it lists all lines and the sets as well, with --exit-code the status is 4 where there is drift, or where the
policy is observed.

With --watch it looks again every two seconds, and whenever something was put in force or mended, until q or Ctrl-C; where
standard output is no terminal, each look is told below the one before.`

// StatusAnswer is what "status --json" says.
type StatusAnswer struct {
	*apply.Status
	Agent agent.Status `json:"agent"`
}

func (a *app) statusCommand() *cobra.Command {
	var exitCode, watch bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "tell what is in force",
		Long:    statusLong,
		Example: lines("quaywall status", "quaywall status --watch", "quaywall status --exit-code --json"),
		Args:    arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watchStatus(cmd.Context(), exitCode)
			}
			st, err := a.status(cmd.Context())
			if err != nil {
				return a.explained(err)
			}
			a.settled()
			a.notices(st.Notices)
			a.answer(st, func(w io.Writer, s style) { a.showStatus(w, s, st) })
			return drifted(st, exitCode)
		},
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with status 4 where there is drift, or where the policy is observed")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "look again every two seconds")
	return cmd
}

// status looks at what is in force, and at who keeps it there.
func (a *app) status(ctx context.Context) (*StatusAnswer, error) {
	h := a.host()
	st, err := h.Status(ctx)
	if err != nil {
		return nil, err
	}
	answer := &StatusAnswer{Status: st}
	if answer.Agent, err = agent.ReadStatus(h.Store, h.RunDir); err != nil {
		st.Notices = append(st.Notices, fmt.Sprintf("it can't be told whether the agent runs: %v", err))
	}
	return answer, nil
}

// drifted is how status ends.
func drifted(st *StatusAnswer, exitCode bool) error {
	if exitCode && (st.HasDrift() || st.Observed) {
		return differences()
	}
	return nil
}

// lineShown bounds how much is shown of a policy's line, in characters.
const lineShown = 60

// lineText is the text of the policy line that a counter is known by, "" where it was not kept.
func lineText(sources policy.Sources, line string) string {
	if line == ruleset.Always {
		return "what always holds"
	}
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
